//! `clockwise ring …`: answers from a configuration alone, without a network.

mod change;
mod diff;
mod lines;
mod picture;
mod replay;
mod table;
mod timed;

use std::path::{Path, PathBuf};

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use serde_json::json;

use self::lines::Lines;
use super::output::Output;
use super::{ConfigFile, Done, Failure};
use crate::config;
use crate::predict::{percent, share};
use crate::ring::{MemberId, Ring};

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

/// An upstream's ring, and its peers as written.
struct Placed {
    ring: Ring,
    peers: Vec<config::Peer>,
}

impl Place {
    /// The upstream, from this configuration.
    fn upstream_in(&self, file: &ConfigFile) -> Result<config::Upstream, Failure> {
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

    fn ring(&self) -> Result<Placed, Failure> {
        let upstream = self.upstream_in(&self.config)?;
        let ring = Ring::new(upstream.dialect, upstream.members())
            .map_err(|error| Failure::Input(error.to_string()))?;
        Ok(Placed {
            ring,
            peers: upstream.peers,
        })
    }
}

impl Placed {
    fn label(&self, member: MemberId) -> &str {
        self.peers
            .get(member.index())
            .map_or("", |peer| &peer.label)
    }

    /// Which members are taken as down.
    fn down(&self, labels: &[String]) -> Result<Vec<bool>, Failure> {
        let known = |label: &String| self.peers.iter().any(|peer| peer.label == *label);
        if let Some(unknown) = labels.iter().find(|label| !known(label)) {
            return Err(Failure::Input(format!("there is no peer `{unknown}`")));
        }
        Ok(self
            .peers
            .iter()
            .map(|peer| labels.contains(&peer.label))
            .collect())
    }
}

impl Owner {
    fn answer(&self, output: &mut Output) -> Done {
        let placed = self.place.ring()?;
        let down = placed.down(&self.down)?;
        let asked = Asked {
            owner: self,
            placed: &placed,
            down: &down,
        };
        if self.keys != ["-"] {
            return self
                .keys
                .iter()
                .try_for_each(|key| asked.answer(key.as_bytes(), output));
        }
        let mut keys = Lines::open(Path::new("-"))?;
        while let Some(key) = keys.next_key()? {
            asked.answer(key, output)?;
        }
        Ok(())
    }
}

struct Asked<'a> {
    owner: &'a Owner,
    placed: &'a Placed,
    down: &'a [bool],
}

impl Asked<'_> {
    fn answer(&self, key: &[u8], output: &mut Output) -> Done {
        let placed = self.placed.ring.key(key);
        let is_up = |member: &MemberId| !self.down.get(member.index()).copied().unwrap_or(true);
        if self.owner.walk == 1 && !self.owner.place.json {
            let owner = self.placed.ring.find(&placed, |member| is_up(&member));
            output.bytes(key)?;
            output.bytes(b"\t")?;
            return output.line(owner.map_or(NOBODY, |member| self.placed.label(member)));
        }
        let walk = self
            .placed
            .ring
            .walk(&placed)
            .filter(is_up)
            .take(self.owner.walk as usize);
        let labels: Vec<&str> = walk.map(|member| self.placed.label(member)).collect();
        if self.owner.place.json {
            let key = String::from_utf8_lossy(key);
            return output
                .line(&json!({ "key": key, "hash": placed.hash().0, "walk": labels }).to_string());
        }
        output.bytes(key)?;
        output.bytes(b"\t")?;
        match labels.as_slice() {
            [] => output.line(NOBODY),
            labels => output.line(&labels.join("\t")),
        }
    }
}

/// One peer's part of the ring.
struct Part<'a> {
    peer: &'a config::Peer,
    points: usize,
    /// Of the 2^32 hashes.
    hashes: u64,
    /// The same as a part of one; exact.
    share: f64,
    /// What its weight alone would give it.
    fair: f64,
}

impl Show {
    fn answer(&self, output: &mut Output) -> Done {
        let placed = self.place.ring()?;
        let parts = parts(&placed);
        if let Some(file) = &self.svg {
            let drawing = picture::draw(&placed.ring, |member| placed.label(member));
            let failed =
                |error| Failure::Input(format!("cannot write `{}`: {error}", file.display()));
            std::fs::write(file, drawing).map_err(failed)?;
        }
        let fullest = parts
            .iter()
            .map(|part| part.share / part.fair)
            .fold(0.0, f64::max);
        if self.place.json {
            let peers: Vec<_> = parts.iter().map(Part::json).collect();
            let points = placed.ring.len();
            let report = json!({
                "points": points,
                "max_over_mean": fullest,
                "sampled_keys": placed.ring.sample(),
                "peers": peers,
            });
            return output.line(&report.to_string());
        }
        let width = parts
            .iter()
            .map(|part| part.peer.label.len())
            .max()
            .unwrap_or(0)
            .max("peer".len());
        output.line(&format!(
            "{:width$}  weight  points           share     fair  share/fair",
            "peer"
        ))?;
        for part in &parts {
            output.line(&part.row(width))?;
        }
        output.line(&match placed.ring.sample() {
            None => format!("max/mean {fullest:.4}, {} points", placed.ring.len()),
            Some(keys) => format!("max/mean {fullest:.4}, of a sample of {keys} keys; no points"),
        })
    }
}

impl Part<'_> {
    fn json(&self) -> serde_json::Value {
        json!({
            "label": self.peer.label,
            "weight": self.peer.weight.get(),
            "points": self.points,
            "hashes": self.hashes,
            "share": self.share,
            "fair": self.fair,
        })
    }

    fn row(&self, width: usize) -> String {
        format!(
            "{:width$}  {:6}  {:6}  {:>12} %  {:6.3}%  {:10.4}",
            self.peer.label,
            self.peer.weight.get(),
            self.points,
            percent(self.hashes),
            self.fair * 100.0,
            self.share / self.fair,
        )
    }
}

fn parts(placed: &Placed) -> Vec<Part<'_>> {
    let mut points = vec![0; placed.peers.len()];
    for (_, member) in placed.ring.points() {
        if let Some(count) = points.get_mut(member.index()) {
            *count += 1;
        }
    }
    let weights: u32 = placed
        .peers
        .iter()
        .map(|peer| u32::from(peer.weight.get()))
        .sum();
    let shares = placed.ring.shares();
    placed
        .peers
        .iter()
        .zip(points)
        .zip(shares)
        .map(|((peer, points), hashes)| Part {
            peer,
            points,
            hashes,
            share: share(hashes),
            fair: f64::from(peer.weight.get()) / f64::from(weights),
        })
        .collect()
}
