//! gRPC-Web: browser clients in front of a server of plain gRPC.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;

use crate::grpc::{Server, call, script, site};
use crate::peers_tls::secure;
use crate::support::browser;
use crate::support::client::{Connection, Request};
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::http2::{Client, Frame, flag, kind, request};
use crate::support::http2_origin::{
    DATA, END_HEADERS, END_STREAM, HEADERS, Http2Behaviour, INTERNAL_ERROR, NO_ERROR, Origin,
    REFUSED_STREAM, RST_STREAM,
};
use crate::support::load::keys;
use crate::support::origin::{self, Behaviour};
use crate::support::tls::Authority;
use crate::support::{port, wait};

const BINARY: &str = "application/grpc-web+proto";
const TEXT: &str = "application/grpc-web-text+proto";
const FORMS: [&str; 2] = [BINARY, TEXT];
const HTTP1: &str = "--http1.1";
const HTTP2: &str = "--http2-prior-knowledge";

/// What came of a call.
#[derive(Debug)]
struct Answer {
    header: String,
    body: Vec<u8>,
    messages: Vec<Vec<u8>>,
    /// `None`: the body did not end with them.
    trailers: Option<String>,
}

impl Answer {
    fn of(header: String, body: Vec<u8>) -> Self {
        let is = |kind| header.contains(&format!("\r\ncontent-type: {kind}"));
        let (messages, trailers) = if is("application/grpc-web-text") {
            frames(&decoded(&body))
        } else if is("application/grpc-web") {
            frames(&body)
        } else {
            (Vec::new(), None)
        };
        Self {
            header,
            body,
            messages,
            trailers,
        }
    }

    #[track_caller]
    fn says(&self, line: &str) -> &Self {
        assert!(self.header.contains(&format!("\r\n{line}\r\n")), "{self:?}");
        self
    }

    /// The status, in whichever of the two places it is.
    #[track_caller]
    fn ended_with(&self, line: &str) -> &Self {
        let trailers = self.trailers.as_deref().unwrap_or(&self.header);
        assert!(trailers.contains(&format!("{line}\r\n")), "{self:?}");
        self
    }
}

/// Each quantum by itself, so that padding may be anywhere.
fn decoded(text: &[u8]) -> Vec<u8> {
    let quanta = text
        .chunks(4)
        .map(|quantum| BASE64_STANDARD.decode(quantum));
    quanta.collect::<Result<Vec<_>, _>>().unwrap().concat()
}

fn frames(mut bytes: &[u8]) -> (Vec<Vec<u8>>, Option<String>) {
    let mut messages = Vec::new();
    while let [flags, a, b, c, d, rest @ ..] = bytes {
        let length = u32::from_be_bytes([*a, *b, *c, *d]) as usize;
        let (content, rest) = rest.split_at(length);
        if *flags == 0x80 {
            assert!(rest.is_empty(), "something is behind the trailers");
            return (messages, Some(String::from_utf8(content.to_vec()).unwrap()));
        }
        messages.push(content.to_vec());
        bytes = rest;
    }
    (messages, None)
}

fn message(content: &[u8]) -> Vec<u8> {
    let length = u32::try_from(content.len()).unwrap();
    [&[0][..], &length.to_be_bytes(), content].concat()
}

/// A body with this message, in the form that goes with this type.
fn body(kind: &str, content: &[u8]) -> Vec<u8> {
    let message = message(content);
    if kind.contains("-text") {
        BASE64_STANDARD.encode(message).into_bytes()
    } else {
        message
    }
}

/// What came of a call, by curl.
#[track_caller]
fn ask(edge: &Edge, protocol: &str, method: &str, kind: &str, content: &[u8]) -> Answer {
    let url = format!("http://{}", edge.address);
    let more = [protocol, "-H", "Expect:"];
    curl(&url, &more, method, kind, &body(kind, content))
}

#[track_caller]
fn curl(url: &str, more: &[&str], method: &str, kind: &str, body: &[u8]) -> Answer {
    let mut command = Command::new("curl");
    command.args(["-sSi", "--max-time", "20", "--noproxy", "*"]);
    command.args(more).args(["--data-binary", "@-"]);
    command.args(["-H", &format!("Content-Type: {kind}")]);
    command.arg(format!("{url}/test.Echo/{method}"));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().expect("curl");
    let mut input = child.stdin.take().unwrap();
    input.write_all(body).unwrap();
    drop(input);
    let output = child.wait_with_output().expect("its output");
    assert!(output.status.success(), "{output:?}");
    let end = output.stdout.windows(4).position(|end| end == b"\r\n\r\n");
    let (header, body) = output.stdout.split_at(end.expect("a header") + 4);
    let header = String::from_utf8_lossy(header).to_ascii_lowercase();
    Answer::of(header, body.to_vec())
}

fn web(servers: &[&Server]) -> ConfigBuilder {
    site(servers).app("grpc_web", "true")
}

/// Before origins that need no server of gRPC.
fn scripted(origins: &[&Origin]) -> ConfigBuilder {
    let labels = origins.iter().map(|origin| origin.label());
    web(&[]).peers(labels)
}

#[test]
fn grpc_web_binary_and_text_calls_reach_a_grpc_server() {
    let server = Server::start();
    let edge = web(&[&server]).start();
    for protocol in [HTTP1, HTTP2] {
        for kind in FORMS {
            let answer = ask(&edge, protocol, "unary", kind, b"word");
            answer.says(&format!("content-type: {kind}"));
            answer.says(&format!("x-server: {}", server.address));
            assert!(!answer.header.contains("content-length"), "{answer:?}");
            assert_eq!(answer.messages, [b"word"], "{answer:?}");
            answer.ended_with("grpc-status: 0");
            answer
                .ended_with("x-end: well")
                .ended_with("x-bytes-bin: AP8");
            let answer = ask(&edge, protocol, "pieces", kind, b"100");
            let expected: Vec<_> = (0..100).map(|n| n.to_string().into_bytes()).collect();
            assert_eq!(answer.messages, expected, "{answer:?}");
            answer.ended_with("grpc-status: 0");
            let large = vec![b'x'; 3_000_000];
            let answer = ask(&edge, protocol, "unary", kind, &large);
            assert!(answer.messages == [large], "{}", answer.body.len());
        }
    }
}

#[test]
fn grpc_web_content_types_match_in_any_case() {
    let server = Server::start();
    let edge = web(&[&server]).start();
    let text = body(TEXT, b"word");
    let url = format!("http://{}", edge.address);
    for (kind, given) in [
        ("application/grpc-web-text", "application/grpc-web-text"),
        (
            "Application/gRPC-Web-Text ; x=y",
            "application/grpc-web-text",
        ),
        ("application/grpc-web-text+proto;charset=utf-8", TEXT),
    ] {
        let answer = curl(&url, &[HTTP1], "unary", kind, &text);
        answer.says(&format!("content-type: {given}"));
        assert_eq!(answer.messages, [b"word"], "{answer:?}");
    }
    let accept = "Accept: application/grpc-web-text";
    let answer = curl(&url, &["-H", accept], "unary", BINARY, &message(b"word"));
    answer.says(&format!("content-type: {TEXT}"));
    assert_eq!(answer.messages, [b"word"], "{answer:?}");
}

#[test]
fn grpc_web_over_tls_uses_http2() {
    let server = Server::start();
    let authority = Authority::new();
    let tls = authority.issue("a", &["a.test"]);
    let listeners = format!("[{{address: \"127.0.0.1:0\", tls: {tls}}}]");
    let edge = web(&[&server]).top("listeners", &listeners).start();
    let (port, ca) = (edge.address.port(), authority.path("ca.crt"));
    let resolve = format!("a.test:{port}:127.0.0.1");
    let more = ["--cacert", ca.to_str().unwrap(), "--resolve", &resolve];
    for kind in FORMS {
        let url = format!("https://a.test:{port}");
        let answer = curl(&url, &more, "unary", kind, &body(kind, b"word"));
        assert!(answer.header.starts_with("http/2 200"), "{answer:?}");
        assert_eq!(answer.messages, [b"word"]);
        answer.ended_with("grpc-status: 0");
    }
}

/// A call over HTTP/1.1 whose body is sent in these pieces.
fn open_call(edge: &Edge, method: &str, kind: &str, pieces: &[&[u8]]) -> Connection {
    let mut connection = edge.connect();
    let head = format!(
        "POST /test.Echo/{method} HTTP/1.1\r\nHost: h\r\nContent-Type: {kind}\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    connection.send(head).unwrap();
    for piece in pieces {
        send_piece(&mut connection, piece);
    }
    connection
}

fn send_piece(connection: &mut Connection, piece: &[u8]) {
    let head = format!("{:x}\r\n", piece.len()).into_bytes();
    connection
        .send([&head, piece, b"\r\n"].concat())
        .expect("sent");
}

/// The rest of the call is sent; what came of it.
fn finish_call(mut connection: Connection) -> Answer {
    connection.send("0\r\n\r\n").unwrap();
    let response = connection.response().unwrap();
    let line = |(name, value): &(String, String)| format!("{name}: {value}\r\n").to_lowercase();
    let header: String = response.headers.iter().map(line).collect();
    Answer::of(format!("\r\n{header}"), response.body)
}

#[test]
fn grpc_web_text_is_decoded_at_any_split_and_padding() {
    let server = Server::start();
    let edge = web(&[&server]).start();
    let whole = body(TEXT, b"some words");
    let bytes: Vec<_> = whole.chunks(1).collect();
    let answer = finish_call(open_call(&edge, "unary", TEXT, &bytes));
    assert_eq!(answer.messages, [b"some words"], "{answer:?}");
    for size in [1, 2, 4, 7] {
        let message = message(b"some words");
        let padded = message
            .chunks(size)
            .map(|part| BASE64_STANDARD.encode(part));
        let padded = padded.collect::<String>();
        let answer = finish_call(open_call(&edge, "unary", TEXT, &[padded.as_bytes()]));
        assert_eq!(answer.messages, [b"some words"], "{answer:?}");
    }
}

#[test]
fn grpc_web_messages_are_forwarded_one_by_one() {
    let server = Server::start();
    let edge = web(&[&server]).start();
    for kind in FORMS {
        let mut connection = edge.connect();
        let call = Request::post("/test.Echo/stalls", body(kind, b"")).header("Content-Type", kind);
        connection.begin(&call).unwrap();
        assert_eq!(connection.head().unwrap().status, 200);
        // Its message is here while the server still thinks about the next one.
        let first = body(kind, b"first");
        assert_eq!(connection.chunk().unwrap(), first);
        drop(connection);
        let mut client = Client::open(edge.address);
        let stream = begin(&mut client, "stalls", kind, b"");
        let data = client.wait_for("the message", |frame| frame.kind == kind::DATA);
        assert_eq!((data.stream, data.payload), (stream, first));
    }
    wait::until("the call to be cancelled at the server", || {
        edge.admin.metric("clockwise_peer_in_flight", &[]) == 0
    });
}

/// Begins and ends a request over HTTP/2; its stream.
fn begin(client: &mut Client, method: &str, kind: &str, content: &[u8]) -> u32 {
    let path = format!("/test.Echo/{method}");
    let mut fields = request("POST", &path);
    fields.push(("content-type", kind));
    let stream = client.begin(0, &fields);
    let data = Frame::data(stream, flag::END_STREAM, body(kind, content));
    client.send(&data).unwrap();
    stream
}

#[test]
fn grpc_web_status_of_the_server_is_forwarded() {
    let server = Server::start();
    let edge = web(&[&server]).start();
    for (protocol, kind) in [(HTTP1, TEXT), (HTTP2, BINARY)] {
        let answer = ask(&edge, protocol, "fails", kind, b"");
        assert!(answer.messages.is_empty(), "{answer:?}");
        answer.says(&format!("content-type: {kind}"));
        answer
            .ended_with("grpc-status: 5")
            .ended_with("x-why: because");
        answer.ended_with("grpc-message: there is no such thing");
    }
}

/// `:status: 200`, `content-type: application/grpc`, and the bytes after it.
const HEADER: &[u8] = b"\x88\x00\x0ccontent-type\x10application/grpc";
const TRAILERS_ONLY: &[u8] =
    b"\x88\x00\x0ccontent-type\x10application/grpc\x00\x0bgrpc-status\x015";
const WORD: &[u8] = b"\x00\x00\x00\x00\x04word";

#[test]
fn grpc_web_status_without_body_is_in_the_header() {
    const ONLY: Http2Behaviour =
        Http2Behaviour::Frames(&[(HEADERS, END_HEADERS | END_STREAM, TRAILERS_ONLY)]);
    const EMPTY: Http2Behaviour = Http2Behaviour::Frames(&[
        (HEADERS, END_HEADERS, TRAILERS_ONLY),
        (DATA, END_STREAM, b""),
    ]);
    for (protocol, kind) in [(HTTP1, TEXT), (HTTP1, BINARY), (HTTP2, TEXT)] {
        let origin = Origin::start(&[ONLY, EMPTY]);
        let edge = scripted(&[&origin]).start();
        for _ in 0..2 {
            let answer = ask(&edge, protocol, "unary", kind, b"word");
            answer
                .says("grpc-status: 5")
                .says(&format!("content-type: {kind}"));
            assert!(answer.body.is_empty(), "{answer:?}");
        }
    }
}

#[test]
fn grpc_web_response_that_is_not_grpc_passes_unchanged() {
    let origin = Origin::start(&[]);
    let edge = scripted(&[&origin]).start();
    for (protocol, kind) in [(HTTP1, TEXT), (HTTP2, BINARY)] {
        let answer = ask(&edge, protocol, "unary", kind, b"word");
        assert!(answer.body.starts_with(b"connection "), "{answer:?}");
        assert!(!answer.header.contains("grpc"), "{answer:?}");
    }
}

#[test]
fn grpc_web_leaves_other_requests_unchanged() {
    let server = Server::start();
    let edge = web(&[&server]).start();
    let real = call(&edge, "unary", "word");
    assert_eq!(real["answer"], "word");
    assert_eq!(real["trailing"]["x-end"], "well");
    assert_eq!(call(&edge, "fails", "")["status"], "NOT_FOUND");
    assert_eq!(call(&edge, "echo", "20")["rest"], 0);
    let origin = Origin::start(&[]);
    let without = site(&[]).peers([origin.label()]).start();
    let answer = ask(&without, HTTP2, "unary", BINARY, b"word");
    assert!(answer.messages.is_empty(), "translated unasked: {answer:?}");
    assert!(answer.body.starts_with(b"connection "), "{answer:?}");
}

#[test]
fn grpc_web_call_to_an_http1_peer_passes_unchanged() {
    let authority = Authority::new();
    let says = "location / { return 200 \"$server_protocol $content_type $http_te\"; }";
    let peer = secure(&authority.issue("app", &["app.test"]), says);
    let site = web(&[]).peers([peer.label()]).app("protocol", "auto");
    let ca = authority.path("ca.crt");
    let tls = format!("{{ca: {}, server_name: app.test}}", ca.display());
    let edge = site.app("tls", &tls).start();
    let answer = ask(&edge, HTTP1, "unary", TEXT, b"word");
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(text, format!("HTTP/1.1 {TEXT} "));
}

#[test]
fn grpc_web_invalid_text_is_a_client_error() {
    let server = Server::start();
    let site = web(&[&server]).app("outlier_detection", "{failures: 1, eject: 60s}");
    let edge = site.top("access_log", "{path: access.log}").start();
    let texts = [
        "AAAA*AAA",
        "AAAAAARoA",
        "AAAAAAR3b3Jk=",
        "AAAAAAR3b3Jk\n",
        "AAAA====AAAA",
    ];
    let url = format!("http://{}", edge.address);
    for text in texts {
        let answer = curl(&url, &[HTTP1], "unary", TEXT, text.as_bytes());
        assert!(answer.header.starts_with("http/1.1 200"), "{answer:?}");
        answer
            .says("grpc-status: 13")
            .says("grpc-message: bad_request");
    }
    let reason = ["reason=\"framing\""];
    let count = u64::try_from(texts.len()).unwrap();
    edge.admin
        .wait_for_metric("clockwise_listener_bad_requests_total", &reason, count);
    for line in edge.log_lines(texts.len()) {
        assert_eq!(line["fault"], "bad_request", "{line}");
    }
    ask(&edge, HTTP1, "unary", TEXT, b"word").ended_with("grpc-status: 0");
}

/// The connection's last chunk did not come.
#[track_caller]
fn assert_broken(mut connection: Connection) {
    let rest = connection.rest().unwrap_or_default();
    assert!(!rest.ends_with(b"0\r\n\r\n"), "it looks whole: {rest:?}");
}

#[test]
fn grpc_web_truncated_response_does_not_look_complete() {
    for kind in FORMS {
        let server = Server::start();
        let edge = web(&[&server]).start();
        let mut old = open_call(&edge, "stalls", kind, &[&body(kind, b"")]);
        old.send("0\r\n\r\n").unwrap();
        old.head().unwrap();
        assert_eq!(old.chunk().unwrap(), body(kind, b"first"));
        let mut new = Client::open(edge.address);
        let stream = begin(&mut new, "stalls", kind, b"");
        new.wait_for("the message", |frame| frame.kind == kind::DATA);
        drop(server);
        assert_broken(old);
        assert!(new.answer(stream).reset.is_some());
    }
}

#[test]
fn grpc_web_response_without_trailers_is_truncated() {
    const RESET: Http2Behaviour = Http2Behaviour::Frames(&[
        (HEADERS, END_HEADERS, HEADER),
        (DATA, 0, WORD),
        (RST_STREAM, 0, &INTERNAL_ERROR.to_be_bytes()),
    ]);
    const POLITE: Http2Behaviour = Http2Behaviour::Frames(&[
        (HEADERS, END_HEADERS, HEADER),
        (DATA, 0, WORD),
        (RST_STREAM, 0, &NO_ERROR.to_be_bytes()),
    ]);
    const UNENDED: Http2Behaviour =
        Http2Behaviour::Frames(&[(HEADERS, END_HEADERS, HEADER), (DATA, END_STREAM, WORD)]);
    for act in [RESET, POLITE, UNENDED] {
        let origin = Origin::start(&[act, act]);
        let site = scripted(&[&origin]).app("retry", "{attempts: 3}");
        let edge = site.top("access_log", "{path: access.log}").start();
        let mut old = open_call(&edge, "unary", TEXT, &[&body(TEXT, b"word")]);
        old.send("0\r\n\r\n").unwrap();
        assert_broken(old);
        let mut new = Client::open(edge.address);
        let stream = begin(&mut new, "unary", BINARY, b"word");
        assert!(new.answer(stream).reset.is_some());
        assert_eq!(origin.requests(), 2, "it was asked again");
        for line in edge.log_lines(2) {
            assert_eq!(line["fault"], "response_truncated", "{line}");
        }
    }
}

#[test]
fn grpc_web_failures_of_the_proxy_have_a_grpc_status() {
    let closed = port::ClosedPort::new();
    let edge = web(&[]).peers([closed.address]).start();
    for (protocol, kind) in [(HTTP1, TEXT), (HTTP2, BINARY)] {
        let answer = ask(&edge, protocol, "unary", kind, b"word");
        answer
            .says("grpc-status: 14")
            .says("grpc-message: connect_failed");
        answer.says(&format!("content-type: {kind}"));
    }
}

#[test]
fn grpc_web_client_deadline_is_forwarded_to_the_server() {
    let server = Server::start();
    let edge = web(&[&server]).start();
    let url = format!("http://{}", edge.address);
    let limit = ["-H", "grpc-timeout: 7S"];
    let answer = curl(&url, &limit, "remaining", BINARY, &message(b""));
    let left = String::from_utf8(answer.messages[0].clone()).unwrap();
    assert!((1.0..=7.0).contains(&left.parse().unwrap()), "{left}");
    let limit = ["-H", "grpc-timeout: 500m"];
    let late = curl(&url, &limit, "slow", BINARY, &message(b""));
    // The server's word, or ours, whichever is first: over HTTP/1 a status that clients take for the same.
    if !late.header.starts_with("http/1.1 504 ") {
        late.ended_with("grpc-status: 4");
    }
}

#[test]
fn grpc_web_call_refused_by_the_peer_is_retried_from_its_start() {
    let origin = Origin::start(&[Http2Behaviour::ResetEarly(REFUSED_STREAM); 2]);
    let server = Server::start();
    let site = web(&[]).peers([origin.label(), server.address.to_string()]);
    let edge = site.app("retry", "{attempts: 2}").start();
    let users = keys(50);
    let owners = edge.predict(&users, 1);
    let own = |(_, walk): &(&String, &Vec<String>)| walk[0] == origin.label();
    let (user, _) = users.iter().zip(&owners).find(own).expect("one of fifty");
    let mut connection = edge.connect();
    let head = format!(
        "POST /test.Echo/unary HTTP/1.1\r\nHost: h\r\nx-user: {user}\r\nContent-Type: {TEXT}\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
    connection.send(head).unwrap();
    // The first attempts take a part of it, which ends within a quantum.
    let text = body(TEXT, b"some words");
    send_piece(&mut connection, &text[..6]);
    wait::until("it to be refused", || origin.requests() == 2);
    send_piece(&mut connection, &text[6..]);
    let answer = finish_call(connection);
    assert_eq!(answer.messages, [b"some words"], "{answer:?}");
    answer.says(&format!("x-server: {}", server.address));
}

#[test]
fn grpc_web_client_library_is_served() {
    let server = Server::start();
    let edge = web(&[&server]).start();
    let call = |name: &str, argument: &str| -> Value {
        let venv = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.cache/venv");
        let mut command = Command::new(venv.join("bin/python3"));
        command.arg(script("web_client.py"));
        command.args([&format!("http://{}", edge.address), name, argument]);
        let output = command.output().expect("the client");
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
    };
    let unary = call("unary", "word");
    assert_eq!(unary["answer"], "word");
    assert_eq!(unary["trailing"]["grpc-status"], "0");
    assert_eq!(unary["trailing"]["x-end"], "well");
    let pieces = call("pieces", "100");
    assert_eq!(pieces["pieces"].as_array().unwrap().len(), 100);
    let failed = call("fails", "");
    assert_eq!(failed["status"], "NOT_FOUND");
    assert_eq!(failed["details"], "there is no such thing");
}

#[test]
fn grpc_web_calls_from_a_browser_are_served() {
    let server = Server::start();
    let page = fs::read_to_string(script("page.html")).unwrap();
    let length = page.len();
    let page = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {length}\r\n\r\n{page}"
    );
    let pages = origin::Origin::behaving(Behaviour::Raw(page.into_bytes()));
    let authority = Authority::new();
    let tls = authority.issue("a", &["a.test"]);
    let site = web(&[&server])
        .top(
            "listeners",
            &format!("[{{address: \"127.0.0.1:0\", tls: {tls}}}]"),
        )
        .top(
            "routes",
            "[{path: /test.Echo, upstream: app}, {upstream: pages}]",
        );
    let pages = format!("  pages:\n    peers: [\"{}\"]\n", pages.label());
    let edge = Edge::start(&(site.yaml() + &pages));
    let url = format!("https://a.test:{}/", edge.address.port());
    let shown = browser::show_at_last(&url, &authority.key_digest("a"));
    let output = shown
        .split_once("<pre id=\"said\">")
        .map(|(_, output)| output);
    let output = output.and_then(|output| output.split_once("</pre>"));
    let output = output.and_then(|(output, _)| serde_json::from_str::<Value>(output).ok());
    let output = output.unwrap_or_else(|| panic!("{shown} {}", edge.stderr()));
    for (form, kind) in [("binary", BINARY), ("text", "application/grpc-web-text")] {
        let output = &output[form];
        assert_eq!(output["unary"]["type"], kind, "{output}");
        assert_eq!(output["unary"]["messages"][0], "word", "{output}");
        assert_eq!(output["pieces"]["messages"].as_array().unwrap().len(), 3);
        let end = output["pieces"]["trailers"].as_str().unwrap();
        assert!(end.contains("grpc-status: 0\r\n"), "{end}");
        let fails = output["fails"].to_string();
        assert!(fails.contains("grpc-status: 5") || output["fails"]["status"] == "5");
    }
}
