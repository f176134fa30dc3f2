//! The hot keys of a simulation. Every request is counted, while a busy proxy counts a sample. All hot keys are spread,
//! at most 64, while the proxy divides the keys into 16 sets and spreads at most 4 hot keys of each.

use std::collections::HashMap;
use std::time::Duration;

use crate::policy::heavy_hitters::{HotKeyThreshold, SpaceSaving};
use crate::policy::hot_key_spread::{HotKeyHit, HotKeySpread};

#[derive(Debug)]
pub(super) struct HotKeySimulation {
    sketch: SpaceSaving,
    spread: HotKeySpread,
    /// The number of requests of each key so far while it was hot.
    next_sequence: HashMap<u64, u32>,
}

impl HotKeySimulation {
    pub(super) fn new((threshold, spread): (HotKeyThreshold, HotKeySpread)) -> Self {
        Self {
            sketch: SpaceSaving::new(threshold),
            spread,
            next_sequence: HashMap::new(),
        }
    }

    /// Counts a request; the data for the spread if its key is hot.
    pub(super) fn count_request(
        &mut self,
        key: u64,
        now: Duration,
    ) -> Option<(HotKeySpread, HotKeyHit)> {
        self.sketch.record(key, 1);
        self.sketch.tick(now);
        let mut hot = self.sketch.hot_keys().iter();
        let share = hot.find(|hot| hot.key == key)?.share;
        let next = self.next_sequence.entry(key).or_default();
        let sequence = *next;
        *next = next.wrapping_add(1);
        Some((self.spread, HotKeyHit { share, sequence }))
    }
}
