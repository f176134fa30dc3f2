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
pub enum State {
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
pub enum Outcome {
    /// The peer answered as it should, in time.
    Passed,
    /// Anything else.
    Failed,
}

/// Probes in a row that change a peer's state; 0 counts as 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Passes that bring a down peer up.
    pub rise: u32,
    /// Failures that take an up peer down.
    pub fall: u32,
}

/// The health of one peer; starts unknown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    state: State,
    /// The latest outcomes in a row that speak against `state`.
    against: u32,
}

impl Health {
    /// What the probes so far amount to.
    pub const fn state(self) -> State {
        self.state
    }

    /// The health after one more probe, and whether its state is another one now.
    #[must_use]
    pub fn on(self, outcome: Outcome, thresholds: Thresholds) -> (Self, bool) {
        let (speaks_for, needed) = match outcome {
            Outcome::Passed => (State::Up, thresholds.rise),
            Outcome::Failed => (State::Down, thresholds.fall),
        };
        if self.state == speaks_for {
            return (Self { against: 0, ..self }, false);
        }
        let against = self.against.saturating_add(1);
        if self.state == State::Unknown || against >= needed {
            return (
                Self {
                    state: speaks_for,
                    against: 0,
                },
                true,
            );
        }
        (Self { against, ..self }, false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Outcome::{Failed, Passed};
    use super::*;

    const RULES: Thresholds = Thresholds { rise: 2, fall: 3 };

    fn after(outcomes: &[Outcome]) -> State {
        let last = outcomes.iter().fold(Health::default(), |health, outcome| {
            health.on(*outcome, RULES).0
        });
        last.state()
    }

    #[test]
    fn the_first_probe_decides_alone() {
        assert_eq!(after(&[]), State::Unknown);
        assert_eq!(Health::default().on(Passed, RULES).0.state(), State::Up);
        assert_eq!(Health::default().on(Failed, RULES).0.state(), State::Down);
        assert!(Health::default().on(Passed, RULES).1);
    }

    #[test]
    fn a_peer_falls_after_fall_failures_in_a_row() {
        assert_eq!(after(&[Passed, Failed, Failed]), State::Up);
        assert_eq!(after(&[Passed, Failed, Failed, Failed]), State::Down);
        assert_eq!(
            after(&[Passed, Failed, Failed, Passed, Failed, Failed]),
            State::Up
        );
    }

    #[test]
    fn a_peer_rises_after_rise_passes_in_a_row() {
        assert_eq!(after(&[Failed, Passed]), State::Down);
        assert_eq!(after(&[Failed, Passed, Passed]), State::Up);
        assert_eq!(after(&[Failed, Passed, Failed, Passed]), State::Down);
    }

    #[test]
    fn thresholds_of_zero_count_as_one() {
        let rules = Thresholds { rise: 0, fall: 0 };
        let (up, _) = Health::default().on(Passed, rules);
        assert_eq!(up.on(Passed, rules), (up, false));
        assert_eq!(up.on(Failed, rules).0.state(), State::Down);
    }

    /// The definition, from the whole history: the state is that of the last run that was long enough.
    fn oracle(outcomes: &[Outcome], rules: Thresholds) -> State {
        let mut state = State::Unknown;
        let mut run = 0;
        for (index, outcome) in outcomes.iter().enumerate() {
            let same = index > 0 && outcomes[index - 1] == *outcome;
            run = if same { run + 1 } else { 1 };
            match outcome {
                Passed if index == 0 || run >= rules.rise => state = State::Up,
                Failed if index == 0 || run >= rules.fall => state = State::Down,
                _ => {}
            }
        }
        state
    }

    proptest! {
        #[test]
        fn the_state_is_that_of_the_last_run_that_was_long_enough(
            history in prop::collection::vec(prop_oneof![Just(Passed), Just(Failed)], 0..60),
            (rise, fall) in (1..5u32, 1..5u32),
        ) {
            let rules = Thresholds { rise, fall };
            let mut health = Health::default();
            for outcome in &history {
                let (next, flipped) = health.on(*outcome, rules);
                prop_assert_eq!(flipped, next.state() != health.state());
                health = next;
            }
            prop_assert_eq!(health.state(), oracle(&history, rules));
        }
    }
}
