//! An upstream as it is configured, and after a change.

use std::path::PathBuf;

use clap::Args;

use super::upstream_args::UpstreamArgs;
use crate::cli::config_args::ConfigArgs;
use crate::cli::error::CliError;
use crate::config;
use crate::predict::{self, KeyPlacement, LoadRules, PeerSetChange, PeerSpec};
use crate::ring::Ring;

/// The arguments that describe a change of an upstream.
#[derive(Args, Debug)]
#[group(id = "change", multiple = true)]
pub(super) struct ChangeArgs {
    /// The configuration after the change [default: the same file]
    #[arg(long, value_name = "FILE", group = "change")]
    to: Option<PathBuf>,
    /// Removes a peer
    #[arg(long, value_name = "LABEL", group = "change")]
    without: Vec<String>,
    /// Adds a peer, by its label if it has one, else by its address; the default weight is 1
    #[arg(long, value_name = "ADDRESS[=WEIGHT]", group = "change", value_parser = PeerSpec::parse)]
    add: Vec<PeerSpec>,
    /// Gives a peer another weight
    #[arg(long, value_name = "LABEL=WEIGHT", group = "change", value_parser = PeerSpec::parse_with_weight)]
    weight: Vec<PeerSpec>,
    /// Treats this peer as down after the change
    #[arg(long, value_name = "LABEL", group = "change")]
    down: Vec<String>,
}

/// An upstream, and the ring of its peers.
pub(super) struct UpstreamScenario {
    upstream: config::UpstreamConfig,
    scenario: predict::Scenario,
}

impl ChangeArgs {
    /// Whether any of the arguments is given.
    pub(super) fn has_changes(&self) -> bool {
        self.to.is_some() || !self.down.is_empty() || !self.change().is_empty()
    }

    /// The upstream after the change. The configuration that `--to` names must have it, too.
    pub(super) fn scenario(
        &self,
        upstream_args: &UpstreamArgs,
    ) -> Result<UpstreamScenario, CliError> {
        let config = match &self.to {
            Some(to) if !to.is_file() => {
                let message = format!("`--to {}`: there is no such file", to.display());
                return Err(CliError::Input(message));
            }
            Some(to) => ConfigArgs::from_path(to),
            None => upstream_args.config.clone(),
        };
        UpstreamScenario::new(upstream_args.load_upstream(&config)?, &self.change())
    }

    /// The peers that are down after the change.
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
    pub(super) fn as_configured(upstream_args: &UpstreamArgs) -> Result<Self, CliError> {
        Self::new(
            upstream_args.load_upstream(&upstream_args.config)?,
            &PeerSetChange::default(),
        )
    }

    fn new(upstream: config::UpstreamConfig, change: &PeerSetChange) -> Result<Self, CliError> {
        let peers: Vec<_> = upstream.members().map(PeerSpec::from).collect();
        let scenario = predict::Scenario::after_change(upstream.dialect, &peers, change)
            .map_err(|error| CliError::Input(error.to_string()))?;
        Ok(Self { upstream, scenario })
    }

    /// The peers, in the order of the ring's members.
    pub(super) fn peers(&self) -> &[PeerSpec] {
        self.scenario.peers()
    }

    pub(super) fn ring(&self) -> &Ring {
        self.scenario.ring()
    }

    /// The configured rules that send requests to another peer than their owner.
    pub(super) fn load_rules(&self) -> LoadRules {
        self.upstream.rules()
    }

    /// Why keys move although the shares stay, if only the scale of all weights changes.
    pub(super) fn scale_remark(&self, after: &Self) -> Option<String> {
        if !self.scenario.is_scaled_to(&after.scenario) {
            return None;
        }
        let mut weights = after.peers().iter().map(|peer| peer.weight);
        let first = weights.next();
        let advice = if weights.all(|weight| Some(weight) == first) {
            "equal weights of 1 would do"
        } else {
            "the old weights would do"
        };
        let dialect = self.upstream.dialect.name();
        Some(format!(
            "note: all weights change by the same factor; in dialect `{dialect}` weights count absolutely, so keys move; {advice}"
        ))
    }

    /// The owner of each key while these peers are down.
    pub(super) fn placement(&self, down: &[String]) -> Result<KeyPlacement<'_>, CliError> {
        let down = down.iter().map(String::as_str);
        let placement = self.scenario.placement(down);
        placement.map_err(|unknown_peer| CliError::Input(unknown_peer.to_string()))
    }

    /// Whether a key has the same hash in both scenarios.
    pub(super) fn hashes_keys_like(&self, other: &Self) -> bool {
        self.upstream.hashes_like(&other.upstream)
    }
}
