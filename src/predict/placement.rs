//! A ring, the names of its members, and who of them is down.

use super::change::UnknownPeer;
use crate::ring::{HashedKey, MemberId, OverlayRun, Ring, overlay_available};

/// Where each key is, and on whom.
#[derive(Clone, Debug)]
pub struct KeyPlacement<'a> {
    ring: &'a Ring,
    labels: Vec<&'a str>,
    down: Vec<bool>,
}

impl<'a> KeyPlacement<'a> {
    /// A ring whose members have these labels, in its order; all are up.
    pub fn new(ring: &'a Ring, labels: impl IntoIterator<Item = &'a str>) -> Self {
        let labels: Vec<_> = labels.into_iter().collect();
        let down = vec![false; labels.len()];
        Self { ring, labels, down }
    }

    /// The same with these down too.
    ///
    /// # Errors
    /// A label that no member has.
    pub fn with_down<'l>(
        mut self,
        down: impl IntoIterator<Item = &'l str>,
    ) -> Result<Self, UnknownPeer> {
        for label in down {
            let place = self.labels.iter().position(|known| *known == label);
            match place.and_then(|place| self.down.get_mut(place)) {
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

    /// Whether a member can serve.
    pub fn is_up(&self, member: MemberId) -> bool {
        self.down.get(member.index()).is_some_and(|down| !down)
    }

    /// Whether anyone can serve.
    pub fn has_available_peer(&self) -> bool {
        !self.ring.is_empty() && self.down.contains(&false)
    }

    /// The first member of the key's walk that is up.
    pub fn owner(&self, key: &HashedKey) -> Option<MemberId> {
        self.ring.find(key, |member| self.is_up(member))
    }

    /// The first member of the key's walk that is up.
    pub fn owner_of(&self, key: &[u8]) -> Option<MemberId> {
        self.owner(&self.ring.key(key))
    }

    /// The labels of the members that are up, in the order of the key's walk.
    pub fn walk(&self, key: &HashedKey) -> impl Iterator<Item = &'a str> {
        let walk = self.ring.walk(key).filter(|member| self.is_up(*member));
        walk.map(|member| self.label(member))
    }

    /// How many hashes each member has, by [`MemberId`].
    pub fn shares(&self) -> Vec<u64> {
        let mut shares = vec![0; self.labels.len()];
        self.overlay(self, |run| {
            if let Some(share) = shares.get_mut(run.from.index()) {
                *share += run.hashes;
            }
        });
        shares
    }

    /// See [`overlay_up`].
    pub(super) fn overlay(&self, after: &KeyPlacement<'_>, each: impl FnMut(OverlayRun)) {
        overlay_available(
            (self.ring, |member| self.is_up(member)),
            (after.ring, |member| after.is_up(member)),
            each,
        );
    }
}
