//! When a list of peers that a source has found comes into force.
//!
//! A source yields complete lists. A changed list waits for further changes, so that a roll-out is few changes of the
//! ring, not many. A list that lost too many peers, at once or one by one within a minute, is more often a mistake of its
//! source than a decision: it is held, and the list before it stays in force, until an operator accepts it or the source
//! yields a better one.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// A list of peers by label: the order of a list and its duplicates have no meaning.
pub(crate) type PeersByLabel<P> = BTreeMap<String, P>;

/// The time within which peers that were lost one by one are counted together.
pub(crate) const PEAK_WINDOW: Duration = Duration::from_secs(60);

/// When a changed list comes into force by itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct PeerListLimits {
    /// How long a changed list waits for further changes.
    pub settle: Duration,
    /// The largest share of the peers in force that a list may lose, 0.0 ..= 1.0: at once by label, and within
    /// [`PEAK_WINDOW`] by number. An empty list is held, too.
    /// `None`: every list is trusted.
    pub max_lost: Option<f64>,
}

/// Why a list waits for an operator.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum HoldReason {
    /// The list is empty, or lost more peers than `max_lost` allows.
    Lost {
        /// The peers in force.
        had: usize,
        /// The peers of the list.
        has: usize,
        /// The peers in force that the list does not have.
        lost: usize,
    },
    /// The list has too few peers compared with the most that were in force within [`PEAK_WINDOW`].
    Shrunk {
        /// The most peers that were in force.
        had: usize,
        /// The peers of the list.
        has: usize,
    },
    /// The list would move more keys than `max_moved` allows.
    Moved {
        /// The hashes that would move, of 2^32.
        moved: u64,
        /// The share that may move, 0.0 ..= 1.0.
        allowed: f64,
    },
}

/// What a new list of a source means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OfferOutcome {
    /// It is the list in force, held or pending already.
    Unchanged,
    /// It waits for [`PeerListLimits::settle`] to end.
    Pending,
}

/// A list at the end of its wait.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum DueList<P> {
    /// It can come into force.
    Trusted(PeersByLabel<P>),
    /// It is held from now on.
    Held(HoldReason),
}

/// A list that waits for an operator.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HeldList<P> {
    /// The list.
    pub peers: PeersByLabel<P>,
    /// Why it waits.
    pub reason: HoldReason,
}

/// The lists of one source: in force, pending, held.
#[derive(Clone, Debug)]
pub(crate) struct PeerListGate<P> {
    limits: PeerListLimits,
    /// `None`: the source has not yielded a list yet.
    in_force: Option<PeersByLabel<P>>,
    pending: Option<PendingList<P>>,
    held: Option<HeldList<P>>,
    peak: RecentPeak,
}

/// The most peers in force within [`PEAK_WINDOW`].
#[derive(Clone, Debug, Default)]
struct RecentPeak {
    /// Until when a number of peers was in force, with the number; the numbers fall.
    counts: VecDeque<(Duration, usize)>,
}

impl RecentPeak {
    /// Records that this number of peers was in force until now.
    fn note(&mut self, count: usize, now: Duration) {
        self.counts.retain(|(_, earlier)| *earlier > count);
        self.counts.push_back((now, count));
        // Those that are over do not count any more.
        while self.counts.front().is_some_and(|one| is_over(one.0, now)) {
            self.counts.pop_front();
        }
    }

    fn at(&self, now: Duration) -> usize {
        let recent = self
            .counts
            .iter()
            .filter(|(until, _)| !is_over(*until, now));
        recent.map(|(_, count)| *count).max().unwrap_or_default()
    }
}

fn is_over(until: Duration, now: Duration) -> bool {
    now.saturating_sub(until) >= PEAK_WINDOW
}

#[derive(Clone, Debug)]
struct PendingList<P> {
    peers: PeersByLabel<P>,
    /// When its wait ends.
    due: Duration,
    /// It could not be put in force before.
    is_retry: bool,
}

impl<P: Clone + PartialEq> PeerListGate<P> {
    /// A gate with this list in force; `None`: none yet.
    pub(crate) fn new(limits: PeerListLimits, in_force: Option<PeersByLabel<P>>) -> Self {
        Self {
            limits,
            in_force,
            pending: None,
            held: None,
            peak: RecentPeak::default(),
        }
    }

    /// The list in force; `None`: none yet.
    pub(crate) fn in_force(&self) -> Option<&PeersByLabel<P>> {
        self.in_force.as_ref()
    }

    /// The list that waits for an operator.
    pub(crate) fn held(&self) -> Option<&HeldList<P>> {
        self.held.as_ref()
    }

    /// Replaces the limits; a pending list is judged by the new ones.
    pub(crate) fn set_limits(&mut self, limits: PeerListLimits) {
        self.limits = limits;
    }

    /// Makes the held list due: the rules that held it have changed.
    pub(crate) fn judge_again(&mut self, now: Duration) {
        if let Some(held) = self.held.take()
            && self.pending.is_none()
        {
            self.retry(held.peers, now);
        }
    }

    /// Forgets how many peers were in force: an operator has accepted that there are fewer.
    pub(crate) fn forget_peak(&mut self) {
        self.peak = RecentPeak::default();
    }

    /// Takes the present list of the source. The first change starts the wait, later ones do not prolong it: a source that
    /// changes all the time must not keep its list back for ever.
    pub(crate) fn offer(&mut self, peers: PeersByLabel<P>, now: Duration) -> OfferOutcome {
        if self.in_force.as_ref() == Some(&peers) {
            (self.pending, self.held) = (None, None);
            return OfferOutcome::Unchanged;
        }
        if self.held.as_ref().is_some_and(|held| held.peers == peers) {
            self.pending = None;
            return OfferOutcome::Unchanged;
        }
        match &mut self.pending {
            Some(pending) if pending.peers == peers => return OfferOutcome::Unchanged,
            // Another list need not wait for the next try of the one that failed.
            Some(pending) if !pending.is_retry => pending.peers = peers,
            _ => {
                // The first list of all has no predecessor to be put together with.
                let is_first = self.in_force.is_none();
                let wait = if is_first {
                    Duration::ZERO
                } else {
                    self.limits.settle
                };
                self.pending = Some(PendingList {
                    peers,
                    due: now.saturating_add(wait),
                    is_retry: false,
                });
            }
        }
        OfferOutcome::Pending
    }

    /// When the wait of the pending list ends.
    pub(crate) fn next_due(&self) -> Option<Duration> {
        self.pending.as_ref().map(|pending| pending.due)
    }

    /// The pending list, once its wait has ended. A trusted one is to be passed to [`Self::confirm`], [`Self::hold`] or
    /// [`Self::retry`] next.
    pub(crate) fn take_due(&mut self, now: Duration) -> Option<DueList<P>> {
        let due = self.pending.take_if(|pending| pending.due <= now)?;
        Some(self.judge(due.peers, now))
    }

    /// As [`Self::take_due`], without the rest of the wait.
    pub(crate) fn take_pending(&mut self, now: Duration) -> Option<DueList<P>> {
        let pending = self.pending.take()?;
        Some(self.judge(pending.peers, now))
    }

    fn judge(&mut self, peers: PeersByLabel<P>, now: Duration) -> DueList<P> {
        match self.loss(&peers, now) {
            None => DueList::Trusted(peers),
            Some(reason) => {
                self.hold(peers, reason);
                DueList::Held(reason)
            }
        }
    }

    /// Records that a list is in force.
    pub(crate) fn confirm(&mut self, peers: PeersByLabel<P>, now: Duration) {
        if let Some(before) = self.in_force.replace(peers) {
            self.peak.note(before.len(), now);
        }
        self.held = None;
    }

    /// Keeps a list back until an operator accepts it, or the source yields another one.
    pub(crate) fn hold(&mut self, peers: PeersByLabel<P>, reason: HoldReason) {
        self.held = Some(HeldList { peers, reason });
    }

    /// Keeps a list that could not be put in force until `due`.
    pub(crate) fn retry(&mut self, peers: PeersByLabel<P>, due: Duration) {
        self.pending = Some(PendingList {
            peers,
            due,
            is_retry: true,
        });
    }

    /// What a list has lost, if that is too much.
    fn loss(&self, peers: &PeersByLabel<P>, now: Duration) -> Option<HoldReason> {
        let (in_force, max_lost) = (self.in_force.as_ref()?, self.limits.max_lost?);
        let labels = in_force.keys();
        let lost = labels.filter(|label| !peers.contains_key(*label)).count();
        let (had, has) = (in_force.len(), peers.len());
        let is_too_much = has == 0 || exceeds(lost, had, max_lost);
        if had > 0 && is_too_much {
            return Some(HoldReason::Lost { had, has, lost });
        }
        let had = self.peak.at(now);
        exceeds(had.saturating_sub(has), had, max_lost).then_some(HoldReason::Shrunk { had, has })
    }
}

/// Whether `part` is more than this share of `whole`.
#[expect(clippy::cast_precision_loss, reason = "both are below 2^52")]
fn exceeds(part: usize, whole: usize, share: f64) -> bool {
    part as f64 > whole as f64 * share
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTLE: Duration = Duration::from_millis(200);

    fn limits(max_lost: Option<f64>) -> PeerListLimits {
        PeerListLimits {
            settle: SETTLE,
            max_lost,
        }
    }

    /// `a1 b2`: label `a` with address 1, label `b` with address 2.
    fn list(text: &str) -> PeersByLabel<u8> {
        let peer = |word: &str| {
            let (label, address) = word.split_at(1);
            (label.to_owned(), address.parse().unwrap())
        };
        text.split_whitespace().map(peer).collect()
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn gate(in_force: &str) -> PeerListGate<u8> {
        PeerListGate::new(limits(Some(0.5)), Some(list(in_force)))
    }

    #[test]
    fn peer_list_comes_into_force_after_settle_with_all_changes_until_then() {
        let mut gate = gate("a1 b2");
        assert_eq!(
            gate.offer(list("a1 b2 c3"), ms(1_000)),
            OfferOutcome::Pending
        );
        assert_eq!(gate.take_due(ms(1_199)), None);
        assert_eq!(
            gate.offer(list("a1 b2 d4"), ms(1_199)),
            OfferOutcome::Pending
        );
        assert_eq!(gate.next_due(), Some(ms(1_200)), "the first change counts");
        let due = DueList::Trusted(list("a1 b2 d4"));
        assert_eq!(gate.take_due(ms(1_200)), Some(due));
        gate.confirm(list("a1 b2 d4"), ms(1_200));
        assert_eq!((gate.next_due(), gate.held()), (None, None));
        assert_eq!(gate.in_force(), Some(&list("a1 b2 d4")));
    }

    #[test]
    fn peer_list_that_changes_back_within_settle_is_no_change() {
        let mut gate = gate("a1 b2");
        gate.offer(list("a1"), ms(0));
        assert_eq!(
            gate.offer(list("b2 a1 a1"), ms(100)),
            OfferOutcome::Unchanged
        );
        assert_eq!(gate.take_due(ms(1_000)), None);
    }

    #[test]
    fn first_peer_list_of_a_source_does_not_wait() {
        let mut gate = PeerListGate::new(limits(Some(0.5)), None);
        gate.offer(list("a1"), ms(7));
        assert_eq!(gate.take_due(ms(7)), Some(DueList::Trusted(list("a1"))));
    }

    #[test]
    fn peer_list_that_lost_more_than_max_lost_is_held() {
        let lost = |had, has, lost| Some(HoldReason::Lost { had, has, lost });
        for (in_force, offered, max_lost, expected) in [
            ("a1 b2", "a1", Some(0.5), None),
            ("a1 b2 c3", "a1", Some(0.5), lost(3, 1, 2)),
            ("a1 b2", "", Some(1.0), lost(2, 0, 2)),
            ("a1 b2", "", None, None),
            ("a1", "b1", Some(0.5), lost(1, 1, 1)),
            ("a1", "b1", Some(1.0), None),
            ("a1 b2", "a7 b8", Some(0.0), None),
            ("a1 b2", "a1 c3", Some(0.0), lost(2, 2, 1)),
            ("", "a1", Some(0.0), None),
        ] {
            let mut gate = PeerListGate::new(limits(max_lost), Some(list(in_force)));
            gate.offer(list(offered), ms(0));
            let held = match gate.take_due(SETTLE) {
                Some(DueList::Held(reason)) => Some(reason),
                Some(DueList::Trusted(peers)) => {
                    assert_eq!(peers, list(offered));
                    None
                }
                None => panic!("{in_force} -> {offered}: not due"),
            };
            assert_eq!(held, expected, "{in_force} -> {offered}, {max_lost:?}");
            assert_eq!(gate.in_force(), Some(&list(in_force)));
        }
    }

    #[test]
    fn held_peer_list_is_reported_once_and_released_by_a_better_one() {
        let mut gate = gate("a1 b2 c3");
        gate.offer(list("a1"), ms(0));
        assert!(matches!(gate.take_due(ms(200)), Some(DueList::Held(_))));
        assert_eq!(gate.offer(list("a1"), ms(300)), OfferOutcome::Unchanged);
        assert_eq!(gate.take_due(ms(9_000)), None);
        // A pending list that turns out to be the held one is no news, either.
        gate.offer(list("a1 b2"), ms(9_000));
        assert_eq!(gate.offer(list("a1"), ms(9_100)), OfferOutcome::Unchanged);
        assert_eq!(gate.take_due(ms(10_000)), None);
        let held = gate.held().map(|held| held.peers.clone());
        assert_eq!(held, Some(list("a1")));
        gate.offer(list("a1 b2"), ms(11_000));
        let Some(DueList::Trusted(peers)) = gate.take_due(ms(11_200)) else {
            panic!("a list that lost a third is trusted");
        };
        gate.confirm(peers, ms(11_200));
        assert_eq!(gate.held(), None);
    }

    #[test]
    fn held_peer_list_is_dropped_when_the_source_returns_to_the_list_in_force() {
        let mut gate = gate("a1 b2 c3");
        gate.offer(list(""), ms(0));
        gate.take_due(ms(200));
        gate.offer(list("a1 b2 c3"), ms(300));
        assert_eq!(gate.held(), None);
    }

    #[test]
    fn peers_that_are_lost_one_by_one_within_a_minute_are_counted_together() {
        let mut gate = gate("a1 b2 c3 d4");
        let offer = |gate: &mut PeerListGate<u8>, text: &str, now: u64| {
            gate.offer(list(text), ms(now));
            let due = gate.take_due(ms(now + 200));
            if let Some(DueList::Trusted(peers)) = due {
                gate.confirm(peers, ms(now + 200));
                return None;
            }
            gate.held().map(|held| held.reason)
        };
        assert_eq!(offer(&mut gate, "a1 b2 c3", 0), None);
        assert_eq!(offer(&mut gate, "a1 b2", 1_000), None);
        let shrunk = Some(HoldReason::Shrunk { had: 4, has: 1 });
        assert_eq!(offer(&mut gate, "a1", 2_000), shrunk);
        // Replaced peers are no loss: the number stays.
        assert_eq!(offer(&mut gate, "a1 e5", 3_000), None);
        assert_eq!(offer(&mut gate, "f6 e5", 4_000), None);
        // 4 peers were in force until 0.2 s, 3 until 1.2 s.
        let shrunk = Some(HoldReason::Shrunk { had: 3, has: 1 });
        assert_eq!(offer(&mut gate, "f6", 60_300), shrunk);
        assert_eq!(offer(&mut gate, "e5", 61_300), None);
    }

    #[test]
    fn accepted_loss_is_the_new_measure() {
        let mut gate = gate("a1 b2 c3 d4");
        gate.confirm(list("a1 b2"), ms(0));
        gate.forget_peak();
        gate.offer(list("a1"), ms(1_000));
        let due = gate.take_due(ms(1_200));
        assert_eq!(due, Some(DueList::Trusted(list("a1"))));
    }

    #[test]
    fn held_peer_list_is_judged_again_by_other_limits() {
        let mut gate = gate("a1 b2 c3");
        gate.offer(list("a1"), ms(0));
        assert!(matches!(gate.take_due(ms(200)), Some(DueList::Held(_))));
        gate.set_limits(limits(None));
        gate.judge_again(ms(300));
        let due = gate.take_due(ms(300));
        assert_eq!(due, Some(DueList::Trusted(list("a1"))));
        // A list that follows meanwhile counts, not the held one.
        let mut gate = PeerListGate::new(limits(Some(0.5)), Some(list("a1 b2 c3")));
        gate.offer(list(""), ms(0));
        gate.take_due(ms(200));
        gate.offer(list("a1 b2"), ms(300));
        gate.judge_again(ms(300));
        assert_eq!(
            gate.take_due(ms(500)),
            Some(DueList::Trusted(list("a1 b2")))
        );
    }

    #[test]
    fn peer_list_that_could_not_be_applied_is_due_again_later() {
        let mut gate = gate("a1");
        gate.offer(list("a2"), ms(0));
        let Some(DueList::Trusted(peers)) = gate.take_due(ms(200)) else {
            panic!("a new address of a known label is trusted");
        };
        gate.retry(peers, ms(5_000));
        assert_eq!(gate.take_due(ms(4_999)), None);
        assert_eq!(gate.offer(list("a2"), ms(4_999)), OfferOutcome::Unchanged);
        let Some(DueList::Trusted(peers)) = gate.take_due(ms(5_000)) else {
            panic!("it is due again");
        };
        // A corrected list does not wait for the next try.
        gate.retry(peers, ms(15_000));
        gate.offer(list("a3"), ms(6_000));
        let due = gate.take_due(ms(6_200));
        assert_eq!(due, Some(DueList::Trusted(list("a3"))));
    }
}
