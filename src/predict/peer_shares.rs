//! What each peer has of a ring: its points, and its exact share of the key space.

use serde_json::{Value, json};

use super::share;
use crate::ring::{Member, Ring};

/// The peers' parts of one ring.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerShares {
    /// In the ring's order.
    pub peers: Vec<PeerShare>,
    /// All points.
    pub points: usize,
    /// The dialect has no points: so many keys were tried out.
    pub sampled_keys: Option<u32>,
}

/// One peer's part.
#[derive(Clone, Debug, PartialEq)]
pub struct PeerShare {
    /// Its label.
    pub label: String,
    /// Its weight.
    pub weight: u16,
    /// Its points.
    pub points: usize,
    /// Of the 2^32 hashes.
    pub hashes: u64,
    /// What its weight alone would give it, as a part of one.
    pub fair_share: f64,
}

impl PeerShares {
    /// The parts of these members, which are the ring's; `shares` are [`Ring::shares`].
    pub fn new<'a>(
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
        let weights: u32 = members
            .clone()
            .map(|member| u32::from(member.weight.get()))
            .sum();
        let part = |((member, points), hashes): ((Member<'a>, usize), &u64)| PeerShare {
            label: member.label.to_owned(),
            weight: member.weight.get(),
            points,
            hashes: *hashes,
            fair_share: f64::from(member.weight.get()) / f64::from(weights),
        };
        Self {
            peers: members.zip(points).zip(shares).map(part).collect(),
            points: ring.len(),
            sampled_keys: ring.sample_size(),
        }
    }

    /// The part that is the most above its fair one, over it.
    pub fn max_over_mean(&self) -> f64 {
        self.peers
            .iter()
            .map(PeerShare::share_over_fair)
            .fold(0.0, f64::max)
    }

    /// As JSON: the same from the command line and from the admin API.
    pub fn to_json(&self) -> Value {
        json!({
            "points": self.points,
            "max_over_mean": self.max_over_mean(),
            "sampled_keys": self.sampled_keys,
            "peers": self.peers.iter().map(PeerShare::to_json).collect::<Vec<_>>(),
        })
    }
}

impl PeerShare {
    /// Its share over its fair one.
    pub fn share_over_fair(&self) -> f64 {
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
