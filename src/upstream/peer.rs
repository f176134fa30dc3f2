//! One peer: who it is, and the cell that says whether it serves.
//!
//! The cell has two halves. `flags` is what a select looks at: one load, no lock. They are stored after
//! the times that they speak of, so whoever sees them sees those, too. The `ledger` is what probes, failures and operators write to; whoever changes it computes the flags
//! anew under its lock, so that the two cannot drift apart.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU8, AtomicU16, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

use parking_lot::Mutex;

use crate::config::{self, PeerAddress};
use crate::policy::ejection::Rules;
use crate::policy::health::{State, Thresholds};
use crate::policy::ramp::{Ramp, Salt};
use crate::policy::spread::Part;
use crate::ring::Weight;
use crate::telemetry::metrics::PeerMetrics;

use super::active::Tenure;
use super::address::Address;
use super::ledger::{DRAINING, Ledger, Manners, OFF, RAMPING, SUSPECT, UNKNOWN, UP};
use super::load::Held;
use super::memory::PeerMemory;

/// One server of an upstream, in one configuration.
#[derive(Debug)]
pub struct Peer {
    /// The name of its upstream.
    pub(super) upstream: Arc<str>,
    /// What places it on the ring.
    pub label: Arc<str>,
    /// Where it is connected to.
    pub address: Address,
    /// What `host_header: peer` sends: the address as the operator wrote it; of a Unix socket, what
    /// nginx makes of it.
    pub host: Arc<str>,
    /// The name that it is asked for in TLS, and must prove; `None`: the client's, or no TLS.
    pub server_name: Option<Arc<str>>,
    /// Its share of the key space, relative to the others.
    pub weight: Weight,
    /// What the ring gives it of that, for the spread of hot keys; as much as its weight where that is not known.
    pub part: Part,
    /// What is known of it; outlives this configuration.
    pub state: Arc<PeerState>,
    /// The requests that it holds, which the state has, too: here both can be on their way from memory at once.
    pub(super) held: Arc<Held>,
    /// Where it is counted.
    pub metrics: PeerMetrics,
    /// What tells its order of keys from every other's.
    pub salt: Salt,
    /// How it leaves the ring and comes back.
    pub(super) manners: Manners,
}

impl Peer {
    pub(super) fn new(
        upstream: &str,
        (peer, part): (&config::Peer, Part),
        address: Address,
        state: Arc<PeerState>,
        manners: Manners,
        metrics: PeerMetrics,
    ) -> Self {
        Self {
            host: host(&peer.address),
            server_name: peer.server_name.as_deref().map(Arc::from),
            upstream: upstream.into(),
            label: peer.label.as_str().into(),
            address,
            weight: peer.weight,
            part,
            held: Arc::clone(state.held()),
            state,
            metrics,
            salt: Salt::of(&peer.label),
            manners,
        }
    }

    /// Takes a probe's word; the new health, where it flipped.
    pub fn on_probe(&self, report: ProbeReport, thresholds: Thresholds) -> Option<State> {
        let now = report.at;
        self.change(now, |ledger| ledger.on_probe(report, thresholds))
    }

    /// A connect on real traffic failed; how long the peer is now ejected for, if that ejects it.
    pub fn on_connect_failure(&self, rules: &Rules, now: Duration) -> Option<Duration> {
        let until = self.change(now, |ledger| ledger.on_connect_failure(rules, now))?;
        Some(until.saturating_sub(now))
    }

    /// A connect on real traffic succeeded.
    pub fn on_connect_success(&self, now: Duration) {
        if self.state.is_suspect() {
            self.change(now, |ledger| ledger.pardon(now));
        }
    }

    /// Begins a slow start: the peer is new, though the process that knew the others is not.
    pub(super) fn begin_slowly(&self, now: Duration) {
        let manners = &self.manners;
        self.state.write(|ledger| ledger.begin_slowly(now, manners));
    }

    /// Takes over an operator's order about the one before it.
    pub(super) fn take_drain(&self, draining: Option<Duration>, now: Duration) {
        self.change(now, |ledger| ledger.draining = draining);
    }

    /// Takes the peer out for an operator, or back in; whether that changed anything.
    pub fn set_draining(&self, draining: bool, now: Duration) -> bool {
        self.change(now, |ledger| {
            let changes = ledger.draining.is_some() != draining;
            if changes {
                ledger.draining = draining.then_some(now);
            }
            changes
        })
    }

    /// Ends its suppression, where it comes and goes and is off the ring for that; its slow start begins.
    pub fn lift_suppression(&self, now: Duration) {
        let manners = &self.manners;
        if self.change(now, |ledger| ledger.lift_suppression(now, manners)) {
            let (upstream, label) = (&self.upstream, &self.label);
            log::info!("upstream {upstream}: peer {label} is not suppressed any more");
        }
    }

    /// Takes over what another process has learned of it since it told of it first.
    pub(super) fn catch_up(
        &self,
        (before, memory): (Option<&PeerMemory>, &PeerMemory),
        probed: bool,
        now: Duration,
    ) {
        let manners = &self.manners;
        let news = (before, memory);
        self.state
            .write(|ledger| ledger.catch_up(news, probed, now, manners));
    }

    /// Makes its slow start what this configuration wants of it.
    pub(super) fn settle_ramp(&self, now: Duration) {
        let manners = &self.manners;
        self.state.write(|ledger| ledger.settle_ramp(now, manners));
    }

    fn change<R>(&self, now: Duration, change: impl FnOnce(&mut Ledger) -> R) -> R {
        let (result, until) = self.state.write(|ledger| {
            let before = ledger.flap.suppressed_until(now);
            let result = ledger.change(now, &self.manners, change);
            let until = ledger.flap.suppressed_until(now);
            (result, until.filter(|_| before != until))
        });
        if let Some(until) = until {
            self.metrics.suppressions.inc();
            let (upstream, label) = (&self.upstream, &self.label);
            let length = until.saturating_sub(now);
            log::warn!(
                "upstream {upstream}: peer {label} comes and goes: it stays off the ring for {length:.1?}"
            );
        }
        result
    }
}

/// What stands in the cell while there is none.
const NO_RAMP: Ramp = Ramp {
    began: Duration::ZERO,
    length: Duration::ZERO,
};

/// What is known of a peer: health, drain, ejection, slow start, requests in flight.
#[derive(Debug)]
pub struct PeerState {
    flags: AtomicU8,
    /// While [`OFF`]: until when. Times are nanoseconds since the process started.
    off_until: AtomicU64,
    /// While [`RAMPING`]: when that began, and how long it takes.
    ramp: [AtomicU64; 2],
    /// When it began in truth.
    ramps_since: AtomicU64,
    /// While [`DRAINING`]: since when.
    draining_since: AtomicU64,
    tenure: AtomicU16,
    /// Shared with whoever judges the same server anew: its requests are still there.
    held: Arc<Held>,
    /// Rises whenever it may have left the ring or come back; shared by all peers of the upstream.
    changes: Arc<AtomicU32>,
    ledger: Mutex<Ledger>,
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

impl PeerState {
    /// A peer that is described by `ledger`.
    pub(super) fn new(ledger: Ledger, held: Held, changes: &Arc<AtomicU32>) -> Self {
        Self::with(ledger, Arc::new(held), changes)
    }

    /// The same server, of which no probe has said anything yet; `up` where none ever will. What
    /// operators and real traffic have said of it stands.
    pub(super) fn judged_anew(&self, up: bool, now: Duration, manners: &Manners) -> Self {
        let ledger = self.ledger.lock().judged_anew(up, now, manners);
        Self::with(ledger, Arc::clone(&self.held), &self.changes)
    }

    fn with(ledger: Ledger, held: Arc<Held>, changes: &Arc<AtomicU32>) -> Self {
        let state = Self {
            flags: AtomicU8::default(),
            off_until: AtomicU64::default(),
            ramp: Default::default(),
            ramps_since: AtomicU64::default(),
            draining_since: AtomicU64::default(),
            tenure: AtomicU16::default(),
            held,
            changes: Arc::clone(changes),
            ledger: Mutex::new(ledger),
        };
        state.write(|_| {});
        state
    }

    /// As whom the table of active keys knows it.
    #[inline]
    pub(super) fn tenure(&self) -> Tenure {
        Tenure(self.tenure.load(Relaxed))
    }

    /// Whether it takes keys: up, not draining, not ejected, not suppressed.
    #[inline]
    pub fn is_available(&self, now: Duration) -> bool {
        match self.flags.load(Acquire) & !(SUSPECT | RAMPING) {
            UP => true,
            flags if flags == UP | OFF => now >= time(&self.off_until),
            _ => false,
        }
    }

    /// Whether it takes every key that it owns: available, and not in a slow start.
    #[inline]
    pub fn is_home(&self, now: Duration) -> bool {
        let plain = self.flags.load(Acquire) & !SUSPECT == UP;
        plain || self.is_available(now) && self.ramp(now).is_none()
    }

    /// Its slow start, where that is not over.
    pub fn ramp(&self, now: Duration) -> Option<Ramp> {
        if self.flags.load(Acquire) & RAMPING == 0 {
            return None;
        }
        let [began, length] = &self.ramp;
        let ramp = Ramp {
            began: time(began),
            length: time(length),
        };
        (!ramp.is_over(now)).then_some(ramp)
    }

    /// For how long it has been in a slow start; zero without one.
    pub(super) fn ramps_for(&self, now: Duration) -> Duration {
        self.ramp(now).map_or(Duration::ZERO, |_| {
            now.saturating_sub(time(&self.ramps_since))
        })
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

    /// For how long it has been draining, where it could still serve the keys that it keeps.
    #[inline]
    pub fn drains_for(&self, now: Duration) -> Option<Duration> {
        let serves = match self.flags.load(Acquire) & (UP | DRAINING | OFF) {
            flags if flags == UP | DRAINING => true,
            flags if flags == UP | DRAINING | OFF => now >= time(&self.off_until),
            _ => false,
        };
        serves.then(|| now.saturating_sub(time(&self.draining_since)))
    }

    /// Until when it is off the ring, ejected or suppressed; `None`: it is not.
    pub fn off(&self, now: Duration) -> Option<Duration> {
        let until = time(&self.off_until);
        (self.flags.load(Relaxed) & OFF != 0 && now < until).then_some(until)
    }

    /// Until when real traffic's failures keep it off the ring; `None`: they do not.
    pub fn ejected(&self, now: Duration) -> Option<Duration> {
        let until = self.ledger.lock().ejected_until;
        (now < until).then_some(until)
    }

    /// Until when its coming and going keeps it off the ring; `None`: it does not.
    pub fn suppressed(&self, now: Duration) -> Option<Duration> {
        self.ledger.lock().flap.suppressed_until(now)
    }

    /// What the probes say.
    pub fn health(&self) -> State {
        self.ledger.lock().health.state()
    }

    /// What the last probe found; `None` before the first.
    pub fn last_probe(&self) -> Option<ProbeReport> {
        self.ledger.lock().last_probe.clone()
    }

    /// What it holds is in the upstream's total where it is available, and set aside where it is not.
    pub(super) fn share_load(&self, now: Duration) {
        if self.is_available(now) {
            self.held.take_back();
        } else {
            self.held.set_aside();
        }
    }

    /// The requests that it holds.
    pub(super) fn held(&self) -> &Arc<Held> {
        &self.held
    }

    /// Requests at this peer now.
    pub fn in_flight(&self) -> u32 {
        self.held.get()
    }

    /// Whether some connect failed since the last that did not.
    fn is_suspect(&self) -> bool {
        self.flags.load(Relaxed) & SUSPECT != 0
    }

    /// An operator's order about the peer, on its way to the one that takes its place.
    pub(super) fn drain(&self) -> Option<Duration> {
        self.ledger.lock().draining
    }

    /// Takes over such an order; it is not a new one.
    pub(super) fn take_drain(&self, draining: Option<Duration>, now: Duration, manners: &Manners) {
        self.write(|ledger| ledger.change(now, manners, |ledger| ledger.draining = draining));
    }

    /// Ends its slow start: no other could spare it anything. One to come takes no longer than the others
    /// will have served by then.
    pub(super) fn end_ramp(&self, now: Duration) {
        if self.ramp(now).is_some() {
            self.write(|ledger| ledger.end_ramp(now));
        }
    }

    /// What another process should know of it. Where nobody probes, that it counts as up is not
    /// knowledge.
    pub(super) fn memory(&self, address: Address, probed: bool, now: Duration) -> PeerMemory {
        let mut memory = PeerMemory::of(address);
        self.ledger.lock().remember(&mut memory, probed, now);
        memory
    }

    /// Takes over what another process knew of it. Where nobody probes, the health stays as it is.
    pub(super) fn recall(&self, memory: &PeerMemory, probed: bool, now: Duration) {
        self.write(|ledger| ledger.recall(memory, probed, now));
    }

    fn write<R>(&self, write: impl FnOnce(&mut Ledger) -> R) -> R {
        let mut ledger = self.ledger.lock();
        let result = write(&mut ledger);
        self.publish(&ledger);
        result
    }

    /// Brings what a select looks at up to date.
    fn publish(&self, ledger: &Ledger) {
        let [began, length] = &self.ramp;
        let ramp = ledger.ramp.unwrap_or(NO_RAMP);
        let flags = ledger.flags();
        let moved = [
            store(began, ramp.began),
            store(length, ramp.length),
            store(&self.off_until, ledger.off_until()),
            store(&self.draining_since, ledger.draining.unwrap_or_default()),
            self.flags.load(Relaxed) != flags,
        ];
        store(&self.ramps_since, ledger.ramps_since);
        self.tenure.store(ledger.tenure.0, Relaxed);
        self.flags.store(flags, Release);
        // Most writes are probes that say what was known; they are no reason to count all peers anew.
        if moved.contains(&true) {
            self.changes.fetch_add(1, Release);
        }
    }
}

fn host(address: &PeerAddress) -> Arc<str> {
    match address {
        PeerAddress::Unix(_) => "localhost".into(),
        PeerAddress::Ip(_) | PeerAddress::Name(..) => address.to_string().into(),
    }
}

fn time(nanoseconds: &AtomicU64) -> Duration {
    Duration::from_nanos(nanoseconds.load(Relaxed))
}

/// Whether that changed it. Under the ledger's lock.
fn store(nanoseconds: &AtomicU64, time: Duration) -> bool {
    let value = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    nanoseconds.swap(value, Relaxed) != value
}
