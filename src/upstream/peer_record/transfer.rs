//! Exports a peer's record for another process, and restores it there.

use std::time::Duration;

use crate::policy::ejection::{EjectionCause, EjectionState};
use crate::policy::flap_damping::FlapPenalty;
use crate::policy::health::HealthStatus;
use crate::policy::slow_start::SlowStartWindow;

use super::super::persisted_state::{
    PersistedFlapPenalty, PersistedPeer, PersistedSlowStart, millis,
};
use super::{Availability, PeerPolicy, PeerRecord, health_of};

impl PeerRecord {
    /// Writes the record to `persisted`; the health only if the peer is `probed`.
    pub(in crate::upstream) fn export(
        &self,
        persisted: &mut PersistedPeer,
        probed: bool,
        now: Duration,
    ) {
        persisted.up = match self.health.status() {
            HealthStatus::Up if probed => Some(true),
            HealthStatus::Down if probed => Some(false),
            HealthStatus::Unknown | HealthStatus::Up | HealthStatus::Down => None,
        };
        persisted.draining = self.draining_since.is_some();
        persisted.draining_for_ms = self
            .draining_since
            .map_or(0, |since| millis(now.saturating_sub(since)));
        let leaving_for = self.leaving_since.map(|since| now.saturating_sub(since));
        persisted.leaving_for_ms = leaving_for.map(millis);
        persisted.ejected_for_ms = millis(self.ejection.until().saturating_sub(now));
        persisted.ejected_for_responses =
            persisted.ejected_for_ms > 0 && self.ejection.cause() == EjectionCause::Responses;
        persisted.slow_start = self
            .slow_start
            .filter(|window| !window.is_complete(now))
            .map(|window| PersistedSlowStart {
                // Rounded up: a key that this process admits must be admitted by the next one.
                elapsed_ms: millis_rounded_up(window.elapsed(now)),
                starts_in_ms: millis(window.start.saturating_sub(now)),
                duration_ms: millis(window.duration),
                configured_ms: millis(self.configured_slow_start),
                started_ms_ago: millis_rounded_up(now.saturating_sub(self.slow_start_since)),
            });
        persisted.epoch = self.epoch.0;
        persisted.flap_penalty = self.export_flap_penalty(now);
    }

    /// The flap penalty; the default if the peer never went down, or its age would change at every export.
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

    /// Restores the record from another process; that is no return to service and begins no slow start.
    pub(in crate::upstream) fn restore(
        &mut self,
        persisted: &PersistedPeer,
        probed: bool,
        now: Duration,
    ) {
        self.restore_health(persisted.up.filter(|_| probed));
        self.restore_events(persisted, now);
    }

    /// Takes over what another process recorded between two exports, `before` and `persisted`. Both
    /// processes have probed the peer, so a probe result of the other one is taken over only if it has changed.
    pub(in crate::upstream) fn apply_delta(
        &mut self,
        (before, persisted): (Option<&PersistedPeer>, &PersistedPeer),
        probed: bool,
        now: Duration,
        policy: &PeerPolicy,
    ) {
        let is_new = before.is_none_or(|before| before.up != persisted.up);
        self.restore_health(persisted.up.filter(|_| probed && is_new));
        // Only this process has seen that the peer is back, so it keeps its own slow start.
        let is_back = persisted.up == Some(false) && self.health.status() == HealthStatus::Up;
        let own = (
            self.slow_start,
            self.configured_slow_start,
            self.slow_start_since,
        );
        self.restore_events(persisted, now);
        if is_back {
            (
                self.slow_start,
                self.configured_slow_start,
                self.slow_start_since,
            ) = own;
        }
        if before.is_none_or(|before| before.epoch != persisted.epoch) {
            self.epoch = policy.epochs.next_epoch();
        }
    }

    fn restore_health(&mut self, up: Option<bool>) {
        if let Some(up) = up {
            self.health = health_of(up);
            self.slow_start_pending = false;
        }
    }

    /// Restores drain, ejection, flap penalty and slow start.
    fn restore_events(&mut self, persisted: &PersistedPeer, now: Duration) {
        let ago = |ms| now.saturating_sub(Duration::from_millis(ms));
        let from_now = |ms| now.saturating_add(Duration::from_millis(ms));
        self.draining_since = persisted.draining.then(|| ago(persisted.draining_for_ms));
        self.leaving_since = persisted.leaving_for_ms.map(ago);
        self.restore_ejection(persisted, now);
        self.restore_slow_start(persisted.slow_start, now);
        let flap = persisted.flap_penalty;
        let until = match flap.suppressed_for_ms {
            0 => Duration::ZERO,
            left => from_now(left),
        };
        self.flap_penalty = FlapPenalty::from_parts(flap.penalty, ago(flap.age_ms), until);
        self.slow_start_pending |= self.availability(now) == Availability::OutOfService;
    }

    fn restore_slow_start(&mut self, persisted: Option<PersistedSlowStart>, now: Duration) {
        let ago = |ms| now.saturating_sub(Duration::from_millis(ms));
        self.slow_start = persisted.map(|window| {
            let starts_in = Duration::from_millis(window.starts_in_ms);
            SlowStartWindow {
                start: ago(window.elapsed_ms).saturating_add(starts_in),
                duration: Duration::from_millis(window.duration_ms),
            }
        });
        let configured = persisted
            .map(|window| Duration::from_millis(window.configured_ms.max(window.duration_ms)));
        self.configured_slow_start = configured.unwrap_or_default();
        self.slow_start_since = persisted.map_or(now, |window| {
            let started = ago(window.started_ms_ago.max(window.elapsed_ms));
            started.saturating_add(Duration::from_millis(window.starts_in_ms))
        });
    }

    fn restore_ejection(&mut self, persisted: &PersistedPeer, now: Duration) {
        self.ejection = EjectionState::default();
        if persisted.ejected_for_ms == 0 {
            return;
        }
        let length = Duration::from_millis(persisted.ejected_for_ms);
        let cause = if persisted.ejected_for_responses {
            EjectionCause::Responses
        } else {
            EjectionCause::Connects
        };
        self.ejection = EjectionState::restored(length, cause, now);
        self.passes_since_ejection = 0;
        self.suspect = true;
    }
}

fn millis_rounded_up(duration: Duration) -> u64 {
    millis(duration.saturating_add(Duration::from_nanos(999_999)))
}
