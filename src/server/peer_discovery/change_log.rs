//! The changes of operators in the log.

use std::fmt::Write as _;

use crate::config::{Config, PeerChange, PeerConfig};

/// Logs which peers operators have changed.
pub(super) fn log_changes(config: &Config) {
    for (name, upstream) in &config.upstreams {
        for (label, operator) in upstream.changed.changes.iter() {
            match upstream.changed.without_effect.get(label) {
                Some(reason) => log::warn!(
                    "upstream {name}: an operator's change of peer {label} is without effect: {reason}"
                ),
                None => log::info!(
                    "upstream {name}: peer {label} {}, by an operator",
                    describe(&operator.change)
                ),
            }
        }
    }
}

/// What an operator has made of a peer, after its label.
pub(super) fn describe(change: &PeerChange) -> String {
    match change {
        PeerChange::Set(peer) => format!("is {}", describe_peer(peer)),
        PeerChange::Weight(weight) => format!("has weight {weight}"),
        PeerChange::Remove => "is removed".to_owned(),
    }
}

/// Address, weight and id of a peer.
pub(super) fn describe_peer(peer: &PeerConfig) -> String {
    let mut text = format!("{}, weight {}", peer.address, peer.weight);
    if let Some(id) = &peer.id {
        let _ = write!(text, ", id {id}");
    }
    text
}
