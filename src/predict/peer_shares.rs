//! Each peer's points and share of the key space.

use serde_json::{Value, json};

use super::share;
use crate::ring::{Member, Ring, Weight};

/// The points and shares of all peers of a ring.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PeerShares {
    /// In the ring's order.
    pub peers: Vec<PeerShare>,
    /// The points of the ring.
    pub points: usize,
    /// The size of the sample that the shares were estimated from, in a dialect without points; else `None`.
    pub sampled_keys: Option<u32>,
}

/// The points and share of one peer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PeerShare {
    /// The peer's label.
    pub label: String,
    /// The peer's weight.
    pub weight: Weight,
    /// The number of the peer's points.
    pub points: usize,
    /// The share in hashes, of 2^32.
    pub hashes: u64,
    /// The share by weight alone, 0 … 1.
    pub fair_share: f64,
}

impl PeerShares {
    /// Combines the ring's members with their shares. `members` must be the ring's; `shares` as from
    /// [`Ring::shares`].
    pub(crate) fn new<'a>(
        ring: &Ring,
        shares: &[u64],
        members: impl Iterator<Item = Member<'a>> + Clone,
    ) -> Self {
        let mut points = vec![0; ring.members()];
        for (_, member) in ring.points() {
            if let Some(count) = points.get_mut(member.index()) {
                *count += 1;
            }
        }
        let weights: f64 = members.clone().map(|member| member.weight.as_f64()).sum();
        let peer = |((member, points), hashes): ((Member<'a>, usize), &u64)| PeerShare {
            label: member.label.to_owned(),
            weight: member.weight,
            points,
            hashes: *hashes,
            fair_share: member.weight.as_f64() / weights,
        };
        Self {
            peers: members.zip(points).zip(shares).map(peer).collect(),
            points: ring.len(),
            sampled_keys: ring.sample_size(),
        }
    }

    /// The greatest ratio of a peer's share to its fair share.
    pub(crate) fn max_over_mean(&self) -> f64 {
        self.peers
            .iter()
            .map(PeerShare::share_over_fair)
            .fold(0.0, f64::max)
    }

    /// The shares as JSON, the same for the command line and the admin API.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "points": self.points,
            "max_over_mean": self.max_over_mean(),
            "sampled_keys": self.sampled_keys,
            "peers": self.peers.iter().map(PeerShare::to_json).collect::<Vec<_>>(),
        })
    }
}

impl PeerShare {
    /// The ratio of the share to the fair share.
    pub(crate) fn share_over_fair(&self) -> f64 {
        share(self.hashes) / self.fair_share
    }

    fn to_json(&self) -> Value {
        json!({
            "label": self.label,
            "weight": self.weight,
            "points": self.points,
            "hashes": self.hashes,
            "share": share(self.hashes),
            "fair": self.fair_share,
        })
    }
}
