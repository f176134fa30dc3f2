//! The cell that says whether a peer serves.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicU8, AtomicU16, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::time::Duration;

use parking_lot::Mutex;

use crate::policy::health::HealthStatus;
use crate::policy::slow_start::SlowStartWindow;

use super::address::Address;
use super::in_flight::PeerInFlight;
use super::peer_epoch::PeerEpoch;
use super::peer_record::{
    DRAINING, OFF_RING, PeerPolicy, PeerRecord, ProbeReport, SLOW_START, SUSPECT, UNKNOWN, UP,
};
use super::persisted_state::PersistedPeer;

/// What is known of a peer: health, drain, ejection, slow start, requests in flight.
#[derive(Debug)]
pub struct PeerState {
    flags: AtomicU8,
    /// While [`OFF`]: until when. Times are nanoseconds since the process started.
    off_ring_until: AtomicU64,
    /// While [`RAMPING`]: when that began, and how long it takes.
    slow_start: [AtomicU64; 2],
    /// When it began in truth.
    slow_start_since: AtomicU64,
    /// While [`DRAINING`]: since when.
    draining_since: AtomicU64,
    epoch: AtomicU16,
    /// Shared with whoever judges the same server anew: its requests are still there.
    in_flight: Arc<PeerInFlight>,
    /// Rises whenever it may have left the ring or come back; shared by all peers of the upstream.
    changes: Arc<AtomicU32>,
    record: Mutex<PeerRecord>,
}

impl PeerState {
    /// A peer that is described by `ledger`.
    pub(super) fn new(ledger: PeerRecord, held: PeerInFlight, changes: &Arc<AtomicU32>) -> Self {
        Self::from_record(ledger, Arc::new(held), changes)
    }

    /// The same server, of which no probe has said anything yet; `up` where none ever will. What
    /// operators and real traffic have said of it stands.
    pub(super) fn with_health_reset(&self, up: bool, now: Duration, manners: &PeerPolicy) -> Self {
        let ledger = self.record.lock().with_health_reset(up, now, manners);
        Self::from_record(ledger, Arc::clone(&self.in_flight), &self.changes)
    }

    fn from_record(ledger: PeerRecord, held: Arc<PeerInFlight>, changes: &Arc<AtomicU32>) -> Self {
        let state = Self {
            flags: AtomicU8::default(),
            off_ring_until: AtomicU64::default(),
            slow_start: Default::default(),
            slow_start_since: AtomicU64::default(),
            draining_since: AtomicU64::default(),
            epoch: AtomicU16::default(),
            in_flight: held,
            changes: Arc::clone(changes),
            record: Mutex::new(ledger),
        };
        state.update(|_| {});
        state
    }

    /// As whom the table of active keys knows it.
    #[inline]
    pub(super) fn epoch(&self) -> PeerEpoch {
        PeerEpoch(self.epoch.load(Relaxed))
    }

    /// Whether it takes keys: up, not draining, not ejected, not suppressed.
    #[inline]
    pub fn is_available(&self, now: Duration) -> bool {
        match self.flags.load(Acquire) & !(SUSPECT | SLOW_START) {
            UP => true,
            flags if flags == UP | OFF_RING => now >= load_time(&self.off_ring_until),
            _ => false,
        }
    }

    /// Whether it takes every key that it owns: available, and not in a slow start.
    #[inline]
    pub fn takes_all_keys(&self, now: Duration) -> bool {
        let plain = self.flags.load(Acquire) & !SUSPECT == UP;
        plain || self.is_available(now) && self.slow_start(now).is_none()
    }

    /// Its slow start, where that is not over.
    pub fn slow_start(&self, now: Duration) -> Option<SlowStartWindow> {
        if self.flags.load(Acquire) & SLOW_START == 0 {
            return None;
        }
        let [began, length] = &self.slow_start;
        let ramp = SlowStartWindow {
            start: load_time(began),
            duration: load_time(length),
        };
        (!ramp.is_complete(now)).then_some(ramp)
    }

    /// For how long it has been in a slow start; zero without one.
    pub(super) fn slow_start_elapsed(&self, now: Duration) -> Duration {
        self.slow_start(now).map_or(Duration::ZERO, |_| {
            now.saturating_sub(load_time(&self.slow_start_since))
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
    pub fn draining_for(&self, now: Duration) -> Option<Duration> {
        let serves = match self.flags.load(Acquire) & (UP | DRAINING | OFF_RING) {
            flags if flags == UP | DRAINING => true,
            flags if flags == UP | DRAINING | OFF_RING => now >= load_time(&self.off_ring_until),
            _ => false,
        };
        serves.then(|| now.saturating_sub(load_time(&self.draining_since)))
    }

    /// Until when it is off the ring, ejected or suppressed; `None`: it is not.
    pub fn off_ring_until(&self, now: Duration) -> Option<Duration> {
        let until = load_time(&self.off_ring_until);
        (self.flags.load(Relaxed) & OFF_RING != 0 && now < until).then_some(until)
    }

    /// Until when real traffic's failures keep it off the ring; `None`: they do not.
    pub fn ejected_until(&self, now: Duration) -> Option<Duration> {
        let until = self.record.lock().ejected_until;
        (now < until).then_some(until)
    }

    /// Until when its coming and going keeps it off the ring; `None`: it does not.
    pub fn suppressed_until(&self, now: Duration) -> Option<Duration> {
        self.record.lock().flap_penalty.suppressed_until(now)
    }

    /// What the probes say.
    pub fn health(&self) -> HealthStatus {
        self.record.lock().health.status()
    }

    /// What the last probe found; `None` before the first.
    pub fn last_probe(&self) -> Option<ProbeReport> {
        self.record.lock().last_probe.clone()
    }

    /// What it holds is in the upstream's total where it is available, and set aside where it is not.
    pub(super) fn update_in_flight_total(&self, now: Duration) {
        if self.is_available(now) {
            self.in_flight.include_in_total();
        } else {
            self.in_flight.exclude_from_total();
        }
    }

    /// The requests that it holds.
    pub(super) fn in_flight_counter(&self) -> &Arc<PeerInFlight> {
        &self.in_flight
    }

    /// Requests at this peer now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// Whether some connect failed since the last that did not.
    pub(super) fn is_suspect(&self) -> bool {
        self.flags.load(Relaxed) & SUSPECT != 0
    }

    /// An operator's order about the peer, on its way to the one that takes its place.
    pub(super) fn draining_since(&self) -> Option<Duration> {
        self.record.lock().draining_since
    }

    /// Takes over such an order; it is not a new one.
    pub(super) fn inherit_drain(
        &self,
        draining: Option<Duration>,
        now: Duration,
        manners: &PeerPolicy,
    ) {
        self.update(|ledger| {
            ledger.update(now, manners, |ledger| ledger.draining_since = draining)
        });
    }

    /// Ends its slow start: no other could spare it anything. One to come takes no longer than the others
    /// will have served by then.
    pub(super) fn end_slow_start_if_cold(&self, now: Duration) {
        if self.slow_start(now).is_some() {
            self.update(|ledger| ledger.end_slow_start_if_cold(now));
        }
    }

    /// What another process should know of it. Where nobody probes, that it counts as up is not
    /// knowledge.
    pub(super) fn export(&self, address: Address, probed: bool, now: Duration) -> PersistedPeer {
        let mut memory = PersistedPeer::unknown(address);
        self.record.lock().export(&mut memory, probed, now);
        memory
    }

    /// Takes over what another process knew of it. Where nobody probes, the health stays as it is.
    pub(super) fn restore(&self, memory: &PersistedPeer, probed: bool, now: Duration) {
        self.update(|ledger| ledger.restore(memory, probed, now));
    }

    pub(super) fn update<R>(&self, write: impl FnOnce(&mut PeerRecord) -> R) -> R {
        let mut ledger = self.record.lock();
        let result = write(&mut ledger);
        self.publish(&ledger);
        result
    }

    /// Brings what a select looks at up to date.
    fn publish(&self, ledger: &PeerRecord) {
        let [began, length] = &self.slow_start;
        let ramp = ledger.slow_start.unwrap_or(NO_SLOW_START);
        let flags = ledger.flags();
        let moved = [
            store_time(began, ramp.start),
            store_time(length, ramp.duration),
            store_time(&self.off_ring_until, ledger.off_ring_until()),
            store_time(
                &self.draining_since,
                ledger.draining_since.unwrap_or_default(),
            ),
            self.flags.load(Relaxed) != flags,
        ];
        store_time(&self.slow_start_since, ledger.slow_start_since);
        self.epoch.store(ledger.epoch.0, Relaxed);
        self.flags.store(flags, Release);
        // Most writes are probes that say what was known; they are no reason to count all peers anew.
        if moved.contains(&true) {
            self.changes.fetch_add(1, Release);
        }
    }
}

fn load_time(nanoseconds: &AtomicU64) -> Duration {
    Duration::from_nanos(nanoseconds.load(Relaxed))
}

/// Whether that changed it. Under the ledger's lock.
fn store_time(nanoseconds: &AtomicU64, time: Duration) -> bool {
    let value = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    nanoseconds.swap(value, Relaxed) != value
}

/// What stands in the cell while there is none.
const NO_SLOW_START: SlowStartWindow = SlowStartWindow {
    start: Duration::ZERO,
    duration: Duration::ZERO,
};
