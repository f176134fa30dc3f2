//! `clockwise ring replay`: the traffic of a log, sent through the ring once more.
//!
//! The log is streamed. What is held in memory is one entry per request in flight, and
//! [`WINDOW`] requests that wait for those which started before them and ended later.

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

/// Requests that are held back to put them in the order of their start: some 30 MB.
const REORDER_CAPACITY: usize = 1 << 19;

#[derive(Args, Debug)]
pub(in crate::cli) struct ReplayArgs {
    #[command(flatten)]
    upstream_args: UpstreamArgs,
    #[command(flatten)]
    change_args: ChangeArgs,
    /// The log; - reads standard input
    #[arg(long, value_name = "FILE")]
    log: PathBuf,
    /// How its lines are written
    #[arg(long, value_enum, default_value_t = ReplayFormat::Clockwise)]
    format: ReplayFormat,
    /// No peer holds more than its fair share of the requests in flight, times this; else as configured
    #[arg(long, value_name = "FACTOR", value_parser = parse_bound)]
    bounded_load: Option<BalanceFactor>,
}

impl ValueEnum for ReplayFormat {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Clockwise, Self::Keys]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let help = match self {
            Self::Clockwise => "The access log of clockwise run: JSON",
            Self::Keys => {
                "Of any proxy: start, key, and if known seconds and bytes, with tabs between"
            }
        };
        Some(PossibleValue::new(self.name()).help(help))
    }
}

impl ReplayArgs {
    pub(super) fn run(&self, output: &mut Output) -> CommandResult {
        let now = UpstreamScenario::as_configured(&self.upstream_args)?;
        let after = self.after_change(&now)?;
        let here = now.placement(&[])?;
        let there = after
            .as_ref()
            .map(|side| side.placement(self.change_args.down()))
            .transpose()?;
        let after = there.as_ref().zip(after.as_ref());
        let manner = ReplayOptions {
            format: self.format,
            reorder_capacity: REORDER_CAPACITY,
            ignores_slow_start: after.is_some_and(|(_, side)| side.has_slow_start()),
        };
        let mut replay = predict::LogReplay::new(
            &self.upstream_args.upstream,
            self.simulation(&here, &now),
            after.map(|(placement, side)| self.simulation(placement, side)),
            manner,
        );
        let mut lines = LineReader::open(&self.log)?;
        while let Some(line) = lines.next_line()? {
            replay.push_line(line);
        }
        let outcome = replay.finish();
        let outcome = outcome.map_err(|silent| CliError::Input(silent.to_string()))?;
        self.print(&outcome, output)
    }

    /// The upstream after the change, where there is one.
    fn after_change(&self, now: &UpstreamScenario) -> Result<Option<UpstreamScenario>, CliError> {
        if !self.change_args.has_changes() {
            return Ok(None);
        }
        let after = self.change_args.scenario(&self.upstream_args)?;
        if !now.hashes_keys_like(&after) {
            return Err(CliError::Input(
                "`key` or the ring's dialect changes: the hashes in the log do not hold then"
                    .to_owned(),
            ));
        }
        Ok(Some(after))
    }

    fn simulation<'a>(
        &self,
        placement: &'a KeyPlacement<'a>,
        side: &UpstreamScenario,
    ) -> Simulation<'a> {
        let weights = side.peers().iter().map(|peer| peer.weight);
        let configured = side.load_rules();
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
    let (seen, span) = (&outcome.stats, outcome.span());
    let (start, end) = outcome.dates();
    let mut lines = vec![format!(
        "{} requests in {} lines, {start} to {end}",
        seen.requests, seen.lines
    )];
    if outcome.uses_substitute_keys {
        let said = "requests have hashes, not keys: in this dialect each key has another, random one for it";
        lines.push(said.to_owned());
    } else if outcome.has_peers {
        let share = percent_of(seen.as_logged, seen.requests);
        lines.push(format!(
            "{share:.2} % of them went where this ring sends them"
        ));
    }
    if outcome.ignores_slow_start {
        lines.push("slow starts are taken as over".to_owned());
    }
    lines.extend(seen.malformed_summary());
    if outcome.late > 0 {
        let late = outcome.late;
        lines.push(format!(
            "{late} requests were too long to be put in order; they count from later on"
        ));
    }
    lines.extend(load_lines(&outcome.now, "now", span, seen.requests));
    if let Some(after) = &outcome.after {
        lines.extend(load_lines(after, "after", span, seen.requests));
        let (moved, share) = (seen.moved, percent_of(seen.moved, seen.requests));
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
        lines.push(format!("{} requests found no peer", loads.unserved));
    }
    if loads.spread > 0 {
        lines.push(format!(
            "{} requests were of hot keys, and spread",
            loads.spread
        ));
    }
    lines
}

fn percent_of(part: u64, whole: u64) -> f64 {
    ratio(part, whole) * 100.0
}
