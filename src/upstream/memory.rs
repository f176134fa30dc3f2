//! What is worth remembering of the peers when another process takes over.
//!
//! Keyed by names that both processes know: upstream and label. A peer that is not in the new
//! configuration is forgotten; of one that has another address there, only an operator's order is
//! remembered. Times are relative (milliseconds from
//! now): the two processes' clocks do not begin together.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What is known of all peers, by upstream and label. Fields that a version does not know are
/// ignored; fields that it misses have their default.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct Memory {
    /// By upstream, then by label.
    pub upstreams: BTreeMap<String, BTreeMap<String, PeerMemory>>,
}

impl Memory {
    /// The peers that operators have drained or enabled since `before`.
    #[must_use]
    pub fn orders_since(mut self, before: &Self) -> Self {
        for (upstream, peers) in &mut self.upstreams {
            let before = before.upstreams.get(upstream);
            peers.retain(|label, now| {
                let was = before.and_then(|peers| peers.get(label));
                was.is_none_or(|was| was.draining != now.draining)
            });
        }
        self
    }
}

/// What is known of one peer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PeerMemory {
    /// Where it is connected to; another address is another server.
    pub address: SocketAddr,
    /// What the probes said; `None`: they have not said anything.
    #[serde(default)]
    pub up: Option<bool>,
    /// An operator took it out.
    #[serde(default)]
    pub draining: bool,
    /// How much longer failures of real traffic keep it off the ring; 0: they do not.
    #[serde(default)]
    pub ejected_for_ms: u64,
}
