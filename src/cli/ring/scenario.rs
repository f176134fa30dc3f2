//! Two sides to compare: an upstream as it is, and as it would be.

use std::path::PathBuf;

use clap::Args;

use super::upstream_args::UpstreamArgs;
use crate::cli::config_args::ConfigArgs;
use crate::cli::error::CliError;
use crate::config;
use crate::predict::{self, KeyPlacement, LoadRules, PeerSetChange, PeerSpec};
use crate::ring::Ring;

/// What would be different.
#[derive(Args, Debug)]
#[group(id = "change", multiple = true)]
pub(super) struct ChangeArgs {
    /// The configuration afterwards; not given, it is the same one, and the rest says what changes
    #[arg(long, value_name = "FILE", group = "change")]
    to: Option<PathBuf>,
    /// Removes a peer
    #[arg(long, value_name = "LABEL", group = "change")]
    without: Vec<String>,
    /// Adds a peer: its address, or its label where it has one of its own; weight 1 if not given
    #[arg(long, value_name = "ADDRESS[=WEIGHT]", group = "change", value_parser = PeerSpec::parse)]
    add: Vec<PeerSpec>,
    /// Gives a peer another weight
    #[arg(long, value_name = "LABEL=WEIGHT", group = "change", value_parser = PeerSpec::parse_with_weight)]
    weight: Vec<PeerSpec>,
    /// A peer is down afterwards
    #[arg(long, value_name = "LABEL", group = "change")]
    down: Vec<String>,
}

/// An upstream, and its peers on their ring.
pub(super) struct UpstreamScenario {
    upstream: config::UpstreamConfig,
    scenario: predict::Scenario,
}

impl ChangeArgs {
    /// Whether anything is.
    pub(super) fn has_changes(&self) -> bool {
        self.to.is_some() || !self.down.is_empty() || !self.change().is_empty()
    }

    /// The upstream as it would be. A configuration of its own must have it too.
    pub(super) fn scenario(&self, place: &UpstreamArgs) -> Result<UpstreamScenario, CliError> {
        let config = match &self.to {
            Some(to) if !to.is_file() => {
                let message = format!("`--to {}`: there is no such file", to.display());
                return Err(CliError::Input(message));
            }
            Some(to) => ConfigArgs::from_path(to),
            None => place.config.clone(),
        };
        UpstreamScenario::new(place.load_upstream(&config)?, &self.change())
    }

    /// The peers that are down afterwards.
    pub(super) fn down(&self) -> &[String] {
        &self.down
    }

    fn change(&self) -> PeerSetChange {
        PeerSetChange {
            remove: self.without.clone(),
            add: self.add.clone(),
            reweight: self.weight.clone(),
        }
    }
}

impl UpstreamScenario {
    /// The upstream as it is configured.
    pub(super) fn as_configured(place: &UpstreamArgs) -> Result<Self, CliError> {
        Self::new(
            place.load_upstream(&place.config)?,
            &PeerSetChange::default(),
        )
    }

    fn new(upstream: config::UpstreamConfig, change: &PeerSetChange) -> Result<Self, CliError> {
        let peers: Vec<_> = upstream.members().map(PeerSpec::from).collect();
        let side = predict::Scenario::after_change(upstream.dialect, &peers, change)
            .map_err(|refused| CliError::Input(refused.to_string()))?;
        Ok(Self {
            upstream,
            scenario: side,
        })
    }

    /// Its peers, in the ring's order.
    pub(super) fn peers(&self) -> &[PeerSpec] {
        self.scenario.peers()
    }

    /// The ring.
    pub(super) fn ring(&self) -> &Ring {
        self.scenario.ring()
    }

    /// What keeps requests from their home, as it is configured.
    pub(super) fn load_rules(&self) -> LoadRules {
        self.upstream.rules()
    }

    /// Whether peers that come back or are new start slowly.
    pub(super) fn has_slow_start(&self) -> bool {
        self.upstream.slow_start.is_some()
    }

    /// Who has which keys while these peers are down.
    pub(super) fn placement(&self, down: &[String]) -> Result<KeyPlacement<'_>, CliError> {
        let down = down.iter().map(String::as_str);
        let placement = self.scenario.placement(down);
        placement.map_err(|unknown| CliError::Input(unknown.to_string()))
    }

    /// Whether a key has the same hash in both.
    pub(super) fn hashes_keys_like(&self, other: &Self) -> bool {
        self.upstream.hashes_like(&other.upstream)
    }
}
