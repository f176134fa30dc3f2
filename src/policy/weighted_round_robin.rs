//! Weighted round robin for requests without a key: peers take turns in proportion to their weights, evenly
//! interleaved.

/// The most slots of a round; with more, weights are ignored. A table of 10,000 peers of weight 256 would
/// take 10 MB, only for requests without a key.
const MAX_SLOTS: usize = 1 << 16;

/// One round of turns. A peer is known by its index in the list of weights.
#[derive(Clone, Debug)]
pub(crate) struct WeightedRoundRobin {
    slots: Box<[u32]>,
}

impl WeightedRoundRobin {
    /// A round for peers of these weights.
    pub(crate) fn new(weights: impl Iterator<Item = u16>) -> Self {
        let weights: Vec<usize> = weights.map(usize::from).collect();
        let unit = weights.iter().copied().fold(0, gcd).max(1);
        let fits = weights.iter().sum::<usize>() / unit <= MAX_SLOTS;
        let turns = |weight: usize| if fits { weight / unit } else { 1 };
        // The j-th of a peer's n turns is at (j + 1/2) / n of the round.
        let mut slots: Vec<(u64, u32)> = (0..)
            .zip(&weights)
            .flat_map(|(peer, &weight)| {
                let turns = turns(weight) as u64;
                (0..turns).map(move |j| ((2 * j + 1) * (1 << 32) / (2 * turns), peer))
            })
            .collect();
        slots.sort_unstable();
        Self {
            slots: slots.into_iter().map(|(_, peer)| peer).collect(),
        }
    }

    /// The first peer from `turn` on that `accepts`.
    pub(crate) fn find_from(
        &self,
        turn: usize,
        mut accepts: impl FnMut(u32) -> bool,
    ) -> Option<u32> {
        self.round_from(turn).find(|&peer| accepts(peer))
    }

    /// The peers of one round from `turn` on, each as often as it has turns.
    pub(crate) fn round_from(&self, turn: usize) -> impl Iterator<Item = u32> + Clone {
        let start = turn % self.slots.len().max(1);
        let (before, from) = self.slots.split_at_checked(start).unwrap_or_default();
        from.iter().chain(before).copied()
    }
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(weights: &[u16]) -> Vec<u32> {
        let round_robin = WeightedRoundRobin::new(weights.iter().copied());
        let turns = round_robin.slots.len();
        (0..turns)
            .filter_map(|turn| round_robin.find_from(turn, |_| true))
            .collect()
    }

    #[test]
    fn round_robin_with_equal_weights_alternates() {
        assert_eq!(round(&[256, 256, 256]), [0, 1, 2]);
    }

    #[test]
    fn round_robin_interleaves_a_heavy_peer() {
        assert_eq!(round(&[4, 1, 1]), [0, 0, 1, 2, 0, 0]);
    }

    #[test]
    fn round_robin_skips_unavailable_peers() {
        let round_robin = WeightedRoundRobin::new([1, 1, 1].into_iter());
        assert_eq!(round_robin.find_from(1, |peer| peer != 1), Some(2));
        assert_eq!(round_robin.find_from(1, |_| false), None);
    }

    #[test]
    fn round_robin_without_peers_selects_none() {
        assert_eq!(
            WeightedRoundRobin::new(std::iter::empty()).find_from(7, |_| true),
            None
        );
    }
}
