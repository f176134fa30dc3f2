//! Load limits, and how keys move when peers come, go and drain.

use std::time::Duration;

use crate::policy::bounded_load::BalanceFactor;
use crate::policy::heavy_hitters::HotKeyThreshold;
use crate::policy::hot_key_spread::HotKeySpread;

/// How far above its fair share of the requests in flight a peer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundedLoadConfig {
    /// So many times the fair share.
    pub factor: BalanceFactor,
    /// How long a request may wait for a place at its home; `None`: it goes on at once.
    pub wait: Option<Duration>,
}

/// How a peer that comes back, or is new, gets its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowStartConfig {
    /// From its first key to its last: 1 s to a day.
    pub duration: Duration,
    /// Whether what is there when the process starts is as cold as what comes a moment later, so that a
    /// peer that comes so much later takes only so long; else it is warm.
    pub at_start: bool,
}

/// Which keys a draining peer keeps, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionDrainConfig {
    /// A key moves when it had no request for so long.
    pub idle: Duration,
    /// All keys have moved so long after the drain's begin.
    pub deadline: Duration,
    /// How many active keys of the upstream are remembered, about; 16 bytes each.
    pub max_tracked_keys: u32,
}

/// Which keys are hot, and over how many peers they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotKeysConfig {
    /// The share of the upstream's requests from which on a key is hot.
    pub threshold: HotKeyThreshold,
    /// The least number of peers that it goes to.
    pub spread: HotKeySpread,
}

/// When long streams on a peer that no longer owns their key are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedStreamsConfig {
    /// How long after their key has moved.
    pub after: Duration,
    /// How many in a second, at most.
    pub per_second: u32,
}
