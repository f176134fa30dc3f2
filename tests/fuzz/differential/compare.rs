//! What was seen of a case on one way, as comparable text; and the first difference between two.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;

use super::case::{Case, Pause, When};
use super::client::{Outcome, Received};
use super::message::{Head, text};
use super::origin::Arrived;

/// What was seen of a case on one way.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    pub(super) outcome: Outcome,
    pub(super) arrived: Vec<Arrived>,
    pub(super) log: Vec<Value>,
    /// Addresses, which differ, and their names.
    pub(super) names: Vec<(String, &'static str)>,
}

/// One aspect, for example the status of the second response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Aspect {
    pub(super) index: usize,
    pub(super) kind: &'static str,
    pub(super) text: String,
}

/// An aspect in which the two ways differ; empty: one of them does not have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) index: usize,
    pub(super) kind: &'static str,
    pub(super) engine: String,
    pub(super) pingora: String,
}

/// The differences, those nearest to the cause first: requests in their order, for each its log line, response, arrival.
pub(super) fn differences(case: &Case, engine: &Observed, pingora: &Observed) -> Vec<Difference> {
    let (ours, theirs) = (aspects(case, engine), aspects(case, pingora));
    let find = |all: &[Aspect], (index, kind): (usize, &str)| {
        let found = all.iter().find(|it| it.index == index && it.kind == kind);
        found.map(|it| it.text.clone()).unwrap_or_default()
    };
    let place = |kind: &str| KINDS.iter().position(|it| *it == kind);
    let is_arrival = |kind: &str| ARRIVALS.contains(&kind);
    let keys = ours
        .iter()
        .chain(&theirs)
        .map(|it| (is_arrival(it.kind), it.index, place(it.kind)));
    let keys: BTreeSet<_> = keys.collect();
    let pairs = keys.into_iter().filter_map(|(_, index, place)| {
        let kind = KINDS[place?];
        let (engine, pingora) = (find(&ours, (index, kind)), find(&theirs, (index, kind)));
        let difference = Difference {
            index,
            kind,
            engine,
            pingora,
        };
        (difference.engine != difference.pingora).then_some(difference)
    });
    pairs.collect()
}

/// The order in which the aspects of one request are compared.
const KINDS: &[&str] = &[
    "hang", "garbage", "log", "status", "interim", "fields", "framing", "body", "details", "kept",
    "peer", "line", "arrived", "received",
];

/// Those of requests at the origin, whose numbers are not those of the client's requests.
pub(super) const ARRIVALS: &[&str] = &["peer", "line", "arrived", "received", "received trailers"];

impl Difference {
    /// Whether it is of a request that reached the origin for one of the client's first `count` requests.
    pub(super) fn is_arrival_before(&self, count: usize, engine: &Observed) -> bool {
        let attempts = engine
            .log
            .iter()
            .take(count)
            .map(|line| match &line["peer"] {
                Value::String(peer) if peer != "dead" => 1,
                _ => 0,
            });
        ARRIVALS.contains(&self.kind) && self.index < attempts.sum::<usize>()
    }
}

fn aspects(case: &Case, seen: &Observed) -> Vec<Aspect> {
    let mut all = Vec::new();
    let mut push = |index, kind, text: String| all.push(Aspect { index, kind, text });
    for (index, line) in seen.log.iter().enumerate() {
        push(index, "log", outcome(line));
        push(index, "details", details(case, line));
    }
    for (index, response) in seen.outcome.responses.iter().enumerate() {
        push(index, "status", response.head.first.clone());
        let interim: Vec<_> = response.interim.iter().map(|it| fields(it, seen)).collect();
        push(index, "interim", interim.join("\n"));
        push(index, "fields", fields(&response.head, seen));
        push(index, "framing", framing(response));
        push(index, "body", body(response));
        push(index, "trailers", trailers(&response.trailers));
    }
    for (index, arrived) in seen.arrived.iter().enumerate() {
        push(index, "peer", arrived.peer.to_owned());
        push(index, "line", arrived.head.first.clone());
        push(index, "arrived", fields(&arrived.head, seen));
        push(index, "received", arrived_body(case, arrived));
        push(index, "received trailers", trailers(&arrived.trailers));
    }
    let end = seen.outcome.responses.len();
    push(end, "kept", seen.outcome.is_kept.to_string());
    push(end, "hang", seen.outcome.is_hung.to_string());
    push(
        end,
        "garbage",
        seen.outcome.garbage.clone().unwrap_or_default(),
    );
    all
}

/// The lines of a trailer section; Pingora's type has the names in lower case.
fn trailers(lines: &[String]) -> String {
    let lines = lines.iter().map(|line| match line.split_once(':') {
        Some((name, value)) => format!("{}:{value}", name.to_ascii_lowercase()),
        None => line.clone(),
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// Status and fault of a log line.
pub(super) fn outcome(line: &Value) -> String {
    let fault = line["fault"].as_str().unwrap_or("-");
    format!("{} {fault}", line["status"])
}

/// Parts of a log line that do not depend on time.
fn details(case: &Case, line: &Value) -> String {
    let mut names = vec![
        "protocol",
        "method",
        "host",
        "path",
        "upstream",
        "peer",
        "key_source",
        "key_hash",
        "attempts",
        "user_agent",
    ];
    if line["fault"].is_null() && !is_early(case) {
        names.extend(["received", "sent"]);
    }
    // A cookie that is made for the client is random.
    let is_random = |name: &&str| *name == "key_hash" && line["key_source"] == "cookie";
    names.retain(|name| !is_random(name));
    let mut text = String::new();
    for name in names {
        let _ = writeln!(text, "{name}: {}", line[name]);
    }
    text
}

/// Whether the origin answers before it has a request, so that the rest of the request may or may not arrive.
fn is_early(case: &Case) -> bool {
    let early = |it: &super::case::Response| it.when == When::AfterHead;
    case.responses.iter().any(early) || case.requests.iter().any(|it| it.pause == Pause::Leave)
}

/// Fields without what differs each time. Sorted by name: only the order of fields with the same name means something
/// (RFC 9110 §5.3). Names in lower case: a field that Clockwise sets has another case on each way. Pingora sends `Connection: keep-alive` to clients of HTTP/1.1, too, where it means nothing.
fn fields(head: &Head, seen: &Observed) -> String {
    let mut text = String::new();
    let mut fields: Vec<_> = head.fields.iter().collect();
    fields.sort_by_key(|(name, _)| name.to_ascii_lowercase());
    fields.retain(|(name, value)| {
        !(name.eq_ignore_ascii_case("connection") && value.eq_ignore_ascii_case("keep-alive"))
    });
    for (name, value) in fields {
        let lower = name.to_ascii_lowercase();
        let value = match &*lower {
            "date" => "<date>".to_owned(),
            "x-request-id" if !value.starts_with("mine") => "<id>".to_owned(),
            "set-cookie" if value.starts_with("cw=") => {
                let rest = value.find(';').map_or("", |end| &value[end..]);
                format!("cw=<cookie>{rest}")
            }
            _ => value.clone(),
        };
        let value = seen
            .names
            .iter()
            .fold(value, |value, (address, name)| value.replace(address, name));
        let _ = writeln!(text, "{lower}: {value}");
    }
    text
}

fn framing(response: &Received) -> String {
    let framing = response.framing;
    format!("{framing:?} {}", response.is_complete)
}

fn body(response: &Received) -> String {
    if !response.is_complete {
        return String::new();
    }
    text(&response.body)
}

fn arrived_body(case: &Case, arrived: &Arrived) -> String {
    let defect = arrived.defect.clone().unwrap_or_default();
    if is_early(case) {
        return defect;
    }
    if !arrived.is_complete {
        return format!("incomplete {defect}");
    }
    format!("{} {defect}", text(&arrived.body))
}
