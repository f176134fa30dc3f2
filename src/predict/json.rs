//! Predictions as JSON, the same for the command line and the admin API.
//!
//! Shares are given as numbers of hashes and as fractions. Both are exact: every fraction of 2^32 is a
//! double and is printed with all its digits.

use std::cmp::Reverse;

use serde_json::{Value, json};

use super::{
    Comparison, HASH_SPACE, KeyMoves, KeyPlacement, Movement, MovementBasis, OwnerPair,
    PeerMovement, share,
};

impl KeyPlacement<'_> {
    /// A key, its hash, and the first `limit` available peers of its walk.
    pub fn key_to_json(&self, key: &[u8], limit: usize) -> Value {
        let hashed = self.ring().key(key);
        let walk: Vec<_> = self.walk(&hashed).take(limit).collect();
        json!({ "key": String::from_utf8_lossy(key), "hash": hashed.hash().to_string(), "walk": walk })
    }
}

impl Comparison<'_> {
    /// A key and its owners before and after.
    pub(crate) fn key_to_json(&self, key: &[u8], owners: OwnerPair) -> Value {
        let key = String::from_utf8_lossy(key);
        json!({ "key": key, "from": self.label(owners.from), "to": self.label(owners.to) })
    }
}

impl Movement {
    /// The movement of the key space.
    pub(crate) fn to_json(&self) -> Value {
        let pair = |(owners, hashes): &(OwnerPair, u64)| {
            json!({
                "from": self.label(owners.from),
                "to": self.label(owners.to),
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

    /// The movement of the key space and of the given keys.
    pub(crate) fn to_json_with_keys(&self, keys: &KeyMoves) -> Value {
        let pair = |(owners, keys): (OwnerPair, u64)| json!({ "from": self.label(owners.from), "to": self.label(owners.to), "keys": keys });
        let pairs: Vec<_> = keys.sorted_pairs().into_iter().map(pair).collect();
        let counted = json!({ "keys": keys.keys, "moved": keys.moved, "pairs": pairs });
        let mut report = self.to_json();
        if let Some(report) = report.as_object_mut() {
            report.insert("counted".to_owned(), counted);
        }
        report
    }

    /// The label of an owner; `None` if no peer is up.
    pub(crate) fn label(&self, owner: Option<usize>) -> Option<&str> {
        let peer = self.peers.get(owner?)?;
        Some(&peer.label)
    }
}

impl KeyMoves {
    /// The number of moved keys per pair of owners, the most first.
    pub(crate) fn sorted_pairs(&self) -> Vec<(OwnerPair, u64)> {
        let mut pairs: Vec<_> = self
            .pairs
            .iter()
            .map(|(owners, keys)| (*owners, *keys))
            .collect();
        pairs.sort_unstable_by_key(|(owners, keys)| (Reverse(*keys), *owners));
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
