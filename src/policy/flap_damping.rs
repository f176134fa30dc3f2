//! Flap damping: a peer that leaves the ring often stays off it longer each time.
//!
//! As routers damp a flapping route (RFC 2439): each time down adds 1 to a penalty, which halves with every
//! half-life. Above `flips - 1` the peer is suppressed until the penalty is below 0.75. So `flips` times
//! down within 1.4 half-lives (for 3) suppress it, one less never does, and a plain restart costs nothing.
//! A time down while suppressed counts too. Only an operator ends a suppression early.
//!
//! ```text
//!  penalty
//!   3 ┤      ╷        flips = 3
//!   2 ┤───╷──│╲──────────────────────── above: suppressed
//!   1 ┤╷╲_│  │  ╲___
//! .75 ┤│─────────────╲──────────────── below: back on the ring
//!     └┴──────────────┴─────────► time
//! ```

use std::time::Duration;

/// The penalty below which a peer returns: three quarters of one time down.
const REUSE_THRESHOLD: f64 = 0.75;

/// The configuration of flap damping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlapDampingPolicy {
    /// Times down in quick succession that suppress a peer; below 2 counts as 2.
    pub flips: u32,
    /// The time after which a time down counts half; zero: damping is off.
    pub half_life: Duration,
    /// The longest suppression after the last time down.
    pub max_suppression: Duration,
}

impl FlapDampingPolicy {
    /// 3 times down, 1 min, 10 min: one or two restarts are no flapping.
    pub const DEFAULT: Self = Self {
        flips: 3,
        half_life: Duration::from_secs(60),
        max_suppression: Duration::from_secs(600),
    };

    fn suppress_threshold(&self) -> f64 {
        f64::from(self.flips.max(2) - 1)
    }

    /// The penalty that decays to [`REUSE_THRESHOLD`] in `max_suppression`; at least the threshold, or a short
    /// `max_suppression` would switch suppression off. Bounds the penalty, and so the time until it is gone.
    fn max_penalty(&self) -> f64 {
        let longest =
            REUSE_THRESHOLD * self.max_suppression.div_duration_f64(self.half_life).exp2();
        longest.max(self.suppress_threshold())
    }
}

/// The penalty of one peer; starts at zero.
///
/// [`EjectionState`](super::ejection::EjectionState) reacts to failed connects within seconds, and one
/// success ends an ejection. That fits a server that was restarted. At a server that flaps, each success
/// would bring its keys back and each failure move them away again; so this penalty outlives successes. It
/// counts every way off the ring but an operator's: failed probes and ejections.
///
/// A suppression ends at most `max_suppression` after the last time down, and a further time down never
/// ends it earlier. The end is computed when the peer goes down; a request only compares it with the time.
/// When no other peer is left the caller uses suppressed peers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct FlapPenalty {
    /// The penalty at `last_down`.
    penalty: f64,
    last_down: Duration,
    /// The end of the latest suppression; zero: there was none.
    suppression_end: Duration,
}

impl FlapPenalty {
    /// The end of the suppression; `None`: the peer is not suppressed at `now`.
    pub(crate) fn suppressed_until(self, now: Duration) -> Option<Duration> {
        (now < self.suppression_end).then_some(self.suppression_end)
    }

    /// Restores a penalty as of `last_down`, and the end of the latest suppression.
    pub(crate) const fn from_parts(
        penalty: f64,
        last_down: Duration,
        suppression_end: Duration,
    ) -> Self {
        Self {
            penalty,
            last_down,
            suppression_end,
        }
    }

    /// The penalty as of [`Self::last_down`], in times down.
    pub(crate) const fn last_penalty(self) -> f64 {
        self.penalty
    }

    /// When the peer went down last.
    pub(crate) const fn last_down(self) -> Duration {
        self.last_down
    }

    /// The end of the latest suppression; zero: there was none.
    pub(crate) const fn suppression_end(self) -> Duration {
        self.suppression_end
    }

    /// The penalty at `now`, in times down.
    pub(crate) fn penalty(self, now: Duration, policy: &FlapDampingPolicy) -> f64 {
        if policy.half_life.is_zero() {
            return 0.0;
        }
        let age = now.saturating_sub(self.last_down);
        self.penalty * (-age.div_duration_f64(policy.half_life)).exp2()
    }

    /// The penalty after the peer went down or was ejected, while it was on the ring or suppressed. Not for an
    /// operator's drain.
    #[must_use]
    pub(crate) fn on_down(self, now: Duration, policy: &FlapDampingPolicy) -> Self {
        if policy.half_life.is_zero() {
            return Self::default();
        }
        let raised = self.penalty(now, policy) + 1.0;
        let penalty = raised.min(policy.max_penalty());
        let suppresses =
            raised > policy.suppress_threshold() || self.suppressed_until(now).is_some();
        let until = if suppresses {
            self.suppression_end
                .max(now.saturating_add(suppression_length(penalty, policy)))
        } else {
            self.suppression_end
        };
        Self {
            penalty,
            last_down: now,
            suppression_end: until,
        }
    }
}

/// The time in which a penalty decays to [`REUSE_THRESHOLD`]; at most `max_suppression`.
fn suppression_length(penalty: f64, policy: &FlapDampingPolicy) -> Duration {
    let half_lives = (penalty / REUSE_THRESHOLD).log2().max(0.0);
    let seconds = half_lives * policy.half_life.as_secs_f64();
    Duration::try_from_secs_f64(seconds).map_or(policy.max_suppression, |length| {
        length.min(policy.max_suppression)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const POLICY: FlapDampingPolicy = FlapDampingPolicy::DEFAULT;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// The penalty after the peer went down at these seconds.
    fn down(at: &[u64]) -> FlapPenalty {
        at.iter().fold(FlapPenalty::default(), |flap, at| {
            flap.on_down(s(*at), &POLICY)
        })
    }

    fn off_for(at: &[u64]) -> u64 {
        let last = s(*at.last().unwrap());
        let until = down(at).suppressed_until(last);
        until.map_or(0, |until| until.saturating_sub(last).as_secs())
    }

    #[test]
    fn flap_damping_ignores_one_or_two_restarts() {
        assert_eq!(off_for(&[1000]), 0);
        assert_eq!(off_for(&[1000, 1001]), 0);
        assert_eq!(off_for(&[1000, 1600, 2200, 2800, 3400]), 0);
    }

    #[test]
    fn flap_damping_suppresses_after_three_quick_failures() {
        assert_eq!(off_for(&[1000, 1010, 1020]), 110);
        assert_eq!(off_for(&[1000, 1040, 1080]), 86);
        assert_eq!(off_for(&[1000, 1045, 1090]), 0);
    }

    #[test]
    fn flap_damping_time_grows_up_to_its_maximum() {
        let lengths: Vec<_> = (3..40)
            .map(|times| off_for(&(0..times).map(|time| 1000 + 10 * time).collect::<Vec<_>>()))
            .collect();
        assert!(
            lengths.windows(2).all(|pair| pair[0] <= pair[1]),
            "{lengths:?}"
        );
        assert_eq!(lengths[..4], [110, 130, 145, 156]);
        // A time down every ten seconds approaches a penalty of 1 / (1 - 2^(-1/6)) = 9.2, or 216 s.
        assert_eq!(lengths.last(), Some(&215));
    }

    #[test]
    fn flap_damping_of_a_burst_is_capped_at_the_maximum() {
        let at: Vec<_> = vec![1000; 5000];
        assert_eq!(off_for(&at), 600);
        let after = down(&at).penalty(s(1600), &POLICY);
        assert!((after - REUSE_THRESHOLD).abs() < 1e-9, "{after}");
    }

    #[test]
    fn flap_damping_penalty_decays() {
        let flap = down(&[1000, 1010, 1020]);
        assert_eq!(flap.suppressed_until(s(1500)), None);
        assert!(flap.penalty(s(1500), &POLICY) < 0.02);
        assert_eq!(
            flap.on_down(s(1500), &POLICY).suppressed_until(s(1500)),
            None
        );
    }

    #[test]
    fn flap_damping_with_zero_half_life_is_off() {
        let off = FlapDampingPolicy {
            half_life: Duration::ZERO,
            ..POLICY
        };
        let flap = (0..100).fold(FlapPenalty::default(), |flap, at| flap.on_down(s(at), &off));
        assert_eq!(
            (flap.suppressed_until(s(99)), flap.penalty(s(99), &off)),
            (None, 0.0)
        );
    }

    #[test]
    fn flap_damping_limits_key_moves_of_a_flapping_peer_to_three_per_hour() {
        let mut flap = FlapPenalty::default();
        let mut on_ring = true;
        let mut moves = 0;
        for second in 0..3600 {
            let up = second % 20 < 10; // down for 10 s in every 20 s
            if second % 20 == 10 {
                flap = flap.on_down(s(second), &POLICY);
            }
            let now_on_ring = up && flap.suppressed_until(s(second)).is_none();
            moves += u32::from(on_ring && !now_on_ring);
            on_ring = now_on_ring;
        }
        assert_eq!(moves, 3);
    }

    proptest! {
        #[test]
        fn flap_damping_suppression_is_bounded_and_only_extended(
            flips in 0..6_u32,
            (half_life, max) in (1..200_u64, 0..2000_u64),
            pauses in prop::collection::vec(0..300_u64, 1..100),
        ) {
            let policy = FlapDampingPolicy { flips, half_life: s(half_life), max_suppression: s(max) };
            let (mut flap, mut now) = (FlapPenalty::default(), s(0));
            for pause in pauses {
                now += s(pause);
                let before = flap.suppressed_until(now);
                flap = flap.on_down(now, &policy);
                let until = flap.suppressed_until(now);
                prop_assert!(until.is_none_or(|until| until <= now + policy.max_suppression));
                prop_assert!(before.is_none_or(|before| until >= Some(before)));
                prop_assert!(flap.penalty(now, &policy).is_finite());
            }
        }
    }
}
