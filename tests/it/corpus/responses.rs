//! Responses: each case is what a peer sends, to a client of HTTP/1 and to one of HTTP/2, with a probe behind it.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use socket2::SockRef;

use super::case::{Case, Step, of_lane, read_all, unescape, wire_line};
use super::client::Client;
use super::origin::{answer, listen};
use super::strict::{Flaw, Wire, text};
use super::{carrier, check_all};
use crate::http2::H2C;
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::http2::{self, Frame, code, flag, kind};
use crate::support::wait::PATIENCE;

/// What the peer does now, and what has happened; shared by its connections.
#[derive(Default)]
struct Scene {
    state: Mutex<State>,
    changed: Condvar,
    connections: AtomicUsize,
}

#[derive(Default)]
struct State {
    /// What the peer sends to the next request that is no probe.
    script: Vec<Act>,
    /// Heads that the client has got in this case.
    heads: usize,
    /// The connections of the case and of the probe.
    played_on: Option<usize>,
    probed_on: Option<usize>,
}

#[derive(Clone)]
enum Act {
    Send(Vec<u8>),
    Close,
    Reset,
    /// Waits until the client has got one more head.
    Wait,
}

impl Act {
    fn of(step: &Step) -> Self {
        match step {
            Step::Send(bytes) => Self::Send(bytes.clone()),
            Step::Act(act) => match &**act {
                "close" => Self::Close,
                "reset" => Self::Reset,
                "wait" => Self::Wait,
                _ => panic!("unknown directive `{act}`"),
            },
        }
    }
}

/// Puts the bytes that are sent without a pause into one write.
fn in_one_piece(script: Vec<Act>) -> Vec<Act> {
    let mut joined: Vec<Act> = Vec::new();
    for act in script {
        match (joined.last_mut(), act) {
            (Some(Act::Send(sent)), Act::Send(bytes)) => sent.extend(bytes),
            (_, act) => joined.push(act),
        }
    }
    joined
}

impl Scene {
    /// Serves a connection of the peer.
    fn serve(&self, socket: TcpStream) {
        let connection = self.connections.fetch_add(1, Ordering::Relaxed);
        let _ = socket.set_nodelay(true);
        let mut wire = Wire::new(socket);
        while let Ok(Some(request)) = wire.request() {
            let stays = if request.target().starts_with("/probe/") {
                self.state.lock().unwrap().probed_on = Some(connection);
                answer(&mut wire.socket, request.method(), request.target()).is_ok()
            } else {
                let script = {
                    let mut state = self.state.lock().unwrap();
                    state.played_on = Some(connection);
                    state.script.clone()
                };
                self.play(&mut wire.socket, script)
            };
            if !stays {
                return;
            }
        }
    }

    /// Plays a script; false: the connection ends.
    fn play(&self, socket: &mut TcpStream, script: Vec<Act>) -> bool {
        let mut heads = 0;
        for act in script {
            match act {
                Act::Send(bytes) => {
                    if socket.write_all(&bytes).is_err() {
                        return false;
                    }
                }
                Act::Wait => {
                    heads += 1;
                    let state = self.state.lock().unwrap();
                    let is_early = |state: &mut State| state.heads < heads;
                    let waited = self.changed.wait_timeout_while(state, PATIENCE, is_early);
                    drop(waited);
                }
                Act::Close => {
                    let _ = socket.shutdown(Shutdown::Both);
                    return false;
                }
                Act::Reset => {
                    let _ = SockRef::from(&*socket).set_linger(Some(Duration::ZERO));
                    return false;
                }
            }
        }
        true
    }

    fn begin(&self, case: &Case, carrier: &str) {
        let mut script: Vec<_> = case.steps.iter().map(Act::of).collect();
        let outcomes = case.outcomes(&[carrier]);
        if outcomes.iter().any(|outcome| outcome.is("drop")) {
            // Bytes after a response are certainly found only if they arrive with it.
            script = in_one_piece(script);
        }
        *self.state.lock().unwrap() = State {
            script,
            ..State::default()
        };
    }

    fn on_head(&self) {
        self.state.lock().unwrap().heads += 1;
        self.changed.notify_all();
    }

    /// Adds a frame of the stream to what is seen; true: the stream has ended.
    fn on_frame(&self, frame: &Frame, client: &mut http2::Client, seen: &mut Seen) -> bool {
        match frame.kind {
            kind::HEADERS => match http2::status(frame) {
                // Trailers.
                0 => {}
                status => {
                    seen.statuses.push(status);
                    self.on_head();
                }
            },
            kind::DATA => {
                seen.body.push_str(&text(&frame.payload));
                let length = u32::try_from(frame.payload.len()).unwrap();
                if length > 0 {
                    let _ = client.send(&Frame::window(0, length));
                    let _ = client.send(&Frame::window(frame.stream, length));
                }
            }
            kind::RST_STREAM => {
                seen.is_cut = frame.code() != code::NO_ERROR;
                return true;
            }
            _ => {}
        }
        matches!(frame.kind, kind::HEADERS | kind::DATA) && frame.flags & flag::END_STREAM != 0
    }
}

/// What a client has got.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// The statuses of all heads.
    statuses: Vec<u16>,
    body: String,
    is_cut: bool,
    /// Of the final head; only over HTTP/1.
    fields: Vec<(String, String)>,
    /// Whether the connection ends.
    is_closing: bool,
}

/// The request of a case.
struct Asked<'a> {
    method: &'a str,
    version: &'a str,
    fields: Vec<&'a str>,
}

impl<'a> Asked<'a> {
    fn of(case: &'a Case) -> Self {
        let line = case.asked.first().map_or("GET HTTP/1.1", String::as_str);
        let (method, version) = line.split_once(' ').unwrap_or((line, "HTTP/1.1"));
        let fields = case.asked.iter().skip(1).map(String::as_str).collect();
        Self {
            method,
            version,
            fields,
        }
    }
}

/// A client, of HTTP/1 or HTTP/2, with its own instance and peer.
struct Lane {
    edge: Edge,
    scene: Arc<Scene>,
    is_http2: bool,
    http1: Option<Client>,
    http2: Option<http2::Client>,
    probes: u32,
}

impl Lane {
    fn start(is_http2: bool) -> Self {
        let scene = Arc::<Scene>::default();
        let peer = Arc::clone(&scene);
        let address = listen(move |socket| peer.serve(socket));
        let site = ConfigBuilder::of([address]).app("key", "client_ip");
        Self {
            edge: site.top("listeners", H2C).start(),
            scene,
            is_http2,
            http1: None,
            http2: None,
            probes: 0,
        }
    }

    fn run(&mut self, case: &Case) -> Result<(), String> {
        let carrier = if self.is_http2 { "h2" } else { carrier() };
        self.scene.begin(case, carrier);
        let asked = Asked::of(case);
        let seen = if self.is_http2 {
            self.ask_http2(&asked)
        } else {
            self.ask_http1(&asked)
        }?;
        self.compare(case, carrier, &seen)?;
        if seen.statuses.last() == Some(&101) {
            self.http1 = None;
        }
        self.probe()?;
        self.compare_pool(case, carrier, &seen)
    }

    fn ask_http1(&mut self, asked: &Asked<'_>) -> Result<Seen, String> {
        let address = self.edge.address;
        let client = self.http1.get_or_insert_with(|| Client::connect(address));
        let fields: Vec<_> = asked.fields.iter().flat_map(|it| [*it, "\r\n"]).collect();
        let fields = fields.concat();
        let Asked {
            method, version, ..
        } = asked;
        let request = format!("{method} / {version}\r\nHost: a.test\r\n{fields}\r\n");
        client
            .send(request.as_bytes())
            .map_err(|it| it.to_string())?;
        let mut seen = Seen::default();
        let mut head = loop {
            let head = client
                .head()
                .map_err(|flaw| format!("{flaw:?} after {seen:?}"))?;
            self.scene.on_head();
            seen.statuses.push(head.status());
            if !matches!(head.status(), 100 | 102..200) {
                break head;
            }
        };
        seen.fields.clone_from(&head.fields);
        if head.status() == 101 {
            return Ok(seen);
        }
        match client.body(method, &mut head) {
            Ok(()) => seen.body = head.body,
            Err(Flaw::Cut(_)) => (seen.is_cut, client.is_closing) = (true, true),
            Err(Flaw::Malformed(why)) => return Err(why),
        }
        seen.is_closing = client.is_closing;
        if client.has_unread() && !seen.is_cut {
            return Err("more than one response".to_owned());
        }
        if seen.is_closing {
            let ended = if seen.is_cut { Ok(()) } else { client.ends() };
            self.http1 = None;
            ended?;
        }
        Ok(seen)
    }

    fn ask_http2(&mut self, asked: &Asked<'_>) -> Result<Seen, String> {
        let address = self.edge.address;
        let client = self
            .http2
            .get_or_insert_with(|| http2::Client::open(address));
        let fields: Vec<_> = asked
            .fields
            .iter()
            .filter_map(|it| it.split_once(": "))
            .collect();
        let fields: Vec<_> = fields
            .into_iter()
            .map(|(name, value)| (name.to_ascii_lowercase(), value))
            .filter(|(name, _)| !matches!(&**name, "connection" | "upgrade"))
            .collect();
        let mut request = http2::request(asked.method, "/");
        request.extend(fields.iter().map(|(name, value)| (&**name, *value)));
        let stream = client.begin(flag::END_STREAM, &request);
        let mut seen = Seen::default();
        loop {
            let frame = client
                .next()
                .map_err(|error| format!("{error} after {seen:?}"))?;
            let frame = frame.ok_or_else(|| format!("closed after {seen:?}"))?;
            if frame.stream != stream {
                match frame.kind {
                    kind::GOAWAY => return Err(format!("GOAWAY {} after {seen:?}", frame.code())),
                    _ => continue,
                }
            }
            if self.scene.on_frame(&frame, client, &mut seen) {
                return Ok(seen);
            }
        }
    }

    fn compare(&self, case: &Case, carrier: &str, seen: &Seen) -> Result<(), String> {
        let outcomes = case.outcomes(&[carrier]);
        let responses: Vec<_> = outcomes
            .iter()
            .filter_map(|outcome| Some((outcome.status()?, &outcome.lines)))
            .collect();
        let statuses: Vec<_> = responses.iter().map(|((status, _), _)| *status).collect();
        let ((status, body), lines) = responses.last().expect("a final response");
        let is_cut = *body == "cut";
        let body = text(&unescape(body));
        let is_ours = *status == 502;
        let is_body = is_cut || is_ours || seen.body == body;
        // A reset of the stream may overtake the head.
        let is_overtaken = is_cut && self.is_http2 && statuses.starts_with(&seen.statuses);
        let is_status = seen.statuses == statuses || is_overtaken;
        if !is_status || seen.is_cut != is_cut || !is_body {
            return Err(format!("{statuses:?} {body:?} cut: {is_cut}, but {seen:?}"));
        }
        if self.is_http2 {
            return Ok(());
        }
        for line in *lines {
            let has = |name: &str, value: Option<&str>| {
                let named = |(known, it): &&(String, String)| {
                    known.eq_ignore_ascii_case(name) && value.is_none_or(|value| value == it)
                };
                seen.fields.iter().filter(named).count()
            };
            let is_right = match (line.strip_prefix('!'), line.split_once(": ")) {
                (Some(name), _) => has(name, None) == 0,
                (None, Some((name, value))) => has(name, Some(value)) == 1 && has(name, None) == 1,
                (None, None) => panic!("`{line}`"),
            };
            if !is_right {
                return Err(format!("`{line}` is wrong in {seen:?}"));
            }
        }
        Ok(())
    }

    /// Whether the peer's connection is used again exactly if it may be.
    fn compare_pool(&self, case: &Case, carrier: &str, seen: &Seen) -> Result<(), String> {
        let outcomes = case.outcomes(&[carrier]);
        let is = |text: &str| outcomes.iter().any(|outcome| outcome.is(text));
        let is_whole = !seen.is_cut && !matches!(seen.statuses.last(), Some(101 | 502));
        let expected = !is("drop") && (is("reuse") || is_whole);
        let state = self.scene.state.lock().unwrap();
        let is_reused = state.played_on == state.probed_on;
        // Over HTTP/2 the probe may be faster than the connection's return to the pool.
        if is_reused == expected || expected && self.is_http2 {
            Ok(())
        } else {
            Err(format!("the peer's connection is reused: {is_reused}"))
        }
    }

    /// Sends a request behind the case, over the same pool: its response must be its own.
    fn probe(&mut self) -> Result<(), String> {
        self.probes += 1;
        let target = format!("/probe/{}/{}", self.is_http2, self.probes);
        let address = self.edge.address;
        let body = if self.is_http2 {
            let client = self
                .http2
                .get_or_insert_with(|| http2::Client::open(address));
            let stream = client.begin(flag::END_STREAM, &http2::get(&target));
            let answer = client.answer(stream);
            if answer.statuses != [200] {
                return Err(format!("the probe got {answer:?}"));
            }
            text(&answer.body)
        } else {
            let client = self.http1.get_or_insert_with(|| Client::connect(address));
            let probe = format!("GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n");
            client.send(probe.as_bytes()).map_err(|it| it.to_string())?;
            let response = client.response("GET");
            let response = response.map_err(|flaw| format!("the probe got {flaw:?}"))?;
            if response.status() != 200 || client.is_closing {
                return Err(format!("the probe got {response:?}"));
            }
            response.body
        };
        if body == target {
            Ok(())
        } else {
            Err(format!("the probe {target} got {body:?}"))
        }
    }
}

fn run_lane(cases: &[Case], is_http2: bool) -> Vec<String> {
    let mut lane = Lane::start(is_http2);
    let mut failures = Vec::new();
    let carrier = if is_http2 { "h2" } else { carrier() };
    for case in of_lane(cases, &format!("responses {carrier}")) {
        if let Err(failure) = lane.run(case) {
            let client = if is_http2 { "HTTP/2" } else { "HTTP/1" };
            failures.push(format!("{} ({client}): {failure}", case.name));
            (lane.http1, lane.http2) = (None, None);
        }
    }
    failures
}

#[test]
fn corpus_responses_reach_every_client_whole_cut_or_as_502() {
    let cases = read_all("responses", wire_line);
    assert!(cases.len() >= 90, "{} responses", cases.len());
    check_all("responses", cases.len(), &[false, true], |is_http2| {
        run_lane(&cases, *is_http2)
    });
}
