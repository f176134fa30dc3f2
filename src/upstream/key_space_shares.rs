//! The exact share of the key space of each peer: when all are up, and at a given time.
//!
//! Without the exceptions for single keys: hot keys, keys that a drain leaves with its peer, overflow of a
//! bounded load. If several peers are in slow starts, the result is an approximation: it assumes that they
//! admit keys in the same order, so a key that one of them does not admit goes to one that admits more.
//!
//! A round of a large ring takes a while, so its result is cached: the shares of all peers once and for
//! all, the current ones until other peers are available. The first caller computes them: not a thread that
//! serves requests.

use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::Mutex;

use super::peer::Peer;
use crate::config;
use crate::policy::hot_key_spread::WeightedShare;
use crate::ring::{Ring, Weight};

/// The cached shares of one ring.
#[derive(Debug, Default)]
pub(super) struct KeySpaceShares {
    all: OnceLock<Box<[u64]>>,
    current: Mutex<CurrentShares>,
}

/// The shares computed last, and the fractions that they are for.
#[derive(Debug, Default)]
struct CurrentShares {
    fractions: Vec<f64>,
    shares: Vec<u64>,
}

impl KeySpaceShares {
    /// Computes the shares of all peers if the spread of hot keys needs them. On a ring without points the
    /// weights are so close to the shares that a sample would be no better.
    pub(super) fn for_config(config: &config::UpstreamConfig, ring: &Ring) -> Self {
        let shares = Self::default();
        if config.hot_keys.is_some() && ring.sample_size().is_none() {
            shares.all(ring);
        }
        shares
    }

    /// The weight and the share of the peer at an index of the ring's member order; without a computed
    /// share, the weight is used instead.
    pub(super) fn weighted_share(&self, index: usize, weight: Weight) -> WeightedShare {
        let computed = self.all.get().and_then(|all| all.get(index).copied());
        WeightedShare {
            weight: weight.get().into(),
            key_space: computed.unwrap_or(weight.get().into()),
        }
    }

    /// How many of the 2^32 hashes each peer owns when all are up.
    pub(super) fn all(&self, ring: &Ring) -> &[u64] {
        self.all.get_or_init(|| ring.shares().into())
    }

    /// How many of the 2^32 hashes are assigned to each peer at `now`.
    pub(super) fn current(&self, ring: &Ring, peers: &[Peer], now: Duration) -> Vec<u64> {
        let fractions = serving_fractions(peers, now);
        if fractions.iter().all(|fraction| *fraction >= 1.0) {
            return self.all(ring).to_vec();
        }
        let mut current = self.current.lock();
        if current.fractions != fractions {
            let shares = ring.partial_shares(&fractions);
            current.shares = shares.into_iter().map(round_share).collect();
            current.fractions = fractions;
        }
        current.shares.clone()
    }
}

/// The fraction of the keys reaching it in their walks that each peer serves, 0.0 ..= 1.0.
fn serving_fractions(peers: &[Peer], now: Duration) -> Vec<f64> {
    let of_each = |of: &dyn Fn(&Peer) -> f64| peers.iter().map(of).collect::<Vec<_>>();
    let flag = |is_set: bool| if is_set { 1.0 } else { 0.0 };
    let slow_starting = of_each(&|peer| match peer.state.slow_start(now) {
        _ if !peer.state.is_available(now) => 0.0,
        Some(slow_start) => slow_start.fraction(now),
        None => 1.0,
    });
    if slow_starting.contains(&1.0) {
        return slow_starting;
    }
    // If every available peer is in a slow start, owners serve all their keys.
    let available = of_each(&|peer| flag(peer.state.is_available(now)));
    if available.contains(&1.0) {
        return available;
    }
    let up = of_each(&|peer| flag(peer.state.is_up()));
    if up.contains(&1.0) {
        return up;
    }
    of_each(&|peer| flag(peer.state.may_be_up()))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a sum of shares of 2^32"
)]
fn round_share(share: f64) -> u64 {
    share.round() as u64
}
