//! The two ways of HTTP/1, Pingora's and the engine, given the same bytes: they must behave alike.
//!
//! Two processes with the same configuration, one on each way, stand before origins of this program. A case is what a
//! client sends on one connection and what the origin answers ([`generate`]); it is played on both ([`client`],
//! [`origin`]). What the client got, what the origin got and what the access log says must be the same ([`compare`]), or
//! differ as documented ([`listed`]). Any other difference is made small ([`minimise`]), printed, and ends the run.

mod access_log;
mod case;
mod client;
mod compare;
mod generate;
mod generate_response;
mod grammar;
mod listed;
mod message;
mod minimise;
mod mutate;
mod origin;
mod routes;
mod totals;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use socket2::{Domain, Socket, Type};
use tokio::time::timeout;

use self::access_log::AccessLog;
use self::case::Case;
use self::client::Patience;
use self::compare::{Difference, Observed, differences};
use self::origin::Origin;
use self::totals::Totals;
use crate::edge::Edge;

/// One for each case that runs at the same time; far from each other, so that a mutation does not make one of another.
const SLOTS: [&str; 16] = [
    "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett",
    "kilo", "lima", "mike", "november", "oscar", "papa",
];

const QUICK: Patience = Patience {
    response: Duration::from_secs(20),
    guess: Duration::from_millis(150),
};

/// For a difference that may come from a busy machine.
const PATIENT: Patience = Patience {
    response: Duration::from_secs(30),
    guess: Duration::from_millis(500),
};

/// What a run is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) time: Duration,
    pub(crate) seed: u64,
    /// The only case to run.
    pub(crate) case: Option<u64>,
    /// Ends the run after so many distinct differences.
    pub(crate) differences: usize,
}

/// Runs cases until the time is over; false: a difference was found.
pub(crate) fn run(settings: Settings) -> bool {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let bench = Arc::new(Bench::start(settings).await);
        let slots = (0..SLOTS.len()).map(|slot| tokio::spawn(Arc::clone(&bench).run_slot(slot)));
        for slot in slots.collect::<Vec<_>>() {
            slot.await.expect("no panic");
        }
        bench.totals.lock().print();
        for side in [&bench.engine, &bench.pingora] {
            assert!(side.edge.is_running(), "a process has ended");
            assert_eq!(side.edge.panics(), "");
        }
        bench.totals.lock().found.is_empty()
    })
}

/// One way: its process, and its origins, one a slot.
struct Side {
    edge: Edge,
    log: AccessLog,
    origins: Vec<Arc<Origin>>,
}

impl Side {
    async fn start(carrier: &str, dead: SocketAddr) -> Self {
        let mut origins = Vec::new();
        for name in SLOTS {
            origins.push(Origin::start(name).await);
        }
        let yaml = routes::config(&origins, dead);
        let (log, stdout) = AccessLog::pipe();
        Self {
            edge: Edge::start(&yaml, Some(carrier), stdout),
            log,
            origins,
        }
    }

    /// Plays a case.
    async fn play(
        &self,
        slot: usize,
        case: &Case,
        (number, patience): (u32, Patience),
    ) -> Observed {
        let origin = &self.origins[slot];
        let client = client_address(number, case.is_trusted);
        origin.begin(u64::from(number), &case.responses);
        let address = self.edge.address;
        let outcome = client::play(case, (client, address), origin, patience).await;
        let _ = timeout(patience.response, origin.wait(|_, active| active == 0)).await;
        let arrived = origin.arrived();
        origin.end().await;
        let [a, b] = origin.addresses.map(|address| address.to_string());
        Observed {
            outcome,
            arrived,
            log: Vec::new(),
            names: vec![(a, "<a>"), (b, "<b>")],
        }
    }
}

/// A client of its own for each case, by which its lines are found in the access log.
fn client_address(number: u32, is_trusted: bool) -> Ipv4Addr {
    let [_, high, middle, low] = (number + 2).to_be_bytes();
    let trusted = if is_trusted { 0x80 } else { 0 };
    Ipv4Addr::new(127, high & 0x7f | trusted, middle, low)
}

/// Both ways, and what was found.
struct Bench {
    settings: Settings,
    end: Instant,
    engine: Side,
    pingora: Side,
    /// Never listens: connects to it are refused.
    _dead: Socket,
    cases: AtomicU64,
    trials: AtomicU32,
    is_over: AtomicBool,
    totals: Mutex<Totals>,
}

impl Bench {
    async fn start(settings: Settings) -> Self {
        let dead = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let address: SocketAddr = ([127, 0, 0, 1], 0).into();
        dead.bind(&address.into()).expect("a port");
        let address = dead
            .local_addr()
            .expect("bound")
            .as_socket()
            .expect("an address");
        Self {
            engine: Side::start("engine", address).await,
            pingora: Side::start("pingora", address).await,
            _dead: dead,
            end: Instant::now() + settings.time,
            cases: AtomicU64::new(settings.case.unwrap_or_default()),
            trials: AtomicU32::new(0),
            is_over: AtomicBool::new(false),
            totals: Mutex::new(Totals::new(settings.seed)),
            settings,
        }
    }

    /// Runs cases in one slot.
    async fn run_slot(self: Arc<Self>, slot: usize) {
        while !self.is_over.load(Relaxed) {
            let number = self.cases.fetch_add(1, Relaxed);
            match self.settings.case {
                Some(only) if only != number => return,
                None if Instant::now() > self.end => return,
                _ => {}
            }
            self.run_case(slot, number).await;
        }
    }

    async fn run_case(&self, slot: usize, number: u64) {
        let seed = self.settings.seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let case = generate::case(&mut StdRng::seed_from_u64(seed), SLOTS[slot]);
        let (engine, pingora) = self.observe(slot, &case, QUICK).await;
        self.totals.lock().count(&case, &engine);
        let (reasons, unlisted) = judge(&case, &engine, &pingora);
        let Some(difference) = unlisted else {
            return self.totals.lock().count_reasons(&reasons);
        };
        for _ in 0..2 {
            if self.unlisted(slot, &case).await.is_none() {
                self.totals.lock().count_unsteady(number, &difference);
                return;
            }
        }
        if self.totals.lock().is_known(&difference) {
            return;
        }
        self.totals.lock().announce(number, &difference);
        let (case, difference) = minimise::minimise(self, slot, case, difference).await;
        let mut totals = self.totals.lock();
        totals.report(number, &case, &difference);
        if totals.found.len() >= self.settings.differences {
            self.is_over.store(true, Relaxed);
        }
    }

    /// The first difference of a case, with patience, if it is not listed.
    async fn unlisted(&self, slot: usize, case: &Case) -> Option<Difference> {
        let (engine, pingora) = self.observe(slot, case, PATIENT).await;
        judge(case, &engine, &pingora).1
    }

    /// Whether each way has logged its responses, but those that Pingora makes itself, and both as many.
    fn is_logged(&self, client: Ipv4Addr, seen: [&Observed; 2]) -> bool {
        let lines = [&self.engine, &self.pingora].map(|side| side.log.lines(client).len());
        let unlogged = seen.map(|it| it.outcome.unlogged());
        let due = [0, 1].map(|it: usize| seen[it].outcome.responses.len() - unlogged[it]);
        let is_due = lines[0] >= due[0] && lines[1] >= due[1];
        is_due && (lines[0] == lines[1] || unlogged != [0, 0])
    }

    /// Plays a case on both ways.
    async fn observe(&self, slot: usize, case: &Case, patience: Patience) -> (Observed, Observed) {
        let number = self.trials.fetch_add(1, Relaxed);
        let (mut engine, mut pingora) = tokio::join!(
            self.engine.play(slot, case, (number, patience)),
            self.pingora.play(slot, case, (number, patience))
        );
        let client = client_address(number, case.is_trusted);
        let written = async {
            loop {
                let logged = [&self.engine, &self.pingora].map(|side| side.log.logged.notified());
                if self.is_logged(client, [&engine, &pingora]) {
                    return;
                }
                let [engine, pingora] = logged;
                tokio::select! { () = engine => {}, () = pingora => {} }
            }
        };
        let _ = timeout(patience.guess * 4, written).await;
        for (side, observed) in [(&self.engine, &mut engine), (&self.pingora, &mut pingora)] {
            observed.log = side.log.lines(client);
            side.log.forget(client);
        }
        (engine, pingora)
    }
}

/// The reasons of the differences that are listed, and the first one that is not.
fn judge(
    case: &Case,
    engine: &Observed,
    pingora: &Observed,
) -> (Vec<&'static str>, Option<Difference>) {
    let mut reasons = Vec::new();
    let mut last = usize::MAX;
    for difference in differences(case, engine, pingora) {
        if last != usize::MAX && !difference.is_arrival_before(last, engine) {
            continue;
        }
        let Some(row) = listed::row(case, (engine, pingora), &difference) else {
            return (reasons, Some(difference));
        };
        if row.is_last {
            last = difference.index.min(last);
        }
        reasons.push(row.reason);
    }
    (reasons, None)
}
