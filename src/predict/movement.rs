//! Which keys move between two placements, from whom to whom.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::{HASH_SPACE, KeyPlacement};
use crate::ring::MemberId;

/// Two placements of the same keys, and everyone who is in either.
#[derive(Clone, Debug)]
pub struct Comparison<'a> {
    before: KeyPlacement<'a>,
    after: KeyPlacement<'a>,
    hashed_alike: bool,
    /// Everyone, those before first.
    labels: Vec<&'a str>,
    /// Where the members after are among them.
    after_indices: Vec<usize>,
}

/// From whom to whom: places in [`Movement::peers`]; `None`: no peer is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerPair {
    /// Who has it before.
    pub from: Option<usize>,
    /// Who has it after.
    pub to: Option<usize>,
}

/// What the numbers of a [`Movement`] stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MovementBasis {
    /// Every hash is counted.
    Exact,
    /// The dialect has no points: so many keys were tried out.
    Sampled(u32),
    /// The keys are hashed anew, and the numbers are what is to be expected: a key stays by chance only.
    Expected,
}

/// What moves, in hashes of the 2^32 there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    /// What the numbers stand on.
    pub basis: MovementBasis,
    /// Everyone who is there before or after, those before first.
    pub peers: Vec<PeerMovement>,
    /// Who gives how much to whom, the most first. Empty where the keys are hashed anew: then
    /// everyone gives to everyone.
    pub pairs: Vec<(OwnerPair, u64)>,
    /// All that moves.
    pub moved: u64,
}

/// What becomes of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerMovement {
    /// Its label.
    pub label: String,
    /// The hashes it has before.
    pub before: u64,
    /// The hashes it has after.
    pub after: u64,
    /// Those that it has only after.
    pub gained: u64,
    /// Those that it has only before.
    pub lost: u64,
}

/// Real keys, counted one by one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyMoves {
    /// The keys looked at.
    pub keys: u64,
    /// Those that move.
    pub moved: u64,
    /// Those that move, by where.
    pub pairs: HashMap<OwnerPair, u64>,
}

impl<'a> Comparison<'a> {
    /// Compares two placements by their labels. `hashed_alike`: a key has the same hash in both, which
    /// two rings of one dialect and keys of the same source have.
    pub fn new(before: KeyPlacement<'a>, after: KeyPlacement<'a>, hashed_alike: bool) -> Self {
        let mut labels = before.labels().to_vec();
        let mut known: HashMap<&str, usize> = labels.iter().copied().zip(0..).collect();
        let mut place = |label: &&'a str| {
            *known.entry(label).or_insert_with(|| {
                labels.push(label);
                labels.len() - 1
            })
        };
        let places = after.labels().iter().map(&mut place).collect();
        Self {
            before,
            after,
            hashed_alike,
            labels,
            after_indices: places,
        }
    }

    /// The label at a place; `None`: no peer is up.
    pub fn label(&self, place: Option<usize>) -> Option<&'a str> {
        self.labels.get(place?).copied()
    }

    /// Who has a key before and after.
    pub fn owners(&self, key: &[u8]) -> OwnerPair {
        let (from, to) = (self.before.owner_of(key), self.after.owner_of(key));
        self.owner_pair(from, to)
    }

    /// What moves of the whole key space.
    pub fn movement(&self) -> Movement {
        let mut movement = Movement {
            basis: self.basis(),
            peers: self.peer_movements(),
            pairs: Vec::new(),
            moved: 0,
        };
        match movement.basis {
            MovementBasis::Exact | MovementBasis::Sampled(_) => {
                movement.add_pairs(self.count_moves())
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

    /// Everyone's shares before and after.
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
        for (place, share) in self.after_indices.iter().zip(self.after.shares()) {
            if let Some(peer) = peers.get_mut(*place) {
                peer.after = share;
            }
        }
        peers
    }

    /// How many hashes move from whom to whom.
    fn count_moves(&self) -> HashMap<OwnerPair, u64> {
        let mut moves = HashMap::new();
        self.for_each_run(|ends, hashes| {
            if ends.from != ends.to {
                *moves.entry(ends).or_default() += hashes;
            }
        });
        moves
    }

    /// Every run of hashes, from hash 0 up: in both placements one peer has all of it, or nobody.
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
            .sort_unstable_by_key(|(ends, hashes)| (Reverse(*hashes), *ends));
        for (ends, hashes) in &self.pairs {
            self.moved += hashes;
            if let Some(peer) = ends.from.and_then(|from| self.peers.get_mut(from)) {
                peer.lost += hashes;
            }
            if let Some(peer) = ends.to.and_then(|to| self.peers.get_mut(to)) {
                peer.gained += hashes;
            }
        }
    }

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
        // They are the same but where nobody is up before, or after.
        self.moved = gained.max(lost);
    }
}

impl KeyMoves {
    /// Looks at one more key; where it goes, if it moves.
    pub fn add(&mut self, comparison: &Comparison<'_>, key: &[u8]) -> Option<OwnerPair> {
        self.count(comparison.owners(key))
    }

    pub(super) fn count(&mut self, ends: OwnerPair) -> Option<OwnerPair> {
        self.keys += 1;
        if ends.from == ends.to {
            return None;
        }
        self.moved += 1;
        *self.pairs.entry(ends).or_default() += 1;
        Some(ends)
    }
}
