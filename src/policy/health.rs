//! What probes say about a peer: unknown, up or down.
//!
//! ```text
//!             first probe passes                 first probe fails
//!     up ◄────────────────────────── unknown ──────────────────────────► down
//!      │ ───────────────── `fall` failures in a row ──────────────────►  │
//!      ◄ ────────────────── `rise` passes in a row ──────────────────── ─┘
//! ```
//!
//! The first probe decides alone: a proxy that starts must know its peers after one round, and
//! has no older opinion to defend. Failures of real traffic are not seen here but in
//! [`ejection`](super::ejection).

/// What is known of a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthStatus {
    /// Never probed.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It does not.
    Down,
}

/// How one probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbeResult {
    /// The peer answered as it should, in time.
    Passed,
    /// Anything else.
    Failed,
}

/// Probes in a row that change a peer's state; 0 counts as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthThresholds {
    /// Passes that bring a down peer up.
    pub rise: u32,
    /// Failures that take an up peer down.
    pub fall: u32,
}

/// The health of one peer; starts unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HealthTracker {
    status: HealthStatus,
    /// The latest outcomes in a row that speak against `state`.
    opposing_results: u32,
}

impl HealthTracker {
    /// What the probes so far amount to.
    pub const fn status(self) -> HealthStatus {
        self.status
    }

    /// The health after one more probe, and whether its state is another one now.
    #[must_use]
    pub fn on_probe(self, outcome: ProbeResult, thresholds: HealthThresholds) -> (Self, bool) {
        let (speaks_for, needed) = match outcome {
            ProbeResult::Passed => (HealthStatus::Up, thresholds.rise),
            ProbeResult::Failed => (HealthStatus::Down, thresholds.fall),
        };
        if self.status == speaks_for {
            return (
                Self {
                    opposing_results: 0,
                    ..self
                },
                false,
            );
        }
        let against = self.opposing_results.saturating_add(1);
        if self.status == HealthStatus::Unknown || against >= needed {
            return (
                Self {
                    status: speaks_for,
                    opposing_results: 0,
                },
                true,
            );
        }
        (
            Self {
                opposing_results: against,
                ..self
            },
            false,
        )
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::ProbeResult::{Failed, Passed};
    use super::*;

    const RULES: HealthThresholds = HealthThresholds { rise: 2, fall: 3 };

    fn after(outcomes: &[ProbeResult]) -> HealthStatus {
        let last = outcomes
            .iter()
            .fold(HealthTracker::default(), |health, outcome| {
                health.on_probe(*outcome, RULES).0
            });
        last.status()
    }

    #[test]
    fn health_after_the_first_probe_is_its_result() {
        assert_eq!(after(&[]), HealthStatus::Unknown);
        assert_eq!(
            HealthTracker::default().on_probe(Passed, RULES).0.status(),
            HealthStatus::Up
        );
        assert_eq!(
            HealthTracker::default().on_probe(Failed, RULES).0.status(),
            HealthStatus::Down
        );
        assert!(HealthTracker::default().on_probe(Passed, RULES).1);
    }

    #[test]
    fn health_goes_down_after_fall_consecutive_failures() {
        assert_eq!(after(&[Passed, Failed, Failed]), HealthStatus::Up);
        assert_eq!(after(&[Passed, Failed, Failed, Failed]), HealthStatus::Down);
        assert_eq!(
            after(&[Passed, Failed, Failed, Passed, Failed, Failed]),
            HealthStatus::Up
        );
    }

    #[test]
    fn health_goes_up_after_rise_consecutive_passes() {
        assert_eq!(after(&[Failed, Passed]), HealthStatus::Down);
        assert_eq!(after(&[Failed, Passed, Passed]), HealthStatus::Up);
        assert_eq!(after(&[Failed, Passed, Failed, Passed]), HealthStatus::Down);
    }

    #[test]
    fn health_threshold_of_zero_counts_as_one() {
        let rules = HealthThresholds { rise: 0, fall: 0 };
        let (up, _) = HealthTracker::default().on_probe(Passed, rules);
        assert_eq!(up.on_probe(Passed, rules), (up, false));
        assert_eq!(up.on_probe(Failed, rules).0.status(), HealthStatus::Down);
    }

    /// The definition, from the whole history: the state is that of the last run that was long enough.
    fn oracle(outcomes: &[ProbeResult], rules: HealthThresholds) -> HealthStatus {
        let mut state = HealthStatus::Unknown;
        let mut run = 0;
        for (index, outcome) in outcomes.iter().enumerate() {
            let same = index > 0 && outcomes[index - 1] == *outcome;
            run = if same { run + 1 } else { 1 };
            match outcome {
                Passed if index == 0 || run >= rules.rise => state = HealthStatus::Up,
                Failed if index == 0 || run >= rules.fall => state = HealthStatus::Down,
                _ => {}
            }
        }
        state
    }

    proptest! {
        #[test]
        fn health_state_equals_that_of_the_last_long_enough_run(
            history in prop::collection::vec(prop_oneof![Just(Passed), Just(Failed)], 0..60),
            (rise, fall) in (1..5u32, 1..5u32),
        ) {
            let rules = HealthThresholds { rise, fall };
            let mut health = HealthTracker::default();
            for outcome in &history {
                let (next, flipped) = health.on_probe(*outcome, rules);
                prop_assert_eq!(flipped, next.status() != health.status());
                health = next;
            }
            prop_assert_eq!(health.status(), oracle(&history, rules));
        }
    }
}
