//! The hot keys of a simulation. Every request is counted, where a busy proxy counts a sample.

use std::collections::HashMap;
use std::time::Duration;

use crate::policy::heavy_hitters::{HotKeyThreshold, SpaceSaving};
use crate::policy::hot_key_spread::{HotKeyHit, HotKeySpread};

#[derive(Debug)]
pub(super) struct HotKeySimulation {
    sketch: SpaceSaving,
    spread: HotKeySpread,
    /// The requests of each key while it was hot.
    turns: HashMap<u64, u32>,
}

impl HotKeySimulation {
    pub(super) fn new((threshold, spread): (HotKeyThreshold, HotKeySpread)) -> Self {
        Self {
            sketch: SpaceSaving::new(threshold),
            spread,
            turns: HashMap::new(),
        }
    }

    /// Counts a request; if its key is hot, the key's share and the request's turn.
    pub(super) fn observe(&mut self, key: u64, now: Duration) -> Option<(HotKeySpread, HotKeyHit)> {
        self.sketch.tick(now);
        self.sketch.record(key, 1);
        let mut hot = self.sketch.hot_keys().iter();
        let share = hot.find(|hot| hot.key == key)?.share;
        let turn = self.turns.entry(key).or_default();
        *turn = turn.wrapping_add(1);
        let hit = HotKeyHit { share, turn: *turn };
        Some((self.spread, hit))
    }
}
