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
    /// The same without the times that only pass: equal ones differ in nothing that has happened.
    #[must_use]
    pub fn events(&self) -> Self {
        let mut events = self.clone();
        for peer in events.upstreams.values_mut().flat_map(BTreeMap::values_mut) {
            peer.draining_for_ms = 0;
            peer.flap.age_ms = 0;
            if let Some(ramp) = &mut peer.ramp {
                (ramp.passed_ms, ramp.begins_in_ms) = (0, 0);
            }
        }
        events
    }

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
    /// How long ago an operator took it out.
    #[serde(default)]
    pub draining_for_ms: u64,
    /// How far its slow start is; `None`: it has all its keys.
    #[serde(default)]
    pub ramp: Option<RampMemory>,
    /// How often it came and went.
    #[serde(default)]
    pub flap: FlapMemory,
}

impl PeerMemory {
    /// A peer at this address, of which nothing is known.
    pub(super) fn of(address: SocketAddr) -> Self {
        Self {
            address,
            up: None,
            draining: false,
            ejected_for_ms: 0,
            draining_for_ms: 0,
            ramp: None,
            flap: FlapMemory::default(),
        }
    }
}

/// How far a slow start is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct RampMemory {
    /// So much of it has passed.
    pub passed_ms: u64,
    /// It begins after so long; 0: it has begun.
    #[serde(default)]
    pub begins_in_ms: u64,
    /// So long it takes in all.
    pub length_ms: u64,
}

/// What is known of a peer's coming and going.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct FlapMemory {
    /// The penalty, in times down, when it went down last.
    pub penalty: f64,
    /// How long ago that was.
    pub age_ms: u64,
    /// How much longer it stays off the ring for it; 0: it does not.
    pub suppressed_for_ms: u64,
}
