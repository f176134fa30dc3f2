//! `clockwise ring replay`: simulates the load of each peer for the requests of a log.
//!
//! The log is read as a stream. Memory holds one entry per request in flight, and up to [`REORDER_CAPACITY`] requests
//! that are sorted by their start, because a log lists requests in the order of their end.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use super::line_reader::LineReader;
use super::scenario::{ChangeArgs, UpstreamScenario};
use super::table;
use super::upstream_args::UpstreamArgs;
use crate::cli::error::{CliError, CommandResult};
use crate::cli::output::Output;
use crate::policy::bounded_load::BalanceFactor;
use crate::predict::{
    self, KeyPlacement, LoadRules, ReplayFormat, ReplayOptions, ReplayOutcome, SimulatedLoads,
    Simulation, ratio,
};

#[derive(Args, Debug)]
pub(in crate::cli) struct ReplayArgs {
    #[command(flatten)]
    upstream_args: UpstreamArgs,
    #[command(flatten)]
    change_args: ChangeArgs,
    /// The log; - reads standard input
    #[arg(long, value_name = "FILE")]
    log: PathBuf,
    /// The format of the log
    #[arg(long, value_enum, default_value_t = ReplayFormat::Clockwise)]
    format: ReplayFormat,
    /// Limits each peer to FACTOR times its fair share of the requests in flight [default: as configured]
    #[arg(long, value_name = "FACTOR", value_parser = parse_bound)]
    bounded_load: Option<BalanceFactor>,
}

impl ValueEnum for ReplayFormat {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Clockwise, Self::Keys]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Clockwise => "The access log of Clockwise, in JSON",
            Self::Keys => {
                "From any proxy: start time, key, and optionally duration in seconds and bytes, separated by tabs"
            }
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

impl ReplayArgs {
    pub(super) fn run(&self, output: &mut Output) -> CommandResult {
        let now = UpstreamScenario::as_configured(&self.upstream_args)?;
        let after = self.after_change(&now)?;
        let placement_now = now.placement(&[])?;
        let placement_after = after
            .as_ref()
            .map(|scenario| scenario.placement(self.change_args.down()))
            .transpose()?;
        let after = placement_after.as_ref().zip(after.as_ref());
        let options = ReplayOptions {
            format: self.format,
            reorder_capacity: REORDER_CAPACITY,
        };
        let mut replay = predict::LogReplay::new(
            &self.upstream_args.upstream,
            self.simulation(&placement_now, &now),
            after.map(|(placement, scenario)| self.simulation(placement, scenario)),
            options,
        );
        let mut lines = LineReader::open(&self.log)?;
        while let Some(line) = lines.next_line()? {
            replay.push_line(line);
        }
        let outcome = replay.finish();
        let outcome = outcome.map_err(|error| CliError::Input(error.to_string()))?;
        self.print(&outcome, output)
    }

    /// The upstream after the change, if there is a change.
    fn after_change(&self, now: &UpstreamScenario) -> Result<Option<UpstreamScenario>, CliError> {
        if !self.change_args.has_changes() {
            return Ok(None);
        }
        let after = self.change_args.scenario(&self.upstream_args)?;
        if !now.hashes_keys_like(&after) {
            return Err(CliError::Input(
                "the change gives keys other hashes (`key` or the dialect), so the hashes in the log cannot be used"
                    .to_owned(),
            ));
        }
        Ok(Some(after))
    }

    fn simulation<'a>(
        &self,
        placement: &'a KeyPlacement<'a>,
        scenario: &UpstreamScenario,
    ) -> Simulation<'a> {
        let weights = scenario.peers().iter().map(|peer| peer.weight);
        let configured = scenario.load_rules();
        let bound = self.bounded_load.or(configured.bound);
        let rules = LoadRules {
            bound,
            ..configured
        };
        Simulation::new(placement, weights, rules)
    }

    fn print(&self, outcome: &ReplayOutcome<'_>, output: &mut Output) -> CommandResult {
        if self.upstream_args.json {
            output.line(&outcome.to_json().to_string())?;
            return output.flush();
        }
        for line in text_lines(outcome) {
            output.line(&line)?;
        }
        output.flush()
    }
}

fn parse_bound(text: &str) -> Result<BalanceFactor, String> {
    BalanceFactor::parse(text)
        .ok_or_else(|| "a factor from 1.01 to 10, with up to three decimals".to_owned())
}

fn text_lines(outcome: &ReplayOutcome<'_>) -> Vec<String> {
    let (stats, span) = (&outcome.stats, outcome.span());
    let (start, end) = outcome.dates();
    let mut lines = vec![format!(
        "{} requests in {} lines, {start} to {end}",
        stats.requests, stats.lines
    )];
    if outcome.uses_substitute_keys {
        let note = "this dialect needs keys, but the log has only their hashes: a random key is used for each hash";
        lines.push(note.to_owned());
    } else if outcome.has_peers {
        let share = percent_of(stats.as_logged, stats.requests);
        lines.push(format!(
            "{share:.2} % of them go to the same peer as in the log"
        ));
    }
    lines.extend(stats.malformed_summary());
    if outcome.late > 0 {
        let late = outcome.late;
        lines.push(format!(
            "{late} requests took too long to be sorted by their start; they are simulated with a later start"
        ));
    }
    lines.extend(outcome.notes());
    lines.extend(load_lines(&outcome.now, "now", span, stats.requests));
    if let Some(after) = &outcome.after {
        lines.extend(load_lines(after, "after", span, stats.requests));
        let (moved, share) = (stats.moved, percent_of(stats.moved, stats.requests));
        lines.extend([
            String::new(),
            format!("moved {moved} requests, {share:.2} %"),
        ]);
    }
    lines
}

fn load_lines(loads: &SimulatedLoads<'_>, when: &str, span: u64, all: u64) -> Vec<String> {
    let head = [
        when,
        "requests",
        "share",
        "peak/s",
        "in flight",
        "mean",
        "bytes",
        "overflow",
    ];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    rows.extend(loads.labels.iter().zip(&loads.peers).map(|(label, load)| {
        vec![
            (*label).to_owned(),
            load.requests.to_string(),
            format!("{:.2} %", percent_of(load.requests, all)),
            load.peak_rate.to_string(),
            load.peak_in_flight.to_string(),
            format!("{:.2}", ratio(load.busy, span)),
            load.bytes.to_string(),
            load.overflow.to_string(),
        ]
    }));
    let mut lines = vec![String::new()];
    lines.extend(table::format_table(&rows, 1));
    if loads.unserved > 0 {
        lines.push(format!("no peer was up for {} requests", loads.unserved));
    }
    if loads.spread > 0 {
        lines.push(format!(
            "{} requests of hot keys were spread over several peers",
            loads.spread
        ));
    }
    if loads.waited > 0 {
        let waited = loads.waited;
        lines.push(format!(
            "{waited} requests waited because their peer was at its limit"
        ));
    }
    lines
}

fn percent_of(part: u64, whole: u64) -> f64 {
    ratio(part, whole) * 100.0
}

/// The most requests that are held back to sort them by their start: about 30 MB.
const REORDER_CAPACITY: usize = 1 << 19;
