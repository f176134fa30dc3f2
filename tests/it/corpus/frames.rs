//! Frames of HTTP/2 from clients: each case follows the handshake on a connection, with a probe behind it.

use super::case::{Case, hex, of_lane, read_all};
use super::check_all;
use super::origin::{Event, StrictOrigin};
use super::strict::{Message, Wire};
use crate::http2::H2C;
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::http2::{Client, Frame, flag, get, kind, status};

/// The server's reaction, as the files have it.
fn reaction(client: &mut Client, wanted: &str) -> String {
    if wanted == "alive" {
        return format!("{:?}", client.outcome()).to_lowercase();
    }
    let mut last = 0;
    loop {
        let Ok(Some(frame)) = client.next() else {
            return "closed".to_owned();
        };
        match frame.kind {
            kind::GOAWAY => return format!("goaway {}", frame.code()),
            kind::RST_STREAM => return format!("reset {}", frame.code()),
            kind::HEADERS => last = status(&frame).max(last),
            _ => {}
        }
        let ends = matches!(frame.kind, kind::HEADERS | kind::DATA);
        if ends && frame.flags & flag::END_STREAM != 0 {
            return last.to_string();
        }
    }
}

struct Lane {
    edge: Edge,
    origin: StrictOrigin,
    probes: u32,
    /// Requests that may have begun at the origin.
    cuts: usize,
}

impl Lane {
    fn start() -> Self {
        let origin = StrictOrigin::start();
        let site = ConfigBuilder::of([origin.address]).app("key", "client_ip");
        let site = site.top("forwarding", "{x_forwarded: false, request_id: off}");
        Self {
            edge: site.top("listeners", H2C).start(),
            origin,
            probes: 0,
            cuts: 0,
        }
    }

    fn run(&mut self, case: &Case) -> Result<(), String> {
        let mut client = Client::open(self.edge.address);
        client
            .raw(&case.bytes())
            .map_err(|error| error.to_string())?;
        let mut requests = Vec::new();
        for outcome in case.outcomes(&[]) {
            let (wanted, may_be_cut) = match outcome.text.strip_suffix(" cut") {
                Some(wanted) => (wanted, true),
                None => (outcome.text.as_str(), false),
            };
            self.cuts += usize::from(may_be_cut);
            let seen = reaction(&mut client, wanted);
            if seen != wanted {
                return Err(format!("{seen}, not {wanted}"));
            }
            if wanted.starts_with("goaway") || wanted == "closed" {
                client = Client::open(self.edge.address);
            }
            if !outcome.lines.is_empty() {
                let bytes = outcome.bytes();
                let request = Wire::new(&*bytes).request();
                requests.extend(request.map_err(|flaw| format!("after `<`: {flaw:?}"))?);
            }
        }
        self.check_requests(&requests)?;
        self.probe(&mut client)
    }

    /// Fails unless exactly these requests have arrived.
    fn check_requests(&mut self, wanted: &[Message]) -> Result<(), String> {
        let mut events = self.origin.take_events();
        let all = events.len();
        events.retain(|event| *event != Event::Cut);
        let cut = all - events.len();
        let is_same = events.len() == wanted.len()
            && events
                .iter()
                .zip(wanted)
                .all(|(event, wanted)| match event {
                    Event::Request(request) => request.is(wanted),
                    Event::Cut | Event::Malformed(_) => false,
                });
        if !is_same || cut > self.cuts {
            return Err(format!(
                "{cut} cut, and the origin got {events:?}\n    instead of {wanted:?}"
            ));
        }
        self.cuts -= cut;
        Ok(())
    }

    /// Sends a request behind the case: its response must be its own.
    fn probe(&mut self, client: &mut Client) -> Result<(), String> {
        self.probes += 1;
        let target = format!("/probe/{}", self.probes);
        let fields = get(&target);
        // Above the streams of the case.
        let stream = 201;
        let header = Frame::headers(stream, flag::END_STREAM, &fields);
        client.send(&header).map_err(|error| error.to_string())?;
        let answer = client.answer(stream);
        let line = format!("GET {target} HTTP/1.1");
        if answer.statuses != [200] || answer.json()["line"] != line {
            return Err(format!("the probe got {answer:?}"));
        }
        let events = self.origin.take_events();
        let requests = events.iter().filter(|event| **event != Event::Cut).count();
        let cut = events.len() - requests;
        if requests != 1 || cut > self.cuts {
            return Err(format!("the origin got {events:?} with the probe"));
        }
        self.cuts -= cut;
        Ok(())
    }
}

fn run_lane(cases: &[Case]) -> Vec<String> {
    let mut lane = Lane::start();
    let mut failures = Vec::new();
    for case in of_lane(cases, "frames") {
        if let Err(failure) = lane.run(case) {
            lane.origin.take_events();
            failures.push(format!("{}: {failure}", case.name));
        }
    }
    failures
}

#[test]
fn corpus_frames_become_requests_or_errors_of_their_stream() {
    let cases = read_all("frames", hex);
    assert!(cases.len() >= 40, "{} cases of frames", cases.len());
    check_all("cases of frames", cases.len(), &[()], |()| run_lane(&cases));
}
