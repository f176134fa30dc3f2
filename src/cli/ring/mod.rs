//! `clockwise ring …`: answers from a configuration alone, without a network.

mod change;
mod diff;
mod lines;
mod replay;
mod table;

use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};

use self::change::Side;
use self::lines::Lines;
use super::output::Output;
use super::{ConfigFile, Done, Failure};
use crate::config;
use crate::predict::{Part, Parts, Peer, Placement, percent, picture};

/// Who has a key where no peer is up.
const NOBODY: &str = "(nobody)";

/// A question to the ring.
#[derive(Debug, Subcommand)]
pub(super) enum Question {
    /// Which peer each key goes to: one line per key, key and label with a tab between
    Owner(Owner),
    /// Points and exact share of the key space of each peer (of a sample, where the dialect has no points)
    Show(Show),
    /// What a change moves: the exact share of the key space, and of given keys, from peer to peer
    Diff(diff::Diff),
    /// What the traffic of an access log does to each peer's load, now and after a change
    Replay(replay::Replay),
}

#[derive(Args, Debug)]
struct Place {
    #[command(flatten)]
    config: ConfigFile,
    /// The upstream whose ring is asked
    #[arg(short, long, value_name = "NAME")]
    upstream: String,
    /// Answers as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct Owner {
    #[command(flatten)]
    place: Place,
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
pub(super) struct Show {
    #[command(flatten)]
    place: Place,
    /// Draws the ring into a file as well
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

impl Question {
    pub(super) fn answer(self, output: &mut Output) -> Done {
        match self {
            Self::Owner(owner) => owner.answer(output),
            Self::Show(show) => show.answer(output),
            Self::Diff(diff) => diff.answer(output),
            Self::Replay(replay) => replay.answer(output),
        }?;
        output.flush()
    }
}

impl Place {
    /// The upstream, from this configuration.
    fn upstream_in(&self, file: &ConfigFile) -> Result<config::UpstreamConfig, Failure> {
        let mut config = file.load()?;
        config.upstreams.remove(&self.upstream).ok_or_else(|| {
            let names: Vec<_> = config.upstreams.keys().map(String::as_str).collect();
            Failure::Input(format!(
                "there is no upstream `{}` in `{}`; there are: {}",
                self.upstream,
                file.path().display(),
                names.join(", ")
            ))
        })
    }
}

impl Owner {
    fn answer(&self, output: &mut Output) -> Done {
        let side = Side::unchanged(&self.place)?;
        let placement = side.placement(&self.down)?;
        if self.keys != ["-"] {
            let mut keys = self.keys.iter();
            return keys.try_for_each(|key| self.look_up(key.as_bytes(), &placement, output));
        }
        let mut keys = Lines::open(Path::new("-"))?;
        while let Some(key) = keys.next_key()? {
            self.look_up(key, &placement, output)?;
        }
        Ok(())
    }

    fn look_up(&self, key: &[u8], placement: &Placement<'_>, output: &mut Output) -> Done {
        let most = self.walk as usize;
        if self.place.json {
            return output.line(&placement.report(key, most).to_string());
        }
        output.bytes(key)?;
        output.bytes(b"\t")?;
        if most == 1 {
            let owner = placement.owner_of(key);
            return output.line(owner.map_or(NOBODY, |member| placement.label(member)));
        }
        let placed = placement.ring().key(key);
        let labels: Vec<&str> = placement.walk(&placed).take(most).collect();
        match labels.as_slice() {
            [] => output.line(NOBODY),
            labels => output.line(&labels.join("\t")),
        }
    }
}

impl Show {
    fn answer(&self, output: &mut Output) -> Done {
        let side = Side::unchanged(&self.place)?;
        let (ring, shares) = (side.ring(), side.ring().shares());
        let parts = Parts::new(ring, &shares, side.peers().iter().map(Peer::member));
        if let Some(file) = &self.svg {
            let placement = side.placement(&[])?;
            let drawing = picture(ring, &shares, |member| placement.label(member));
            let failed =
                |error| Failure::Input(format!("cannot write `{}`: {error}", file.display()));
            std::fs::write(file, drawing).map_err(failed)?;
        }
        if self.place.json {
            return output.line(&parts.report().to_string());
        }
        print(&parts, output)
    }
}

fn print(parts: &Parts, output: &mut Output) -> Done {
    let lengths = parts.peers.iter().map(|part| part.label.len());
    let width = lengths.max().unwrap_or(0).max("peer".len());
    output.line(&format!(
        "{:width$}  weight  points           share     fair  share/fair",
        "peer"
    ))?;
    for part in &parts.peers {
        output.line(&row(part, width))?;
    }
    let fullest = parts.max_over_mean();
    output.line(&match parts.sampled_keys {
        None => format!("max/mean {fullest:.4}, {} points", parts.points),
        Some(keys) => format!("max/mean {fullest:.4}, of a sample of {keys} keys; no points"),
    })
}

fn row(part: &Part, width: usize) -> String {
    format!(
        "{:width$}  {:6}  {:6}  {:>12} %  {:6.3}%  {:10.4}",
        part.label,
        part.weight,
        part.points,
        percent(part.hashes),
        part.fair * 100.0,
        part.over_fair(),
    )
}
