//! The differences between two configurations: listeners, routes, peers, and the share of the keys that
//! moves.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Snapshot;
use crate::config::{Config, UpstreamConfig};
use crate::predict::{Comparison, HASH_SPACE, KeyPlacement, Movement, percent, share};
use crate::ring::{self, Ring, Weight};
use crate::upstream::Upstream;

/// The differences between two configurations.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct SnapshotDiff {
    /// Addresses.
    pub listeners: NameChanges,
    /// Routes, as host, path and methods.
    pub routes: NameChanges,
    /// Upstreams that come, go, or are no longer the same.
    pub upstreams: BTreeMap<String, UpstreamDiff>,
    /// Keys of the configuration whose change needs a new process (`clockwise upgrade`).
    pub needs_upgrade: Vec<&'static str>,
}

/// Names that are only in the new configuration, only in the old one, or in both with changes.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct NameChanges {
    /// Only after.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub added: Vec<String>,
    /// Only before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    /// In both, with other settings.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed: Vec<String>,
}

/// The changes of one upstream.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct UpstreamDiff {
    /// Whether it is added, removed or changed.
    pub change: ChangeKind,
    /// Its peers, by label.
    pub peers: NameChanges,
    /// The share of the key space that goes to another peer, 0 … 1.
    pub moved: f64,
    /// The same as a number of the 2^32 hashes.
    pub moved_hashes: u64,
}

/// The kind of change of an upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ChangeKind {
    /// It is new.
    Added,
    /// It goes.
    Removed,
    /// It stays, and something of it changes.
    Changed,
}

/// An upstream that moves more keys than its `max_moved` allows.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "upstream `{upstream}` would move {} % of its keys, and `max_moved` allows {} %; use --force to do it all the same",
    percent(*moved),
    rounded(allowed * 100.0)
)]
pub(crate) struct MaxMovedExceeded {
    upstream: String,
    /// The number of hashes that move, of 2^32.
    moved: u64,
    allowed: f64,
}

/// A percentage as it was written: a share of one times 100, without what that multiplication adds.
fn rounded(percentage: f64) -> f64 {
    (percentage * 1e9).round() / 1e9
}

impl SnapshotDiff {
    /// Compares two snapshots.
    pub(crate) fn between(before: &Snapshot, after: &Snapshot) -> Self {
        let listeners = |config: &Config| {
            config
                .listeners
                .iter()
                .map(|listener| (listener.address.to_string(), listener.clone()))
                .collect()
        };
        let routes = |config: &Config| {
            config
                .routes
                .iter()
                .map(|route| (route.matches.to_string(), route.clone()))
                .collect()
        };
        Self {
            listeners: NameChanges::between(&listeners(&before.config), &listeners(&after.config)),
            routes: NameChanges::between(&routes(&before.config), &routes(&after.config)),
            upstreams: diff_upstreams(before, after),
            needs_upgrade: needs_upgrade(&before.config, &after.config),
        }
    }

    /// Whether some upstream moves more keys than it may.
    ///
    /// # Errors
    /// The first that does.
    pub(crate) fn check_max_moved(&self, after: &Config) -> Result<(), MaxMovedExceeded> {
        let limited = self
            .upstreams
            .iter()
            .filter(|(_, plan)| plan.change == ChangeKind::Changed);
        for (name, plan) in limited {
            let allowed = after
                .upstreams
                .get(name)
                .and_then(|upstream| upstream.max_moved);
            MaxMovedExceeded::check(name, plan.moved_hashes, allowed)?;
        }
        Ok(())
    }
}

impl MaxMovedExceeded {
    /// Compares the hashes that move, of 2^32, with the share that may move; `None`: any.
    ///
    /// # Errors
    /// More move.
    pub(crate) fn check(upstream: &str, moved: u64, allowed: Option<f64>) -> Result<(), Self> {
        match allowed.filter(|allowed| share(moved) > *allowed) {
            Some(allowed) => Err(Self {
                upstream: upstream.to_owned(),
                moved,
                allowed,
            }),
            None => Ok(()),
        }
    }
}

impl NameChanges {
    fn between<T: PartialEq>(before: &BTreeMap<String, T>, after: &BTreeMap<String, T>) -> Self {
        let missing = |from: &BTreeMap<String, T>, of: &BTreeMap<String, T>| {
            of.keys()
                .filter(|name| !from.contains_key(*name))
                .cloned()
                .collect()
        };
        let changed = after
            .iter()
            .filter(|(name, now)| before.get(*name).is_some_and(|was| was != *now));
        Self {
            added: missing(before, after),
            removed: missing(after, before),
            changed: changed.map(|(name, _)| name.clone()).collect(),
        }
    }
}

fn diff_upstreams(before: &Snapshot, after: &Snapshot) -> BTreeMap<String, UpstreamDiff> {
    let names = before.upstreams.keys().chain(after.upstreams.keys());
    let plan = |name: &String| {
        let plan = diff_upstream(
            before.upstreams.get(name).map(|u| &**u),
            after.upstreams.get(name).map(|u| &**u),
        )?;
        Some((name.clone(), plan))
    };
    names.filter_map(plan).collect()
}

/// `None`: nothing changes.
fn diff_upstream(before: Option<&Upstream>, after: Option<&Upstream>) -> Option<UpstreamDiff> {
    let peers = |upstream: Option<&Upstream>| -> BTreeMap<String, (String, Weight)> {
        let peers = upstream.into_iter().flat_map(Upstream::peers);
        peers
            .map(|peer| {
                (
                    peer.label.to_string(),
                    (peer.address.to_string(), peer.weight),
                )
            })
            .collect()
    };
    let (change, moved) = match (before, after) {
        (Some(before), Some(after))
            if before.config == after.config && peers(Some(before)) == peers(Some(after)) =>
        {
            return None;
        }
        (Some(before), Some(after)) => (ChangeKind::Changed, moved_hashes(before, after)),
        (None, Some(_)) => (ChangeKind::Added, 0),
        (Some(_), None) => (ChangeKind::Removed, HASH_SPACE),
        (None, None) => return None,
    };
    Some(UpstreamDiff {
        change,
        peers: NameChanges::between(&peers(before), &peers(after)),
        moved: share(moved),
        moved_hashes: moved,
    })
}

/// How many hashes have an owner of another label afterwards. Another dialect or `key` gives every
/// key another place on the ring: then a key keeps its owner only by chance.
fn moved_hashes(before: &Upstream, after: &Upstream) -> u64 {
    let (was, is) = (&before.config, &after.config);
    let alike = was.key == is.key && was.dialect.hashes_keys_like(is.dialect);
    Comparison::new(before.placement(), after.placement(), alike)
        .movement()
        .moved
}

/// How many hashes move if an upstream gets other peers and keeps its dialect. Without peers before, no key had an owner,
/// and none moves.
///
/// # Errors
/// The ring of the new peers cannot be built.
pub(crate) fn moved_by_peers(
    before: &UpstreamConfig,
    after: &UpstreamConfig,
) -> Result<u64, ring::Error> {
    if before.peers.is_empty() {
        return Ok(0);
    }
    Ok(movement_by_peers(before, after)?.moved)
}

/// The keys that move if an upstream gets other peers and keeps its dialect.
///
/// # Errors
/// The ring of the new peers cannot be built.
pub(crate) fn movement_by_peers(
    before: &UpstreamConfig,
    after: &UpstreamConfig,
) -> Result<Movement, ring::Error> {
    let ring = |upstream: &UpstreamConfig| Ring::new(upstream.dialect, upstream.members());
    let (ring_before, ring_after) = (ring(before)?, ring(after)?);
    let comparison = Comparison::new(
        KeyPlacement::new(&ring_before, peer_labels(before)),
        KeyPlacement::new(&ring_after, peer_labels(after)),
        before.hashes_like(after),
    );
    Ok(comparison.movement())
}

fn peer_labels(upstream: &UpstreamConfig) -> impl Iterator<Item = &str> {
    upstream.peers.iter().map(|peer| peer.label.as_str())
}

fn needs_upgrade(before: &Config, after: &Config) -> Vec<&'static str> {
    let changed = [
        ("threads", before.threads != after.threads),
        ("pool_size", before.pool_size != after.pool_size),
        ("control", before.control != after.control),
        ("admin", before.admin != after.admin),
    ];
    changed
        .into_iter()
        .filter(|(_, changed)| *changed)
        .map(|(key, _)| key)
        .collect()
}
