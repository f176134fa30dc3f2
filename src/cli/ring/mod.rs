//! `clockwise ring …`: answers from a configuration alone, without a network.

mod diff;
mod line_reader;
mod replay;
mod scenario;
mod table;

use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use self::line_reader::LineReader;
use self::scenario::UpstreamScenario;
use super::output::Output;
use super::{CliError, CommandResult, ConfigArgs};
use crate::config;
use crate::predict::{KeyPlacement, PeerShare, PeerShares, PeerSpec, percent, render_svg};

/// Who has a key where no peer is up.
const NO_PEER: &str = "(nobody)";

/// A question to the ring.
#[derive(Debug, Subcommand)]
pub(super) enum RingCommand {
    /// Which peer each key goes to: one line per key, key and label with a tab between
    Owner(OwnerArgs),
    /// Points and exact share of the key space of each peer (of a sample, where the dialect has no points)
    Show(ShowArgs),
    /// What a change moves: the exact share of the key space, and of given keys, from peer to peer
    Diff(diff::DiffArgs),
    /// What the traffic of an access log does to each peer's load, now and after a change
    Replay(replay::ReplayArgs),
}

#[derive(Args, Debug)]
struct UpstreamArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The upstream whose ring is asked
    #[arg(short, long, value_name = "NAME")]
    upstream: String,
    /// Answers as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct OwnerArgs {
    #[command(flatten)]
    upstream_args: UpstreamArgs,
    /// The first N peers of each key's walk, instead of the owner alone
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    walk: u32,
    /// Peers taken as down
    #[arg(long, value_name = "LABEL")]
    down: Vec<String>,
    /// The keys; a single - reads one per line from standard input
    #[arg(required = true, value_name = "KEY", value_parser = NonEmptyStringValueParser::new())]
    keys: Vec<String>,
}

#[derive(Args, Debug)]
pub(super) struct ShowArgs {
    #[command(flatten)]
    upstream_args: UpstreamArgs,
    /// Draws the ring into a file as well
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

impl RingCommand {
    pub(super) fn run(self, output: &mut Output) -> CommandResult {
        match self {
            Self::Owner(owner) => owner.run(output),
            Self::Show(show) => show.run(output),
            Self::Diff(diff) => diff.run(output),
            Self::Replay(replay) => replay.run(output),
        }?;
        output.flush()
    }
}

impl UpstreamArgs {
    /// The upstream, from this configuration.
    fn load_upstream(&self, file: &ConfigArgs) -> Result<config::UpstreamConfig, CliError> {
        let mut config = file.load()?;
        config.upstreams.remove(&self.upstream).ok_or_else(|| {
            let names: Vec<_> = config.upstreams.keys().map(String::as_str).collect();
            CliError::Input(format!(
                "there is no upstream `{}` in `{}`; there are: {}",
                self.upstream,
                file.path().display(),
                names.join(", ")
            ))
        })
    }
}

impl OwnerArgs {
    fn run(&self, output: &mut Output) -> CommandResult {
        let side = UpstreamScenario::as_configured(&self.upstream_args)?;
        let placement = side.placement(&self.down)?;
        if self.keys != ["-"] {
            let mut keys = self.keys.iter();
            return keys.try_for_each(|key| self.print_key(key.as_bytes(), &placement, output));
        }
        let mut keys = LineReader::open(Path::new("-"))?;
        while let Some(key) = keys.next_key()? {
            self.print_key(key, &placement, output)?;
        }
        Ok(())
    }

    fn print_key(
        &self,
        key: &[u8],
        placement: &KeyPlacement<'_>,
        output: &mut Output,
    ) -> CommandResult {
        let most = self.walk as usize;
        if self.upstream_args.json {
            return output.line(&placement.key_to_json(key, most).to_string());
        }
        output.bytes(key)?;
        output.bytes(b"\t")?;
        if most == 1 {
            let owner = placement.owner_of(key);
            return output.line(owner.map_or(NO_PEER, |member| placement.label(member)));
        }
        let placed = placement.ring().key(key);
        let labels: Vec<&str> = placement.walk(&placed).take(most).collect();
        match labels.as_slice() {
            [] => output.line(NO_PEER),
            labels => output.line(&labels.join("\t")),
        }
    }
}

impl ShowArgs {
    fn run(&self, output: &mut Output) -> CommandResult {
        let side = UpstreamScenario::as_configured(&self.upstream_args)?;
        let (ring, shares) = (side.ring(), side.ring().shares());
        let parts = PeerShares::new(ring, &shares, side.peers().iter().map(PeerSpec::member));
        if let Some(file) = &self.svg {
            let placement = side.placement(&[])?;
            let drawing = render_svg(ring, &shares, |member| placement.label(member));
            let failed =
                |error| CliError::Input(format!("cannot write `{}`: {error}", file.display()));
            std::fs::write(file, drawing).map_err(failed)?;
        }
        if self.upstream_args.json {
            return output.line(&parts.to_json().to_string());
        }
        print_shares(&parts, output)
    }
}

fn print_shares(parts: &PeerShares, output: &mut Output) -> CommandResult {
    let lengths = parts.peers.iter().map(|part| part.label.len());
    let width = lengths.max().unwrap_or(0).max("peer".len());
    output.line(&format!(
        "{:width$}  weight  points           share     fair  share/fair",
        "peer"
    ))?;
    for part in &parts.peers {
        output.line(&format_share(part, width))?;
    }
    let fullest = parts.max_over_mean();
    output.line(&match parts.sampled_keys {
        None => format!("max/mean {fullest:.4}, {} points", parts.points),
        Some(keys) => format!("max/mean {fullest:.4}, of a sample of {keys} keys; no points"),
    })
}

fn format_share(part: &PeerShare, width: usize) -> String {
    format!(
        "{:width$}  {:6}  {:6}  {:>12} %  {:6.3}%  {:10.4}",
        part.label,
        part.weight,
        part.points,
        percent(part.hashes),
        part.fair_share * 100.0,
        part.share_over_fair(),
    )
}
