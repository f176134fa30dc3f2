//! A [`Movement`] as JSON: the same from the command line and from the admin API.
//!
//! Shares are given in hashes and as a part of one. Both are exact: every number of hashes over 2^32
//! is a double, and is printed with all its digits.

use serde_json::{Value, json};

use super::{Basis, Movement, SPACE, Shift, share};

impl Movement {
    /// The whole movement.
    pub fn report(&self) -> Value {
        let pair = |(ends, hashes): &(super::Ends, u64)| {
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

    /// The label at one end; `None`: no peer is up.
    pub fn label(&self, end: Option<usize>) -> Option<&str> {
        let peer = self.peers.get(end?)?;
        Some(&peer.label)
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
