//! Load limits, and how keys move when peers come, go and drain.

use std::time::Duration;

use crate::policy::bounded_load::BalanceFactor;
use crate::policy::heavy_hitters::HotKeyThreshold;
use crate::policy::hot_key_spread::HotKeySpread;

/// Bound on a peer's requests in flight, relative to its fair share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundedLoadConfig {
    /// The bound as a multiple of the fair share.
    pub factor: BalanceFactor,
    /// How long a request may wait for capacity at its first peer; `None`: it goes to the next one at once.
    pub wait: Option<Duration>,
}

/// Gradual handover of keys to a new or recovered peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowStartConfig {
    /// Time from its first key to its last: 1 s to a day.
    pub duration: Duration,
    /// Whether the peers are cold when the process starts; else they count as warm. If they are cold, a
    /// peer that becomes available N seconds after them reaches its share within N seconds.
    pub at_start: bool,
}

/// Keys that a draining peer keeps, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionDrainConfig {
    /// A key moves after this time without a request.
    pub idle: Duration,
    /// All keys have moved this long after the start of the drain.
    pub deadline: Duration,
    /// Approximate number of active keys that are tracked; 16 bytes each.
    pub max_tracked_keys: u32,
}

/// Distribution of very frequent (hot) keys over several peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotKeysConfig {
    /// The share of the upstream's requests that makes a key hot.
    pub threshold: HotKeyThreshold,
    /// The least number of peers of a hot key.
    pub spread: HotKeySpread,
}

/// Closing of long streams on a peer that no longer owns their key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedStreamsConfig {
    /// How long after the key has moved.
    pub after: Duration,
    /// The most streams that are closed in a second.
    pub per_second: u32,
}
