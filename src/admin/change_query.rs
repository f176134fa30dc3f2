//! A hypothetical change of an upstream, as query parameters: `without=LABEL`, `add=ADDRESS[=WEIGHT]`,
//! `weight=LABEL=WEIGHT`, `down=LABEL`, `up=LABEL`, each as often as needed.
//!
//! A peer that is not available now counts as down before and after the change, unless a parameter
//! says otherwise.

use serde_json::{Value, json};

use super::response::AdminResponse;
use crate::clock;
use crate::config;
use crate::predict::{PeerSetChange, PeerSpec, Scenario};
use crate::upstream::Upstream;

/// The most changes in one query.
const MAX_CHANGES: usize = 256;

/// The most points of both rings together: about one second of work, and 64 MiB. A dialect without points
/// computes a score for each member and key of its sample; each score counts as a point.
const MAX_POINTS: u64 = 1 << 22;

/// A hypothetical change of the peers.
#[derive(Debug, Default)]
pub(super) struct ChangeQuery {
    change: PeerSetChange,
    down: Vec<String>,
    up: Vec<String>,
}

impl ChangeQuery {
    /// Adds a parameter to the change; false: the parameter does not belong to a change.
    ///
    /// # Errors
    /// The value is wrong, or there are too many changes.
    pub(super) fn parse_param(&mut self, name: &str, value: &[u8]) -> Result<bool, String> {
        let value = String::from_utf8_lossy(value).into_owned();
        let at_param = |error| format!("`{name}={value}`: {error}");
        match name {
            "add" => {
                let peer = PeerSpec::parse(&value).map_err(at_param)?;
                self.change.add.push(peer);
            }
            "weight" => {
                let peer = PeerSpec::parse_with_weight(&value).map_err(at_param)?;
                self.change.reweight.push(peer);
            }
            "without" => self.change.remove.push(value),
            "down" => self.down.push(value),
            "up" => self.up.push(value),
            _ => return Ok(false),
        }
        match self.change.len() + self.down.len() + self.up.len() {
            0..=MAX_CHANGES => Ok(true),
            _ => Err(format!("more than {MAX_CHANGES} changes in one request")),
        }
    }

    /// Whether nothing changes.
    pub(super) fn is_empty(&self) -> bool {
        self.change.is_empty() && self.down.is_empty() && self.up.is_empty()
    }

    /// The peers of `to` after the change.
    ///
    /// # Errors
    /// 422: a named peer does not exist, the peers cannot form a ring, or the rings before and after have more
    /// than [`MAX_POINTS`] together.
    pub(super) fn scenario(
        &self,
        now: &Upstream,
        to: &config::UpstreamConfig,
    ) -> Result<Scenario, AdminResponse> {
        let before: Vec<_> = to.members().map(PeerSpec::from).collect();
        let exists = |label: &&String| before.iter().any(|peer| peer.label == **label);
        if let Some(unknown) = self.up.iter().find(|label| !exists(label)) {
            let message = format!("there is no peer `{unknown}`");
            return Err(AdminResponse::unprocessable(message));
        }
        let after = self.change.apply(&before);
        let after = after.map_err(AdminResponse::unprocessable)?;
        let points = current_points(now) + total_points(to, &after);
        if points > MAX_POINTS {
            return Err(AdminResponse::unprocessable(format!(
                "the rings have {points} points together, at most {MAX_POINTS} are possible here; use the command `clockwise ring`"
            )));
        }
        Scenario::new(to.dialect, after).map_err(AdminResponse::unprocessable)
    }

    /// The peers that are down after the change: those of `down`, and those that are unavailable now, unless
    /// the change removes them, adds them again, or names them in `up`.
    pub(super) fn down_after<'a>(
        &'a self,
        unavailable: &[&'a str],
        after: &Scenario,
    ) -> Vec<&'a str> {
        let stays_down = |label: &&str| {
            let is_up = self.up.iter().any(|up| up == label);
            let is_new = self.change.add.iter().any(|peer| peer.label == **label);
            !is_up && !is_new && after.peers().iter().any(|peer| peer.label == **label)
        };
        let down = self.down.iter().map(String::as_str);
        down.chain(unavailable.iter().copied().filter(stays_down))
            .collect()
    }
}

/// The labels of the peers that get no requests now.
pub(super) fn unavailable_peers(upstream: &Upstream) -> Vec<&str> {
    let now = clock::since_start();
    let peers = upstream.peers().iter();
    let unavailable = peers.filter(|peer| !peer.state.is_available(now));
    unavailable.map(|peer| &*peer.label).collect()
}

/// Adds the unavailable peers to a report.
pub(super) fn add_down_now(report: &mut Value, unavailable: &[&str]) {
    if let Some(report) = report.as_object_mut() {
        report.insert("down_now".to_owned(), json!(unavailable));
    }
}

fn current_points(upstream: &Upstream) -> u64 {
    let members: Vec<_> = upstream.config.members().map(PeerSpec::from).collect();
    total_points(&upstream.config, &members)
}

/// The points of a ring of these peers; in a dialect without points, the scores for its sample of keys.
fn total_points(upstream: &config::UpstreamConfig, peers: &[PeerSpec]) -> u64 {
    if let Some(keys) = upstream.dialect.sample_size() {
        return u64::from(keys) * peers.len() as u64;
    }
    let weights: Vec<_> = peers.iter().map(|peer| peer.weight).collect();
    upstream.dialect.total_points(&weights)
}
