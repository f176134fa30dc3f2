//! `clockwise ring replay`: the traffic of a log, sent through the ring once more.
//!
//! The log is streamed. What is held in memory is one entry per request in flight, and
//! [`WINDOW`] requests that wait for those which started before them and ended later.

use std::collections::HashMap;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::change::{Changed, Side};
use super::lines::Lines;
use super::timed::Timed;
use super::{Place, table};
use crate::cli::output::Output;
use crate::cli::{Done, Failure};
use crate::policy::bound::Bound;
use crate::predict::{Load, Placement, Request, Rules, Simulation, Window};
use crate::ring::{Hash, MemberId};
use crate::telemetry::Logged;

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
    bounded_load: Option<Bound>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// The access log of clockwise run: JSON
    Clockwise,
    /// Of any proxy: start, key, and if known seconds and bytes, with tabs between
    Keys,
}

/// What the log was, apart from the requests in it.
#[derive(Debug, Default)]
struct Seen {
    lines: u64,
    requests: u64,
    /// Requests to other upstreams, and those that were refused.
    others: u64,
    /// Lines that could not be read; of the first one, its number and why.
    malformed: u64,
    first_malformed: Option<(u64, String)>,
    /// Requests that the log has on the peer that they have here.
    as_logged: u64,
    /// Requests that are on another peer after the change.
    moved: u64,
    /// The first start and the last end, in microseconds since 1970.
    span: Option<(u64, u64)>,
}

/// The log on its way through the rings.
struct Course<'a> {
    upstream: &'a str,
    /// The members now, by label.
    members: HashMap<&'a str, MemberId>,
    labels: (&'a Placement<'a>, Option<&'a Placement<'a>>),
    now: Simulation<'a>,
    after: Option<Simulation<'a>>,
    window: Window<Option<MemberId>>,
    format: Format,
    /// Peers that are new start slowly, which is not simulated.
    starts_slowly: bool,
    seen: Seen,
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
        let mut course = Course {
            upstream: &self.place.upstream,
            members: here
                .labels()
                .iter()
                .copied()
                .zip((0..).map(MemberId))
                .collect(),
            labels: (&here, there.as_ref()),
            now: self.simulation(&here, &now),
            after: there
                .as_ref()
                .zip(after.as_ref())
                .map(|(placement, side)| self.simulation(placement, side)),
            window: Window::new(WINDOW),
            format: self.format,
            starts_slowly: after.as_ref().is_some_and(Side::starts_slowly),
            seen: Seen::default(),
        };
        course.read(&mut Lines::open(&self.log)?)?;
        self.print(&course.end()?, output)
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
        let weights = side.peers.iter().map(|peer| peer.weight);
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
            output.line(&outcome.json().to_string())?;
            return output.flush();
        }
        for line in outcome.lines() {
            output.line(&line)?;
        }
        output.flush()
    }
}

fn bound(text: &str) -> Result<Bound, String> {
    Bound::parse(text)
        .ok_or_else(|| "a factor from 1.01 to 10, with up to three decimals".to_owned())
}

impl<'a> Course<'a> {
    fn read(&mut self, lines: &mut Lines) -> Done {
        while let Some(line) = lines.next()? {
            self.seen.lines += 1;
            match self.format {
                Format::Clockwise => match Logged::parse(line) {
                    Ok(logged) => self.add(&logged),
                    Err(error) => self.seen.malformed(error.to_string()),
                },
                Format::Keys => match Timed::parse(line) {
                    Ok(timed) => self.add_timed(&timed),
                    Err(why) => self.seen.malformed(why.to_owned()),
                },
            }
        }
        while let Some((request, logged_on)) = self.window.pop() {
            self.send(request, logged_on);
        }
        Ok(())
    }

    fn add(&mut self, logged: &Logged<'_>) {
        // Who has neither a key nor a peer was refused.
        let refused = logged.key_hash.is_none() && logged.peer.is_none();
        if logged.upstream.as_deref() != Some(self.upstream) || refused {
            self.seen.others += 1;
            return;
        }
        let hash = logged.key_hash.map(Hash);
        if hash.is_some_and(|hash| !self.labels.0.ring().can_give(hash)) {
            let why = "its `key_hash` is longer than the hashes of this ring's dialect";
            self.seen.malformed(why.to_owned());
            return;
        }
        let request = Request {
            start: logged.start,
            duration: logged.duration,
            bytes: logged.sent,
            hash,
        };
        let peer = logged.peer.as_deref();
        let logged_on = peer.and_then(|label| self.members.get(label).copied());
        self.push(request, logged_on);
    }

    fn add_timed(&mut self, timed: &Timed<'_>) {
        let ring = self.labels.0.ring();
        let hash = (!timed.key.is_empty()).then(|| ring.key(timed.key).hash());
        let request = Request {
            start: timed.start,
            duration: timed.duration,
            bytes: timed.bytes,
            hash,
        };
        self.push(request, None);
    }

    fn push(&mut self, request: Request, logged_on: Option<MemberId>) {
        if let Some((request, logged_on)) = self.window.push(request, logged_on) {
            self.send(request, logged_on);
        }
    }

    fn send(&mut self, request: Request, logged_on: Option<MemberId>) {
        self.seen.count(request);
        let here = self.now.add(request);
        self.seen.as_logged += u64::from(here.is_some() && here == logged_on);
        if let (Some(after), Some(placement)) = (&mut self.after, self.labels.1) {
            let label = |placement: &Placement<'a>, member| Some(placement.label(member?));
            let there = after.add(request);
            let moves = label(self.labels.0, here) != label(placement, there);
            self.seen.moved += u64::from(moves);
        }
    }

    /// What came of it.
    ///
    /// # Errors
    /// The log has no request of this upstream.
    fn end(self) -> Result<Outcome<'a>, Failure> {
        if self.seen.requests == 0 {
            let why = self.seen.complaint().unwrap_or_default();
            let message = format!("no line tells of a request to `{}`", self.upstream);
            return Err(Failure::Input([message, why].join("\n")));
        }
        let outcome = |simulation: Simulation<'a>, placement: &'a Placement<'a>| Loads {
            labels: placement.labels(),
            unserved: simulation.unserved,
            spread: simulation.spread,
            peers: simulation.loads(),
        };
        Ok(Outcome {
            late: self.window.late,
            now: outcome(self.now, self.labels.0),
            after: self
                .after
                .zip(self.labels.1)
                .map(|(simulation, placement)| outcome(simulation, placement)),
            stand_ins: !self.labels.0.ring().dialect().tells_by_hash(),
            has_peers: self.format == Format::Clockwise,
            starts_slowly: self.starts_slowly,
            seen: self.seen,
        })
    }
}

impl Seen {
    fn count(&mut self, request: Request) {
        self.requests += 1;
        let (start, end) = self.span.unwrap_or((request.start, 0));
        self.span = Some((start.min(request.start), end.max(request.end())));
    }

    fn malformed(&mut self, why: String) {
        self.malformed += 1;
        self.first_malformed.get_or_insert((self.lines, why));
    }

    /// What could not be read.
    fn complaint(&self) -> Option<String> {
        let (line, why) = self.first_malformed.as_ref()?;
        let count = self.malformed;
        Some(format!(
            "lines that could not be read: {count}; the first is line {line}: {why}"
        ))
    }
}

/// What the traffic does to the peers.
struct Outcome<'a> {
    seen: Seen,
    late: u64,
    /// The log does not tell the keys; others stood for them.
    stand_ins: bool,
    /// The log says where each request went.
    has_peers: bool,
    /// Slow starts are configured, and taken as over.
    starts_slowly: bool,
    now: Loads<'a>,
    after: Option<Loads<'a>>,
}

struct Loads<'a> {
    labels: &'a [&'a str],
    peers: Vec<Load>,
    unserved: u64,
    /// Requests of hot keys.
    spread: u64,
}

impl Outcome<'_> {
    fn json(&self) -> Value {
        let (seen, span) = (&self.seen, self.span());
        let malformed = seen
            .first_malformed
            .as_ref()
            .map(|(line, why)| json!({ "line": line, "why": why }));
        json!({
            "lines": seen.lines,
            "requests": seen.requests,
            "others": seen.others,
            "malformed": seen.malformed,
            "first_malformed": malformed,
            "late": self.late,
            "as_logged": (self.has_peers && !self.stand_ins).then_some(seen.as_logged),
            "stand_ins": self.stand_ins,
            "slow_starts_over": self.starts_slowly,
            "start": seen.span.map(|(start, _)| shown(start)),
            "end": seen.span.map(|(_, end)| shown(end)),
            "now": self.now.json(span),
            "after": self.after.as_ref().map(|loads| loads.json(span)),
            "moved": self.after.is_some().then_some(seen.moved),
        })
    }

    fn lines(&self) -> Vec<String> {
        let (seen, span) = (&self.seen, self.span());
        let (start, end) = seen.span.unwrap_or_default();
        let mut lines = vec![format!(
            "{} requests in {} lines, {} to {}",
            seen.requests,
            seen.lines,
            shown(start),
            shown(end)
        )];
        if self.stand_ins {
            let said = "requests have hashes, not keys: in this dialect each key has another, random one for it";
            lines.push(said.to_owned());
        } else if self.has_peers {
            let share = per_cent(seen.as_logged, seen.requests);
            lines.push(format!(
                "{share:.2} % of them went where this ring sends them"
            ));
        }
        if self.starts_slowly {
            lines.push("slow starts are taken as over".to_owned());
        }
        lines.extend(seen.complaint());
        if self.late > 0 {
            let late = self.late;
            lines.push(format!(
                "{late} requests were too long to be put in order; they count from later on"
            ));
        }
        lines.extend(self.now.lines("now", span, seen.requests));
        if let Some(after) = &self.after {
            lines.extend(after.lines("after", span, seen.requests));
            let (moved, share) = (seen.moved, per_cent(seen.moved, seen.requests));
            lines.extend([
                String::new(),
                format!("moved {moved} requests, {share:.2} %"),
            ]);
        }
        lines
    }

    /// From the first start to the last end, in microseconds; at least one.
    fn span(&self) -> u64 {
        let (start, end) = self.seen.span.unwrap_or_default();
        (end - start).max(1)
    }
}

impl Loads<'_> {
    fn json(&self, span: u64) -> Value {
        let all: u64 = self.peers.iter().map(|load| load.requests).sum();
        let peer = |(label, load): (&&str, &Load)| {
            json!({
                "label": label,
                "requests": load.requests,
                "share": ratio(load.requests, all),
                "peak_rate": load.peak_rate,
                "peak_in_flight": load.peak_in_flight,
                "mean_in_flight": ratio(load.busy, span),
                "bytes": load.bytes,
                "overflow": load.overflow,
            })
        };
        let peers: Vec<_> = self.labels.iter().zip(&self.peers).map(peer).collect();
        json!({ "peers": peers, "unserved": self.unserved, "spread": self.spread })
    }

    fn lines(&self, when: &str, span: u64, all: u64) -> Vec<String> {
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
        rows.extend(self.labels.iter().zip(&self.peers).map(|(label, load)| {
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
        if self.unserved > 0 {
            lines.push(format!("{} requests found no peer", self.unserved));
        }
        if self.spread > 0 {
            lines.push(format!(
                "{} requests were of hot keys, and spread",
                self.spread
            ));
        }
        lines
    }
}

/// Microseconds since 1970 as a date.
fn shown(time: u64) -> String {
    let time = i64::try_from(time).ok();
    let time = time.and_then(|time| Timestamp::from_microsecond(time).ok());
    time.map_or_else(|| "?".to_owned(), |time| format!("{time:.3}"))
}

fn per_cent(part: u64, whole: u64) -> f64 {
    ratio(part, whole) * 100.0
}

#[expect(clippy::cast_precision_loss, reason = "shown with a few digits")]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}
