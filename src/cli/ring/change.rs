//! Two sides to compare: an upstream as it is, and as it would be.

use std::path::PathBuf;

use clap::Args;

use super::Place;
use crate::cli::{ConfigFile, Failure};
use crate::config;
use crate::predict::{self, Change, Peer, Placement, Rules};
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

/// An upstream, and its peers on their ring.
pub(super) struct Side {
    upstream: config::UpstreamConfig,
    side: predict::Side,
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
    /// The upstream as it is configured.
    pub(super) fn unchanged(place: &Place) -> Result<Self, Failure> {
        Self::new(place.upstream_in(&place.config)?, &Change::default())
    }

    fn new(upstream: config::UpstreamConfig, change: &Change) -> Result<Self, Failure> {
        let peers: Vec<_> = upstream.members().map(Peer::from).collect();
        let side = predict::Side::changed(upstream.dialect, &peers, change)
            .map_err(|refused| Failure::Input(refused.to_string()))?;
        Ok(Self { upstream, side })
    }

    /// Its peers, in the ring's order.
    pub(super) fn peers(&self) -> &[Peer] {
        self.side.peers()
    }

    /// The ring.
    pub(super) fn ring(&self) -> &Ring {
        self.side.ring()
    }

    /// What keeps requests from their home, as it is configured.
    pub(super) fn rules(&self) -> Rules {
        self.upstream.rules()
    }

    /// Whether peers that come back or are new start slowly.
    pub(super) fn starts_slowly(&self) -> bool {
        self.upstream.slow_start.is_some()
    }

    /// Who has which keys while these peers are down.
    pub(super) fn placement(&self, down: &[String]) -> Result<Placement<'_>, Failure> {
        let down = down.iter().map(String::as_str);
        let placement = self.side.placement(down);
        placement.map_err(|unknown| Failure::Input(unknown.to_string()))
    }

    /// Whether a key has the same hash in both.
    pub(super) fn hashes_like(&self, other: &Self) -> bool {
        self.upstream.hashes_like(&other.upstream)
    }
}
