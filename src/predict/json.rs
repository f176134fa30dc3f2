//! What was predicted as JSON: the same from the command line and from the admin API.
//!
//! Shares are given in hashes and as a part of one. Both are exact: every number of hashes over 2^32
//! is a double, and is printed with all its digits.

use std::cmp::Reverse;

use serde_json::{Value, json};

use super::{
    Comparison, HASH_SPACE, KeyMoves, KeyPlacement, Movement, MovementBasis, OwnerPair,
    PeerMovement, share,
};

impl KeyPlacement<'_> {
    /// A key, and at most so many of its walk that are up.
    pub fn key_to_json(&self, key: &[u8], most: usize) -> Value {
        let placed = self.ring().key(key);
        let walk: Vec<_> = self.walk(&placed).take(most).collect();
        json!({ "key": String::from_utf8_lossy(key), "hash": placed.hash().0, "walk": walk })
    }
}

impl Comparison<'_> {
    /// A key that moves.
    pub fn key_to_json(&self, key: &[u8], ends: OwnerPair) -> Value {
        let key = String::from_utf8_lossy(key);
        json!({ "key": key, "from": self.label(ends.from), "to": self.label(ends.to) })
    }
}

impl Movement {
    /// The whole movement.
    pub fn to_json(&self) -> Value {
        let pair = |(ends, hashes): &(OwnerPair, u64)| {
            json!({
                "from": self.label(ends.from),
                "to": self.label(ends.to),
                "hashes": hashes,
                "share": share(*hashes),
            })
        };
        let sampled = match self.basis {
            MovementBasis::Sampled(keys) => Some(keys),
            MovementBasis::Exact | MovementBasis::Expected => None,
        };
        json!({
            "exact": self.basis == MovementBasis::Exact,
            "sampled_keys": sampled,
            "hashes": HASH_SPACE,
            "moved": hashes_to_json(self.moved),
            "pairs": self.pairs.iter().map(pair).collect::<Vec<_>>(),
            "peers": self.peers.iter().map(PeerMovement::to_json).collect::<Vec<_>>(),
        })
    }

    /// The whole movement, with the keys that were counted besides.
    pub fn to_json_with_keys(&self, keys: &KeyMoves) -> Value {
        let pair = |(ends, keys): (OwnerPair, u64)| json!({ "from": self.label(ends.from), "to": self.label(ends.to), "keys": keys });
        let pairs: Vec<_> = keys.sorted_pairs().into_iter().map(pair).collect();
        let counted = json!({ "keys": keys.keys, "moved": keys.moved, "pairs": pairs });
        let mut report = self.to_json();
        if let Some(report) = report.as_object_mut() {
            report.insert("counted".to_owned(), counted);
        }
        report
    }

    /// The label at one end; `None`: no peer is up.
    pub fn label(&self, end: Option<usize>) -> Option<&str> {
        let peer = self.peers.get(end?)?;
        Some(&peer.label)
    }
}

impl KeyMoves {
    /// From whom to whom and how many, the most first.
    pub fn sorted_pairs(&self) -> Vec<(OwnerPair, u64)> {
        let mut pairs: Vec<_> = self
            .pairs
            .iter()
            .map(|(ends, keys)| (*ends, *keys))
            .collect();
        pairs.sort_unstable_by_key(|(ends, keys)| (Reverse(*keys), *ends));
        pairs
    }
}

impl PeerMovement {
    fn to_json(&self) -> Value {
        json!({
            "label": self.label,
            "before": hashes_to_json(self.before),
            "after": hashes_to_json(self.after),
            "gained": hashes_to_json(self.gained),
            "lost": hashes_to_json(self.lost),
        })
    }
}

fn hashes_to_json(hashes: u64) -> Value {
    json!({ "hashes": hashes, "share": share(hashes) })
}
