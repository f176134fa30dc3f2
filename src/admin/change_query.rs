//! A change that is asked about, in the words of a query: `without=LABEL`, `add=ADDRESS[=WEIGHT]`,
//! `weight=LABEL=WEIGHT`, `down=LABEL`, `up=LABEL`, each as often as needed.
//!
//! Peers that do not serve now are down before and after, unless one of these says otherwise.

use std::fmt::Display;

use http::StatusCode;

use super::AdminResponse;
use crate::clock;
use crate::config;
use crate::predict::{PeerSetChange, PeerSpec, Scenario};
use crate::upstream::Upstream;

/// Peers that one question may name.
const MAX_CHANGES: usize = 256;

/// Points of the ring before and of that after, together: a second of work, and 64 MiB. Where there
/// are none, each member's score for each key of the sample is as much work as one.
pub(super) const MAX_POINTS: u64 = 1 << 22;

/// What would be different.
#[derive(Debug, Default)]
pub(super) struct ChangeQuery {
    change: PeerSetChange,
    down: Vec<String>,
    up: Vec<String>,
}

impl ChangeQuery {
    /// Takes a word of the query in; false: it is none of a change.
    ///
    /// # Errors
    /// What is wrong with its value.
    pub(super) fn parse_param(&mut self, word: &str, value: &[u8]) -> Result<bool, String> {
        let value = String::from_utf8_lossy(value).into_owned();
        let told = |why| format!("`{word}={value}`: {why}");
        match word {
            "add" => self.change.add.push(PeerSpec::parse(&value).map_err(told)?),
            "weight" => {
                let peer = PeerSpec::parse_with_weight(&value).map_err(told)?;
                self.change.reweight.push(peer);
            }
            "without" => self.change.remove.push(value),
            "down" => self.down.push(value),
            "up" => self.up.push(value),
            _ => return Ok(false),
        }
        match self.change.len() + self.down.len() + self.up.len() {
            0..=MAX_CHANGES => Ok(true),
            _ => Err(format!(
                "at most {MAX_CHANGES} changes at once are possible"
            )),
        }
    }

    /// Whether nothing is.
    pub(super) fn is_empty(&self) -> bool {
        self.change.is_empty() && self.down.is_empty() && self.up.is_empty()
    }

    /// The peers of `to` after the change, if they make no ring that is too large to be built here.
    ///
    /// # Errors
    /// There are no such peers, or they make no ring, or one that is too large.
    pub(super) fn scenario(
        &self,
        now: &Upstream,
        to: &config::UpstreamConfig,
    ) -> Result<Scenario, AdminResponse> {
        let before: Vec<_> = to.members().map(PeerSpec::from).collect();
        let known = |label: &&String| before.iter().any(|peer| peer.label == **label);
        if let Some(unknown) = self.up.iter().find(|label| !known(label)) {
            return Err(unprocessable(format!("there is no peer `{unknown}`")));
        }
        let after = self.change.apply(&before).map_err(unprocessable)?;
        let work = current_cost(now) + ring_cost(to, &after);
        if work > MAX_POINTS {
            return Err(unprocessable(format!(
                "{work} points would be looked at, at most {MAX_POINTS} are possible here; use `clockwise ring`"
            )));
        }
        Scenario::new(to.dialect, after).map_err(unprocessable)
    }

    /// Who is down afterwards: who is told to be, and who does not serve now and stays.
    pub(super) fn down_after<'a>(&'a self, idle: &[&'a str], side: &Scenario) -> Vec<&'a str> {
        let stays = |label: &&str| {
            let is_up = self.up.iter().any(|up| up == label);
            let is_new = self.change.add.iter().any(|peer| peer.label == **label);
            !is_up && !is_new && side.peers().iter().any(|peer| peer.label == **label)
        };
        let told = self.down.iter().map(String::as_str);
        told.chain(idle.iter().copied().filter(stays)).collect()
    }
}

/// The labels of those that do not serve now.
pub(super) fn unavailable_peers(upstream: &Upstream) -> Vec<&str> {
    let now = clock::since_start();
    let peers = upstream.peers().iter();
    let idle = peers.filter(|peer| !peer.state.is_available(now));
    idle.map(|peer| &*peer.label).collect()
}

/// The answer to a question about what is not there.
pub(super) fn unprocessable(why: impl Display) -> AdminResponse {
    AdminResponse::error(StatusCode::UNPROCESSABLE_ENTITY, &why.to_string())
}

fn current_cost(upstream: &Upstream) -> u64 {
    let members: Vec<_> = upstream.config.members().map(PeerSpec::from).collect();
    ring_cost(&upstream.config, &members)
}

/// What a ring of these peers costs, in points.
fn ring_cost(upstream: &config::UpstreamConfig, peers: &[PeerSpec]) -> u64 {
    if let Some(keys) = upstream.dialect.sample_size() {
        return u64::from(keys) * peers.len() as u64;
    }
    let weights: Vec<_> = peers.iter().map(|peer| peer.weight).collect();
    upstream.dialect.total_points(&weights)
}
