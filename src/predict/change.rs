//! A hypothetical change of an upstream's peers: removals, additions, other weights.
//!
//! Peers are given by label; an address has no effect on keys.

use std::fmt;

use crate::ring::{Member, Weight};

/// A peer as the ring sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerSpec {
    /// The label.
    pub label: String,
    /// The peer's share of the key space relative to the others.
    pub weight: Weight,
    /// The text that the dialect hashes instead of the label.
    pub id: Option<String>,
}

/// A change of a list of peers. Applied in the order removals, additions, weights, so a peer can be
/// replaced by one with the same label.
///
/// In some dialects the order of the peers determines their points. The first new peer takes the position
/// of the first removed one, and so on, as if lines of the configuration were edited. Other new peers come
/// last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerSetChange {
    /// The labels of the removed peers.
    pub remove: Vec<String>,
    /// The new peers.
    pub add: Vec<PeerSpec>,
    /// New weights of existing or added peers.
    pub reweight: Vec<PeerSpec>,
}

/// A label that no peer has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct UnknownPeer {
    /// The label.
    pub label: String,
    /// Labels that exist, at most [`MAX_LISTED`].
    pub known: Vec<String>,
}

/// The most labels that an [`UnknownPeer`] lists.
const MAX_LISTED: usize = 20;

impl PeerSetChange {
    /// The peers after the change. Duplicate labels are not checked here: [`Ring::new`] refuses them.
    ///
    /// # Errors
    /// A removal or a weight names an unknown peer.
    ///
    /// [`Ring::new`]: crate::ring::Ring::new
    pub(crate) fn apply(&self, peers: &[PeerSpec]) -> Result<Vec<PeerSpec>, UnknownPeer> {
        let mut peers = self.remove_and_add(peers)?;
        for PeerSpec { label, weight, .. } in &self.reweight {
            let index = UnknownPeer::find_index(&peers, label)?;
            if let Some(peer) = peers.get_mut(index) {
                peer.weight = *weight;
            }
        }
        Ok(peers)
    }

    fn remove_and_add(&self, peers: &[PeerSpec]) -> Result<Vec<PeerSpec>, UnknownPeer> {
        // For each position: the old peer while it stays, or the new peer that replaces it.
        let mut slots: Vec<(Option<&PeerSpec>, Option<&PeerSpec>)> =
            peers.iter().map(|peer| (Some(peer), None)).collect();
        let mut new = self.add.iter();
        for label in &self.remove {
            let is_named = |old: Option<&PeerSpec>| old.is_some_and(|peer| peer.label == *label);
            let Some(slot) = slots.iter_mut().find(|(old, _)| is_named(*old)) else {
                let known = slots.iter().filter_map(|(old, _)| *old);
                return Err(UnknownPeer::new(
                    label,
                    known.map(|peer| peer.label.as_str()),
                ));
            };
            *slot = (None, new.next());
        }
        let in_place = slots.into_iter().filter_map(|(old, new)| old.or(new));
        Ok(in_place.chain(new).cloned().collect())
    }

    /// The number of removals, additions and weights.
    pub(crate) fn len(&self) -> usize {
        self.remove.len() + self.add.len() + self.reweight.len()
    }

    /// True if nothing changes.
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl PeerSpec {
    /// Parses `LABEL=WEIGHT`.
    ///
    /// # Errors
    /// The text is invalid; the message says what to write.
    pub(crate) fn parse_with_weight(text: &str) -> Result<Self, String> {
        let (label, weight) = text.rsplit_once('=').ok_or("write LABEL=WEIGHT")?;
        Self::from_label_and_weight(label, weight)
    }

    /// Parses `LABEL` or `LABEL=WEIGHT`. A label that contains `=` needs its weight.
    ///
    /// # Errors
    /// The text is invalid; the message says what to write.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (label, weight) = text.rsplit_once('=').unwrap_or((text, "1"));
        Self::from_label_and_weight(label, weight)
    }

    fn from_label_and_weight(label: &str, weight: &str) -> Result<Self, String> {
        if label.is_empty() || label.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err("a label is one or more characters without spaces".to_owned());
        }
        let number = weight.parse().ok().and_then(Weight::new);
        let weight = number.ok_or_else(|| {
            let most = Weight::MAX.get();
            format!("`{weight}` is not a weight: use 1 to {most}")
        })?;
        Ok(Self {
            label: label.to_owned(),
            weight,
            id: None,
        })
    }

    /// The peer as a member of a ring.
    pub(crate) fn member(&self) -> Member<'_> {
        Member {
            label: &self.label,
            id: self.id.as_deref(),
            weight: self.weight,
        }
    }
}

impl From<Member<'_>> for PeerSpec {
    fn from(member: Member<'_>) -> Self {
        Self {
            label: member.label.to_owned(),
            weight: member.weight,
            id: member.id.map(str::to_owned),
        }
    }
}

impl UnknownPeer {
    pub(super) fn new<'a>(label: &str, known: impl Iterator<Item = &'a str>) -> Self {
        Self {
            label: label.to_owned(),
            known: known.take(MAX_LISTED).map(str::to_owned).collect(),
        }
    }

    /// The index of the peer with this label.
    fn find_index(peers: &[PeerSpec], label: &str) -> Result<usize, Self> {
        let index = peers.iter().position(|peer| peer.label == label);
        index.ok_or_else(|| Self::new(label, peers.iter().map(|peer| peer.label.as_str())))
    }
}

impl fmt::Display for UnknownPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, known } = self;
        write!(
            f,
            "there is no peer `{label}`; there are: {}",
            known.join(", ")
        )
    }
}
