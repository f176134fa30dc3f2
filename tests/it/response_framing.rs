//! The framing of responses, and switches of protocols: the same rules for each carrier of a request.

use std::process::{Output, Stdio};

use crate::http2::H2C;
use crate::support::client::Connection;
use crate::support::curl::curl;
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::raw_peer::{RawPeer, SWITCH, UPGRADE};

/// How a request reaches the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carrier {
    /// HTTP/1 without Pingora.
    Engine,
    /// HTTP/1 through Pingora.
    Pingora,
    /// HTTP/2, always through Pingora.
    Http2,
}

/// An instance in front of a peer that sends given bytes.
struct Scene {
    carrier: Carrier,
    edge: Edge,
    peer: RawPeer,
}

impl Scene {
    fn start(carrier: Carrier) -> Self {
        let peer = RawPeer::start();
        let site = ConfigBuilder::of([peer.address]).app("key", "client_ip");
        let site = site.top("access_log", "{path: access.log}");
        let yaml = site.top("listeners", H2C).yaml();
        let name = if carrier == Carrier::Pingora {
            "pingora"
        } else {
            "engine"
        };
        Self {
            carrier,
            edge: Edge::start_with_carrier(name, &yaml),
            peer,
        }
    }

    fn all() -> [Self; 3] {
        [Carrier::Engine, Carrier::Pingora, Carrier::Http2].map(Self::start)
    }

    fn of_http1() -> [Self; 2] {
        [Carrier::Engine, Carrier::Pingora].map(Self::start)
    }

    /// The output of curl for a peer's response with these bytes, after which the peer closes.
    fn relayed(&self, arguments: &[&str], response: &str) -> Output {
        let mut command = curl();
        let version = match self.carrier {
            Carrier::Http2 => "--http2-prior-knowledge",
            Carrier::Engine | Carrier::Pingora => "--http1.1",
        };
        command.args(["--include", version]).args(arguments);
        command.arg(format!("http://{}/", self.edge.address));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("curl");
        let mut peer = self.peer.accept();
        peer.read_request().unwrap();
        peer.send(response).unwrap();
        drop(peer);
        child.wait_with_output().expect("its output")
    }

    /// Sends a request of HTTP/1; the connections of client and peer, and the fields that the peer got.
    fn ask(&self, request: &str) -> (Connection, Connection, Vec<(String, String)>) {
        let mut client = self.edge.connect();
        client.send(request).unwrap();
        let mut peer = self.peer.accept();
        let (_, fields) = peer.read_request().unwrap();
        (client, peer, fields)
    }
}

/// What a client may see of a response.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    /// The lines that begin a response, with the version.
    statuses: Vec<String>,
    lengths: Vec<String>,
    codings: Vec<String>,
    body: String,
}

impl Seen {
    fn of(output: &Output) -> Self {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        let mut seen = Self {
            statuses: Vec::new(),
            lengths: Vec::new(),
            codings: Vec::new(),
            body: String::new(),
        };
        let mut rest = text.as_str();
        while let Some((head, after)) = rest.split_once("\r\n\r\n")
            && head.starts_with("HTTP/")
        {
            for line in head.lines() {
                let lower = line.to_ascii_lowercase();
                if let Some(value) = lower.strip_prefix("content-length: ") {
                    seen.lengths.push(value.to_owned());
                } else if let Some(value) = lower.strip_prefix("transfer-encoding: ") {
                    seen.codings.push(value.to_owned());
                } else if line.starts_with("HTTP/") {
                    let words: Vec<_> = line.split(' ').take(2).collect();
                    seen.statuses.push(words.join(" "));
                }
            }
            rest = after;
        }
        rest.clone_into(&mut seen.body);
        seen
    }
}

const GET: &[&str] = &[];
const HEAD: &[&str] = &["--head"];

/// The method, the status line and the fields of a response, and the length and the body that the client gets.
type Accepted = (
    &'static [&'static str],
    &'static str,
    &'static str,
    Option<&'static str>,
    &'static str,
);

const ACCEPTED: [Accepted; 16] = [
    (GET, "1.1 200", "Content-Length: 5", Some("5"), "hello"),
    (
        GET,
        "1.1 200",
        "Content-Length: 5\r\nContent-Length: 5",
        Some("5"),
        "hello",
    ),
    (GET, "1.1 200", "Content-Length: 5, 5", Some("5"), "hello"),
    (
        GET,
        "1.1 200",
        "Content-Length: 5\r\nContent-Length: 005",
        Some("5"),
        "hello",
    ),
    (GET, "1.1 200", "Content-Length: 005", Some("5"), "hello"),
    (GET, "1.0 200", "Content-Length: 5", Some("5"), "hello"),
    (HEAD, "1.1 200", "Content-Length: 5, 5", Some("5"), ""),
    (HEAD, "1.1 200", "Transfer-Encoding: chunked", None, ""),
    (GET, "1.1 204", "Content-Length: 5", None, ""),
    (GET, "1.1 204", "Content-Length: 0", None, ""),
    (GET, "1.1 204", "Transfer-Encoding: chunked", None, ""),
    (GET, "1.1 204", "Transfer-Encoding: gzip", None, ""),
    (GET, "1.1 304", "Content-Length: 5, 5", Some("5"), ""),
    (GET, "1.1 304", "Transfer-Encoding: chunked", None, ""),
    (GET, "1.0 304", "Content-Length: 5", Some("5"), ""),
    (GET, "1.0 204", "Content-Length: 5", None, ""),
];

#[test]
fn framing_fields_reach_the_client_once_and_only_where_they_mean_something() {
    for scene in Scene::all() {
        for (arguments, line, fields, length, body) in ACCEPTED {
            let response = format!("HTTP/{line} A\r\n{fields}\r\n\r\n{body}");
            let output = scene.relayed(arguments, &response);
            let case = format!("{:?} {arguments:?} {response:?}: {output:?}", scene.carrier);
            assert!(output.status.success(), "{case}");
            let version = match scene.carrier {
                Carrier::Http2 => "2",
                Carrier::Engine | Carrier::Pingora => "1.1",
            };
            let expected = Seen {
                statuses: vec![format!("HTTP/{version} {}", &line[4..])],
                lengths: length.map(str::to_owned).into_iter().collect(),
                codings: Vec::new(),
                body: body.to_owned(),
            };
            assert_eq!(Seen::of(&output), expected, "{case}");
        }
    }
}

#[test]
fn framing_fields_of_an_interim_response_are_removed() {
    for scene in Scene::all() {
        for interim in ["1.1 100", "1.1 103", "1.0 103"] {
            for fields in [
                "Content-Length: 5",
                "Content-Length: five",
                "Content-Length: 5, 4",
                "Transfer-Encoding: chunked",
                "Transfer-Encoding: gzip",
            ] {
                let last = "HTTP/1.1 200 A\r\nContent-Length: 2\r\n\r\nok";
                let response = format!("HTTP/{interim} A\r\n{fields}\r\n\r\n{last}");
                let output = scene.relayed(GET, &response);
                let case = format!("{:?} {response:?}: {output:?}", scene.carrier);
                assert!(output.status.success(), "{case}");
                let seen = Seen::of(&output);
                let statuses: Vec<_> = seen
                    .statuses
                    .iter()
                    .map(|it| it.split(' ').nth(1))
                    .collect();
                assert_eq!(statuses, [Some(&interim[4..]), Some("200")], "{case}");
                assert_eq!(
                    (seen.lengths, seen.codings),
                    (vec!["2".to_owned()], vec![]),
                    "{case}"
                );
                let is_old = |line: &String| line.starts_with("HTTP/1.0");
                assert!(!seen.statuses.iter().any(is_old), "{case}");
            }
        }
    }
}

#[test]
fn response_of_uncertain_length_is_refused() {
    const REFUSED: [(&[&str], &str, &str); 16] = [
        (GET, "1.1 200", "Content-Length: 5\r\nContent-Length: 4"),
        (GET, "1.1 200", "Content-Length: 5, 4"),
        (GET, "1.1 200", "Content-Length: 5,"),
        (GET, "1.1 200", "Content-Length: +5"),
        (GET, "1.1 200", "Content-Length:"),
        (GET, "1.1 200", "Transfer-Encoding: identity"),
        (
            GET,
            "1.1 200",
            "Transfer-Encoding: identity\r\nContent-Length: 5",
        ),
        (GET, "1.1 200", "Transfer-Encoding: gzip"),
        (GET, "1.1 200", "Transfer-Encoding: gzip, chunked"),
        (GET, "1.1 200", "Transfer-Encoding: chunked, gzip"),
        (GET, "1.1 200", "Transfer-Encoding: chunked, chunked"),
        (
            GET,
            "1.1 200",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ),
        (
            GET,
            "1.1 200",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
        ),
        (GET, "1.0 200", "Transfer-Encoding: chunked"),
        (HEAD, "1.1 200", "Transfer-Encoding: gzip"),
        (GET, "1.1 304", "Transfer-Encoding: gzip"),
    ];
    for scene in Scene::all() {
        for (arguments, line, fields) in REFUSED {
            let response = format!("HTTP/{line} A\r\n{fields}\r\n\r\nhello");
            let output = scene.relayed(arguments, &response);
            let case = format!("{:?} {arguments:?} {response:?}: {output:?}", scene.carrier);
            assert!(output.status.success(), "{case}");
            let seen = Seen::of(&output);
            assert!(seen.statuses[0].ends_with(" 502"), "{case}");
        }
        let lines = scene.edge.log_lines(REFUSED.len());
        let are_bad =
            |line: &serde_json::Value| line["fault"] == "bad_response" && line["status"] == 502;
        assert!(lines.iter().all(are_bad), "{:?}: {lines:?}", scene.carrier);
    }
}

#[test]
fn chunks_that_are_malformed_cut_the_response_off() {
    const MALFORMED: [&str; 9] = [
        "1;x\na\r\n0\r\n\r\n",
        "1\na\r\n0\r\n\r\n",
        ";x\r\na\r\n0\r\n\r\n",
        "\r\na\r\n0\r\n\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "1\r\na\r\n0\r\nno colon\r\n\r\n",
        "1\r\na\r\n0\r\nX-Sum : 1\r\n\r\n",
        "1\r\na\r\n0\r\nX-Sum: 1\r\n 2\r\n\r\n",
    ];
    for scene in Scene::all() {
        for body in MALFORMED {
            let response = format!("HTTP/1.1 200 A\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
            let output = scene.relayed(GET, &response);
            let case = format!("{:?} {response:?}: {output:?}", scene.carrier);
            assert!(!output.status.success(), "{case}");
        }
        let lines = scene.edge.log_lines(MALFORMED.len());
        let are_cut = |line: &serde_json::Value| line["fault"] == "response_truncated";
        assert!(lines.iter().all(are_cut), "{:?}: {lines:?}", scene.carrier);
    }
}

#[test]
fn response_of_1000_fields_passes_and_one_of_1001_is_502() {
    for scene in Scene::all() {
        for (count, status) in [(1000, "200"), (1001, "502")] {
            let cookies = "Set-Cookie: a=b\r\n".repeat(count - 1);
            let response = format!("HTTP/1.1 200 A\r\nContent-Length: 2\r\n{cookies}\r\nok");
            let output = scene.relayed(GET, &response);
            let case = format!("{:?} {count}", scene.carrier);
            assert!(output.status.success(), "{case}: {output:?}");
            let text = String::from_utf8_lossy(&output.stdout).to_ascii_lowercase();
            let seen = text.split(' ').nth(1);
            let found = text.matches("set-cookie: a=b").count();
            let expected = if status == "200" { count - 1 } else { 0 };
            assert_eq!((seen, found), (Some(status), expected), "{case}");
        }
    }
}

#[test]
fn trailers_of_the_peer_reach_a_client_that_accepts_them() {
    let response = "HTTP/1.1 200 A\r\nTransfer-Encoding: chunked\r\n\r\n\
                    2\r\nok\r\n0\r\nX-Sum: 1\r\nSet-Cookie: a=b\r\n\r\n";
    for scene in Scene::all() {
        for (arguments, accepts) in [(&["--header", "TE: trailers"][..], true), (GET, false)] {
            let output = scene.relayed(arguments, response);
            let case = format!("{:?} {arguments:?}: {output:?}", scene.carrier);
            assert!(output.status.success(), "{case}");
            let text = String::from_utf8_lossy(&output.stdout).to_ascii_lowercase();
            assert_eq!(text.contains("x-sum: 1"), accepts, "{case}");
            assert!(
                text.contains("ok") && !text.contains("set-cookie"),
                "{case}"
            );
        }
    }
}

/// A request for a WebSocket in this version and with these options of `Connection`.
fn websocket(version: &str, connection: &str) -> String {
    format!(
        "GET / HTTP/{version}\r\nHost: h\r\nConnection: {connection}\r\nUpgrade: websocket\r\n\r\n"
    )
}

#[test]
fn switch_of_protocols_is_refused_unless_it_is_the_one_that_was_asked_for() {
    const INCOMPLETE: &str = "POST / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                              Content-Length: 5\r\n\r\n";
    let switch = |upgrade: &str| format!("HTTP/1.1 101 A\r\nConnection: upgrade\r\n{upgrade}\r\n");
    let foo = "GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n";
    let cases = [
        (
            "GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            SWITCH.to_owned(),
        ),
        ("GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(), switch("")),
        (
            "HEAD / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned(),
            SWITCH.to_owned(),
        ),
        (foo.to_owned(), switch("Upgrade: foo\r\n")),
        (foo.to_owned(), SWITCH.to_owned()),
        (websocket("1.0", "Upgrade"), SWITCH.to_owned()),
        (websocket("1.1", "keep-alive"), SWITCH.to_owned()),
        (websocket("1.1", "Upgrade"), switch("Upgrade: foo\r\n")),
        (websocket("1.1", "Upgrade"), switch("")),
        (INCOMPLETE.to_owned(), SWITCH.to_owned()),
    ];
    for scene in Scene::of_http1() {
        for (request, response) in &cases {
            let (mut client, mut peer, _) = scene.ask(request);
            peer.send(response).unwrap();
            let status = client.head().unwrap().status;
            assert_eq!(status, 502, "{:?} {request:?} {response:?}", scene.carrier);
        }
        let lines = scene.edge.log_lines(cases.len());
        let are_bad =
            |line: &serde_json::Value| line["fault"] == "bad_response" && line["status"] == 502;
        assert!(lines.iter().all(are_bad), "{:?}: {lines:?}", scene.carrier);
    }
    let scene = Scene::start(Carrier::Http2);
    let output = scene.relayed(GET, SWITCH);
    assert_eq!(Seen::of(&output).statuses, ["HTTP/2 502"], "{output:?}");
    assert_eq!(scene.edge.log_lines(1)[0]["fault"], "bad_response");
}

#[test]
fn switch_to_another_protocol_passes_if_its_route_lists_it() {
    const ROUTES: &str = "[{path: /foo, upgrade: [Foo, bar/2], upstream: app}, \
                          {path: /none, upgrade: [], upstream: app}, {upstream: app}]";
    let ask = |path: &str, protocols: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: {protocols}\r\n\r\n"
        )
    };
    // What the client asks for, what the peer is offered, what it switches to, and the status that the client gets.
    let cases = [
        ("/foo", "foo", Some("foo"), "FOO", 101),
        (
            "/foo",
            "foo/1, bar/1, bar/2",
            Some("foo/1, bar/2"),
            "bar/2",
            101,
        ),
        ("/foo", "foo", Some("foo"), "bar/2", 502),
        ("/foo", "bar/1, websocket", None, "websocket", 502),
        ("/none", "websocket", None, "websocket", 502),
        ("/", "foo, WebSocket", Some("websocket"), "websocket", 101),
        ("/", "foo", None, "foo", 502),
    ];
    for carrier in ["engine", "pingora"] {
        let peer = RawPeer::start();
        let site = ConfigBuilder::of([peer.address]).app("key", "client_ip");
        let edge = Edge::start_with_carrier(carrier, &site.top("routes", ROUTES).yaml());
        for (path, protocols, offered, chosen, status) in cases {
            let case = format!("{carrier}: {path} {protocols}");
            let mut client = edge.connect();
            client.send(ask(path, protocols)).unwrap();
            let mut peer = peer.accept();
            let (_, fields) = peer.read_request().unwrap();
            let found = |name: &str| {
                let mut fields = fields.iter();
                fields.find(|field| field.0.eq_ignore_ascii_case(name))
            };
            let upgrade = found("upgrade").map(|(_, value)| &**value);
            assert_eq!(upgrade, offered, "{case}");
            if offered.is_some() {
                let options = &found("connection").unwrap().1;
                assert!(options.eq_ignore_ascii_case("upgrade"), "{case}: {options}");
            }
            let switch =
                format!("HTTP/1.1 101 A\r\nConnection: upgrade\r\nUpgrade: {chosen}\r\n\r\nhello");
            peer.send(switch).unwrap();
            let head = client.head().unwrap();
            assert_eq!(head.status, status, "{case}");
            if status == 101 {
                assert_eq!(head.header("upgrade"), Some(chosen), "{case}");
                assert_eq!(client.exactly(5).unwrap(), b"hello", "{case}");
                client.send("hi").unwrap();
                assert_eq!(peer.exactly(2).unwrap(), b"hi", "{case}");
            }
        }
    }
}

#[test]
fn switch_to_a_websocket_loses_its_framing_fields() {
    for scene in Scene::of_http1() {
        let (mut client, mut peer, _) = scene.ask(UPGRADE);
        let framed = SWITCH.replace(
            "\r\n\r\n",
            "\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        );
        peer.send(framed).unwrap();
        let head = client.head().unwrap();
        assert_eq!(head.status, 101, "{:?}", scene.carrier);
        for name in ["transfer-encoding", "content-length"] {
            assert_eq!(head.header(name), None, "{:?}", scene.carrier);
        }
        client.send("ping").unwrap();
        assert_eq!(peer.exactly(4).unwrap(), b"ping");
        peer.send("pong").unwrap();
        assert_eq!(client.exactly(4).unwrap(), b"pong");
    }
}

#[test]
fn peer_is_offered_a_websocket_only_if_connection_lists_the_upgrade() {
    for scene in Scene::of_http1() {
        for (version, connection, offered) in [
            ("1.1", "keep-alive, Upgrade", true),
            ("1.1", "keep-alive", false),
            ("1.0", "Upgrade", false),
        ] {
            let (mut client, mut peer, fields) = scene.ask(&websocket(version, connection));
            let has = |name: &str| {
                let mut names = fields.iter().map(|(field, _)| field);
                names.any(|field| field.eq_ignore_ascii_case(name))
            };
            let case = format!("{:?} {version} {connection}", scene.carrier);
            assert_eq!(
                (has("upgrade"), has("connection")),
                (offered, offered),
                "{case}"
            );
            peer.send("HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
            assert_eq!(client.response().unwrap().status, 400, "{case}");
        }
    }
}
