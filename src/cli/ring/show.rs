//! `clockwise ring show`

use std::path::PathBuf;

use clap::Args;

use super::scenario::UpstreamScenario;
use super::upstream_args::UpstreamArgs;
use crate::cli::error::{CliError, CommandResult};
use crate::cli::output::Output;
use crate::predict::{PeerShare, PeerShares, PeerSpec, percent, render_svg};

#[derive(Args, Debug)]
pub(in crate::cli) struct ShowArgs {
    #[command(flatten)]
    upstream_args: UpstreamArgs,
    /// Also draws the ring into this SVG file
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

impl ShowArgs {
    pub(super) fn run(&self, output: &mut Output) -> CommandResult {
        let scenario = UpstreamScenario::as_configured(&self.upstream_args)?;
        let (ring, shares) = (scenario.ring(), scenario.ring().shares());
        let peers = scenario.peers().iter().map(PeerSpec::member);
        let peer_shares = PeerShares::new(ring, &shares, peers);
        if let Some(file) = &self.svg {
            let placement = scenario.placement(&[])?;
            let drawing = render_svg(ring, &shares, |member| placement.label(member));
            let failed =
                |error| CliError::Input(format!("cannot write `{}`: {error}", file.display()));
            std::fs::write(file, drawing).map_err(failed)?;
        }
        if self.upstream_args.json {
            return output.line(&peer_shares.to_json().to_string());
        }
        print_shares(&peer_shares, output)
    }
}

fn print_shares(shares: &PeerShares, output: &mut Output) -> CommandResult {
    let lengths = shares.peers.iter().map(|peer| peer.label.len());
    let width = lengths.max().unwrap_or(0).max("peer".len());
    output.line(&format!(
        "{:width$}  weight  points           share     fair  share/fair",
        "peer"
    ))?;
    for peer in &shares.peers {
        output.line(&format_share(peer, width))?;
    }
    let max_over_mean = shares.max_over_mean();
    output.line(&match shares.sampled_keys {
        None => format!("max/mean {max_over_mean:.4}, {} points", shares.points),
        Some(keys) => {
            format!("max/mean {max_over_mean:.4}, estimated from {keys} sample keys (this dialect has no points)")
        }
    })
}

fn format_share(peer: &PeerShare, width: usize) -> String {
    format!(
        "{:width$}  {:6}  {:6}  {:>12} %  {:6.3}%  {:10.4}",
        peer.label,
        peer.weight,
        peer.points,
        percent(peer.hashes),
        peer.fair_share * 100.0,
        peer.share_over_fair(),
    )
}
