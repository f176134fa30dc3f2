//! `clockwise ring diff`: which keys a change would move.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::line_reader::LineReader;
use super::scenario::{ChangeArgs, UpstreamScenario};
use super::table::{self, NO_PEER};
use super::upstream_args::UpstreamArgs;
use crate::cli::error::{CliError, CommandResult};
use crate::cli::output::Output;
use crate::predict::{
    Comparison, HASH_SPACE, KeyMoves, Movement, MovementBasis, OwnerPair, percent,
};

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("any").required(true).multiple(true).args(
    ["to", "without", "add", "weight", "down", "down_before"]
))]
pub(in crate::cli) struct DiffArgs {
    #[command(flatten)]
    upstream_args: UpstreamArgs,
    #[command(flatten)]
    change_args: ChangeArgs,
    /// Treats this peer as down before the change, and as up after it unless --down names it too
    #[arg(long, value_name = "LABEL")]
    down_before: Vec<String>,
    /// Also counts how many of these keys move; one key per line, - reads standard input
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
    /// Prints only the keys that move: key, old owner and new owner, separated by tabs
    #[arg(long, requires = "keys")]
    moved: bool,
    /// Exits with code 3 if more of the key space, or of the keys in --keys, moves: 15, 2.5%
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    max_moved: Option<f64>,
}

/// The result to print.
struct DiffReport {
    movement: Movement,
    keys: Option<KeyMoves>,
    /// A remark on the change, if it moves keys without need.
    remark: Option<String>,
}

impl DiffArgs {
    pub(super) fn run(&self, output: &mut Output) -> CommandResult {
        let (before, after) = (
            UpstreamScenario::as_configured(&self.upstream_args)?,
            self.change_args.scenario(&self.upstream_args)?,
        );
        let comparison = Comparison::new(
            before.placement(&self.down_before)?,
            after.placement(self.change_args.down())?,
            before.hashes_keys_like(&after),
        );
        let movement = comparison.movement();
        let remark = before
            .scale_remark(&after)
            .filter(|_| before.hashes_keys_like(&after));
        let report = DiffReport {
            remark: remark.filter(|_| movement.moved > 0 && self.is_down_alike()),
            keys: self.count_keys(&comparison, output)?,
            movement,
        };
        if !self.moved {
            self.print(&report, output)?;
        }
        output.flush()?;
        self.check_limit(&report)
    }

    /// Whether the same peers are down before and after the change.
    fn is_down_alike(&self) -> bool {
        let labels = |down: &[String]| -> BTreeSet<String> { down.iter().cloned().collect() };
        labels(&self.down_before) == labels(self.change_args.down())
    }

    fn count_keys(
        &self,
        comparison: &Comparison<'_>,
        output: &mut Output,
    ) -> Result<Option<KeyMoves>, CliError> {
        let Some(file) = &self.keys else {
            return Ok(None);
        };
        let mut keys = LineReader::open(file)?;
        let mut moves = KeyMoves::default();
        while let Some(key) = keys.next_key()? {
            if let (Some(owners), true) = (moves.add(comparison, key), self.moved) {
                self.print_key(key, owners, comparison, output)?;
            }
        }
        Ok(Some(moves))
    }

    fn print_key(
        &self,
        key: &[u8],
        owners: OwnerPair,
        comparison: &Comparison<'_>,
        output: &mut Output,
    ) -> CommandResult {
        if self.upstream_args.json {
            return output.line(&comparison.key_to_json(key, owners).to_string());
        }
        let (from, to) = (comparison.label(owners.from), comparison.label(owners.to));
        output.bytes(key)?;
        let (from, to) = (from.unwrap_or(NO_PEER), to.unwrap_or(NO_PEER));
        output.line(&format!("\t{from}\t{to}"))
    }

    fn print(&self, report: &DiffReport, output: &mut Output) -> CommandResult {
        if self.upstream_args.json {
            return output.line(&report.to_json().to_string());
        }
        for line in report.text_lines() {
            output.line(&line)?;
        }
        Ok(())
    }

    fn check_limit(&self, report: &DiffReport) -> CommandResult {
        let Some(allowed) = self.max_moved else {
            return Ok(());
        };
        let moved = report.movement.moved;
        if percent_of(moved, HASH_SPACE) > allowed {
            return Err(CliError::Limit(format!(
                "{} % of the key space would move, more than the allowed {allowed} %",
                percent(moved)
            )));
        }
        match &report.keys {
            Some(keys) if percent_of(keys.moved, keys.keys) > allowed => {
                Err(CliError::Limit(format!(
                    "{} of {} keys would move, more than the allowed {allowed} %",
                    keys.moved, keys.keys
                )))
            }
            _ => Ok(()),
        }
    }
}

/// `15`, `15%` or `2.5%`.
fn parse_percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim_end();
    let is_plain = number
        .bytes()
        .all(|byte| byte.is_ascii_digit() || byte == b'.');
    let percent = number.parse().ok().filter(|_| is_plain);
    percent
        .filter(|percent| (0.0..=100.0).contains(percent))
        .ok_or_else(|| "a percentage from 0 to 100, as in `15` or `2.5%`".to_owned())
}

/// `part` of `whole` in per cent; exact if `whole` is the key space.
#[expect(clippy::cast_precision_loss, reason = "both are far below 2^53")]
fn percent_of(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

impl DiffReport {
    fn to_json(&self) -> Value {
        match &self.keys {
            Some(keys) => self.movement.to_json_with_keys(keys),
            None => self.movement.to_json(),
        }
    }

    fn text_lines(&self) -> Vec<String> {
        let mut lines = self.pair_lines();
        lines.extend(self.peer_lines());
        lines.push(self.summary());
        if let Some(KeyMoves { keys, moved, .. }) = &self.keys {
            let share = percent_of(*moved, *keys);
            lines.push(format!("moved {moved} of {keys} keys, {share:.4} %"));
        }
        lines.extend(self.remark.clone());
        lines
    }

    /// A row for each pair of owners between which hashes move; if the change gives keys other hashes, for each pair
    /// between which listed keys move.
    fn pair_lines(&self) -> Vec<String> {
        let mut head = vec!["from", "to"];
        if self.has_pairs() {
            head.extend(["hashes", "share"]);
        }
        head.extend(self.keys.is_some().then_some("keys"));
        let mut rows = vec![head.into_iter().map(str::to_owned).collect()];
        if self.has_pairs() {
            let pairs = self.movement.pairs.iter();
            rows.extend(pairs.map(|(owners, hashes)| self.row(*owners, Some(*hashes))));
        } else {
            let pairs = self.keys.iter().flat_map(KeyMoves::sorted_pairs);
            rows.extend(pairs.map(|(owners, _)| self.row(owners, None)));
        }
        if rows.len() == 1 {
            return Vec::new();
        }
        let mut lines = table::format_table(&rows, 2);
        lines.push(String::new());
        lines
    }

    fn has_pairs(&self) -> bool {
        self.movement.basis != MovementBasis::Expected
    }

    fn row(&self, owners: OwnerPair, hashes: Option<u64>) -> Vec<String> {
        let label = |owner| self.movement.label(owner).unwrap_or(NO_PEER).to_owned();
        let mut row = vec![label(owners.from), label(owners.to)];
        if let Some(hashes) = hashes {
            row.extend([hashes.to_string(), format!("{} %", percent(hashes))]);
        }
        if let Some(keys) = &self.keys {
            row.push(keys.pairs.get(&owners).unwrap_or(&0).to_string());
        }
        row
    }

    fn peer_lines(&self) -> Vec<String> {
        let head = ["peer", "before", "after", "gained", "lost"].map(str::to_owned);
        let mut rows = vec![head.to_vec()];
        rows.extend(self.movement.peers.iter().map(|peer| {
            let shares = [peer.before, peer.after, peer.gained, peer.lost];
            let shares = shares.map(|hashes| format!("{} %", percent(hashes)));
            [peer.label.clone()].into_iter().chain(shares).collect()
        }));
        let mut lines = table::format_table(&rows, 1);
        lines.push(String::new());
        lines
    }

    fn summary(&self) -> String {
        let moved = self.movement.moved;
        let share = percent(moved);
        match self.movement.basis {
            MovementBasis::Exact => {
                format!("moved {share} % of the key space: {moved} of {HASH_SPACE} hashes")
            }
            MovementBasis::Sampled(keys) => format!(
                "moved about {share} % of the key space, estimated from {keys} sample keys (this dialect has no points)"
            ),
            MovementBasis::Expected => format!(
                "moved about {share} % of the key space: every key gets another hash and keeps its peer only by chance"
            ),
        }
    }
}
