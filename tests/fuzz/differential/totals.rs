//! What a run has counted and found.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::case::Case;
use super::compare::{Difference, Observed};

/// The time between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(60);

pub(super) struct Totals {
    seed: u64,
    cases: u64,
    requests: u64,
    arrived: u64,
    reused: u64,
    responses: BTreeMap<String, u64>,
    reasons: BTreeMap<&'static str, u64>,
    /// Differences that did not come again: how often, and the case of the last one.
    unsteady: BTreeMap<String, (u64, u64)>,
    pub(super) found: BTreeSet<String>,
    printed: Instant,
}

impl Totals {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            seed,
            cases: 0,
            requests: 0,
            arrived: 0,
            reused: 0,
            responses: BTreeMap::new(),
            reasons: BTreeMap::new(),
            unsteady: BTreeMap::new(),
            found: BTreeSet::new(),
            printed: Instant::now(),
        }
    }

    pub(super) fn count(&mut self, case: &Case, engine: &Observed) {
        self.cases += 1;
        self.requests += case.requests.len() as u64 + u64::from(engine.outcome.is_kept);
        self.arrived += engine.arrived.len() as u64;
        self.reused += engine.arrived.iter().filter(|it| it.is_reused).count() as u64;
        for response in &engine.outcome.responses {
            let count = self.responses.entry(response.status().to_owned());
            *count.or_default() += 1;
        }
        if self.printed.elapsed() > PROGRESS {
            self.printed = Instant::now();
            self.print();
        }
    }

    pub(super) fn count_reasons(&mut self, reasons: &[&'static str]) {
        for reason in reasons {
            *self.reasons.entry(reason).or_default() += 1;
        }
    }

    pub(super) fn count_unsteady(&mut self, number: u64, difference: &Difference) {
        let entry = self.unsteady.entry(signature(difference)).or_default();
        *entry = (entry.0 + 1, number);
    }

    pub(super) fn is_known(&self, difference: &Difference) -> bool {
        self.found.contains(&signature(difference))
    }

    /// Shows a difference before it is made small, which takes a while.
    pub(super) fn announce(&self, number: u64, difference: &Difference) {
        println!("case {}/{number}: {}", self.seed, signature(difference));
    }

    pub(super) fn report(&mut self, number: u64, case: &Case, difference: &Difference) {
        if !self.found.insert(signature(difference)) {
            return;
        }
        println!("--- case {}/{number}: {}", self.seed, signature(difference));
        println!("{case}");
        println!("{} of request {}", difference.kind, difference.index);
        println!("engine:\n{}", shown(&difference.engine));
        println!("Pingora:\n{}\n", shown(&difference.pingora));
    }

    pub(super) fn print(&self) {
        println!(
            "seed {}: {} cases, {} requests",
            self.seed, self.cases, self.requests
        );
        println!(
            "  at the origin: {}, {} on a used connection",
            self.arrived, self.reused
        );
        println!("  responses: {:?}", self.responses);
        println!("  listed differences: {:#?}", self.reasons);
        println!("  not again: {:#?}", self.unsteady);
        println!("  differences: {}", self.found.len());
    }
}

fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(1000).collect();
    if shown.len() < text.len() {
        shown += "…";
    }
    shown
}

/// What two differences of the same cause share: the aspect, and of fields the names of those that differ.
pub(super) fn signature(difference: &Difference) -> String {
    let only = |text: &str, other: &str| {
        let lines = text
            .lines()
            .filter(|line| !other.lines().any(|it| it == *line));
        let short = lines.map(|line| {
            let name = line.split(':').next().unwrap_or_default();
            name.chars().take(30).collect::<String>()
        });
        short.collect::<Vec<_>>().join(", ")
    };
    let (engine, pingora) = (&difference.engine, &difference.pingora);
    match difference.kind {
        "body" | "received" | "garbage" => difference.kind.to_owned(),
        kind => format!(
            "{kind}: {} | {}",
            only(engine, pingora),
            only(pingora, engine)
        ),
    }
}
