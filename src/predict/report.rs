//! What was predicted as JSON: the same from the command line and from the admin API.
//!
//! Shares are given in hashes and as a part of one. Both are exact: every number of hashes over 2^32
//! is a double, and is printed with all its digits.

use std::cmp::Reverse;

use serde_json::{Value, json};

use super::{Basis, Comparison, Ends, KeyMoves, Movement, Placement, SPACE, Shift, share};

impl Placement<'_> {
    /// A key, and at most so many of its walk that are up.
    pub fn report(&self, key: &[u8], most: usize) -> Value {
        let placed = self.ring().key(key);
        let walk: Vec<_> = self.walk(&placed).take(most).collect();
        json!({ "key": String::from_utf8_lossy(key), "hash": placed.hash().0, "walk": walk })
    }
}

impl Comparison<'_> {
    /// A key that moves.
    pub fn report_key(&self, key: &[u8], ends: Ends) -> Value {
        let key = String::from_utf8_lossy(key);
        json!({ "key": key, "from": self.label(ends.from), "to": self.label(ends.to) })
    }
}

impl Movement {
    /// The whole movement.
    pub fn report(&self) -> Value {
        let pair = |(ends, hashes): &(Ends, u64)| {
            json!({
                "from": self.label(ends.from),
                "to": self.label(ends.to),
                "hashes": hashes,
                "share": share(*hashes),
            })
        };
        let sampled = match self.basis {
            Basis::Sampled(keys) => Some(keys),
            Basis::Counted | Basis::Expected => None,
        };
        json!({
            "exact": self.basis == Basis::Counted,
            "sampled_keys": sampled,
            "hashes": SPACE,
            "moved": part(self.moved),
            "pairs": self.pairs.iter().map(pair).collect::<Vec<_>>(),
            "peers": self.peers.iter().map(Shift::report).collect::<Vec<_>>(),
        })
    }

    /// The whole movement, with the keys that were counted besides.
    pub fn report_counted(&self, keys: &KeyMoves) -> Value {
        let pair = |(ends, keys): (Ends, u64)| json!({ "from": self.label(ends.from), "to": self.label(ends.to), "keys": keys });
        let pairs: Vec<_> = keys.sorted().into_iter().map(pair).collect();
        let counted = json!({ "keys": keys.keys, "moved": keys.moved, "pairs": pairs });
        let mut report = self.report();
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
    pub fn sorted(&self) -> Vec<(Ends, u64)> {
        let mut pairs: Vec<_> = self
            .pairs
            .iter()
            .map(|(ends, keys)| (*ends, *keys))
            .collect();
        pairs.sort_unstable_by_key(|(ends, keys)| (Reverse(*keys), *ends));
        pairs
    }
}

impl Shift {
    fn report(&self) -> Value {
        json!({
            "label": self.label,
            "before": part(self.before),
            "after": part(self.after),
            "gained": part(self.gained),
            "lost": part(self.lost),
        })
    }
}

fn part(hashes: u64) -> Value {
    json!({ "hashes": hashes, "share": share(hashes) })
}
