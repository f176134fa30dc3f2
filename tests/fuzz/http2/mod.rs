//! Frames of HTTP/2 into connections of a running process.
//!
//! A case is what a client sends on one connection: valid requests among valid, malformed, reordered and truncated frames
//! ([`generate`]). Then these laws hold:
//!
//! - The connection goes on or ends: it acknowledges the PING at the end of the case, or closes. If it goes on, every valid
//!   request has its right response.
//! - Another connection is served.
//! - The process does not panic, and its memory does not grow with the number of cases.

mod frames;
mod generate;
mod origin;
mod play;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;

use self::generate::Plan;
use crate::edge::Edge;

/// Cases that run at the same time.
const THREADS: usize = 4;
/// Cases after which the memory of the process counts as its usual one.
const WARM_UP: u64 = 5000;
/// How much the memory may grow after that: what the allocator keeps, and not what each case leaves; KiB.
const GROWTH: u64 = 64 << 10;

/// What a run is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) time: Duration,
    pub(crate) seed: u64,
    /// The only case to run.
    pub(crate) case: Option<u64>,
}

/// Runs cases until the time is over; false: a law was broken.
pub(crate) fn run(settings: Settings) -> bool {
    let edge = Edge::start(&config(origin::start()), None, Stdio::inherit());
    let end = Instant::now() + settings.time;
    let (next, broken) = (AtomicU64::new(0), AtomicBool::new(false));
    let outcomes = Mutex::new(BTreeMap::<String, u64>::new());
    let usual = AtomicU64::new(u64::MAX);
    let work = || {
        while Instant::now() < end && !broken.load(Relaxed) {
            let number = settings.case.unwrap_or_else(|| next.fetch_add(1, Relaxed));
            let plan = plan(settings.seed, number);
            match play::play(&plan, edge.address) {
                Ok(outcome) => *outcomes.lock().entry(outcome).or_default() += 1,
                Err(law) => {
                    broken.store(true, Relaxed);
                    println!("case {}/{number}: {law}\n{plan:?}", settings.seed);
                }
            }
            if number == WARM_UP {
                usual.store(edge.resident(), Relaxed);
            }
            if settings.case.is_some() {
                return;
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..if settings.case.is_some() { 1 } else { THREADS } {
            scope.spawn(work);
        }
    });
    for (outcome, count) in &*outcomes.lock() {
        println!("{count:>9}  {outcome}");
    }
    let (usual, memory) = (usual.load(Relaxed), edge.resident());
    println!(
        "http2: {} cases, memory {usual} -> {memory} KiB",
        next.load(Relaxed)
    );
    let is_bounded = memory < usual.saturating_add(GROWTH);
    let panics = edge.panics();
    println!("{panics}");
    !broken.load(Relaxed) && is_bounded && panics.is_empty() && edge.is_running()
}

fn config(origin: SocketAddr) -> String {
    format!(
        "listeners: [{{address: \"127.0.0.1:0\", h2c: true}}]
admin: off
threads: 2
access_log: off
downstream: {{header_timeout: 30s, read_timeout: 30s, write_timeout: 30s}}
routes: [{{upstream: app}}]
upstreams: {{app: {{key: path, health: off, outlier_detection: off, peers: [\"{origin}\"]}}}}
"
    )
}

fn plan(seed: u64, number: u64) -> Plan {
    let mut random = StdRng::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    generate::plan(&mut random)
}
