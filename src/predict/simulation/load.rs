//! The load of a peer, and the rules that spread load.

use std::time::Duration;

use crate::policy::bounded_load::BalanceFactor;
use crate::policy::heavy_hitters::HotKeyThreshold;
use crate::policy::hot_key_spread::HotKeySpread;

/// The load of one peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct SimulatedLoad {
    /// Its requests.
    pub requests: u64,
    /// The most of them that started in one second of the clock.
    pub peak_rate: u64,
    /// The most requests in flight at the same time.
    pub peak_in_flight: u32,
    /// The sum of the times that they took, in microseconds.
    pub busy: u64,
    /// The bytes of their responses' bodies.
    pub bytes: u64,
    /// Requests that were assigned to it and went to another peer, because it was at its bound.
    pub overflow: u64,
}

/// The rules that send requests to a peer other than the key's owner.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadRules {
    /// The bound of a peer as a multiple of its fair share; `None`: no bound.
    pub bound: Option<BalanceFactor>,
    /// How long a request may wait for room at its assigned peer; `None`: it does not wait.
    pub wait: Option<Duration>,
    /// The duration of the slow start of a new peer; `None`: it takes all its keys at once.
    pub slow_start: Option<Duration>,
    /// When a key is hot, and over how many peers it is spread at least; `None`: off.
    pub hot_keys: Option<(HotKeyThreshold, HotKeySpread)>,
    /// Whether a draining peer keeps its active keys.
    pub drain: bool,
}
