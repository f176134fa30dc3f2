//! The differences that are documented (guide, "The engine of HTTP/1"), each with its reason.

use super::case::{Case, End, Request, Response};
use super::compare::{ARRIVALS, Difference, Observed};
use super::grammar::Section;

/// A documented difference.
pub(super) struct Listed {
    pub(super) reason: &'static str,
    /// Whether the rest of the connection may differ, too: one way refused, retried or closed.
    pub(super) is_last: bool,
    applies: fn(&Seen<'_>) -> bool,
}

/// A difference with all that was seen.
struct Seen<'a> {
    case: &'a Case,
    engine: &'a Observed,
    pingora: &'a Observed,
    difference: &'a Difference,
}

/// The row of a difference; `None`: it is not documented.
pub(super) fn row(
    case: &Case,
    (engine, pingora): (&Observed, &Observed),
    difference: &Difference,
) -> Option<&'static Listed> {
    let seen = Seen {
        case,
        engine,
        pingora,
        difference,
    };
    LISTED.iter().find(|row| (row.applies)(&seen))
}

const fn last(reason: &'static str, applies: fn(&Seen<'_>) -> bool) -> Listed {
    Listed {
        reason,
        is_last: true,
        applies,
    }
}

const fn once(reason: &'static str, applies: fn(&Seen<'_>) -> bool) -> Listed {
    Listed {
        reason,
        is_last: false,
        applies,
    }
}

const LISTED: &[Listed] = &[
    last(
        "Pingora reads a peer's Connection of one option only",
        |it| it.difference.kind == "log" && it.has_response_with_several_options(),
    ),
    last(
        "a response cut off on a client of HTTP/1.0 is reset, which may take its head away",
        |it| it.is_fault_equal("response_truncated") && it.is_http10(),
    ),
    last(
        "a close without a response is repeated on a used connection only, and one way used a new one",
        |it| it.has_close_without_response() && it.differs_in_reuse(),
    ),
    once(
        "a head may reach the peer before its body is found too large",
        |it| ARRIVALS.contains(&it.difference.kind) && it.has_large_body(),
    ),
    once("the peer learns that the client accepts trailers", |it| {
        it.difference.kind == "arrived"
            && it.difference.engine.contains("te: trailers")
            && it.differs_in(&["te", "connection", "content-length"])
            && it.has_same_numbers()
    }),
    once("Content-Length as a number without zeros", |it| {
        it.difference.kind == "arrived"
            && it.differs_in(&["content-length"])
            && it.has_same_numbers()
    }),
    once(
        "framing fields that mean nothing are removed, and others are written anew",
        |it| {
            matches!(it.difference.kind, "fields" | "interim")
                && it.differs_in(&["content-length", "transfer-encoding"])
                && (it.is_without_body() || it.has_same_numbers())
        },
    ),
    once("a reason above ASCII is passed on", |it| {
        it.difference.kind == "status" && !it.difference.engine.is_ascii()
    }),
];

impl Seen<'_> {
    fn log(observed: &Observed, index: usize) -> String {
        observed
            .log
            .get(index)
            .map(super::compare::outcome)
            .unwrap_or_default()
    }

    fn is_fault_equal(&self, fault: &str) -> bool {
        let logs = [self.engine, self.pingora].map(|it| Self::log(it, self.difference.index));
        logs.iter().all(|log| log.ends_with(fault))
    }

    fn request(&self) -> Option<&Request> {
        self.case.requests.get(self.difference.index)
    }

    fn section(&self) -> Option<Section> {
        Section::parse(&self.request()?.lines.concat())
    }

    fn request_line_ends(&self, condition: fn(&str) -> bool) -> bool {
        let version = |it: &Section| condition(it.first.rsplit(' ').next().unwrap_or_default());
        self.section().as_ref().is_some_and(version)
    }

    fn is_http10(&self) -> bool {
        self.request_line_ends(|version| version == "HTTP/1.0")
    }

    fn has_close_without_response(&self) -> bool {
        let is_close = |it: &Response| it.end == End::Close && it.lines.is_empty();
        self.case.responses.iter().any(is_close)
    }

    fn differs_in_reuse(&self) -> bool {
        let reuse = |it: &Observed| it.arrived.iter().map(|it| it.is_reused).collect::<Vec<_>>();
        reuse(self.engine) != reuse(self.pingora)
    }

    fn has_large_body(&self) -> bool {
        let mut log = self.engine.log.iter().map(super::compare::outcome);
        log.any(|it| it == "413 body_too_large")
    }

    fn has_response_with_several_options(&self) -> bool {
        let lines = |it: &Response| {
            let is_option = |line: &&Vec<u8>| line.starts_with(b"Connection:");
            it.lines.iter().filter(is_option).count()
        };
        self.case.responses.iter().any(|it| lines(it) > 1)
    }

    fn is_without_body(&self) -> bool {
        let response = self.engine.outcome.responses.get(self.difference.index);
        response.is_some_and(|it| it.framing.is_none()) || self.difference.kind == "interim"
    }

    /// Whether the two differ in fields of these names only.
    fn differs_in(&self, names: &[&str]) -> bool {
        let (engine, pingora) = (&self.difference.engine, &self.difference.pingora);
        let other = |text: &str| {
            let lines = text.lines().filter(|line| {
                let name = line.split(':').next().unwrap_or_default();
                !names.iter().any(|it| it.eq_ignore_ascii_case(name))
            });
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        other(engine) == other(pingora)
    }

    /// Whether all framing fields have the same number or coding, however it is written.
    fn has_same_numbers(&self) -> bool {
        let values = |text: &str| {
            let framing = text.lines().filter_map(|line| {
                let (name, value) = line.split_once(": ")?;
                let name = name.to_ascii_lowercase();
                let is_framing = ["content-length", "transfer-encoding"].contains(&&*name);
                is_framing.then(|| value.to_ascii_lowercase())
            });
            let mut values: Vec<_> = framing
                .flat_map(|it| {
                    it.split(',')
                        .map(|it| it.trim().to_owned())
                        .collect::<Vec<_>>()
                })
                .map(|it| it.trim_start_matches('0').to_owned())
                .collect();
            values.dedup();
            values
        };
        values(&self.difference.engine) == values(&self.difference.pingora)
    }
}
