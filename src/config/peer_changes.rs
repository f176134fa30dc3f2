//! Operators' changes of the peers of one upstream, by label.
//!
//! A change lies over the peers of the configuration and of its sources, and stays until it is reset: a weight also when the
//! address of its peer changes, a removal also when a source finds the peer again. Changes of different labels are
//! independent of each other, so their order has no meaning.

use std::collections::BTreeMap;

use super::sections::PeerConfig;
use crate::ring::Weight;

/// What an operator has changed of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerChange {
    /// The peer is this one, with its own `server_name` only; a new peer if no other has the label.
    Set(PeerConfig),
    /// It has this weight; all else is as its configuration or its source says.
    Weight(Weight),
    /// It is no peer of the upstream.
    Remove,
}

/// A change, and when it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OperatorChange {
    /// The change.
    pub(crate) change: PeerChange,
    /// When it was made, in seconds since 1970.
    pub(crate) since: i64,
}

/// The changes of one upstream, one for each label.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerChanges(BTreeMap<String, OperatorChange>);

impl PeerChanges {
    /// Whether no peer is changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of changed peers.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The changes by label.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &OperatorChange)> {
        self.0.iter()
    }

    /// The change of a peer.
    pub(crate) fn get(&self, label: &str) -> Option<&OperatorChange> {
        self.0.get(label)
    }

    /// Adds a peer, or replaces the one with its label. `now`: seconds since 1970, here and below.
    pub(crate) fn set(&mut self, peer: PeerConfig, now: i64) {
        self.insert(peer.label.clone(), PeerChange::Set(peer), now);
    }

    /// Gives a peer another weight. A peer that was set keeps the rest.
    pub(crate) fn set_weight(&mut self, label: &str, weight: Weight, now: i64) {
        let change = match self.0.get(label).map(|known| &known.change) {
            Some(PeerChange::Set(peer)) => PeerChange::Set(PeerConfig {
                weight,
                ..peer.clone()
            }),
            Some(PeerChange::Weight(_) | PeerChange::Remove) | None => PeerChange::Weight(weight),
        };
        self.insert(label.to_owned(), change, now);
    }

    /// Removes a peer. One that only its change has (`is_listed`: false) needs no change any more.
    pub(crate) fn remove(&mut self, label: &str, is_listed: bool, now: i64) {
        if is_listed {
            self.insert(label.to_owned(), PeerChange::Remove, now);
        } else {
            self.0.remove(label);
        }
    }

    /// Forgets the change of a peer, or all; returns the labels that had one.
    pub(crate) fn reset(&mut self, label: Option<&str>) -> Vec<String> {
        match label {
            Some(label) => self
                .0
                .remove_entry(label)
                .map(|(label, _)| label)
                .into_iter()
                .collect(),
            None => std::mem::take(&mut self.0).into_keys().collect(),
        }
    }

    /// Restores a change of another process.
    pub(crate) fn restore(&mut self, label: String, change: OperatorChange) {
        self.0.insert(label, change);
    }

    /// The same change again keeps its time.
    fn insert(&mut self, label: String, change: PeerChange, now: i64) {
        let is_known = self
            .0
            .get(&label)
            .is_some_and(|known| known.change == change);
        if !is_known {
            self.0.insert(label, OperatorChange { change, since: now });
        }
    }
}

/// Operators' changes in the peers of an upstream.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ChangedPeers {
    /// The changes.
    pub(crate) changes: PeerChanges,
    /// The peers without the changes and without leaving ones; empty if there are no changes.
    pub(crate) unchanged: Vec<PeerConfig>,
    /// Why a change is without effect, by label.
    pub(crate) without_effect: BTreeMap<String, String>,
}

impl ChangedPeers {
    /// The peer with this label as it would be without its change.
    pub(crate) fn unchanged_peer(&self, label: &str) -> Option<&PeerConfig> {
        self.unchanged.iter().find(|peer| peer.label == label)
    }
}
