//! The keys that move between two placements, per pair of old and new owner.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::{HASH_SPACE, KeyPlacement};
use crate::ring::MemberId;

/// Two placements of the same keys.
#[derive(Clone, Debug)]
pub(crate) struct Comparison<'a> {
    before: KeyPlacement<'a>,
    after: KeyPlacement<'a>,
    hashed_alike: bool,
    /// The peers of either placement, those before first. [`OwnerPair`] refers to this list.
    labels: Vec<&'a str>,
    /// For each member after the change, its index in `labels`.
    after_indices: Vec<usize>,
}

/// A key's owners before and after: indices into [`Movement::peers`]; `None`: no peer is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OwnerPair {
    /// The owner before.
    pub from: Option<usize>,
    /// The owner after.
    pub to: Option<usize>,
}

/// How the numbers of a [`Movement`] were obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MovementBasis {
    /// Every hash is counted.
    Exact,
    /// Estimated from a sample of this many keys: the dialect has no points.
    Sampled(u32),
    /// Expected values: keys are hashed differently after the change, and a key stays only by chance.
    Expected,
}

/// The part of the key space that moves, in 2^32nds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Movement {
    /// How the numbers were obtained.
    pub basis: MovementBasis,
    /// The peers before or after the change, those before first.
    pub peers: Vec<PeerMovement>,
    /// The hashes that move per pair of owners, the most first. Empty for [`MovementBasis::Expected`]: then
    /// hashes move between all pairs.
    pub pairs: Vec<(OwnerPair, u64)>,
    /// The hashes that move in total.
    pub moved: u64,
}

/// The change of one peer's share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PeerMovement {
    /// The peer's label.
    pub label: String,
    /// The hashes owned before.
    pub before: u64,
    /// The hashes owned after.
    pub after: u64,
    /// The hashes owned only after.
    pub gained: u64,
    /// The hashes owned only before.
    pub lost: u64,
}

/// A count of given keys that move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct KeyMoves {
    /// All keys.
    pub keys: u64,
    /// The keys that move.
    pub moved: u64,
    /// The keys that move, per pair of owners.
    pub pairs: HashMap<OwnerPair, u64>,
}

impl<'a> Comparison<'a> {
    /// Compares two placements by label. `hashed_alike`: a key has the same hash in both, which requires
    /// the same hash function and the same key sources.
    pub(crate) fn new(
        before: KeyPlacement<'a>,
        after: KeyPlacement<'a>,
        hashed_alike: bool,
    ) -> Self {
        let mut labels = before.labels().to_vec();
        let mut known: HashMap<&str, usize> = labels.iter().copied().zip(0..).collect();
        let mut index_of = |label: &&'a str| {
            *known.entry(label).or_insert_with(|| {
                labels.push(label);
                labels.len() - 1
            })
        };
        let after_indices = after.labels().iter().map(&mut index_of).collect();
        Self {
            before,
            after,
            hashed_alike,
            labels,
            after_indices,
        }
    }

    /// The label of an owner; `None` if no peer is up.
    pub(crate) fn label(&self, owner: Option<usize>) -> Option<&'a str> {
        self.labels.get(owner?).copied()
    }

    /// The owners of a key before and after.
    pub(crate) fn owners(&self, key: &[u8]) -> OwnerPair {
        let (from, to) = (self.before.owner_of(key), self.after.owner_of(key));
        self.owner_pair(from, to)
    }

    /// The movement of the whole key space.
    pub(crate) fn movement(&self) -> Movement {
        let mut movement = Movement {
            basis: self.basis(),
            peers: self.peer_movements(),
            pairs: Vec::new(),
            moved: 0,
        };
        match movement.basis {
            MovementBasis::Exact | MovementBasis::Sampled(_) => {
                movement.add_pairs(self.count_moves());
            }
            MovementBasis::Expected => movement.estimate(),
        }
        movement
    }

    fn basis(&self) -> MovementBasis {
        match self.before.ring().sample_size() {
            _ if !self.hashed_alike => MovementBasis::Expected,
            Some(keys) => MovementBasis::Sampled(keys),
            None => MovementBasis::Exact,
        }
    }

    /// Each peer's share before and after; nothing moved yet.
    fn peer_movements(&self) -> Vec<PeerMovement> {
        let peer = |label: &&str| PeerMovement {
            label: (*label).to_owned(),
            before: 0,
            after: 0,
            gained: 0,
            lost: 0,
        };
        let mut peers: Vec<_> = self.labels.iter().map(peer).collect();
        for (peer, share) in peers.iter_mut().zip(self.before.shares()) {
            peer.before = share;
        }
        for (index, share) in self.after_indices.iter().zip(self.after.shares()) {
            if let Some(peer) = peers.get_mut(*index) {
                peer.after = share;
            }
        }
        peers
    }

    /// The number of hashes that move, per pair of owners.
    fn count_moves(&self) -> HashMap<OwnerPair, u64> {
        let mut moves = HashMap::new();
        self.for_each_run(|owners, hashes| {
            if owners.from != owners.to {
                *moves.entry(owners).or_default() += hashes;
            }
        });
        moves
    }

    /// Calls `each` for every run of hashes, from hash 0 up. A run has one owner, or none, before and after.
    pub(super) fn for_each_run(&self, mut each: impl FnMut(OwnerPair, u64)) {
        let (before, after) = (&self.before, &self.after);
        match (before.has_available_peer(), after.has_available_peer()) {
            (true, true) => before.overlay(after, |run| {
                each(self.owner_pair(Some(run.from), Some(run.to)), run.hashes);
            }),
            (true, false) => before.overlay(before, |run| {
                each(self.owner_pair(Some(run.from), None), run.hashes);
            }),
            (false, true) => after.overlay(after, |run| {
                each(self.owner_pair(None, Some(run.to)), run.hashes);
            }),
            (false, false) => each(self.owner_pair(None, None), HASH_SPACE),
        }
    }

    fn owner_pair(&self, from: Option<MemberId>, to: Option<MemberId>) -> OwnerPair {
        OwnerPair {
            from: from.map(MemberId::index),
            to: to.and_then(|to| self.after_indices.get(to.index()).copied()),
        }
    }
}

impl Movement {
    fn add_pairs(&mut self, moves: HashMap<OwnerPair, u64>) {
        self.pairs = moves.into_iter().collect();
        self.pairs
            .sort_unstable_by_key(|(owners, hashes)| (Reverse(*hashes), *owners));
        for (owners, hashes) in &self.pairs {
            self.moved += hashes;
            if let Some(peer) = owners.from.and_then(|from| self.peers.get_mut(from)) {
                peer.lost += hashes;
            }
            if let Some(peer) = owners.to.and_then(|to| self.peers.get_mut(to)) {
                peer.gained += hashes;
            }
        }
    }

    /// Fills in [`MovementBasis::Expected`]: a key stays on a peer with probability before × after.
    fn estimate(&mut self) {
        let (mut gained, mut lost) = (0, 0);
        for peer in &mut self.peers {
            let stays = (u128::from(peer.before) * u128::from(peer.after)) >> 32;
            let stays = u64::try_from(stays).unwrap_or(HASH_SPACE);
            peer.lost = peer.before - stays;
            peer.gained = peer.after - stays;
            gained += peer.gained;
            lost += peer.lost;
        }
        // The sums are equal unless no peer is up before or after.
        self.moved = gained.max(lost);
    }
}

impl KeyMoves {
    /// Counts a key; returns its owners if it moves.
    pub(crate) fn add(&mut self, comparison: &Comparison<'_>, key: &[u8]) -> Option<OwnerPair> {
        self.count(comparison.owners(key))
    }

    pub(super) fn count(&mut self, owners: OwnerPair) -> Option<OwnerPair> {
        self.keys += 1;
        if owners.from == owners.to {
            return None;
        }
        self.moved += 1;
        *self.pairs.entry(owners).or_default() += 1;
        Some(owners)
    }
}
