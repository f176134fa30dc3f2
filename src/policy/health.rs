//! The health of a peer by its probes: unknown, up or down.
//!
//! ```text
//!             first probe passes                 first probe fails
//!     up ◄────────────────────────── unknown ──────────────────────────► down
//!      │ ───────────────── `fall` failures in a row ──────────────────►  │
//!      ◄ ────────────────── `rise` passes in a row ──────────────────── ─┘
//! ```
//!
//! The first probe decides alone, so that a starting proxy knows its peers after one round. Failures of real
//! traffic are counted in [`ejection`](super::ejection).

/// The result of the probes so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HealthStatus {
    /// Never probed.
    #[default]
    Unknown,
    /// The probes pass.
    Up,
    /// The probes fail.
    Down,
}

/// The result of one probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProbeResult {
    /// The expected response came in time.
    Passed,
    /// Anything else.
    Failed,
}

/// Results in a row that change the status; 0 counts as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthThresholds {
    /// Passes that bring a down peer up.
    pub rise: u32,
    /// Failures that take an up peer down.
    pub fall: u32,
}

/// The health of one peer; starts unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct HealthTracker {
    status: HealthStatus,
    /// The latest results in a row that contradict `status`.
    opposing_results: u32,
}

impl HealthTracker {
    /// The status.
    pub(crate) const fn status(self) -> HealthStatus {
        self.status
    }

    /// The health after one more probe, and whether the status changed.
    #[must_use]
    pub(crate) fn on_probe(
        self,
        result: ProbeResult,
        thresholds: HealthThresholds,
    ) -> (Self, bool) {
        let (indicated, needed) = match result {
            ProbeResult::Passed => (HealthStatus::Up, thresholds.rise),
            ProbeResult::Failed => (HealthStatus::Down, thresholds.fall),
        };
        if self.status == indicated {
            return (
                Self {
                    opposing_results: 0,
                    ..self
                },
                false,
            );
        }
        let opposing_results = self.opposing_results.saturating_add(1);
        if self.status == HealthStatus::Unknown || opposing_results >= needed {
            return (
                Self {
                    status: indicated,
                    opposing_results: 0,
                },
                true,
            );
        }
        (
            Self {
                opposing_results,
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

    const THRESHOLDS: HealthThresholds = HealthThresholds { rise: 2, fall: 3 };

    fn after(results: &[ProbeResult]) -> HealthStatus {
        let last = results
            .iter()
            .fold(HealthTracker::default(), |health, result| {
                health.on_probe(*result, THRESHOLDS).0
            });
        last.status()
    }

    #[test]
    fn health_after_the_first_probe_is_its_result() {
        assert_eq!(after(&[]), HealthStatus::Unknown);
        assert_eq!(
            HealthTracker::default()
                .on_probe(Passed, THRESHOLDS)
                .0
                .status(),
            HealthStatus::Up
        );
        assert_eq!(
            HealthTracker::default()
                .on_probe(Failed, THRESHOLDS)
                .0
                .status(),
            HealthStatus::Down
        );
        assert!(HealthTracker::default().on_probe(Passed, THRESHOLDS).1);
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
        let thresholds = HealthThresholds { rise: 0, fall: 0 };
        let (up, _) = HealthTracker::default().on_probe(Passed, thresholds);
        assert_eq!(up.on_probe(Passed, thresholds), (up, false));
        assert_eq!(
            up.on_probe(Failed, thresholds).0.status(),
            HealthStatus::Down
        );
    }

    /// The definition by the whole history: the status of the last run that was long enough.
    fn oracle(results: &[ProbeResult], thresholds: HealthThresholds) -> HealthStatus {
        let mut status = HealthStatus::Unknown;
        let mut run = 0;
        for (index, result) in results.iter().enumerate() {
            let same = index > 0 && results[index - 1] == *result;
            run = if same { run + 1 } else { 1 };
            match result {
                Passed if index == 0 || run >= thresholds.rise => status = HealthStatus::Up,
                Failed if index == 0 || run >= thresholds.fall => status = HealthStatus::Down,
                _ => {}
            }
        }
        status
    }

    proptest! {
        #[test]
        fn health_state_equals_that_of_the_last_long_enough_run(
            history in prop::collection::vec(prop_oneof![Just(Passed), Just(Failed)], 0..60),
            (rise, fall) in (1..5u32, 1..5u32),
        ) {
            let thresholds = HealthThresholds { rise, fall };
            let mut health = HealthTracker::default();
            for result in &history {
                let (next, flipped) = health.on_probe(*result, thresholds);
                prop_assert_eq!(flipped, next.status() != health.status());
                health = next;
            }
            prop_assert_eq!(health.status(), oracle(&history, thresholds));
        }
    }
}
