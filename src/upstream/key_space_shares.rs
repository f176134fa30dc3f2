//! How much of the key space each peer has: exact shares of the ring, of all peers and of those available.
//!
//! What single keys are treated to is not in it: hot keys, those that a drain leaves, the overflow of a bounded
//! load. Where several peers ramp, their orders of keys are taken as one: what one of them leaves goes to
//! those that have come further.
//!
//! A round of a large ring takes a while, so what it gives is kept: the shares of all peers for good, those
//! of the available ones until others are. Whoever asks first waits for it, and so must not be a thread that
//! serves.

use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::Mutex;

use super::{Peer, Upstream};
use crate::config;
use crate::policy::hot_key_spread::WeightedShare;
use crate::ring::{Ring, Weight};

/// What was counted of one ring.
#[derive(Debug, Default)]
pub(super) struct KeySpaceShares {
    all: OnceLock<Box<[u64]>>,
    current: Mutex<CurrentShares>,
}

/// The last shares, and of which peers they are.
#[derive(Debug, Default)]
struct CurrentShares {
    fractions: Vec<f64>,
    shares: Vec<u64>,
}

impl KeySpaceShares {
    /// Those of all peers, if the spread of hot keys needs them. Where there are no points all have what their
    /// weights say, so nearly that a sample would be no better.
    pub(super) fn for_config(config: &config::UpstreamConfig, ring: &Ring) -> Self {
        let shares = Self::default();
        if config.hot_keys.is_some() && ring.sample_size().is_none() {
            shares.all.get_or_init(|| ring.shares().into());
        }
        shares
    }

    /// What a peer has at a place in the ring's member order.
    pub(super) fn weighted_share(&self, place: usize, weight: Weight) -> WeightedShare {
        let known = self.all.get().and_then(|all| all.get(place).copied());
        WeightedShare {
            weight: weight.get().into(),
            key_space: known.unwrap_or(weight.get().into()),
        }
    }
}

impl Upstream {
    /// How many of the 2^32 hashes go to each peer when all are up, in the order of [`Self::peers`].
    pub fn key_space_shares(&self) -> &[u64] {
        self.shares.all.get_or_init(|| self.ring.shares().into())
    }

    /// How many of the 2^32 hashes go to each peer at `now`, in the order of [`Self::peers`]. Where nobody is
    /// available, those have them who serve as a last resort; nothing, where there are none.
    pub fn current_key_space_shares(&self, now: Duration) -> Vec<u64> {
        let homes = self.assigned_fractions(now);
        if homes.iter().all(|home| *home >= 1.0) {
            return self.key_space_shares().to_vec();
        }
        let mut known = self.shares.current.lock();
        if known.fractions != homes {
            let shares = self.ring.partial_shares(&homes);
            known.shares = shares.into_iter().map(round_share).collect();
            known.fractions = homes;
        }
        known.shares.clone()
    }

    /// What the peers that can serve at `now` have together, of what they have when all are up: what comes to them from
    /// the others is taken as spread as they are, which a round of the ring at each change would tell exactly.
    pub(super) fn serving_share(&self, now: Duration) -> WeightedShare {
        self.weights
            .serving_share(&self.peers, &self.shared.changes, now)
    }

    /// Of the keys that come to each peer, the part that is home there, 0.0 ..= 1.0.
    fn assigned_fractions(&self, now: Duration) -> Vec<f64> {
        let home = |of: &dyn Fn(&Peer) -> f64| self.peers.iter().map(of).collect::<Vec<_>>();
        let flag = |is_up: bool| if is_up { 1.0 } else { 0.0 };
        let ramped = home(&|peer| match peer.state.slow_start(now) {
            _ if !peer.state.is_available(now) => 0.0,
            Some(ramp) => ramp.fraction(now),
            None => 1.0,
        });
        if ramped.contains(&1.0) {
            return ramped;
        }
        // Where all ramp, none can spare another anything.
        let available = home(&|peer| flag(peer.state.is_available(now)));
        if available.contains(&1.0) {
            return available;
        }
        let off = home(&|peer| flag(peer.state.is_up()));
        if off.contains(&1.0) {
            return off;
        }
        home(&|peer| flag(peer.state.may_be_up()))
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a sum of shares of 2^32"
)]
fn round_share(share: f64) -> u64 {
    share.round() as u64
}
