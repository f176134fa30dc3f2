//! The state of peers as it is handed to another process or stored in the state file.
//!
//! By upstream name and peer label, which both processes know. Times are relative, in milliseconds: two
//! processes have different monotonic clocks. A peer that is not in the new configuration is dropped; one
//! with another address keeps only an operator's drain.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::address::Address;

/// The state of all upstreams. Unknown fields are ignored, and missing ones have their default.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct PersistedState {
    /// The peers, by upstream and label.
    pub upstreams: BTreeMap<String, BTreeMap<String, PersistedPeer>>,
    /// The hot keys, by upstream.
    pub hot_keys: BTreeMap<String, Vec<PersistedHotKey>>,
    /// How many milliseconds ago all peers were equally cold, by upstream; missing if longer ago than a
    /// slow start takes.
    pub cold_start_ms_ago: BTreeMap<String, u64>,
    /// The addresses of the peers' names, by name and port as in `app.test:80`: in use until the name servers answer.
    pub resolved_names: BTreeMap<String, SocketAddr>,
    /// The peers that sources have found, by upstream and by source as in `file:peers.yaml`: in force until the sources
    /// can be read.
    pub discovered: BTreeMap<String, BTreeMap<String, Vec<PersistedFoundPeer>>>,
    /// Operators' changes of peers, by upstream and label. They do not age.
    pub peer_changes: BTreeMap<String, BTreeMap<String, PersistedPeerChange>>,
    /// The peers that no list has any more, and that still drain, by upstream.
    pub leaving: BTreeMap<String, Vec<PersistedLeavingPeer>>,
}

impl PersistedState {
    /// The state without elapsed times: two of these differ only if something has happened in between.
    #[must_use]
    pub(crate) fn without_elapsed_times(&self) -> Self {
        let mut events = self.clone();
        for peer in events.upstreams.values_mut().flat_map(BTreeMap::values_mut) {
            peer.draining_for_ms = 0;
            peer.leaving_for_ms = peer.leaving_for_ms.map(|_| 0);
            peer.active_keys.clear();
            peer.ejected_for_ms = peer.ejected_for_ms.min(1);
            peer.flap_penalty.age_ms = 0;
            peer.flap_penalty.suppressed_for_ms = peer.flap_penalty.suppressed_for_ms.min(1);
            if let Some(slow_start) = &mut peer.slow_start {
                (slow_start.elapsed_ms, slow_start.starts_in_ms) = (0, 0);
                slow_start.started_ms_ago = 0;
            }
        }
        events.hot_keys.clear();
        events.cold_start_ms_ago.clear();
        events
    }

    /// The state `age` later: every relative time is moved.
    #[must_use]
    pub(crate) fn aged(mut self, age: Duration) -> Self {
        let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        let peers = self.upstreams.values_mut().flat_map(BTreeMap::values_mut);
        peers.for_each(|peer| peer.add_age(age));
        let cold = self.cold_start_ms_ago.values_mut();
        cold.for_each(|ago| *ago = ago.saturating_add(age));
        let hot = self.hot_keys.values_mut().flatten();
        hot.for_each(|hot| hot.hot_for_ms = hot.hot_for_ms.saturating_add(age));
        self
    }

    /// Only the peers that operators have drained or put back in service since `before`.
    #[must_use]
    pub(crate) fn drain_changes_since(mut self, before: &Self) -> Self {
        for (upstream, peers) in &mut self.upstreams {
            let before = before.upstreams.get(upstream);
            peers.retain(|label, peer| {
                let before = before.and_then(|peers| peers.get(label));
                before.is_none_or(|before| before.draining != peer.draining)
            });
        }
        self
    }
}

/// A peer that a source has found, or that an operator has set.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct PersistedFoundPeer {
    /// Its label.
    pub label: String,
    /// Its address as written.
    pub address: String,
    /// Its weight, in thousandths: some dialects place fractions.
    pub weight_thousandths: u32,
    /// The text that the ring hashes instead of the label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The name in its certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}

/// A peer that is forgotten once it is drained.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct PersistedLeavingPeer {
    /// The peer.
    pub peer: PersistedFoundPeer,
    /// The source that had found it, as in `file:peers.yaml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// An operator's change of a peer.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(crate) struct PersistedPeerChange {
    /// When it was made, in seconds since 1970.
    pub since: i64,
    /// The change.
    pub change: PersistedChangeKind,
}

/// What an operator has changed of a peer.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PersistedChangeKind {
    /// It is this peer.
    Set(PersistedFoundPeer),
    /// It has this weight, in thousandths.
    WeightThousandths(u32),
    /// It is removed.
    Remove,
}

/// The state of one peer.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PersistedPeer {
    /// Its resolved address; another address is another server.
    pub address: Address,
    /// Its health by probes; `None`: not probed yet.
    #[serde(default)]
    pub up: Option<bool>,
    /// An operator drains it.
    #[serde(default)]
    pub draining: bool,
    /// The rest of its ejection; 0: not ejected.
    #[serde(default)]
    pub ejected_for_ms: u64,
    /// Whether it is ejected for its responses: passed probes do not end that. `false`: for failed connects.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ejected_for_responses: bool,
    /// The time since an operator's drain began.
    #[serde(default)]
    pub draining_for_ms: u64,
    /// The time since its source no longer has it; `None`: it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leaving_for_ms: Option<u64>,
    /// Its slow start; `None`: it takes all its keys.
    #[serde(default)]
    pub slow_start: Option<PersistedSlowStart>,
    /// Its flap penalty.
    #[serde(default)]
    pub flap_penalty: PersistedFlapPenalty,
    /// Its epoch. If it differs from that of an earlier export, the keys exported then are other peers' now.
    #[serde(default)]
    pub epoch: u16,
    /// Its active keys, each packed (see `AffinityTable::export`) and with the milliseconds since its last
    /// request. In the state file only those that a drain keeps or has left there; in a hot restart all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub active_keys: Vec<(u64, u64)>,
}

/// A hot key.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct PersistedHotKey {
    /// The key's hash.
    pub key: u64,
    /// Its share of the requests, in millionths.
    pub share: u32,
    /// The time since it became hot.
    pub hot_for_ms: u64,
}

impl PersistedPeer {
    /// A peer at this address without any state.
    pub(super) fn unknown(address: Address) -> Self {
        Self {
            address,
            up: None,
            draining: false,
            ejected_for_ms: 0,
            ejected_for_responses: false,
            draining_for_ms: 0,
            leaving_for_ms: None,
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
        if let Some(leaving_for) = &mut self.leaving_for_ms {
            *leaving_for = leaving_for.saturating_add(ms);
        }
        for (_, idle_for) in &mut self.active_keys {
            *idle_for = idle_for.saturating_add(ms);
        }
        self.ejected_for_ms = self.ejected_for_ms.saturating_sub(ms);
        if let Some(slow_start) = &mut self.slow_start {
            slow_start.add_age(ms);
        }
        self.flap_penalty.age_ms = self.flap_penalty.age_ms.saturating_add(ms);
        self.flap_penalty.suppressed_for_ms =
            self.flap_penalty.suppressed_for_ms.saturating_sub(ms);
    }
}

/// A slow start.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct PersistedSlowStart {
    /// The elapsed part of the window.
    pub elapsed_ms: u64,
    /// The time until it begins; 0: it has begun.
    #[serde(default)]
    pub starts_in_ms: u64,
    /// The duration of the window.
    pub duration_ms: u64,
    /// The configured duration, from which `duration_ms` may have been shortened; less than that counts as
    /// `duration_ms`.
    #[serde(default)]
    pub configured_ms: u64,
    /// The time since it began; unlike `elapsed_ms` not rescaled to another duration.
    #[serde(default)]
    pub started_ms_ago: u64,
}

impl PersistedSlowStart {
    fn add_age(&mut self, ms: u64) {
        let since_start = ms.saturating_sub(self.starts_in_ms);
        self.starts_in_ms = self.starts_in_ms.saturating_sub(ms);
        self.elapsed_ms = self.elapsed_ms.saturating_add(since_start);
        self.started_ms_ago = self.started_ms_ago.saturating_add(since_start);
    }
}

/// A flap penalty.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub struct PersistedFlapPenalty {
    /// The penalty when the peer went down last, in times down.
    pub penalty: f64,
    /// The time since then.
    pub age_ms: u64,
    /// The rest of its suppression; 0: not suppressed.
    pub suppressed_for_ms: u64,
}

/// Whole milliseconds, the unit of the times here.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn persisted_state_is_unchanged_by_passing_time() {
        let mut peer = PersistedPeer::unknown(SocketAddr::from(([127, 0, 0, 1], 1)).into());
        (peer.draining, peer.ejected_for_ms) = (true, 15_000);
        peer.flap_penalty.suppressed_for_ms = 30_000;
        peer.active_keys = vec![(7, 1_000)];
        let app = BTreeMap::from([("a".to_owned(), peer)]);
        let state = PersistedState {
            upstreams: BTreeMap::from([("app".to_owned(), app)]),
            cold_start_ms_ago: BTreeMap::from([("app".to_owned(), 7_000)]),
            ..PersistedState::default()
        };
        let events = |seconds| {
            state
                .clone()
                .aged(Duration::from_secs(seconds))
                .without_elapsed_times()
        };
        assert_eq!(events(2), events(0));
        assert_ne!(events(16), events(0), "the ejection is over");
        assert_ne!(events(31), events(16), "the suppression is over");
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
        let state = PersistedState {
            upstreams: BTreeMap::from([("app".to_owned(), app)]),
            cold_start_ms_ago: BTreeMap::from([("app".to_owned(), 7_000)]),
            ..PersistedState::default()
        };
        let state = state.aged(Duration::from_secs(10));
        assert_eq!(state.cold_start_ms_ago["app"], 17_000);
        let aged = &state.upstreams["app"]["a"];
        assert_eq!((aged.draining_for_ms, aged.ejected_for_ms), (15_000, 5_000));
        let slow_start = aged.slow_start.unwrap();
        assert_eq!((slow_start.elapsed_ms, slow_start.starts_in_ms), (6_000, 0));
        let penalty = aged.flap_penalty;
        assert_eq!((penalty.age_ms, penalty.suppressed_for_ms), (11_000, 0));
    }
}
