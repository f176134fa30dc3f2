//! `clockwise ring replay`: the traffic of a log, sent through the ring once more.
//!
//! The log is streamed. What is held in memory is one entry per request in flight, and
//! [`WINDOW`] requests that wait for those which started before them and ended later.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::{Args, ValueEnum};

use super::change::{Changed, Side};
use super::lines::Lines;
use super::{Place, table};
use crate::cli::output::Output;
use crate::cli::{Done, Failure};
use crate::policy::bounded_load::BalanceFactor;
use crate::predict::{self, Format, Loads, Manner, Outcome, Placement, Rules, Simulation, ratio};

/// Requests that are held back to put them in the order of their start: some 30 MB.
const WINDOW: usize = 1 << 19;

#[derive(Args, Debug)]
pub(in crate::cli) struct Replay {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    changed: Changed,
    /// The log; - reads standard input
    #[arg(long, value_name = "FILE")]
    log: PathBuf,
    /// How its lines are written
    #[arg(long, value_enum, default_value_t = Format::Clockwise)]
    format: Format,
    /// No peer holds more than its fair share of the requests in flight, times this; else as configured
    #[arg(long, value_name = "FACTOR", value_parser = bound)]
    bounded_load: Option<BalanceFactor>,
}

impl ValueEnum for Format {
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

impl Replay {
    pub(super) fn answer(&self, output: &mut Output) -> Done {
        let now = Side::unchanged(&self.place)?;
        let after = self.after(&now)?;
        let here = now.placement(&[])?;
        let there = after
            .as_ref()
            .map(|side| side.placement(self.changed.down()))
            .transpose()?;
        let after = there.as_ref().zip(after.as_ref());
        let manner = Manner {
            format: self.format,
            window: WINDOW,
            starts_slowly: after.is_some_and(|(_, side)| side.starts_slowly()),
        };
        let mut replay = predict::Replay::new(
            &self.place.upstream,
            self.simulation(&here, &now),
            after.map(|(placement, side)| self.simulation(placement, side)),
            manner,
        );
        let mut lines = Lines::open(&self.log)?;
        while let Some(line) = lines.next()? {
            replay.line(line);
        }
        let outcome = replay.end();
        let outcome = outcome.map_err(|silent| Failure::Input(silent.to_string()))?;
        self.print(&outcome, output)
    }

    /// The upstream after the change, where there is one.
    fn after(&self, now: &Side) -> Result<Option<Side>, Failure> {
        if !self.changed.is_any() {
            return Ok(None);
        }
        let after = self.changed.side(&self.place)?;
        if !now.hashes_like(&after) {
            return Err(Failure::Input(
                "`key` or the ring's dialect changes: the hashes in the log do not hold then"
                    .to_owned(),
            ));
        }
        Ok(Some(after))
    }

    fn simulation<'a>(&self, placement: &'a Placement<'a>, side: &Side) -> Simulation<'a> {
        let weights = side.peers().iter().map(|peer| peer.weight);
        let configured = side.rules();
        let bound = self.bounded_load.or(configured.bound);
        let rules = Rules {
            bound,
            ..configured
        };
        Simulation::new(placement, weights, rules)
    }

    fn print(&self, outcome: &Outcome<'_>, output: &mut Output) -> Done {
        if self.place.json {
            output.line(&outcome.report().to_string())?;
            return output.flush();
        }
        for line in lines(outcome) {
            output.line(&line)?;
        }
        output.flush()
    }
}

fn bound(text: &str) -> Result<BalanceFactor, String> {
    BalanceFactor::parse(text)
        .ok_or_else(|| "a factor from 1.01 to 10, with up to three decimals".to_owned())
}

fn lines(outcome: &Outcome<'_>) -> Vec<String> {
    let (seen, span) = (&outcome.seen, outcome.span());
    let (start, end) = outcome.dates();
    let mut lines = vec![format!(
        "{} requests in {} lines, {start} to {end}",
        seen.requests, seen.lines
    )];
    if outcome.stand_ins {
        let said = "requests have hashes, not keys: in this dialect each key has another, random one for it";
        lines.push(said.to_owned());
    } else if outcome.has_peers {
        let share = per_cent(seen.as_logged, seen.requests);
        lines.push(format!(
            "{share:.2} % of them went where this ring sends them"
        ));
    }
    if outcome.starts_slowly {
        lines.push("slow starts are taken as over".to_owned());
    }
    lines.extend(seen.complaint());
    if outcome.late > 0 {
        let late = outcome.late;
        lines.push(format!(
            "{late} requests were too long to be put in order; they count from later on"
        ));
    }
    lines.extend(load_lines(&outcome.now, "now", span, seen.requests));
    if let Some(after) = &outcome.after {
        lines.extend(load_lines(after, "after", span, seen.requests));
        let (moved, share) = (seen.moved, per_cent(seen.moved, seen.requests));
        lines.extend([
            String::new(),
            format!("moved {moved} requests, {share:.2} %"),
        ]);
    }
    lines
}

fn load_lines(loads: &Loads<'_>, when: &str, span: u64, all: u64) -> Vec<String> {
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
            format!("{:.2} %", per_cent(load.requests, all)),
            load.peak_rate.to_string(),
            load.peak_in_flight.to_string(),
            format!("{:.2}", ratio(load.busy, span)),
            load.bytes.to_string(),
            load.overflow.to_string(),
        ]
    }));
    let mut lines = vec![String::new()];
    lines.extend(table::lines(&rows, 1));
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

fn per_cent(part: u64, whole: u64) -> f64 {
    ratio(part, whole) * 100.0
}
