//! A change of an upstream's peers, as it is asked about: who goes, who comes, who weighs what.
//!
//! Labels only: an address is where a peer listens, and moves no key.

use std::fmt;

use crate::ring::{Member, Weight};

/// A peer as the ring sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerSpec {
    /// What places it.
    pub label: String,
    /// How much of the key space it gets, relative to the others.
    pub weight: Weight,
    /// What the ring's dialect hashes for it, where that is not the label.
    pub id: Option<String>,
}

/// What becomes of an upstream's peers. Removals come first, then additions, then weights; so a peer
/// can be replaced by one of the same label.
///
/// In some dialects the order of the peers places them. Who is new takes the place of who is removed, as
/// when a line of the configuration is edited: the first of the one that of the first of the other. Those
/// that are left over come last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeerSetChange {
    /// The labels of those that are removed.
    pub remove: Vec<String>,
    /// Those that are new.
    pub add: Vec<PeerSpec>,
    /// Other weights for those that are there.
    pub reweight: Vec<PeerSpec>,
}

/// A label that no peer has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct UnknownPeer {
    /// The label.
    pub label: String,
    /// Some of those that there are.
    pub known: Vec<String>,
}

/// Labels that an [`Unknown`] lists at most.
const MAX_LISTED: usize = 20;

impl PeerSetChange {
    /// The peers after the change. That no two have one label is for the ring to say.
    ///
    /// # Errors
    /// A removal or a weight names a peer that is not there.
    pub fn apply(&self, peers: &[PeerSpec]) -> Result<Vec<PeerSpec>, UnknownPeer> {
        let mut peers = self.remove_and_add(peers)?;
        for PeerSpec { label, weight, .. } in &self.reweight {
            let place = UnknownPeer::find_index(&peers, label)?;
            if let Some(peer) = peers.get_mut(place) {
                peer.weight = *weight;
            }
        }
        Ok(peers)
    }

    fn remove_and_add(&self, peers: &[PeerSpec]) -> Result<Vec<PeerSpec>, UnknownPeer> {
        // Who stays at each place, or who comes there.
        let mut places: Vec<(Option<&PeerSpec>, Option<&PeerSpec>)> =
            peers.iter().map(|peer| (Some(peer), None)).collect();
        let mut new = self.add.iter();
        for label in &self.remove {
            let is_it = |stays: Option<&PeerSpec>| stays.is_some_and(|peer| peer.label == *label);
            let Some(place) = places.iter_mut().find(|(stays, _)| is_it(*stays)) else {
                let known = places.iter().filter_map(|(stays, _)| *stays);
                return Err(UnknownPeer::new(
                    label,
                    known.map(|peer| peer.label.as_str()),
                ));
            };
            *place = (None, new.next());
        }
        let kept = places.into_iter().filter_map(|(stays, new)| stays.or(new));
        Ok(kept.chain(new).cloned().collect())
    }

    /// How many peers it names.
    pub fn len(&self) -> usize {
        self.remove.len() + self.add.len() + self.reweight.len()
    }

    /// True where it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl PeerSpec {
    /// `LABEL=WEIGHT`.
    ///
    /// # Errors
    /// What is wrong with the text, and what to write.
    pub fn parse_with_weight(text: &str) -> Result<Self, String> {
        let (label, weight) = text.rsplit_once('=').ok_or("write LABEL=WEIGHT")?;
        Self::from_label_and_weight(label, weight)
    }

    /// `LABEL` or `LABEL=WEIGHT`; a label that has a `=` itself must be given with its weight.
    ///
    /// # Errors
    /// What is wrong with the text, and what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
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

    /// The peer as the ring takes it.
    pub fn member(&self) -> Member<'_> {
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

    /// The place of the peer with this label.
    fn find_index(peers: &[PeerSpec], label: &str) -> Result<usize, Self> {
        let place = peers.iter().position(|peer| peer.label == label);
        place.ok_or_else(|| Self::new(label, peers.iter().map(|peer| peer.label.as_str())))
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
