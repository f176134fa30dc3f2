//! Which keys move between two placements, from whom to whom.

use std::cmp::Reverse;
use std::collections::HashMap;

use super::{Placement, SPACE};
use crate::ring::MemberId;

/// Two placements of the same keys, and everyone who is in either.
#[derive(Clone, Debug)]
pub struct Comparison<'a> {
    before: Placement<'a>,
    after: Placement<'a>,
    hashed_alike: bool,
    /// Everyone, those before first.
    labels: Vec<&'a str>,
    /// Where the members after are among them.
    places: Vec<usize>,
}

/// From whom to whom: places in [`Movement::peers`]; `None`: no peer is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ends {
    /// Who has it before.
    pub from: Option<usize>,
    /// Who has it after.
    pub to: Option<usize>,
}

/// What the numbers of a [`Movement`] stand on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Every hash is counted.
    Counted,
    /// The dialect has no points: so many keys were tried out.
    Sampled(u32),
    /// The keys are hashed anew, and the numbers are what is to be expected: a key stays by chance only.
    Expected,
}

/// What moves, in hashes of the 2^32 there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Movement {
    /// What the numbers stand on.
    pub basis: Basis,
    /// Everyone who is there before or after, those before first.
    pub peers: Vec<Shift>,
    /// Who gives how much to whom, the most first. Empty where the keys are hashed anew: then
    /// everyone gives to everyone.
    pub pairs: Vec<(Ends, u64)>,
    /// All that moves.
    pub moved: u64,
}

/// What becomes of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shift {
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
    pub pairs: HashMap<Ends, u64>,
}

impl<'a> Comparison<'a> {
    /// Compares two placements by their labels. `hashed_alike`: a key has the same hash in both, which
    /// two rings of one dialect and keys of the same source have.
    pub fn new(before: Placement<'a>, after: Placement<'a>, hashed_alike: bool) -> Self {
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
            places,
        }
    }

    /// The label at a place; `None`: no peer is up.
    pub fn label(&self, place: Option<usize>) -> Option<&'a str> {
        self.labels.get(place?).copied()
    }

    /// Who has a key before and after.
    pub fn ends(&self, key: &[u8]) -> Ends {
        let (from, to) = (self.before.owner_of(key), self.after.owner_of(key));
        self.places_of(from, to)
    }

    /// What moves of the whole key space.
    pub fn movement(&self) -> Movement {
        let mut movement = Movement {
            basis: self.basis(),
            peers: self.peers(),
            pairs: Vec::new(),
            moved: 0,
        };
        match movement.basis {
            Basis::Counted | Basis::Sampled(_) => movement.count(self.moves()),
            Basis::Expected => movement.expect(),
        }
        movement
    }

    fn basis(&self) -> Basis {
        match self.before.ring().sample() {
            _ if !self.hashed_alike => Basis::Expected,
            Some(keys) => Basis::Sampled(keys),
            None => Basis::Counted,
        }
    }

    /// Everyone's shares before and after.
    fn peers(&self) -> Vec<Shift> {
        let peer = |label: &&str| Shift {
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
        for (place, share) in self.places.iter().zip(self.after.shares()) {
            if let Some(peer) = peers.get_mut(*place) {
                peer.after = share;
            }
        }
        peers
    }

    /// How many hashes move from whom to whom.
    fn moves(&self) -> HashMap<Ends, u64> {
        let mut moves = HashMap::new();
        self.runs(|ends, hashes| {
            if ends.from != ends.to {
                *moves.entry(ends).or_default() += hashes;
            }
        });
        moves
    }

    /// Every run of hashes, from hash 0 up: in both placements one peer has all of it, or nobody.
    pub(super) fn runs(&self, mut each: impl FnMut(Ends, u64)) {
        let (before, after) = (&self.before, &self.after);
        match (before.serves(), after.serves()) {
            (true, true) => before.overlay(after, |run| {
                each(self.places_of(Some(run.from), Some(run.to)), run.hashes);
            }),
            (true, false) => before.overlay(before, |run| {
                each(self.places_of(Some(run.from), None), run.hashes);
            }),
            (false, true) => after.overlay(after, |run| {
                each(self.places_of(None, Some(run.to)), run.hashes);
            }),
            (false, false) => each(self.places_of(None, None), SPACE),
        }
    }

    fn places_of(&self, from: Option<MemberId>, to: Option<MemberId>) -> Ends {
        Ends {
            from: from.map(MemberId::index),
            to: to.and_then(|to| self.places.get(to.index()).copied()),
        }
    }
}

impl Movement {
    fn count(&mut self, moves: HashMap<Ends, u64>) {
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

    fn expect(&mut self) {
        let (mut gained, mut lost) = (0, 0);
        for peer in &mut self.peers {
            let stays = (u128::from(peer.before) * u128::from(peer.after)) >> 32;
            let stays = u64::try_from(stays).unwrap_or(SPACE);
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
    pub fn add(&mut self, comparison: &Comparison<'_>, key: &[u8]) -> Option<Ends> {
        self.count(comparison.ends(key))
    }

    pub(super) fn count(&mut self, ends: Ends) -> Option<Ends> {
        self.keys += 1;
        if ends.from == ends.to {
            return None;
        }
        self.moved += 1;
        *self.pairs.entry(ends).or_default() += 1;
        Some(ends)
    }
}
