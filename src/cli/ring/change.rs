//! Two sides to compare: an upstream as it is, and as it would be.

use std::path::PathBuf;

use clap::Args;

use super::Place;
use crate::cli::{ConfigFile, Failure};
use crate::config;
use crate::predict::{Change, Peer, Placement, Rules};
use crate::ring::Ring;

/// What would be different.
#[derive(Args, Debug)]
#[group(id = "change", multiple = true)]
pub(super) struct Changed {
    /// The configuration afterwards; not given, it is the same one, and the rest says what changes
    #[arg(long, value_name = "FILE", group = "change")]
    to: Option<PathBuf>,
    /// Removes a peer
    #[arg(long, value_name = "LABEL", group = "change")]
    without: Vec<String>,
    /// Adds a peer: its address, or its label where it has one of its own; weight 1 if not given
    #[arg(long, value_name = "ADDRESS[=WEIGHT]", group = "change", value_parser = Peer::new_one)]
    add: Vec<Peer>,
    /// Gives a peer another weight
    #[arg(long, value_name = "LABEL=WEIGHT", group = "change", value_parser = Peer::weighed)]
    weight: Vec<Peer>,
    /// A peer is down afterwards
    #[arg(long, value_name = "LABEL", group = "change")]
    down: Vec<String>,
}

/// An upstream's peers on their ring.
pub(super) struct Side {
    upstream: config::Upstream,
    pub(super) peers: Vec<Peer>,
    ring: Ring,
}

impl Changed {
    /// Whether anything is.
    pub(super) fn is_any(&self) -> bool {
        self.to.is_some() || !self.down.is_empty() || !self.change().is_empty()
    }

    /// The upstream as it would be. A configuration of its own must have it too.
    pub(super) fn side(&self, place: &Place) -> Result<Side, Failure> {
        let config = match &self.to {
            Some(to) if !to.is_file() => {
                let message = format!("`--to {}`: there is no such file", to.display());
                return Err(Failure::Input(message));
            }
            Some(to) => ConfigFile::at(to),
            None => place.config.clone(),
        };
        Side::new(place.upstream_in(&config)?, &self.change())
    }

    /// The peers that are down afterwards.
    pub(super) fn down(&self) -> &[String] {
        &self.down
    }

    fn change(&self) -> Change {
        Change {
            without: self.without.clone(),
            add: self.add.clone(),
            weight: self.weight.clone(),
        }
    }
}

impl Side {
    /// What keeps requests from their home, as it is configured. A slow start does not: it is over.
    pub(super) fn rules(&self) -> Rules {
        let hot_keys = self.upstream.hot_keys;
        Rules {
            bound: self.upstream.bounded_load.map(|load| load.factor),
            hot_keys: hot_keys.map(|hot| (hot.threshold, hot.spread)),
        }
    }

    /// Whether peers that come back or are new start slowly.
    pub(super) fn starts_slowly(&self) -> bool {
        self.upstream.slow_start.is_some()
    }

    /// The upstream as it is configured.
    pub(super) fn unchanged(place: &Place) -> Result<Self, Failure> {
        Self::new(place.upstream_in(&place.config)?, &Change::default())
    }

    fn new(upstream: config::Upstream, change: &Change) -> Result<Self, Failure> {
        let peers: Vec<_> = upstream.members().map(Peer::from).collect();
        let peers = change
            .apply(&peers)
            .map_err(|unknown| Failure::Input(unknown.to_string()))?;
        let ring = Ring::new(upstream.dialect, peers.iter().map(Peer::member))
            .map_err(|error| Failure::Input(error.to_string()))?;
        Ok(Self {
            upstream,
            peers,
            ring,
        })
    }

    /// Who has which keys while these peers are down.
    pub(super) fn placement(&self, down: &[String]) -> Result<Placement<'_>, Failure> {
        let labels = self.peers.iter().map(|peer| peer.label.as_str());
        Placement::new(&self.ring, labels)
            .with_down(down.iter().map(String::as_str))
            .map_err(|unknown| Failure::Input(unknown.to_string()))
    }

    /// Whether a key has the same hash in both.
    pub(super) fn hashes_like(&self, other: &Self) -> bool {
        let (one, other) = (&self.upstream, &other.upstream);
        one.key == other.key && one.dialect.hashes_like(other.dialect)
    }
}
