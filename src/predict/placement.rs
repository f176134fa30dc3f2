//! A ring with the labels of its members and the set of members that are down.

use std::collections::HashSet;

use super::change::UnknownPeer;
use crate::ring::{HashedKey, MemberId, OverlayRun, Ring, overlay_available};

/// Maps each key to an available peer.
#[derive(Clone, Debug)]
pub struct KeyPlacement<'a> {
    ring: &'a Ring,
    labels: Vec<&'a str>,
    down: Vec<bool>,
}

impl<'a> KeyPlacement<'a> {
    /// Labels a ring's members, in the ring's order. All are up.
    pub fn new(ring: &'a Ring, labels: impl IntoIterator<Item = &'a str>) -> Self {
        let labels: Vec<_> = labels.into_iter().collect();
        let down = vec![false; labels.len()];
        Self { ring, labels, down }
    }

    /// Marks members as down.
    ///
    /// # Errors
    /// No member has one of the labels.
    pub fn with_down<'l>(
        mut self,
        down: impl IntoIterator<Item = &'l str>,
    ) -> Result<Self, UnknownPeer> {
        for label in down {
            let index = self.labels.iter().position(|known| *known == label);
            match index.and_then(|index| self.down.get_mut(index)) {
                Some(down) => *down = true,
                None => return Err(UnknownPeer::new(label, self.labels.iter().copied())),
            }
        }
        Ok(self)
    }

    /// The ring.
    pub const fn ring(&self) -> &'a Ring {
        self.ring
    }

    /// The members' labels, in the ring's order.
    pub fn labels(&self) -> &[&'a str] {
        &self.labels
    }

    /// A member's label.
    pub fn label(&self, member: MemberId) -> &'a str {
        self.labels.get(member.index()).copied().unwrap_or("")
    }

    /// True if a member is up.
    pub fn is_up(&self, member: MemberId) -> bool {
        self.down.get(member.index()).is_some_and(|down| !down)
    }

    /// True if any member is up.
    pub fn has_available_peer(&self) -> bool {
        !self.ring.is_empty() && self.down.contains(&false)
    }

    /// The first member of the key's walk that is up.
    pub fn owner(&self, key: &HashedKey) -> Option<MemberId> {
        self.ring.find(key, |member| self.is_up(member))
    }

    /// [`Self::owner`] of a key that is not hashed yet.
    pub fn owner_of(&self, key: &[u8]) -> Option<MemberId> {
        self.owner(&self.ring.key(key))
    }

    /// The labels of the members that are up.
    pub(super) fn serving_labels(&self) -> HashSet<&'a str> {
        let labels = self.labels.iter().zip(&self.down);
        let serving = labels.filter(|(_, down)| !**down);
        serving.map(|(label, _)| *label).collect()
    }

    /// The labels of the members that are up, in the order of the key's walk.
    pub fn walk(&self, key: &HashedKey) -> impl Iterator<Item = &'a str> {
        let walk = self.ring.walk(key).filter(|member| self.is_up(*member));
        walk.map(|member| self.label(member))
    }

    /// The number of hashes of each member, by [`MemberId`].
    pub fn shares(&self) -> Vec<u64> {
        let mut shares = vec![0; self.labels.len()];
        self.overlay(self, |run| {
            if let Some(share) = shares.get_mut(run.from.index()) {
                *share += run.hashes;
            }
        });
        shares
    }

    /// Compares the owners of all hashes; see [`overlay_available`].
    pub(super) fn overlay(&self, after: &KeyPlacement<'_>, each: impl FnMut(OverlayRun)) {
        overlay_available(
            (self.ring, |member| self.is_up(member)),
            (after.ring, |member| after.is_up(member)),
            each,
        );
    }
}
