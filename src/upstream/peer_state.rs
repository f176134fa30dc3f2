//! The state of one peer: atomics that a selection reads, and the record that they are computed from.
//!
//! A selection reads `flags`, and the time of a flag that is set, without a lock; for a peer that is plainly up
//! this is one load. The times are stored before the flags that refer to them (release): a reader that loads a
//! flag with `Acquire` sees a time at least as new. A start and its duration are two words, and one of them may
//! be from a later update.
//!
//! Probes, failures and operators change the `record`; every change computes the atomics again under the
//! record's lock, so that the two cannot diverge.

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

/// Stored in the atomics while the peer is in no slow start.
const NO_SLOW_START: SlowStartWindow = SlowStartWindow {
    start: Duration::ZERO,
    duration: Duration::ZERO,
};

/// The state of a peer: health, drain, ejection, slow start, requests in flight.
#[derive(Debug)]
pub struct PeerState {
    flags: AtomicU8,
    /// Valid with [`OFF_RING`]: when the peer returns to the ring. Times are nanoseconds on the
    /// monotonic clock.
    off_ring_until: AtomicU64,
    /// Valid with [`SLOW_START`]: start and duration of the window.
    slow_start: [AtomicU64; 2],
    /// Valid with [`SLOW_START`]: when the slow start began. The window's start differs after
    /// [`SlowStartWindow::rescaled`].
    slow_start_since: AtomicU64,
    /// Valid with [`DRAINING`]: when the drain began.
    draining_since: AtomicU64,
    epoch: AtomicU16,
    /// Shared with the state that replaces this one after a health reset: the server still has its requests.
    in_flight: Arc<PeerInFlight>,
    /// Incremented when a published flag or time changes, so that the upstream's sums are computed again;
    /// shared by all peers of the upstream.
    changes: Arc<AtomicU32>,
    record: Mutex<PeerRecord>,
}

impl PeerState {
    /// Creates the state of a peer without requests from its record.
    pub(super) fn new(
        record: PeerRecord,
        in_flight: PeerInFlight,
        changes: &Arc<AtomicU32>,
    ) -> Self {
        Self::from_record(record, Arc::new(in_flight), changes)
    }

    /// Returns a copy of the state without probe results: its health is up with `assume_up` (a peer that is not
    /// probed), else unknown. Drain, ejection and flap penalty are kept.
    pub(super) fn with_health_reset(
        &self,
        assume_up: bool,
        now: Duration,
        policy: &PeerPolicy,
    ) -> Self {
        let record = self.record.lock().with_health_reset(assume_up, now, policy);
        Self::from_record(record, Arc::clone(&self.in_flight), &self.changes)
    }

    fn from_record(
        record: PeerRecord,
        in_flight: Arc<PeerInFlight>,
        changes: &Arc<AtomicU32>,
    ) -> Self {
        let state = Self {
            flags: AtomicU8::default(),
            off_ring_until: AtomicU64::default(),
            slow_start: Default::default(),
            slow_start_since: AtomicU64::default(),
            draining_since: AtomicU64::default(),
            epoch: AtomicU16::default(),
            in_flight,
            changes: Arc::clone(changes),
            record: Mutex::new(record),
        };
        state.update(|_| {});
        state
    }

    /// The peer's current epoch in the affinity table.
    #[inline]
    pub(super) fn epoch(&self) -> PeerEpoch {
        PeerEpoch(self.epoch.load(Relaxed))
    }

    /// Whether the peer takes keys: it is up, not draining, not ejected, not suppressed.
    #[inline]
    pub fn is_available(&self, now: Duration) -> bool {
        match self.flags.load(Acquire) & !(SUSPECT | SLOW_START) {
            UP => true,
            flags if flags == UP | OFF_RING => now >= load_time(&self.off_ring_until),
            _ => false,
        }
    }

    /// Whether the peer takes every key that it owns: it is available and not in a slow start.
    #[inline]
    pub fn takes_all_keys(&self, now: Duration) -> bool {
        let is_plainly_up = self.flags.load(Acquire) & !SUSPECT == UP;
        is_plainly_up || self.is_available(now) && self.slow_start(now).is_none()
    }

    /// The peer's slow start; `None`: it has none, or it is complete.
    pub fn slow_start(&self, now: Duration) -> Option<SlowStartWindow> {
        if self.flags.load(Acquire) & SLOW_START == 0 {
            return None;
        }
        let [start, duration] = &self.slow_start;
        let window = SlowStartWindow {
            start: load_time(start),
            duration: load_time(duration),
        };
        (!window.is_complete(now)).then_some(window)
    }

    /// The time since the peer's slow start began; zero if it has none.
    pub(super) fn slow_start_elapsed(&self, now: Duration) -> Duration {
        self.slow_start(now).map_or(Duration::ZERO, |_| {
            now.saturating_sub(load_time(&self.slow_start_since))
        })
    }

    /// Whether the peer is up and not draining; it may be ejected or suppressed.
    pub fn is_up(&self) -> bool {
        self.flags.load(Relaxed) & (UP | DRAINING) == UP
    }

    /// Whether a request may go to the peer as a last resort: its health is up or unknown, and it is not
    /// draining. An ejection or suppression is ignored.
    pub fn may_be_up(&self) -> bool {
        let flags = self.flags.load(Relaxed);
        flags & (UP | UNKNOWN) != 0 && flags & DRAINING == 0
    }

    /// Whether the peer drains: by an operator, or because it is leaving.
    pub fn is_draining(&self) -> bool {
        self.flags.load(Relaxed) & DRAINING != 0
    }

    /// The time since the peer's drain began, if it is draining and can serve the keys that it keeps: it is up,
    /// not ejected, not suppressed.
    #[inline]
    pub fn draining_for(&self, now: Duration) -> Option<Duration> {
        let can_serve = match self.flags.load(Acquire) & (UP | DRAINING | OFF_RING) {
            flags if flags == UP | DRAINING => true,
            flags if flags == UP | DRAINING | OFF_RING => now >= load_time(&self.off_ring_until),
            _ => false,
        };
        can_serve.then(|| now.saturating_sub(load_time(&self.draining_since)))
    }

    /// The end of the peer's ejection or suppression, whichever is later; `None`: it is on the ring.
    pub fn off_ring_until(&self, now: Duration) -> Option<Duration> {
        if self.flags.load(Acquire) & OFF_RING == 0 {
            return None;
        }
        let until = load_time(&self.off_ring_until);
        (now < until).then_some(until)
    }

    /// The end of the peer's ejection; `None`: it is not ejected.
    pub fn ejected_until(&self, now: Duration) -> Option<Duration> {
        let until = self.record.lock().ejection.until();
        (now < until).then_some(until)
    }

    /// The end of the peer's suppression by flap damping; `None`: it is not suppressed.
    pub fn suppressed_until(&self, now: Duration) -> Option<Duration> {
        self.record.lock().flap_penalty.suppressed_until(now)
    }

    /// The peer's health as determined by probes.
    pub fn health(&self) -> HealthStatus {
        self.record.lock().health.status()
    }

    /// The report of the last probe; `None` before the first.
    pub fn last_probe(&self) -> Option<ProbeReport> {
        self.record.lock().last_probe.clone()
    }

    /// Includes the peer's requests in the upstream's total while the peer is available, and excludes them
    /// while it is not.
    pub(super) fn update_in_flight_total(&self, now: Duration) {
        if self.is_available(now) {
            self.in_flight.include_in_total();
        } else {
            self.in_flight.exclude_from_total();
        }
    }

    /// The counter of the peer's requests in flight.
    pub(super) fn in_flight_counter(&self) -> &Arc<PeerInFlight> {
        &self.in_flight
    }

    /// The number of the peer's requests in flight.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.get()
    }

    /// Whether an attempt failed after the last successful one.
    pub(super) fn is_suspect(&self) -> bool {
        self.flags.load(Relaxed) & SUSPECT != 0
    }

    /// Whether the source of the peer no longer has it.
    pub fn is_leaving(&self) -> bool {
        self.record.lock().is_leaving()
    }

    /// When an operator's drain began; `None`: no operator drains it.
    pub(super) fn draining_since(&self) -> Option<Duration> {
        self.record.lock().draining_since
    }

    /// Copies the drain of the peer that this one replaces: draining since then; `None`: not draining.
    pub(super) fn inherit_drain(
        &self,
        draining_since: Option<Duration>,
        now: Duration,
        policy: &PeerPolicy,
    ) {
        self.update(|record| {
            record.update(now, policy, |record| record.draining_since = draining_since);
        });
    }

    /// Ends a slow start that has begun: all peers of the upstream were found equally cold. One that begins
    /// later (after an ejection) is shortened to the time from `now` until it begins, as the other peers are no
    /// warmer than that.
    pub(super) fn on_all_peers_cold(&self, now: Duration) {
        if self.slow_start(now).is_some() {
            self.update(|record| record.on_all_peers_cold(now));
        }
    }

    /// Exports the state for another process; the health only if the peer is `probed`.
    pub(super) fn export(&self, address: Address, probed: bool, now: Duration) -> PersistedPeer {
        let mut exported = PersistedPeer::unknown(address);
        self.record.lock().export(&mut exported, probed, now);
        exported
    }

    /// Restores the state that another process exported; the health only if the peer is `probed`.
    pub(super) fn restore(&self, exported: &PersistedPeer, probed: bool, now: Duration) {
        self.update(|record| record.restore(exported, probed, now));
    }

    /// Changes the record and publishes it.
    pub(super) fn update<R>(&self, change: impl FnOnce(&mut PeerRecord) -> R) -> R {
        let mut record = self.record.lock();
        let result = change(&mut record);
        self.publish(&record);
        result
    }

    /// Stores the atomics that a selection reads. The flags come last: they publish the times.
    fn publish(&self, record: &PeerRecord) {
        let [start, duration] = &self.slow_start;
        let window = record.slow_start.unwrap_or(NO_SLOW_START);
        let flags = record.flags();
        let changed = [
            store_time(start, window.start),
            store_time(duration, window.duration),
            store_time(&self.off_ring_until, record.off_ring_until()),
            store_time(
                &self.draining_since,
                record.drain_began().unwrap_or_default(),
            ),
            self.flags.load(Relaxed) != flags,
        ];
        store_time(&self.slow_start_since, record.slow_start_since);
        self.epoch.store(record.epoch.0, Relaxed);
        self.flags.store(flags, Release);
        // Most updates are probes with the same result as before: no reason to sum up all peers again.
        if changed.contains(&true) {
            self.changes.fetch_add(1, Release);
        }
    }
}

fn load_time(nanoseconds: &AtomicU64) -> Duration {
    Duration::from_nanos(nanoseconds.load(Relaxed))
}

/// Stores a time, and returns whether it changed. Called under the record's lock.
fn store_time(nanoseconds: &AtomicU64, time: Duration) -> bool {
    let value = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    nanoseconds.swap(value, Relaxed) != value
}
