//! Responses that end before their requests: the client receives the whole response, and the log has it.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use crate::grpc::{self, Server};
use crate::http2::H2C;
use crate::support::client::Connection;
use crate::support::curl::curl;
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::http2::{Answer, Client, Frame, code, flag, kind, request};
use crate::support::http2_origin::{
    DATA, END_HEADERS, END_STREAM, HEADERS, Http2Behaviour, NO_ERROR, Origin, RST_STREAM,
};
use crate::support::origin::{self, Behaviour};
use crate::support::port::ClosedPort;
use crate::support::raw_peer::{EdgeWithRawPeer, RawPeer};
use crate::support::wait::{PATIENCE, timed};

/// `:status: 200` and `grpc-status: 13`.
const REFUSAL: &[u8] = b"\x88\x00\x0bgrpc-status\x0213";
const NO_MORE: (u8, u8, &[u8]) = (RST_STREAM, 0, &NO_ERROR.to_be_bytes());
const ENDS: u8 = END_HEADERS | END_STREAM;

/// What an HTTP/2 peer may answer before it has the request.
const EARLY: [Http2Behaviour; 4] = [
    // As gRPC's servers refuse a call (RFC 9113 §8.1).
    Http2Behaviour::FramesEarly(&[(HEADERS, ENDS, REFUSAL), NO_MORE]),
    Http2Behaviour::FramesEarly(&[(HEADERS, ENDS, REFUSAL)]),
    Http2Behaviour::FramesEarly(&[
        (HEADERS, END_HEADERS, REFUSAL),
        (DATA, END_STREAM, b"no"),
        NO_MORE,
    ]),
    Http2Behaviour::FramesEarly(&[
        (HEADERS, END_HEADERS, b"\x88"),
        (DATA, 0, b"no"),
        (HEADERS, ENDS, b"\x00\x0bgrpc-status\x0213"),
        NO_MORE,
    ]),
];

/// Responses of HTTP/2 peers with a length, which shows a client of HTTP/1 their end, or that they are incomplete.
const WHOLE_BY_LENGTH: Http2Behaviour = Http2Behaviour::FramesEarly(&[
    (HEADERS, END_HEADERS, b"\x88\x00\x0econtent-length\x012"),
    (DATA, 0, b"no"),
]);
const SHORT_OF_LENGTH: Http2Behaviour = Http2Behaviour::FramesEarly(&[
    (HEADERS, END_HEADERS, b"\x88\x00\x0econtent-length\x013"),
    (DATA, 0, b"no"),
]);

fn logging(site: ConfigBuilder) -> ConfigBuilder {
    site.top("access_log", "{path: access.log}")
}

/// Instances that answer a request before its end, each with what its peer needs to live.
fn early() -> Vec<(&'static str, Edge, Box<dyn std::any::Any>)> {
    let site = |peer: String| logging(ConfigBuilder::of([peer])).top("listeners", H2C);
    let mut early: Vec<(_, _, Box<dyn std::any::Any>)> = Vec::new();
    for (name, act) in ["reset", "no reset", "body", "trailers"]
        .into_iter()
        .zip(EARLY)
    {
        let peer = Origin::start(&[act; 3]);
        let site = site(peer.label()).app("protocol", "h2c");
        early.push((name, site.start(), Box::new(peer)));
    }
    let old = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
    let old = origin::Origin::behaving(Behaviour::Last(old.into()));
    early.push(("HTTP/1", site(old.label()).start(), Box::new(old)));
    let server = Server::start();
    early.push((
        "gRPC",
        logging(grpc::site(&[&server])).start(),
        Box::new(server),
    ));
    let closed = ClosedPort::new();
    let failing = site(closed.address.to_string()).start();
    early.push(("connect failed", failing, Box::new(closed)));
    let nowhere = site("127.0.0.1:1".to_owned());
    let nowhere = nowhere.top("routes", "[{upstream: app, host: a.test}]");
    early.push(("no route", nowhere.start(), Box::new(())));
    early
}

/// A request whose body is not complete, and its complete response.
#[track_caller]
fn answered_early(client: &mut Client) -> (u32, Answer) {
    let mut fields = request("POST", "/test.Echo/unary?k=a");
    // As gRPC's servers do not take it: without `te`.
    fields.push(("content-type", "application/grpc"));
    let stream = client.begin(0, &fields);
    let answer = client.answer(stream);
    (stream, answer)
}

#[test]
fn client_gets_the_end_of_an_early_response() {
    for (name, edge, _peer) in early() {
        let mut client = Client::open(edge.address);
        let (_, answer) = answered_early(&mut client);
        assert_eq!(answer.reset, None, "{name}: {answer:?}");
        assert!(!answer.statuses.is_empty(), "{name}: {answer:?}");
    }
}

/// The reset that follows, if the client sends no more (RFC 9113 §8.1).
#[track_caller]
fn wait_for_reset(client: &mut Client, stream: u32, name: &str) {
    let is_reset = |frame: &Frame| frame.kind == kind::RST_STREAM && frame.stream == stream;
    let reset = client.wait_for(&format!("RST_STREAM ({name})"), is_reset);
    assert_eq!(reset.code(), code::NO_ERROR, "{name}");
}

#[test]
fn client_that_ends_no_request_gets_a_reset_without_an_error() {
    for (name, edge, _peer) in early() {
        let mut client = Client::open(edge.address);
        let (stream, _) = answered_early(&mut client);
        wait_for_reset(&mut client, stream, name);
    }
}

#[test]
fn streams_that_were_answered_early_make_room_for_others() {
    let refusal = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let peer = origin::Origin::behaving(Behaviour::Last(refusal.into()));
    let site = ConfigBuilder::of([peer.label()]).top("listeners", H2C);
    let edge = site.downstream("{max_streams: 10}").start();
    let mut client = Client::open(edge.address);
    let post = request("POST", "/?k=a");
    let streams: Vec<_> = (0..10).map(|_| client.begin(0, &post)).collect();
    for &stream in &streams {
        assert_eq!(client.answer(stream).statuses, [200]);
    }
    for stream in streams {
        // What the client has sent meanwhile is no error.
        let late = Frame::data(stream, 0, [0; 5]);
        client.send(&late).unwrap();
        wait_for_reset(&mut client, stream, "of 10");
        client.send(&late).unwrap();
    }
    let stream = client.begin(0, &post);
    assert_eq!(client.answer(stream).statuses, [200]);
}

/// The status and the fault in the log of a request that was answered early.
fn logged(edge: &Edge) -> (u64, Option<String>) {
    let line = edge.log_lines(1).remove(0);
    let fault = line["fault"].as_str().map(str::to_owned);
    (line["status"].as_u64().unwrap(), fault)
}

#[test]
fn request_that_was_answered_early_is_logged_with_its_answer() {
    // As long as the client stays, and if it leaves at once.
    for stays in [true, false] {
        for (name, edge, _peer) in early() {
            let mut client = Client::open(edge.address);
            let (stream, answer) = answered_early(&mut client);
            if stays {
                wait_for_reset(&mut client, stream, name);
            }
            drop(client);
            let fault = match name {
                "connect failed" => Some("connect_failed".to_owned()),
                "no route" => Some("no_route".to_owned()),
                _ => None,
            };
            let status = u64::from(answer.statuses[0]);
            assert_eq!(logged(&edge), (status, fault), "{name}, stays: {stays}");
            let aborts = edge.admin.metric("clockwise_client_aborts_total", &[]);
            assert_eq!(aborts, 0, "{name}, stays: {stays}");
        }
    }
}

#[test]
fn http1_client_that_leaves_after_an_early_response_is_no_abort() {
    let expects =
        "POST /?k=a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    let begins = "POST /?k=a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n";
    let answers = [
        "HTTP/1.1 401 A\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 401 A\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 401 A\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
    ];
    for carrier in ["engine", "pingora"] {
        for request in [expects, begins] {
            for answer in answers {
                let peer = RawPeer::start();
                let site = logging(ConfigBuilder::of([peer.address]));
                let edge = Edge::start_with_carrier(carrier, &site.yaml());
                assert_no_abort(&edge, request, 401, || {
                    let mut peer = peer.accept();
                    peer.read_request().unwrap();
                    peer.send(answer).unwrap();
                    peer
                });
            }
        }
    }
}

#[test]
fn http1_client_that_leaves_after_an_early_response_of_an_http2_peer_is_no_abort() {
    let chunked = "POST /?k=a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n";
    let sized = "POST /?k=a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhe";
    for act in EARLY.into_iter().chain([WHOLE_BY_LENGTH]) {
        for request in [chunked, sized] {
            let peer = Origin::start(&[act]);
            let site = logging(ConfigBuilder::of([peer.label()]).app("protocol", "h2c"));
            assert_no_abort(&site.start(), request, 200, || ());
        }
    }
}

/// Sends a request that does not end, which `answer` answers with this status, and leaves.
#[track_caller]
fn assert_no_abort<T>(edge: &Edge, request: &str, status: u16, answer: impl FnOnce() -> T) {
    let mut client = edge.connect();
    client.send(request).unwrap();
    let peer = answer();
    assert_eq!(client.response().unwrap().status, status, "{request:?}");
    drop(client);
    assert_eq!(logged(edge), (u64::from(status), None), "{request:?}");
    let aborts = edge.admin.metric("clockwise_client_aborts_total", &[]);
    assert_eq!(aborts, 0, "{request:?}");
    drop(peer);
}

#[test]
fn client_that_leaves_before_the_end_of_an_early_response_is_an_abort() {
    for carrier in ["engine", "pingora"] {
        let peer = RawPeer::start();
        let site = logging(ConfigBuilder::of([peer.address]));
        let edge = Edge::start_with_carrier(carrier, &site.yaml());
        let mut client = edge.connect();
        client
            .send("POST /?k=a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
            .unwrap();
        let mut peer = peer.accept();
        peer.read_request().unwrap();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok")
            .unwrap();
        assert_eq!(client.head().unwrap().status, 200);
        drop(client);
        let expected = (499, Some("client_gone".to_owned()));
        assert_eq!(logged(&edge), expected, "{carrier}");
    }
    let peer = Origin::start(&[SHORT_OF_LENGTH]);
    let edge = logging(ConfigBuilder::of([peer.label()]).app("protocol", "h2c")).start();
    let mut client = edge.connect();
    client
        .send("POST /?k=a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
        .unwrap();
    assert_eq!(client.head().unwrap().status, 200);
    drop(client);
    let expected = (499, Some("client_gone".to_owned()));
    assert_eq!(logged(&edge), expected, "h2c");
}

/// libcurl 7.88 reads on only when another frame comes.
#[test]
fn client_that_ends_its_request_after_the_response_gets_another_frame() {
    for (name, edge, _peer) in early() {
        let mut client = Client::open(edge.address);
        for _ in 0..2 {
            let (stream, _) = answered_early(&mut client);
            let last = Frame::data(stream, flag::END_STREAM, [0; 5]);
            client.send(&last).unwrap();
            let ping = |frame: &Frame| frame.kind == kind::PING && frame.flags & flag::ACK == 0;
            client.wait_for(&format!("PING ({name})"), ping);
        }
    }
}

#[test]
fn client_that_ends_its_request_first_gets_no_ping() {
    let peer = Origin::start(&[]);
    let site = ConfigBuilder::of([peer.label()]).top("listeners", H2C);
    let edge = site.app("protocol", "h2c").start();
    let mut client = Client::open(edge.address);
    let stream = client.begin(0, &request("POST", "/?k=a"));
    client
        .send(&Frame::data(stream, flag::END_STREAM, [0; 5]))
        .unwrap();
    assert_eq!(client.answer(stream).statuses, [200]);
    client.outcome();
    let pings = client.aside.iter().filter(|frame| frame.kind == kind::PING);
    assert_eq!(pings.count(), 0);
}

/// Passes one connection on to `target`; says when the end of a response has been passed on to the client.
fn relay(target: SocketAddr) -> (SocketAddr, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (ended, end) = mpsc::channel();
    thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut server = TcpStream::connect(target).unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || io::copy(&mut from, &mut to));
        let mut header = [0; 9];
        while server.read_exact(&mut header).is_ok() {
            let length = u32::from_be_bytes([0, header[0], header[1], header[2]]);
            let mut payload = vec![0; usize::try_from(length).unwrap()];
            server.read_exact(&mut payload).unwrap();
            client.write_all(&[&header[..], &payload].concat()).unwrap();
            if matches!(header[3], kind::DATA | kind::HEADERS) && header[4] & flag::END_STREAM != 0
            {
                // The stream has ended; no more data is needed.
                let _ = ended.send(());
            }
        }
    });
    (address, end)
}

#[test]
fn curl_ends_when_its_upload_ends_after_the_response() {
    for (name, edge, _peer) in early() {
        let (address, end) = relay(edge.address);
        let mut command = curl();
        command.args(["--http2-prior-knowledge", "--include"]);
        command.args(["--request", "POST", "--upload-file", "-"]);
        command.args(["--header", "content-type: application/grpc"]);
        command.arg(format!("http://{address}/test.Echo/unary?k=a"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("curl");
        let mut upload = child.stdin.take().unwrap();
        end.recv_timeout(PATIENCE).expect("a response");
        upload.write_all(&[0; 5]).unwrap();
        drop(upload);
        let output = child.wait_with_output().expect("its output");
        assert!(output.status.success(), "{name}: {output:?}");
        assert!(output.stdout.starts_with(b"HTTP/2 "), "{name}: {output:?}");
    }
}

/// An instance with a raw peer, and an upload of 10 bytes, of which 2 are sent, that the peer has answered.
fn answered_upload(status: &str) -> (EdgeWithRawPeer, Connection, Client, u32) {
    let scene = EdgeWithRawPeer::with(|site| logging(site).top("listeners", H2C));
    let mut client = Client::open(scene.edge.address);
    let mut fields = request("POST", "/?k=a");
    fields.push(("content-length", "10"));
    let stream = client.begin(0, &fields);
    client.send(&Frame::data(stream, 0, *b"he")).unwrap();
    let mut peer = scene.peer.accept();
    peer.read_request().unwrap();
    let answer = format!("HTTP/1.1 {status} A\r\nContent-Length: 2\r\n\r\nok");
    peer.send(answer).unwrap();
    (scene, peer, client, stream)
}

#[test]
fn end_of_a_success_waits_for_the_rest_of_a_short_upload() {
    let (scene, _peer, mut client, stream) = answered_upload("200");
    let head = client.next_of(stream);
    assert_eq!(
        (head.kind, head.flags & flag::END_STREAM),
        (kind::HEADERS, 0)
    );
    let rest = Frame::data(stream, flag::END_STREAM, [0; 8]);
    client.send(&rest).unwrap();
    let body = client.next_of(stream);
    assert_eq!((body.kind, &*body.payload), (kind::DATA, &b"ok"[..]));
    assert_eq!(body.flags & flag::END_STREAM, flag::END_STREAM);
    assert_eq!(logged(&scene.edge), (200, None));
}

#[test]
fn end_of_a_success_waits_for_a_silent_client_no_longer_than_500_ms() {
    let (scene, _peer, mut client, stream) = answered_upload("200");
    let (answer, took) = timed(|| client.answer(stream));
    assert_eq!(
        (&answer.statuses[..], &*answer.body),
        (&[200][..], &b"ok"[..])
    );
    assert!(took < Duration::from_secs(8), "{took:?}");
    wait_for_reset(&mut client, stream, "silent");
    assert_eq!(logged(&scene.edge), (200, None));
}

/// libcurl 7.88 reads no window updates once a successful response has ended.
#[test]
fn curl_ends_an_upload_that_is_answered_early_with_success() {
    let mut upload = tempfile::NamedTempFile::new().unwrap();
    upload.write_all(&vec![b'x'; 1 << 20]).unwrap();
    for (answer, body) in [
        (
            "200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n",
            "ok\n",
        ),
        (
            "200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nok\n\r\n0\r\n\r\n",
            "ok\n",
        ),
        ("200 OK\r\nContent-Length: 0\r\n\r\n", ""),
        ("204 No Content\r\n\r\n", ""),
    ] {
        let scene = EdgeWithRawPeer::with(|site| site.top("listeners", H2C));
        let mut command = curl();
        command.arg("--http2-prior-knowledge").arg("--upload-file");
        command.arg(upload.path());
        command.arg(format!("http://{}/", scene.edge.address));
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().expect("curl");
        let mut peer = scene.peer.accept();
        peer.read_request().unwrap();
        peer.send(format!("HTTP/1.1 {answer}")).unwrap();
        let output = child.wait_with_output().expect("its output");
        assert!(output.status.success(), "{answer:?}: {output:?}");
        assert_eq!(output.stdout, body.as_bytes(), "{answer:?}");
    }
}

/// `h2` forgets that a response has ended if the connection ends next: so its header must show the end.
#[test]
fn complete_response_is_passed_on_though_the_connection_ends_with_it() {
    const COMPLETE: [Http2Behaviour; 3] = [
        Http2Behaviour::LastFramesEarly(&[
            (HEADERS, END_HEADERS, b"\x88\x00\x0econtent-length\x012"),
            (DATA, END_STREAM, b"no"),
        ]),
        // 204
        Http2Behaviour::LastFramesEarly(&[(HEADERS, ENDS, b"\x89")]),
        Http2Behaviour::LastFramesEarly(&[(HEADERS, ENDS, REFUSAL)]),
    ];
    for (number, act) in COMPLETE.into_iter().enumerate() {
        let peer = Origin::start(&[act]);
        let site = ConfigBuilder::of([peer.label()]).top("listeners", H2C);
        let edge = site.app("protocol", "h2c").start();
        let (_, answer) = answered_early(&mut Client::open(edge.address));
        let body: &[u8] = if number == 0 { b"no" } else { b"" };
        assert_eq!((&*answer.body, answer.reset), (body, None), "{number}");
        assert_eq!(answer.statuses.len(), 1, "{number}: {answer:?}");
    }
}

#[test]
fn incomplete_response_is_not_completed_by_the_end_of_the_connection() {
    const INCOMPLETE: [Http2Behaviour; 2] = [
        Http2Behaviour::LastFramesEarly(&[
            (HEADERS, END_HEADERS, b"\x88\x00\x0econtent-length\x013"),
            (DATA, 0, b"no"),
        ]),
        Http2Behaviour::LastFramesEarly(&[(HEADERS, END_HEADERS, b"\x88"), (DATA, 0, b"no")]),
    ];
    for act in INCOMPLETE {
        let peer = Origin::start(&[act]);
        let site = ConfigBuilder::of([peer.label()]).top("listeners", H2C);
        let edge = site.app("protocol", "h2c").start();
        let mut client = Client::open(edge.address);
        let stream = client.begin(0, &request("POST", "/?k=a"));
        assert!(client.answer(stream).reset.is_some(), "{act:?}");
    }
}
