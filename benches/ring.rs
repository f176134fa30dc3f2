//! Measures the selection of a peer (key hash, lookup, health check) against the bare MD5 of the same key and
//! against Pingora's ketama ring; then the cost that each feature of an upstream adds.
//!
//! Prints three Markdown tables of medians over all rounds. Every round runs all contestants in turn, so
//! that noise of the machine affects all alike; each runs once before it is timed, to warm the caches. The
//! keys are many and random, so that branch prediction cannot learn them. `cargo bench --bench ring`.

#![expect(clippy::print_stdout, reason = "prints its tables")]
#![expect(
    clippy::panic,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "an error ends the benchmark"
)]
#![expect(
    clippy::cast_precision_loss,
    reason = "a nanosecond more or less does not matter"
)]

use std::cell::Cell;
use std::collections::BTreeSet;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use clockwise::measured::{self, HashTarget, Metrics, Tried, Upstream};
use clockwise::ring::{Dialect, MemberId, Ring, Weight};
use md5::{Digest, Md5};
use pingora::lb::discovery::Static;
use pingora::lb::selection::Consistent;
use pingora::lb::{Backend, Backends, LoadBalancer};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<std::alloc::System> = &INSTRUMENTED_SYSTEM;

const SIZES: [u32; 5] = [3, 10, 100, 1_000, 10_000];
const KEYS: usize = 1 << 16;
const ROUNDS: usize = 31;
const BUILD_PEERS: u32 = 1_000;
const BUILD_DIGESTS: u32 = 40_000;

fn main() {
    let keys = Keys::new();
    println!(
        "| peers | MD5 ns | select ns | / MD5 | to 2nd ns | allocations | Pingora ns | / MD5 |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|");
    for peers in SIZES {
        println!("{}", select_row(peers, &keys));
    }
    println!();
    println!(
        "| peers | MD5 ns | clock ns | admit, all off ns | / MD5 | all on ns | / MD5 | bounded_load | slow_start | drain | hot_keys | flap_damping | allocations |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|");
    for peers in [10, 1_000] {
        println!("{}", admit_row(peers, &keys));
    }
    println!();
    println!("| build | ms | / MD5s |\n|---|---:|---:|");
    println!("{}", build_row());
}

/// One row of the first table.
fn select_row(peers: u32, keys: &Keys) -> String {
    let ours = RingWithPeers::new(peers);
    let pingora = pingora(peers);
    let [md5, select, second, theirs] = interleaved([
        &|| keys.each(|key| Md5::digest(key)),
        &|| keys.each(|key| ours.select(key)),
        &|| keys.each(|key| ours.second(key)),
        &|| keys.each(|key| pingora.select(key, 256)),
    ])
    .map(|time| time.as_secs_f64() * 1e9 / KEYS as f64);
    let allocations = allocations(|| keys.each(|key| ours.select(key)));
    format!(
        "| {peers} | {md5:.1} | {select:.1} | {:.3} | {second:.1} | {allocations} | {theirs:.1} | {:.3} |",
        select / md5,
        theirs / md5,
    )
}

/// One row of the second table: a request enters and leaves its peer's in-flight count. For each feature
/// alone, the row has the time added to an upstream without features.
fn admit_row(peers: u32, keys: &Keys) -> String {
    let none = FullUpstream::new(peers, &[]);
    let all = FullUpstream::new(peers, &FEATURES);
    let [bounded, slow, drain, hot, flap] =
        FEATURES.map(|feature| FullUpstream::new(peers, &[feature]));
    let [md5, clock, off, on, rest @ ..] = interleaved([
        &|| keys.each(|key| Md5::digest(key)),
        &|| keys.each(|_| measured::since_start()),
        &|| keys.each(|key| none.admit(key)),
        &|| keys.each(|key| all.admit(key)),
        &|| keys.each(|key| bounded.admit(key)),
        &|| keys.each(|key| slow.admit(key)),
        &|| keys.each(|key| drain.admit(key)),
        &|| keys.each(|key| hot.admit(key)),
        &|| keys.each(|key| flap.admit(key)),
    ])
    .map(|time| time.as_secs_f64() * 1e9 / KEYS as f64);
    let rest = rest.map(|alone| format!("{:+.1}", alone - off)).join(" | ");
    let allocations = allocations(|| keys.each(|key| all.admit(key)));
    format!(
        "| {peers} | {md5:.1} | {clock:.1} | {off:.1} | {:.3} | {on:.1} | {:.3} | {rest} | {allocations} |",
        off / md5,
        on / md5,
    )
}

const FEATURES: [&str; 5] = [
    "bounded_load: 1.25",
    "slow_start: 60s",
    "drain: {idle: 10m, deadline: 1h}",
    "hot_keys: {share: 2%, spread: 3}",
    "flap_damping: {flips: 3}",
];

/// An upstream as in the proxy, all peers up. Its time advances by 300 ns per request: the proxy reads the
/// clock once per request in any case, which has a column of its own.
struct FullUpstream {
    upstream: Upstream,
    now: Cell<Duration>,
}

impl FullUpstream {
    fn new(peers: u32, features: &[&str]) -> Self {
        let labels = labels(peers).join(", ");
        let text = format!(
            "listeners: [{{address: 127.0.0.1:1}}]\nroutes: [{{upstream: app}}]\nupstreams:\n  app:\n    health: off\n    {}\n    peers: [{labels}]\n",
            features.join("\n    "),
        );
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("clockwise.yaml");
        std::fs::write(&file, text).expect("writable");
        let Ok(mut config) = measured::load(&file) else {
            panic!("the configuration is wrong")
        };
        let app = config.upstreams.remove("app").expect("it is there");
        let addresses: Vec<_> = app
            .peers
            .iter()
            .map(|peer| peer.address.to_string())
            .collect();
        let addresses: Vec<_> = addresses
            .iter()
            .map(|text| text.parse().expect("an address"))
            .collect();
        let metrics = Metrics::new("1", jiff::Timestamp::UNIX_EPOCH);
        let now = measured::since_start();
        let upstream = Upstream::new("app", app, (&addresses, None), None, &metrics, now);
        Self {
            upstream: upstream.expect("a ring"),
            now: Cell::new(now),
        }
    }

    /// The proxy's work to admit a request.
    fn admit(&self, key: &[u8]) -> Option<MemberId> {
        let now = self.now.get() + Duration::from_nanos(300);
        self.now.set(now);
        let upstream = &self.upstream;
        let target = HashTarget::Key(upstream.key(key));
        let admitted = upstream.admit(&target, &Tried::none(), now, upstream.begin_request());
        admitted.ok().map(|admitted| admitted.member)
    }
}

/// The row of the last table.
fn build_row() -> String {
    let labels = labels(BUILD_PEERS);
    let [digests, build] = interleaved([
        &|| (0..BUILD_DIGESTS).for_each(|k| _ = black_box(Md5::digest(digest_text(k)))),
        &|| drop(black_box(ring(&labels))),
    ])
    .map(|time| time.as_secs_f64() * 1e3);
    format!(
        "| {BUILD_DIGESTS} MD5 | {digests:.2} | 1 |\n| ring of {BUILD_PEERS} peers | {build:.2} | {:.2} |",
        build / digests
    )
}

/// A ring with per-peer state, as in a proxy.
struct RingWithPeers {
    ring: Ring,
    peers: Vec<Arc<Peer>>,
}

/// About as large as the real state of a peer.
struct Peer {
    up: AtomicBool,
    _rest: [u64; 12],
}

impl RingWithPeers {
    fn new(peers: u32) -> Self {
        let peer = || {
            Arc::new(Peer {
                up: AtomicBool::new(true),
                _rest: [0; 12],
            })
        };
        Self {
            ring: ring(&labels(peers)),
            peers: (0..peers).map(|_| peer()).collect(),
        }
    }

    fn select(&self, key: &[u8]) -> Option<&Arc<Peer>> {
        let is_up = |peer: &&Arc<Peer>| peer.up.load(Ordering::Relaxed);
        let available = |member: MemberId| {
            self.peers
                .get(member.index())
                .is_some_and(|peer| is_up(&peer))
        };
        let member = self.ring.find(&self.ring.key(key), available)?;
        self.peers.get(member.index())
    }

    /// The peer of the retry after a failed attempt.
    fn second(&self, key: &[u8]) -> Option<MemberId> {
        self.ring.walk(&self.ring.key(key)).nth(1)
    }
}

fn ring(labels: &[String]) -> Ring {
    let members = labels.iter().map(|label| (label.as_str(), Weight::ONE));
    Ring::new(Dialect::default(), members).expect("the labels differ")
}

fn labels(peers: u32) -> Vec<String> {
    (0..peers).map(address).collect()
}

fn address(peer: u32) -> String {
    format!("10.{}.{}.{}:8080", peer >> 16, peer >> 8 & 255, peer & 255)
}

fn pingora(peers: u32) -> LoadBalancer<Consistent> {
    let backend = |peer| Backend::new(&address(peer)).expect("an address");
    let backends: BTreeSet<_> = (0..peers).map(backend).collect();
    let balancer = LoadBalancer::from_backends(Backends::new(Static::new(backends)));
    let mut update = Box::pin(balancer.update());
    let mut context = Context::from_waker(Waker::noop());
    assert!(
        update.as_mut().poll(&mut context).is_ready(),
        "static backends are there at once"
    );
    drop(update);
    balancer
}

/// Random keys of 16 to 36 bytes, the length of most ids, addresses and short paths. In one buffer, so
/// that reading them is cheap.
struct Keys {
    text: Vec<u8>,
    ends: Vec<u32>,
}

impl Keys {
    fn new() -> Self {
        let mut random = StdRng::seed_from_u64(1);
        let mut keys = Self {
            text: Vec::new(),
            ends: vec![0],
        };
        for _ in 0..KEYS {
            let length = random.gen_range(16..=36);
            keys.text
                .extend((0..length).map(|_| random.gen_range(b'a'..=b'z')));
            keys.ends
                .push(u32::try_from(keys.text.len()).expect("a few bytes each"));
        }
        keys
    }

    fn each<T>(&self, mut run: impl FnMut(&[u8]) -> T) {
        for ends in self.ends.windows(2) {
            black_box(run(black_box(
                &self.text[ends[0] as usize..ends[1] as usize],
            )));
        }
    }
}

/// A text of the length that is hashed for a point.
fn digest_text(k: u32) -> String {
    format!("10.0.3.232:8080-{}", k % 40)
}

/// The median time of each contestant; every round runs all of them in turn.
fn interleaved<const N: usize>(contestants: [&dyn Fn(); N]) -> [Duration; N] {
    let mut times = [const { Vec::new() }; N];
    for _ in 0..ROUNDS {
        for (run, times) in contestants.iter().zip(&mut times) {
            run();
            times.push(timed(run));
        }
    }
    times.map(median)
}

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn timed(run: impl Fn()) -> Duration {
    let start = Instant::now();
    run();
    start.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn allocations(run: impl Fn()) -> usize {
    let region = Region::new(ALLOCATOR);
    run();
    region.change().allocations
}
