//! All that decides an instance's peers besides its configuration: the lists of sources, the changes of operators, and the
//! peers that are leaving.
//!
//! Every change of peers is made in the same way: the states are cloned, changed, and composed with the configuration. Once
//! the result is in force, the clone replaces them.

use std::collections::BTreeMap;

use super::leaving::LeavingPeers;
use super::source_lists::lists_of;
use super::source_state::SourceState;
use crate::config::{Config, LeftOutPeer, PeerChanges, RuntimePeers};
use crate::discovery::SourceId;

/// The states of all sources and upstreams.
#[derive(Clone, Debug, Default)]
pub(super) struct PeerStates {
    /// The sources.
    pub(super) sources: BTreeMap<SourceId, SourceState>,
    /// The changes of operators, by upstream.
    pub(super) changes: BTreeMap<String, PeerChanges>,
    /// The peers that left.
    pub(super) leaving: LeavingPeers,
}

impl PeerStates {
    /// `config` with these peers. Peers that `before` has and the result has not are leaving from now on; `None`: no peer
    /// leaves. Also the peers that were left out.
    pub(super) fn compose(
        &mut self,
        config: &Config,
        before: Option<&Config>,
    ) -> (Config, Vec<LeftOutPeer>) {
        let runtime = RuntimePeers {
            lists: lists_of(&self.sources),
            changes: self.changes.clone(),
            leaving: self.leaving.candidates(config, before),
        };
        let (config, left_out) = config.with_runtime_peers(&runtime);
        self.leaving.replace(config.leaving_peers());
        (config, left_out)
    }

    /// `config` with these peers, without those that are leaving.
    pub(super) fn staying(&self, config: &Config) -> Config {
        let runtime = RuntimePeers {
            lists: lists_of(&self.sources),
            changes: self.changes.clone(),
            leaving: BTreeMap::new(),
        };
        config.with_runtime_peers(&runtime).0
    }

    /// Records the peers that were left out; with `logs`, those that were not left out before are logged.
    pub(super) fn record_left_out(&mut self, left_out: &[LeftOutPeer], logs: bool) {
        for (id, state) in &mut self.sources {
            let is_own =
                |peer: &&LeftOutPeer| peer.upstream == id.upstream && peer.source == id.source;
            let own = left_out.iter().filter(is_own);
            let is_new = |peer: &&LeftOutPeer| !state.left_out.contains(&peer.label);
            for peer in own.clone().filter(is_new).filter(|_| logs) {
                log::warn!("{peer}");
            }
            state.left_out = own.map(|peer| peer.label.clone()).collect();
        }
    }
}
