//! One peer: who it is, and the cell that says whether it serves.
//!
//! The cell has two halves. `flags` is what a select looks at: one relaxed load, no lock. The
//! `ledger` is what probes, failures and operators write to; whoever changes it computes the flags
//! anew under its lock, so that the two cannot drift apart.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;

use crate::config;
use crate::policy::ejection::{Ejection, Rules};
use crate::policy::health::{Health, Outcome, State, Thresholds};
use crate::ring::Weight;
use crate::telemetry::metrics::PeerMetrics;

use super::memory::PeerMemory;

/// One server of an upstream, in one configuration.
#[derive(Debug)]
pub struct Peer {
    /// What places it on the ring.
    pub label: Arc<str>,
    /// Where it is connected to.
    pub address: SocketAddr,
    /// The address as the operator wrote it; what `host_header: peer` sends.
    pub written: Arc<str>,
    /// Its share of the key space, relative to the others.
    pub weight: Weight,
    /// What is known of it; outlives this configuration.
    pub state: Arc<PeerState>,
    /// Where it is counted.
    pub metrics: PeerMetrics,
}

impl Peer {
    pub(super) fn new(
        peer: &config::Peer,
        address: SocketAddr,
        state: Arc<PeerState>,
        metrics: PeerMetrics,
    ) -> Self {
        let written = peer.address.to_string().into();
        Self {
            label: peer.label.as_str().into(),
            address,
            written,
            weight: peer.weight,
            state,
            metrics,
        }
    }
}

const UP: u8 = 1;
const UNKNOWN: u8 = 2;
const DRAINING: u8 = 4;
const EJECTED: u8 = 8;
const SUSPECT: u8 = 16;

/// What is known of a peer: health, drain, ejection, requests in flight.
#[derive(Debug)]
pub struct PeerState {
    flags: AtomicU8,
    /// While [`EJECTED`]: until when; nanoseconds since the process started.
    ejected_until: AtomicU64,
    /// Shared with whoever judges the same server anew: its requests are still there.
    in_flight: Arc<AtomicU32>,
    ledger: Mutex<Ledger>,
}

#[derive(Clone, Debug)]
struct Ledger {
    health: Health,
    ejection: Ejection,
    /// Until when it is ejected; zero: it is not.
    ejected_until: Duration,
    /// Probes passed in a row since the ejection.
    passed: u32,
    /// Some connect failed since the last that did not: the next success must look here.
    suspect: bool,
    draining: bool,
    last_probe: Option<ProbeReport>,
}

/// What the last probe of a peer found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// When it ended, since the process started.
    pub at: Duration,
    /// How long it took.
    pub took: Duration,
    /// Why it failed; `None`: it passed.
    pub failure: Option<String>,
}

/// Counts one request at a peer, from its making to its drop.
#[derive(Debug)]
pub struct InFlight(Arc<AtomicU32>);

impl InFlight {
    /// Counts a request in.
    pub fn enter(state: &PeerState) -> Self {
        state.in_flight.fetch_add(1, Relaxed);
        Self(Arc::clone(&state.in_flight))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl PeerState {
    /// A peer that nothing is known of; `up` where no probe will ever say.
    pub fn new(up: bool) -> Self {
        let ledger = Ledger {
            health: at_first(up),
            ejection: Ejection::default(),
            ejected_until: Duration::ZERO,
            passed: 0,
            suspect: false,
            draining: false,
            last_probe: None,
        };
        Self::with(ledger, Arc::default())
    }

    /// The same server, of which no probe has said anything yet; `up` where none ever will. What
    /// operators and real traffic have said of it stands.
    pub(super) fn judged_anew(&self, up: bool) -> Self {
        let ledger = Ledger {
            health: at_first(up),
            passed: 0,
            last_probe: None,
            ..self.ledger.lock().clone()
        };
        Self::with(ledger, Arc::clone(&self.in_flight))
    }

    fn with(ledger: Ledger, in_flight: Arc<AtomicU32>) -> Self {
        Self {
            flags: AtomicU8::new(ledger.flags()),
            ejected_until: AtomicU64::new(nanoseconds(ledger.ejected_until)),
            in_flight,
            ledger: Mutex::new(ledger),
        }
    }

    /// Whether it takes keys: up, not draining, not ejected.
    #[inline]
    pub fn is_available(&self, now: Duration) -> bool {
        match self.flags.load(Relaxed) & !SUSPECT {
            UP => true,
            flags if flags == UP | EJECTED => now >= self.ejected_until(),
            _ => false,
        }
    }

    /// Whether it is up and not draining, be it ejected or not.
    pub fn is_up(&self) -> bool {
        self.flags.load(Relaxed) & (UP | DRAINING) == UP
    }

    /// Whether nothing says that it cannot serve: it is not draining, and no probe took it down.
    pub fn may_be_up(&self) -> bool {
        let flags = self.flags.load(Relaxed);
        flags & (UP | UNKNOWN) != 0 && flags & DRAINING == 0
    }

    /// Whether an operator took it out.
    pub fn is_draining(&self) -> bool {
        self.flags.load(Relaxed) & DRAINING != 0
    }

    /// Until when real traffic's failures keep it off the ring; `None`: they do not.
    pub fn ejected(&self, now: Duration) -> Option<Duration> {
        let until = self.ejected_until();
        (self.flags.load(Relaxed) & EJECTED != 0 && now < until).then_some(until)
    }

    /// What the probes say.
    pub fn health(&self) -> State {
        self.ledger.lock().health.state()
    }

    /// What the last probe found; `None` before the first.
    pub fn last_probe(&self) -> Option<ProbeReport> {
        self.ledger.lock().last_probe.clone()
    }

    /// Requests at this peer now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Takes a probe's word; the new health, where it flipped.
    pub fn on_probe(&self, report: ProbeReport, thresholds: Thresholds) -> Option<State> {
        let outcome = if report.failure.is_none() {
            Outcome::Passed
        } else {
            Outcome::Failed
        };
        self.change(|ledger| {
            let (health, flipped) = ledger.health.on(outcome, thresholds);
            ledger.health = health;
            let ejected = ledger.ejected_until > report.at;
            ledger.passed = if ejected && outcome == Outcome::Passed {
                ledger.passed + 1
            } else {
                0
            };
            if ejected && ledger.passed >= thresholds.rise {
                ledger.pardon(report.at);
            }
            ledger.last_probe = Some(report);
            flipped.then(|| health.state())
        })
    }

    /// A connect on real traffic failed; how long the peer is now ejected for, if that ejects it.
    pub fn on_connect_failure(&self, rules: &Rules, now: Duration) -> Option<Duration> {
        self.change(|ledger| {
            let (ejection, until) = ledger.ejection.on_failure(now, rules);
            ledger.ejection = ejection;
            ledger.suspect = true;
            if let Some(until) = until {
                ledger.ejected_until = until;
                ledger.passed = 0;
            }
            until.map(|until| until.saturating_sub(now))
        })
    }

    /// A connect on real traffic succeeded.
    pub fn on_connect_success(&self, now: Duration) {
        if self.flags.load(Relaxed) & SUSPECT != 0 {
            self.change(|ledger| ledger.pardon(now));
        }
    }

    /// Takes the peer out for an operator, or back in; whether that changed anything.
    pub fn set_draining(&self, draining: bool) -> bool {
        self.change(|ledger| std::mem::replace(&mut ledger.draining, draining) != draining)
    }

    /// What another process should know of it. Where nobody probes, that it counts as up is not
    /// knowledge.
    pub(super) fn memory(&self, address: SocketAddr, probed: bool, now: Duration) -> PeerMemory {
        let left = self
            .ejected(now)
            .map_or(Duration::ZERO, |until| until.saturating_sub(now));
        PeerMemory {
            address,
            up: match self.health() {
                State::Up if probed => Some(true),
                State::Down if probed => Some(false),
                State::Unknown | State::Up | State::Down => None,
            },
            draining: self.is_draining(),
            ejected_for_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Takes over what another process knew of it. Where nobody probes, the health stays as it is.
    pub(super) fn recall(&self, memory: &PeerMemory, probed: bool, now: Duration) {
        let length = Duration::from_millis(memory.ejected_for_ms);
        let until = now.saturating_add(length);
        self.change(|ledger| {
            ledger.draining = memory.draining;
            if let (true, Some(up)) = (probed, memory.up) {
                ledger.health = known(up);
            }
            if until > now {
                let at_once = Rules {
                    failures: 1,
                    eject: length,
                    max_eject: length,
                };
                ledger.ejection = ledger.ejection.on_failure(now, &at_once).0;
                ledger.ejected_until = until;
                ledger.suspect = true;
            }
        });
    }

    fn change<R>(&self, write: impl FnOnce(&mut Ledger) -> R) -> R {
        let mut ledger = self.ledger.lock();
        let result = write(&mut ledger);
        let until = nanoseconds(ledger.ejected_until);
        self.ejected_until.store(until, Relaxed);
        self.flags.store(ledger.flags(), Relaxed);
        result
    }

    fn ejected_until(&self) -> Duration {
        Duration::from_nanos(self.ejected_until.load(Relaxed))
    }
}

/// Before the first probe, or where there is none.
fn at_first(up: bool) -> Health {
    if up { known(true) } else { Health::default() }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A health that is known from elsewhere: from another process, or because no probe will ever say.
fn known(up: bool) -> Health {
    let outcome = if up { Outcome::Passed } else { Outcome::Failed };
    Health::default()
        .on(outcome, Thresholds { rise: 1, fall: 1 })
        .0
}

impl Ledger {
    /// Ends an ejection: the peer was connected to, or its probes have passed often enough since.
    fn pardon(&mut self, now: Duration) {
        self.ejection = self.ejection.on_success(now);
        self.ejected_until = Duration::ZERO;
        self.suspect = false;
    }

    /// [`EJECTED`] stays set once an ejection is over; `ejected_until` says that it is.
    fn flags(&self) -> u8 {
        let health = match self.health.state() {
            State::Unknown => UNKNOWN,
            State::Up => UP,
            State::Down => 0,
        };
        let draining = if self.draining { DRAINING } else { 0 };
        let ejected = if self.ejected_until > Duration::ZERO {
            EJECTED
        } else {
            0
        };
        let suspect = if self.suspect { SUSPECT } else { 0 };
        health | draining | ejected | suspect
    }
}
