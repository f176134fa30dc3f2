//! Requests: each case goes to the strict origin, to nginx and to Node.js, with a probe behind it.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;

use super::case::{Case, Outcome, Step, of_lane, read_all, wire_line};
use super::client::Client;
use super::origin::{Event, Node, StrictOrigin};
use super::strict::{Message, Wire, bytes};
use super::{carrier, check_all};
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::nginx::Nginx;
use crate::support::wait;

/// Starts an origin.
type Start = fn() -> Origin;

/// The largest case that is sent byte by byte.
const MAX_SINGLE: usize = 2048;

/// What is behind Clockwise.
enum Origin {
    Strict(StrictOrigin),
    /// It passes requests on to the strict origin, which shows what nginx has made of them.
    Nginx(Nginx, TempDir),
    Node(Node),
}

impl Origin {
    fn address(&self) -> SocketAddr {
        match self {
            Self::Strict(origin) => origin.address,
            Self::Nginx(nginx, ..) => nginx.address,
            Self::Node(node) => node.address,
        }
    }

    fn nginx() -> Self {
        let behind = StrictOrigin::start();
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log = directory.path().join("access.log");
        let server = format!(
            "access_log {}; location / {{ proxy_pass http://{}; proxy_http_version 1.1; \
             proxy_set_header Host $http_host; proxy_set_header Connection ''; }}",
            log.display(),
            behind.address
        );
        Self::Nginx(Nginx::serving("", &server), directory)
    }

    /// A condition for its version, if there is one.
    fn version(&self) -> &'static str {
        match self {
            Self::Node(node) if node.is_20 => "node20",
            _ => "",
        }
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Strict(_) => "strict",
            Self::Nginx(..) => "nginx",
            Self::Node(_) => "node",
        }
    }
}

/// One instance, its origin, and the case under way.
struct Lane {
    edge: Edge,
    origin: Origin,
    /// Whether each byte is sent on its own.
    is_bytewise: bool,
    /// Requests of clients that have left: each may reach the origin.
    lost: Vec<Message>,
    /// Complete requests that the origin has had; `None`: unknown until the next one.
    number: Option<u64>,
    /// Requests that the origin has answered.
    total: u64,
    /// Requests that the origin could not read.
    flaws: u64,
    /// Requests whose end the origin may still see without their rest.
    cuts: usize,
    probes: u32,
}

impl Lane {
    fn start(origin: Origin, is_bytewise: bool) -> Self {
        let site = ConfigBuilder::of([origin.address()]).app("key", "client_ip");
        let site = site.top("forwarding", "{x_forwarded: false, request_id: off}");
        Self {
            edge: site.start(),
            origin,
            is_bytewise,
            lost: Vec::new(),
            number: Some(0),
            total: 0,
            flaws: 0,
            cuts: 0,
            probes: 0,
        }
    }

    fn run(&mut self, case: &Case) -> Result<(), String> {
        let outcomes = case.outcomes(&[self.origin.name(), carrier(), self.origin.version()]);
        let is_strict = matches!(self.origin, Origin::Strict(_));
        if outcomes[0].is("gone") && !is_strict {
            // Only the strict origin shows which of its requests have arrived.
            return Ok(());
        }
        let mut client = Client::connect(self.edge.address);
        for step in &case.steps {
            self.step(&mut client, step)?;
        }
        let sent = sent_messages(case);
        let mut forwarded = Vec::new();
        let mut state = None;
        for outcome in &outcomes {
            if matches!(&*outcome.text, "open" | "close") {
                state = Some(outcome.is("close"));
            } else if outcome.is("cut") || outcome.is("gone") {
                if outcome.is("gone") {
                    self.lost.extend(sent.iter().cloned());
                }
                self.cuts += 1;
                drop(client);
                client = Client::connect(self.edge.address);
            } else {
                let at = forwarded.len();
                let request = wanted(outcome, sent.get(at), self.origin.address())?;
                let first = request.as_ref().map(Message::method);
                let is_head = first.map_or(case.bytes().starts_with(b"HEAD "), |it| it == "HEAD");
                let exchanged = self.exchange(&mut client, outcome, (request, is_head))?;
                forwarded.extend(exchanged);
            }
        }
        if state.is_some_and(|closes| closes != client.is_closing) {
            return Err(format!("closes: {}", client.is_closing));
        }
        self.check_events(&forwarded)?;
        self.probe(client)
    }

    fn step(&self, client: &mut Client, step: &Step) -> Result<(), String> {
        match step {
            // An error means that Clockwise has closed, which its response explains.
            Step::Send(bytes) if self.is_bytewise => {
                let _ = bytes.iter().try_for_each(|byte| client.send(&[*byte]));
            }
            Step::Send(bytes) => {
                let _ = client.send(bytes);
            }
            Step::Act(act) => match &**act {
                "end" => client.finish_sending(),
                "100" => {
                    let interim = client.head().map_err(|flaw| format!("{flaw:?}"))?;
                    if interim.status() != 100 {
                        return Err(format!("no 100 but {interim:?}"));
                    }
                }
                _ => panic!("unknown directive `{act}`"),
            },
        }
        Ok(())
    }

    /// Reads a response, and compares what the origin has got; returns it.
    fn exchange(
        &mut self,
        client: &mut Client,
        outcome: &Outcome,
        (request, is_head): (Option<Message>, bool),
    ) -> Result<Option<Message>, String> {
        let (status, rest) = outcome.status().expect("a status");
        let method = if is_head { "HEAD" } else { "GET" };
        let response = client
            .response(method)
            .map_err(|flaw| format!("instead of {status}: {flaw:?}"))?;
        if response.status() != status {
            return Err(format!("instead of {status}: {response:?}"));
        }
        self.cuts += usize::from(rest == "cut");
        if status >= 400 && self.origin.name() == "node" {
            // Node.js may count a flaw of its own, or not, and its answer does not say.
            self.flaws = u64::MAX;
        }
        let Some(wanted) = request.filter(|_| status < 400) else {
            return Ok(None);
        };
        self.count();
        if method != "HEAD" {
            self.compare(&wanted, &response)?;
        }
        Ok(Some(wanted))
    }

    /// Forgets a failure, which must not fail the next case, too.
    fn forget(&mut self) {
        (self.number, self.flaws) = (None, u64::MAX);
        if let Origin::Strict(origin) = &self.origin {
            origin.take_events();
        }
    }

    fn count(&mut self) {
        self.total += 1;
        self.number = self.number.map(|number| number + 1);
    }

    /// Compares a request with the description of it in the response.
    fn compare(&mut self, wanted: &Message, response: &Message) -> Result<(), String> {
        let json: serde_json::Value = serde_json::from_slice(&bytes(&response.body))
            .map_err(|error| format!("{error}: {response:?}"))?;
        let seen = Message::of_json(&json).ok_or_else(|| format!("not a description: {json}"))?;
        let flaws = json["flaws"].as_u64().unwrap_or(0);
        let is_new_flaw = flaws > self.flaws;
        self.flaws = flaws;
        // nginx has fields of its own.
        let is_same = match &self.origin {
            Origin::Nginx(..) => (&seen.line, &seen.body) == (&wanted.line, &wanted.body),
            Origin::Strict(_) | Origin::Node(_) => seen.is(wanted),
        };
        if !is_same {
            return Err(format!(
                "the origin got {seen:?}\n    instead of {wanted:?}"
            ));
        }
        let number = json["number"].as_u64();
        // The strict origin is asked itself.
        let is_counted = !matches!(self.origin, Origin::Strict(_)) && self.number.is_some();
        if is_counted && self.number != number || is_new_flaw {
            return Err(format!(
                "request {:?}: the origin got more: {json}",
                self.number
            ));
        }
        self.number = number;
        Ok(())
    }

    /// Fails unless exactly these complete requests have arrived at the strict origin.
    fn check_events(&mut self, wanted: &[Message]) -> Result<(), String> {
        let Origin::Strict(origin) = &self.origin else {
            return Ok(());
        };
        let (mut requests, mut others, mut cut) = (Vec::new(), Vec::new(), 0);
        for event in origin.take_events() {
            match event {
                Event::Request(request) => {
                    let lost = self.lost.iter().position(|lost| lost.line == request.line);
                    match lost {
                        Some(at) => drop(self.lost.remove(at)),
                        None => requests.push(request),
                    }
                }
                Event::Cut => cut += 1,
                Event::Malformed(why) => others.push(why),
            }
        }
        let is_same = requests.len() == wanted.len()
            && requests
                .iter()
                .zip(wanted)
                .all(|(request, wanted)| request.is(wanted));
        if !is_same || !others.is_empty() || cut > self.cuts {
            return Err(format!(
                "the origin got {requests:?}, {cut} cut, {others:?}"
            ));
        }
        self.cuts -= cut;
        Ok(())
    }

    /// Sends a request behind the case, on its connection if that is still open: its response must be its own.
    fn probe(&mut self, mut client: Client) -> Result<(), String> {
        if client.is_closing {
            client.ends()?;
            client = Client::connect(self.edge.address);
        } else if client.has_unread() {
            return Err("more than the expected responses".to_owned());
        }
        self.probes += 1;
        let target = format!("/probe/{}/{}", self.origin.name(), self.probes);
        let probe = format!("GET {target} HTTP/1.1\r\nHost: probe.test\r\n\r\n");
        let _ = client.send(probe.as_bytes());
        let response = client.response("GET");
        let response = response.map_err(|flaw| format!("the probe got {flaw:?}"))?;
        let request = Wire::new(probe.as_bytes()).request();
        let request = request.expect("valid").expect("complete");
        self.count();
        let compared = self.compare(&request, &response);
        compared.map_err(|error| format!("the probe: {error}"))?;
        self.check_events(&[request])
    }
}

/// The request that the origin must get; `None`: none. The host `the-origin` becomes the address of the origin.
fn wanted(
    outcome: &Outcome,
    sent: Option<&Message>,
    origin: SocketAddr,
) -> Result<Option<Message>, String> {
    let (status, _) = outcome
        .status()
        .ok_or_else(|| format!("unknown outcome `{}`", outcome.text))?;
    if !outcome.lines.is_empty() {
        let bytes = outcome.bytes();
        let mut request = Wire::new(&*bytes)
            .request()
            .map_err(|flaw| format!("in lines after `<`: {flaw:?}"))?;
        for (_, value) in request.iter_mut().flat_map(|request| &mut request.fields) {
            if value == "the-origin" {
                *value = origin.to_string();
            }
        }
        return Ok(request);
    }
    if status >= 400 {
        return Ok(None);
    }
    let sent = sent.ok_or("the sent request is not strict: write what the origin gets")?;
    Ok(Some(sent.clone()))
}

/// The requests that are sent, if they are strict, without what is for one connection only.
fn sent_messages(case: &Case) -> Vec<Message> {
    let bytes = case.bytes();
    let mut wire = Wire::new(&*bytes);
    let mut messages = Vec::new();
    while let Ok(Some(mut message)) = wire.request() {
        message
            .fields
            .retain(|(name, _)| !name.eq_ignore_ascii_case("connection"));
        messages.push(message);
    }
    messages
}

/// The statuses in nginx's log must be those of the exchanges: nginx has read no other request.
fn check_nginx_log(directory: &Path, lane: &Lane) -> Result<(), String> {
    let answered = || {
        let log = fs::read_to_string(directory.join("access.log")).unwrap();
        let lines = log.lines().filter(|line| line.contains("\" 200 "));
        u64::try_from(lines.count()).unwrap()
    };
    wait::until("nginx to log the last request", || answered() >= lane.total);
    let answered = answered();
    if answered == lane.total {
        Ok(())
    } else {
        Err(format!(
            "nginx answered {answered} requests, not {}",
            lane.total
        ))
    }
}

/// Runs all cases in front of one origin; returns the failures.
fn run_lane(cases: &[&Case], origin: Origin, is_bytewise: bool) -> Vec<String> {
    let mut lane = Lane::start(origin, is_bytewise);
    let mut failures = Vec::new();
    let small = |case: &&Case| !is_bytewise || case.bytes().len() <= MAX_SINGLE;
    for case in cases.iter().copied().filter(small) {
        if let Err(failure) = lane.run(case) {
            lane.forget();
            let single = if is_bytewise { ", byte by byte" } else { "" };
            let name = lane.origin.name();
            failures.push(format!("{} ({name}{single}): {failure}", case.name));
        }
    }
    if let Origin::Nginx(_, directory) = &lane.origin
        && failures.is_empty()
        && let Err(failure) = check_nginx_log(directory.path(), &lane)
    {
        failures.push(failure);
    }
    failures
}

#[test]
fn corpus_requests_reach_every_origin_as_one_message_or_not_at_all() {
    let cases = read_all("requests", wire_line);
    assert!(cases.len() >= 250, "{} requests", cases.len());
    let run = of_lane(&cases, &format!("requests {}", carrier()));
    let lanes: [(Start, bool); 4] = [
        (|| Origin::Strict(StrictOrigin::start()), false),
        (|| Origin::Strict(StrictOrigin::start()), true),
        (Origin::nginx, false),
        (|| Origin::Node(Node::start()), false),
    ];
    check_all("requests", cases.len(), &lanes, |(origin, is_bytewise)| {
        run_lane(&run, origin(), *is_bytewise)
    });
}
