//! What is worth remembering of the peers when another process takes over.
//!
//! Keyed by names that both processes know: upstream and label. A peer that is not in the new
//! configuration is forgotten; of one that has another address there, only an operator's order is
//! remembered. Times are relative (milliseconds from
//! now): the two processes' clocks do not begin together.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::address::Address;

/// What is known of all peers, by upstream and label. Fields that a version does not know are
/// ignored; fields that it misses have their default.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct PersistedState {
    /// By upstream, then by label.
    pub upstreams: BTreeMap<String, BTreeMap<String, PersistedPeer>>,
    /// The hot keys, by upstream.
    pub hot_keys: BTreeMap<String, Vec<PersistedHotKey>>,
    /// How many milliseconds ago all peers were equally cold, by upstream, where that still matters.
    pub cold_start_ms_ago: BTreeMap<String, u64>,
}

impl PersistedState {
    /// The same without the times that only pass: equal ones differ in nothing that has happened.
    #[must_use]
    pub fn without_elapsed_times(&self) -> Self {
        let mut events = self.clone();
        for peer in events.upstreams.values_mut().flat_map(BTreeMap::values_mut) {
            peer.draining_for_ms = 0;
            peer.active_keys.clear();
            peer.ejected_for_ms = peer.ejected_for_ms.min(1);
            peer.flap_penalty.age_ms = 0;
            peer.flap_penalty.suppressed_for_ms = peer.flap_penalty.suppressed_for_ms.min(1);
            if let Some(ramp) = &mut peer.slow_start {
                (ramp.elapsed_ms, ramp.starts_in_ms, ramp.started_ms_ago) = (0, 0, 0);
            }
        }
        events.hot_keys.clear();
        events.cold_start_ms_ago.clear();
        events
    }

    /// The same, so much later.
    #[must_use]
    pub fn aged(mut self, age: Duration) -> Self {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let peers = self.upstreams.values_mut().flat_map(BTreeMap::values_mut);
        peers.for_each(|peer| peer.add_age(age));
        let cold = self.cold_start_ms_ago.values_mut();
        cold.for_each(|ago| *ago = ago.saturating_add(age));
        let hot = self.hot_keys.values_mut().flatten();
        hot.for_each(|hot| hot.hot_for_ms = hot.hot_for_ms.saturating_add(age));
        self
    }

    /// The peers that operators have drained or enabled since `before`.
    #[must_use]
    pub fn drain_changes_since(mut self, before: &Self) -> Self {
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
pub struct PersistedPeer {
    /// Where it is connected to; another address is another server.
    pub address: Address,
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
    pub slow_start: Option<PersistedSlowStart>,
    /// How often it came and went.
    #[serde(default)]
    pub flap_penalty: PersistedFlapPenalty,
    /// Another number than before: the keys that it had then are others' now.
    #[serde(default)]
    pub epoch: u16,
    /// The keys that it served lately ([`Active::remember`](super::active::Active::remember)): those that a
    /// drain keeps or has left with it, and in a hand-over all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active_keys: Vec<(u64, u64)>,
}

/// What is known of a hot key.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct PersistedHotKey {
    /// The key's hash.
    pub key: u64,
    /// Its share of the requests, in millionths.
    pub share: u32,
    /// For how long it has been hot.
    pub hot_for_ms: u64,
}

impl PersistedPeer {
    /// A peer at this address, of which nothing is known.
    pub(super) fn unknown(address: Address) -> Self {
        Self {
            address,
            up: None,
            draining: false,
            ejected_for_ms: 0,
            draining_for_ms: 0,
            slow_start: None,
            flap_penalty: PersistedFlapPenalty::default(),
            epoch: 0,
            active_keys: Vec::new(),
        }
    }

    fn add_age(&mut self, ms: u64) {
        if self.draining {
            self.draining_for_ms = self.draining_for_ms.saturating_add(ms);
        }
        for (_, idle_for) in &mut self.active_keys {
            *idle_for = idle_for.saturating_add(ms);
        }
        self.ejected_for_ms = self.ejected_for_ms.saturating_sub(ms);
        if let Some(ramp) = &mut self.slow_start {
            let began_for = ms.saturating_sub(ramp.starts_in_ms);
            ramp.starts_in_ms = ramp.starts_in_ms.saturating_sub(ms);
            ramp.elapsed_ms = ramp.elapsed_ms.saturating_add(began_for);
            ramp.started_ms_ago = ramp.started_ms_ago.saturating_add(began_for);
        }
        self.flap_penalty.age_ms = self.flap_penalty.age_ms.saturating_add(ms);
        self.flap_penalty.suppressed_for_ms =
            self.flap_penalty.suppressed_for_ms.saturating_sub(ms);
    }
}

/// How far a slow start is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct PersistedSlowStart {
    /// So much of it has passed.
    pub elapsed_ms: u64,
    /// It begins after so long; 0: it has begun.
    #[serde(default)]
    pub starts_in_ms: u64,
    /// So long it takes in all.
    pub duration_ms: u64,
    /// So long it would take if the others had been serving for long; below `length_ms`: as long.
    #[serde(default)]
    pub configured_ms: u64,
    /// So long ago it began, whatever its length was then.
    #[serde(default)]
    pub started_ms_ago: u64,
}

/// What is known of a peer's coming and going.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct PersistedFlapPenalty {
    /// The penalty, in times down, when it went down last.
    pub penalty: f64,
    /// How long ago that was.
    pub age_ms: u64,
    /// How much longer it stays off the ring for it; 0: it does not.
    pub suppressed_for_ms: u64,
}

pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn persisted_state_is_unchanged_by_passing_time() {
        let mut peer =
            PersistedPeer::unknown(std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into());
        (peer.draining, peer.ejected_for_ms) = (true, 15_000);
        peer.flap_penalty.suppressed_for_ms = 30_000;
        peer.active_keys = vec![(7, 1_000)];
        let app = BTreeMap::from([("a".to_owned(), peer)]);
        let memory = PersistedState {
            upstreams: BTreeMap::from([("app".to_owned(), app)]),
            cold_start_ms_ago: BTreeMap::from([("app".to_owned(), 7_000)]),
            ..PersistedState::default()
        };
        let events = |seconds| {
            memory
                .clone()
                .aged(Duration::from_secs(seconds))
                .without_elapsed_times()
        };
        assert_eq!(events(2), events(0));
        assert_ne!(events(16), events(0), "the ejection is over");
        assert_ne!(events(31), events(16), "and so is the other");
    }

    #[test]
    fn persisted_state_is_aged_by_the_time_it_was_stored() {
        let mut peer = PersistedPeer::unknown(Address::Ip(([127, 0, 0, 1], 1).into()));
        (peer.draining, peer.draining_for_ms) = (true, 5_000);
        peer.ejected_for_ms = 15_000;
        peer.slow_start = Some(PersistedSlowStart {
            elapsed_ms: 0,
            starts_in_ms: 4_000,
            duration_ms: 60_000,
            configured_ms: 60_000,
            started_ms_ago: 0,
        });
        peer.flap_penalty = PersistedFlapPenalty {
            penalty: 2.5,
            age_ms: 1_000,
            suppressed_for_ms: 3_000,
        };
        let app = BTreeMap::from([("a".to_owned(), peer)]);
        let memory = PersistedState {
            upstreams: BTreeMap::from([("app".to_owned(), app)]),
            cold_start_ms_ago: BTreeMap::from([("app".to_owned(), 7_000)]),
            ..PersistedState::default()
        };
        let memory = memory.aged(Duration::from_secs(10));
        assert_eq!(memory.cold_start_ms_ago["app"], 17_000);
        let aged = &memory.upstreams["app"]["a"];
        assert_eq!((aged.draining_for_ms, aged.ejected_for_ms), (15_000, 5_000));
        let ramp = aged.slow_start.unwrap();
        assert_eq!((ramp.elapsed_ms, ramp.starts_in_ms), (6_000, 0));
        let flap = aged.flap_penalty;
        assert_eq!((flap.age_ms, flap.suppressed_for_ms), (11_000, 0));
    }
}
