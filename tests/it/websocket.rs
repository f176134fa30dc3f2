//! WebSocket tunnels: every byte passes unchanged.

mod cases;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::{io, thread};

use serde_json::{Value, json};

use crate::forwarding::SingleOrigin;
use crate::support::client::{Connection, Request};
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::mixed_load::open_socket;
use crate::support::origin::Behaviour;
use crate::support::process::Process;
use crate::support::raw_peer::{EdgeWithRawPeer, RawPeer, SWITCH, UPGRADE};
use crate::support::tls::{self, Authority};
use crate::support::websocket::{Script, TEXT, Transcript, frame, server_frame};
use crate::support::{browser, port, wait};

/// Debian's Python, which has the library of the package `python3-websockets`.
const PYTHON: &str = "/usr/bin/python3";

// ── Autobahn cases

#[test]
fn framing_1() {
    WebSocketFixture::start().assert_passed_unchanged(cases::framing_1());
}

#[test]
fn pings_2() {
    WebSocketFixture::start().assert_passed_unchanged(cases::pings_2());
}

#[test]
fn reserved_bits_3() {
    WebSocketFixture::start().assert_passed_unchanged(cases::reserved_bits_3());
}

#[test]
fn reserved_opcodes_4() {
    WebSocketFixture::start().assert_passed_unchanged(cases::reserved_opcodes_4());
}

#[test]
fn fragmentation_5() {
    WebSocketFixture::start().assert_passed_unchanged(cases::fragmentation_5());
}

#[test]
fn utf8_6() {
    WebSocketFixture::start().assert_passed_unchanged(cases::utf8_6());
}

#[test]
fn closing_7() {
    WebSocketFixture::start().assert_passed_unchanged(cases::closing_7());
}

#[test]
fn large_9() {
    WebSocketFixture::start().assert_passed_unchanged(cases::large_9());
}

#[test]
fn fragments_10() {
    WebSocketFixture::start().assert_passed_unchanged(cases::fragments_10());
}

#[test]
fn compressed_12() {
    WebSocketFixture::start().assert_passed_unchanged(cases::compressed_12());
}

#[test]
fn offers_13() {
    WebSocketFixture::start().assert_passed_unchanged(cases::offers_13());
}

// ── how it begins and ends

#[test]
fn websocket_messages_are_forwarded() {
    let pipe = SingleOrigin::open();
    pipe.origin.behave(Behaviour::Upgrade);
    let mut connection = pipe.edge.connect();
    connection.send(UPGRADE).unwrap();
    assert_eq!(connection.response().unwrap().status, 101);
    for message in [
        &b"\x81\x05hello"[..],
        &b"\x82\x02\x00\xff"[..],
        &vec![7; 100_000],
    ] {
        connection.send(message).unwrap();
        assert_eq!(connection.exactly(message.len()).unwrap(), message);
    }
}

/// The peer's answer can arrive before the proxy has finished the client's upgrade request. With many clients at
/// once, this happens to some of them.
#[test]
fn websocket_with_an_immediate_peer_answer_stays_open() {
    fn converse(edge: &Edge) -> io::Result<()> {
        for _ in 0..200 {
            let mut socket = open_socket(edge.address)?;
            for _ in 0..3 {
                socket.send("are you there?")?;
                socket.exactly(14)?;
            }
        }
        Ok(())
    }
    let pipe = SingleOrigin::open();
    pipe.origin.behave(Behaviour::Upgrade);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| converse(&pipe.edge)))
            .collect();
        for client in clients {
            client.join().unwrap().unwrap();
        }
    });
}

#[test]
fn websocket_client_close_closes_the_peer() {
    let pipe = SingleOrigin::open();
    pipe.origin.behave(Behaviour::Upgrade);
    let mut connection = pipe.edge.connect();
    connection.send(UPGRADE).unwrap();
    assert_eq!(connection.response().unwrap().status, 101);
    connection.finish_sending();
    assert_eq!(connection.rest().unwrap(), b"");
}

#[test]
fn websocket_upgrade_may_be_refused_by_the_peer() {
    let pipe = SingleOrigin::open();
    let mut connection = pipe.edge.connect();
    connection.send(UPGRADE).unwrap();
    assert_eq!(connection.response().unwrap().status, 200);
    assert_eq!(connection.get("/").unwrap().status, 200);
}

#[test]
fn upgrade_header_other_than_websocket_is_removed() {
    let pipe = SingleOrigin::open();
    let request = Request::get("/")
        .header("Connection", "Upgrade, HTTP2-Settings")
        .header("Upgrade", "h2c");
    assert_eq!(
        pipe.received(&request.header("HTTP2-Settings", "AA"), "upgrade"),
        [""; 0]
    );
}

#[test]
fn websocket_bytes_sent_with_the_handshake_follow_it() {
    for early in [true, false] {
        let scene = EdgeWithRawPeer::start();
        let hello = frame(TEXT, b"hello");
        let mut client = scene.edge.connect();
        if early {
            client.send([UPGRADE.as_bytes(), &hello].concat()).unwrap();
        } else {
            client.send(UPGRADE).unwrap();
        }
        let mut peer = scene.peer.accept();
        peer.read_request().unwrap();
        if !early {
            client.send(&hello).unwrap(); // before the answer
        }
        let answer = server_frame(TEXT, b"welcome");
        peer.send([SWITCH.as_bytes(), &answer].concat()).unwrap();
        assert_eq!(client.head().unwrap().status, 101);
        assert_eq!(client.exactly(answer.len()).unwrap(), answer);
        assert_eq!(peer.exactly(hello.len()).unwrap(), hello);
    }
}

#[test]
fn websocket_refusal_is_forwarded_with_its_body() {
    let scene = EdgeWithRawPeer::start();
    for (status, field, value) in [
        ("401 Unauthorized", "WWW-Authenticate", "Basic realm=\"x\""),
        (
            "426 Upgrade Required\r\nConnection: upgrade",
            "Upgrade",
            "websocket",
        ),
        ("426 Upgrade Required", "Sec-WebSocket-Version", "13, 8"),
        ("302 Found", "Location", "wss://b.test/chat"),
        ("200 OK", "Content-Type", "text/html"),
        ("503 Service Unavailable", "Retry-After", "7"),
    ] {
        let mut client = scene.edge.connect();
        client.send(UPGRADE).unwrap();
        let mut peer = scene.peer.accept();
        peer.read_request().unwrap();
        let answer =
            format!("HTTP/1.1 {status}\r\n{field}: {value}\r\nContent-Length: 4\r\n\r\nbody");
        peer.send(answer).unwrap();
        let refusal = client.response().unwrap();
        assert!(
            status.starts_with(&refusal.status.to_string()),
            "{refusal:?}"
        );
        assert_eq!(refusal.header(field), Some(value));
        assert_eq!(refusal.text(), "body");
        // It is a connection of HTTP still.
        client.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        let mut peer = scene.peer.accept();
        peer.read_request().unwrap();
        peer.send("HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        assert_eq!(client.response().unwrap().status, 204);
    }
}

#[test]
fn websocket_close_of_one_side_closes_the_other() {
    let scene = EdgeWithRawPeer::start();
    for abrupt in [false, true] {
        let end = |side: &mut Connection| drop(side.rest());
        let (client, mut peer) = scene.open();
        scene.wait_for_in_flight(1);
        finish(client, abrupt);
        end(&mut peer);
        scene.wait_for_in_flight(0);
        let (mut client, peer) = scene.open();
        scene.wait_for_in_flight(1);
        finish(peer, abrupt);
        end(&mut client);
        scene.wait_for_in_flight(0);
    }
}

#[test]
fn websocket_bytes_sent_before_a_close_arrive() {
    let scene = EdgeWithRawPeer::start();
    let data = vec![7; 1 << 20];
    let (mut client, mut peer) = scene.open();
    thread::scope(|scope| {
        scope.spawn(|| {
            client.send(&data).unwrap();
            client.finish_sending();
        });
        assert!(peer.rest().unwrap() == data);
    });
    assert_eq!(client.rest().unwrap(), b"");
    // A client that is still talking must not be reset before it has read everything (RFC 9112 §9.6).
    let (mut client, mut peer) = scene.open();
    thread::scope(|scope| {
        scope.spawn(|| {
            peer.send(&data).unwrap();
            peer.finish_sending();
            let _ = peer.rest();
        });
        let mut heard = Vec::new();
        while heard.len() < data.len() {
            heard.extend(client.exactly(16 << 10).unwrap());
            let _ = client.send("late");
        }
        assert!(heard == data);
    });
}

/// If one direction is blocked because its receiver does not read, the other direction continues.
#[test]
fn websocket_directions_are_independent() {
    let scene = EdgeWithRawPeer::start();
    let data = vec![7; 32 << 20];
    for client_first in [false, true] {
        let (client, peer) = scene.open();
        let (mut hasty, other) = if client_first {
            (client, peer)
        } else {
            (peer, client)
        };
        // One side says all before it listens; the other does both at once.
        let (mut ears, mut mouth) = other.halves();
        thread::scope(|scope| {
            scope.spawn(|| {
                hasty.send(&data).unwrap();
                assert!(hasty.exactly(data.len()).unwrap() == data);
            });
            scope.spawn(|| mouth.send(&data).unwrap());
            assert!(ears.exactly(data.len()).unwrap() == data);
        });
    }
}

#[test]
fn websocket_client_library_is_served() {
    let scene = WebSocketFixture::start();
    let [plain, secure] = &scene.ways;
    let port = secure.edge.address.port().to_string();
    let ca = scene.authority.path("ca.crt").display().to_string();
    let url = format!("ws://{}/chat?k=a", plain.edge.address);
    for arguments in [
        vec![&*url],
        vec!["wss://a.test/chat?k=a", &ca, "127.0.0.1", &port],
    ] {
        let mut command = Command::new(PYTHON);
        command.arg(script("client.py")).args(arguments);
        command.env_remove("http_proxy").env_remove("https_proxy");
        let output = command.output().expect("the client");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let text: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{output:?}"));
        let expected = json!({
            "same": [true, true, true, true, true],
            "fragments": "abcd",
            "many": true,
            "protocol": "chat",
            "extensions": ["permessage-deflate"],
            "closed": [4000, "done"],
        });
        assert_eq!(text, expected);
    }
}

#[test]
fn websocket_browser_is_served() {
    let scene = WebSocketFixture::start();
    let edge = &scene.ways[1].edge;
    let page = format!("https://a.test:{}/page?k=a", edge.address.port());
    let shown = browser::show(&page, &scene.authority.key_digest("a"));
    let begun = shown.contains("\"said\">open chat permessage-deflate;");
    assert!(
        begun && shown.contains("|h\u{e9}llo|bytes 300000</p>"),
        "{shown}"
    );
    wait::until("the server to be left", || {
        edge.admin.metric("clockwise_peer_in_flight", &[]) == 0
    });
}

fn finish(connection: Connection, abrupt: bool) {
    if abrupt {
        connection.reset();
    }
}

/// A real server, and a peer that sends back the bytes that it receives.
struct WebSocketFixture {
    authority: Authority,
    server: Server,
    /// An instance without TLS, and one with TLS to client and server; requests to `/record` go to the peer.
    ways: [EdgeVariant; 2],
}

struct EdgeVariant {
    name: &'static str,
    edge: Edge,
    peer: RawPeer,
    secure: bool,
}

struct Server {
    plain: SocketAddr,
    secure: SocketAddr,
    _process: Process,
}

impl WebSocketFixture {
    fn start() -> Self {
        let authority = Authority::new();
        let listener = authority.issue("a", &["a.test"]);
        authority.issue("app", &["app.test"]);
        let server = Server::start(&authority);
        let plain = EdgeVariant::through("plain", server.plain, RawPeer::start(), None);
        let issuers = authority.path("ca.crt");
        let tls = Some((&*listener, issuers.as_path()));
        let peer = RawPeer::secure(authority.server("app"));
        let secure = EdgeVariant::through("TLS", server.secure, peer, tls);
        Self {
            authority,
            server,
            ways: [plain, secure],
        }
    }

    /// Asserts that the server's bytes are the same with and without the proxy, and that a peer behind the proxy
    /// receives and returns exactly the bytes that the client sent.
    fn assert_passed_unchanged(&self, scripts: Vec<Script>) {
        for script in scripts {
            let direct = run(&script, Connection::open(self.server.plain));
            for way in &self.ways {
                let passed = run(&script, self.connect(way));
                let same = passed.bytes == direct.bytes;
                assert!(same, "{}, {}: other bytes", script.name, way.name);
                assert_eq!(
                    passed.response_headers, direct.response_headers,
                    "{}",
                    script.name
                );
                way.assert_untouched(&script, self.connect(way));
            }
        }
    }

    fn connect(&self, way: &EdgeVariant) -> Connection {
        if !way.secure {
            return way.edge.connect();
        }
        let client = Arc::new(self.authority.client());
        let session = tls::connect(&client, "a.test", way.edge.address).expect("a session");
        Connection::over(Box::new(session)).expect("a connection")
    }
}

#[track_caller]
fn run(script: &Script, mut connection: Connection) -> Transcript {
    let transcript = script.run(&mut connection, "/chat?k=a");
    transcript.unwrap_or_else(|error| panic!("{}: {error}", script.name))
}

impl EdgeVariant {
    /// Starts an instance; `tls` has the listener's TLS keys and the issuers of the servers' certificates.
    fn through(
        name: &'static str,
        server: SocketAddr,
        peer: RawPeer,
        tls: Option<(&str, &Path)>,
    ) -> Self {
        let mut site = ConfigBuilder::of([server]).top(
            "routes",
            "[{upstream: app}, {path: /record, upstream: record}]",
        );
        // Slow handshakes are not measured here.
        let patient = "{connect: 20s}";
        site = site.app("timeouts", patient);
        let address = peer.address;
        let mut record = format!("health: off, timeouts: {patient}, peers: [\"{address}\"]");
        if let Some((listener, issuers)) = tls {
            let issuers = format!("{{ca: {}, server_name: app.test}}", issuers.display());
            let listeners = format!("[{{address: \"127.0.0.1:0\", tls: {listener}}}]");
            site = site.top("listeners", &listeners).app("tls", &issuers);
            record = format!("{record}, tls: {issuers}");
        }
        let yaml = format!("{}  record: {{{record}}}\n", site.yaml());
        Self {
            name,
            edge: Edge::start(&yaml),
            peer,
            secure: tls.is_some(),
        }
    }

    /// The peer records what a client sends, then sends it back.
    #[track_caller]
    fn assert_untouched(&self, script: &Script, mut client: Connection) {
        let sent = script.writes().collect::<Vec<_>>().concat();
        let (recorded, returned) = thread::scope(|scope| {
            let recorded = scope.spawn(|| self.record(sent.len()));
            let answer = client.exchange(&script.request("/record")).unwrap();
            assert_eq!(answer.status, 101, "{}", script.name);
            script
                .writes()
                .try_for_each(|piece| client.send(piece))
                .unwrap();
            let returned = client.exactly(sent.len()).unwrap();
            (recorded.join().unwrap(), returned)
        });
        assert!(recorded == sent, "{}, {}: inward", script.name, self.name);
        assert!(returned == sent, "{}, {}: outward", script.name, self.name);
    }

    fn record(&self, length: usize) -> Vec<u8> {
        let mut connection = self.peer.accept();
        connection.read_request().unwrap();
        connection.send(SWITCH).unwrap();
        let recorded = connection.exactly(length).unwrap();
        connection.send(&recorded).unwrap();
        recorded
    }
}

impl Server {
    fn start(authority: &Authority) -> Self {
        let (plain, secure) = (port::free(), port::free());
        let mut command = Command::new(PYTHON);
        command.arg(script("server.py"));
        command.args([plain.ip().to_string(), plain.port().to_string()]);
        command.arg(secure.port().to_string());
        command.args([authority.path("app.crt"), authority.path("app.key")]);
        let process = Process::listening("the server", &mut command, secure);
        Self {
            plain,
            secure,
            _process: process,
        }
    }
}

fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/websocket")
        .join(name)
}
