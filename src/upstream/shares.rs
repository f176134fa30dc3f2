//! How much of the key space each peer has now: exact shares of the ring, of the peers that are available.
//!
//! What single keys are treated to is not in it: hot keys, those that a drain leaves, the overflow of a bounded
//! load. Where several peers ramp, their orders of keys are taken as one: what one of them leaves goes to
//! those that have come further.

use std::time::Duration;

use super::Upstream;
use crate::ring::{MemberId, overlay_up};

impl Upstream {
    /// How many of the 2^32 hashes go to each peer at `now`, in the order of [`Self::peers`]. Where nobody is
    /// available, those have them who serve as a last resort; nothing, where there are none.
    pub fn shares_now(&self, now: Duration) -> Vec<u64> {
        let homes = self.homes(now);
        let mut steps: Vec<f64> = homes.iter().copied().filter(|home| *home > 0.0).collect();
        steps.sort_by(f64::total_cmp);
        steps.dedup();
        let mut shares = vec![0.0; homes.len()];
        let mut from = 0.0;
        for step in steps {
            let up = |member: MemberId| homes.get(member.index()).is_some_and(|home| *home >= step);
            overlay_up((&self.ring, up), (&self.ring, up), |run| {
                if let Some(share) = shares.get_mut(run.from.index()) {
                    *share += hashes(run.hashes) * (step - from);
                }
            });
            from = step;
        }
        shares.into_iter().map(whole).collect()
    }

    /// Of the keys that come to each peer, the part that is home there, 0.0 ..= 1.0.
    fn homes(&self, now: Duration) -> Vec<f64> {
        let home = |of: &dyn Fn(&super::Peer) -> f64| self.peers.iter().map(of).collect::<Vec<_>>();
        let flag = |is_up: bool| if is_up { 1.0 } else { 0.0 };
        let ramped = home(&|peer| match peer.state.ramp(now) {
            _ if !peer.state.is_available(now) => 0.0,
            Some(ramp) => ramp.share(now),
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
    clippy::cast_precision_loss,
    reason = "at most 2^32, which f64 holds exactly"
)]
fn hashes(run: u64) -> f64 {
    run as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a sum of shares of 2^32"
)]
fn whole(share: f64) -> u64 {
    share.round() as u64
}
