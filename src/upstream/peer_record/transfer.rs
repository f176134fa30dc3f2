//! Exports a peer's record to another process, and restores it there.

use std::time::Duration;

use crate::policy::ejection::{EjectionPolicy, EjectionState};
use crate::policy::flap_damping::FlapPenalty;
use crate::policy::health::HealthStatus;
use crate::policy::slow_start::SlowStartWindow;

use super::super::persisted_state::{
    PersistedFlapPenalty, PersistedPeer, PersistedSlowStart, millis,
};
use super::{Availability, PeerPolicy, PeerRecord, health_of};

impl PeerRecord {
    /// What another process should know; of the health, where it is `probed`.
    pub(in crate::upstream) fn export(
        &self,
        memory: &mut PersistedPeer,
        probed: bool,
        now: Duration,
    ) {
        memory.up = match self.health.status() {
            HealthStatus::Up if probed => Some(true),
            HealthStatus::Down if probed => Some(false),
            HealthStatus::Unknown | HealthStatus::Up | HealthStatus::Down => None,
        };
        memory.draining = self.draining_since.is_some();
        memory.draining_for_ms = self
            .draining_since
            .map_or(0, |since| millis(now.saturating_sub(since)));
        memory.ejected_for_ms = millis(self.ejected_until.saturating_sub(now));
        memory.slow_start = self
            .slow_start
            .filter(|ramp| !ramp.is_complete(now))
            .map(|ramp| PersistedSlowStart {
                // Rounded up: what is home with this process is so with the next.
                elapsed_ms: millis_rounded_up(ramp.elapsed(now)),
                starts_in_ms: millis(ramp.start.saturating_sub(now)),
                duration_ms: millis(ramp.duration),
                configured_ms: millis(self.configured_slow_start),
                started_ms_ago: millis_rounded_up(now.saturating_sub(self.slow_start_since)),
            });
        memory.epoch = self.epoch.0;
        memory.flap_penalty = self.export_flap_penalty(now);
    }

    /// Nothing where it never went down: its age would change all the time.
    fn export_flap_penalty(&self, now: Duration) -> PersistedFlapPenalty {
        if self.flap_penalty.last_penalty() <= 0.0 {
            return PersistedFlapPenalty::default();
        }
        PersistedFlapPenalty {
            penalty: self.flap_penalty.last_penalty(),
            age_ms: millis(now.saturating_sub(self.flap_penalty.last_down())),
            suppressed_for_ms: millis(self.flap_penalty.suppression_end().saturating_sub(now)),
        }
    }

    /// Takes over what another process knew; it does not begin anew by that.
    pub(in crate::upstream) fn restore(
        &mut self,
        memory: &PersistedPeer,
        probed: bool,
        now: Duration,
    ) {
        self.restore_health(memory.up.filter(|_| probed));
        self.restore_events(memory, now);
    }

    /// Takes over what another process has learned since it told of `before`. What probes say it knows no better
    /// than this one, which has asked as well: there only what is new counts.
    pub(in crate::upstream) fn apply_delta(
        &mut self,
        (before, memory): (Option<&PersistedPeer>, &PersistedPeer),
        probed: bool,
        now: Duration,
        policy: &PeerPolicy,
    ) {
        let is_new = before.is_none_or(|before| before.up != memory.up);
        self.restore_health(memory.up.filter(|_| probed && is_new));
        // That it is back, and begins slowly, only this one knows.
        let is_back = memory.up == Some(false) && self.health.status() == HealthStatus::Up;
        let own = (
            self.slow_start,
            self.configured_slow_start,
            self.slow_start_since,
        );
        self.restore_events(memory, now);
        if is_back {
            (
                self.slow_start,
                self.configured_slow_start,
                self.slow_start_since,
            ) = own;
        }
        if before.is_none_or(|before| before.epoch != memory.epoch) {
            self.epoch = policy.epochs.next_epoch();
        }
    }

    fn restore_health(&mut self, up: Option<bool>) {
        if let Some(up) = up {
            self.health = health_of(up);
            self.slow_start_pending = false;
        }
    }

    /// What operators and real traffic have said, and what followed from it.
    fn restore_events(&mut self, memory: &PersistedPeer, now: Duration) {
        let ago = |ms| now.saturating_sub(Duration::from_millis(ms));
        let ahead = |ms| now.saturating_add(Duration::from_millis(ms));
        self.draining_since = memory.draining.then(|| ago(memory.draining_for_ms));
        self.restore_ejection(Duration::from_millis(memory.ejected_for_ms), now);
        self.restore_slow_start(memory.slow_start, now);
        let flap = memory.flap_penalty;
        let until = match flap.suppressed_for_ms {
            0 => Duration::ZERO,
            left => ahead(left),
        };
        self.flap_penalty = FlapPenalty::from_parts(flap.penalty, ago(flap.age_ms), until);
        self.slow_start_pending |= self.availability(now) == Availability::OutOfService;
    }

    fn restore_slow_start(&mut self, memory: Option<PersistedSlowStart>, now: Duration) {
        let ago = |ms| now.saturating_sub(Duration::from_millis(ms));
        self.slow_start = memory.map(|ramp| {
            let begins_in = Duration::from_millis(ramp.starts_in_ms);
            SlowStartWindow {
                start: ago(ramp.elapsed_ms).saturating_add(begins_in),
                duration: Duration::from_millis(ramp.duration_ms),
            }
        });
        let whole =
            memory.map(|ramp| Duration::from_millis(ramp.configured_ms.max(ramp.duration_ms)));
        self.configured_slow_start = whole.unwrap_or_default();
        self.slow_start_since = memory.map_or(now, |ramp| {
            let began = ago(ramp.started_ms_ago.max(ramp.elapsed_ms));
            began.saturating_add(Duration::from_millis(ramp.starts_in_ms))
        });
    }

    fn restore_ejection(&mut self, length: Duration, now: Duration) {
        (self.ejection, self.ejected_until) = (EjectionState::default(), Duration::ZERO);
        if !length.is_zero() {
            let at_once = EjectionPolicy {
                failures: 1,
                base_ejection: length,
                max_ejection: length,
            };
            self.on_connect_failure(&at_once, now);
        }
    }
}

fn millis_rounded_up(duration: Duration) -> u64 {
    millis(duration.saturating_add(Duration::from_nanos(999_999)))
}
