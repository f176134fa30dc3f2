//! gRPC end to end, with a client and a server of the gRPC library.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::http2::H2C;
use crate::support::curl::curl;
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::http2::{self, Client};
use crate::support::http2_origin::{Http2Behaviour, Origin, REFUSED_STREAM};
use crate::support::load::keys;
use crate::support::wait::{assert_about, timed};
use crate::support::{port, process, wait};

/// Debian's, which has the library (`python3-grpcio`).
const PYTHON: &str = "/usr/bin/python3";

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    _process: process::Process,
}

impl Server {
    pub(crate) fn start() -> Self {
        let address = port::free();
        let mut command = Command::new(PYTHON);
        command.arg(script("server.py")).arg(address.to_string());
        let mut process = process::Process::spawn_with(&mut command, Stdio::piped());
        wait::until("the server to listen", || {
            assert!(process.exited().is_none(), "{}", process.stderr());
            std::net::TcpStream::connect(address).is_ok()
        });
        Self {
            address,
            _process: process,
        }
    }
}

pub(crate) fn script(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/grpc")
        .join(name)
}

pub(crate) fn site(servers: &[&Server]) -> ConfigBuilder {
    let site = ConfigBuilder::of(servers.iter().map(|server| server.address));
    let site = site.app("protocol", "h2c").app("key", "{header: x-user}");
    site.top("listeners", H2C)
}

/// What came of a call, through Clockwise.
#[track_caller]
pub(crate) fn call(edge: &Edge, name: &str, argument: &str) -> Value {
    let mut command = Command::new(PYTHON);
    command.arg(script("client.py"));
    command.args([&edge.address.to_string(), name, argument]);
    command.env_remove("http_proxy").env_remove("https_proxy");
    let output = command.output().expect("the client");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{output:?} {}", edge.stderr()))
}

#[test]
fn grpc_calls_of_all_four_kinds_are_forwarded() {
    let server = Server::start();
    let edge = site(&[&server]).start();
    let unary = call(&edge, "unary", "word");
    assert_eq!(unary["answer"], "word");
    assert_eq!(unary["initial"]["x-server"], server.address.to_string());
    assert_eq!(unary["trailing"]["x-end"], "well");
    assert_eq!(unary["trailing"]["x-bytes-bin"], "00ff");
    assert_eq!(call(&edge, "large", "3000000")["same"], true);
    let pieces = call(&edge, "pieces", "100");
    assert_eq!(pieces["pieces"].as_array().unwrap().len(), 100);
    assert_eq!(call(&edge, "total", "200")["total"], "19900");
    let echo = call(&edge, "echo", "50");
    assert_eq!(echo["said"].as_array().unwrap().len(), 50, "{echo}");
    assert_eq!(echo["rest"], 0);
}

#[test]
fn grpc_bidirectional_stream_does_not_deadlock() {
    let server = Server::start();
    let edge = site(&[&server]).start();
    let flood = call(&edge, "flood", "6");
    assert_eq!(flood["answers"], 120, "{flood}");
}

#[test]
fn grpc_status_and_trailers_of_the_server_are_forwarded() {
    let server = Server::start();
    let edge = site(&[&server]).start();
    let failed = call(&edge, "fails", "");
    assert_eq!(failed["status"], "NOT_FOUND");
    assert_eq!(failed["details"], "there is no such thing");
    assert_eq!(failed["trailing"]["x-why"], "because");
}

#[test]
fn grpc_metadata_can_be_the_key() {
    let (one, two) = (Server::start(), Server::start());
    let edge = site(&[&one, &two]).start();
    let users = keys(40);
    let served = call(&edge, "keys", &users.join(","));
    for (user, walk) in users.iter().zip(edge.predict(&users, 1)) {
        assert_eq!(served[user], *walk[0]);
    }
}

#[test]
fn grpc_client_deadline_is_forwarded_to_the_server() {
    let server = Server::start();
    let edge = site(&[&server]).start();
    let left = call(&edge, "remaining", "7")["answer"].clone();
    let left: f64 = left.as_str().unwrap().parse().unwrap();
    assert!((1.0..=7.0).contains(&left), "{left}");
    assert_eq!(call(&edge, "without_deadline", "")["answer"], "none");
    let late = call(&edge, "slow", "0.5");
    assert_eq!(late["status"], "DEADLINE_EXCEEDED");
    wait::until("the server to be told", || {
        edge.admin.metric("clockwise_peer_in_flight", &[]) == 0
    });
}

#[test]
fn grpc_client_deadline_ends_a_call_without_an_answer() {
    // The first attempt is refused: the second one has only what is left.
    let origin = Origin::start(&[
        Http2Behaviour::ResetEarly(REFUSED_STREAM),
        Http2Behaviour::Hold,
    ]);
    let edge = site(&[]).peers([origin.label()]).start();
    let mut client = curl();
    client.args(["--http2-prior-knowledge", "--include", "--data-binary", "x"]);
    for field in [
        "content-type: application/grpc",
        "te: trailers",
        "grpc-timeout: 1500m",
    ] {
        client.args(["--header", field]);
    }
    client.arg(format!("http://{}/test.Echo/unary", edge.address));
    let (output, took) = timed(|| client.output().expect("curl"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("grpc-status: 4\r\n"), "{output:?}");
    assert_about(took, Duration::from_millis(1500));
    assert_eq!(origin.requests(), 2);
    wait::until("the call to be cancelled at the server", || {
        edge.admin.metric("clockwise_peer_in_flight", &[]) == 0
    });
    edge.admin
        .wait_for_metric("clockwise_faults_total", &["fault=\"request_timeout\""], 1);
}

#[test]
fn grpc_stream_may_be_silent_longer_than_a_body() {
    let origin = Origin::start(&[Http2Behaviour::Begin]);
    let edge = site(&[])
        .peers([origin.label()])
        .app("timeouts", "{read: 500ms, stream: 3s}")
        .downstream("{read_timeout: 500ms, min_body_rate: {grace: 500ms}}")
        .start();
    let mut client = Client::open(edge.address);
    let mut fields = http2::request("POST", "/test.Echo/watch");
    fields.push(("content-type", "application/grpc"));
    // It says no more either, and has not come to its end.
    let stream = client.begin(0, &fields);
    let (answer, took) = timed(|| client.answer(stream));
    assert_eq!(answer.statuses[0], 200);
    assert_about(took, Duration::from_secs(3));
    edge.admin
        .wait_for_metric("clockwise_faults_total", &["fault=\"response_stalled\""], 1);
}

#[test]
fn grpc_timeouts_of_the_proxy_have_a_grpc_status() {
    let server = Server::start();
    let edge = site(&[&server])
        .app("timeouts", "{first_byte: 500ms, stream: 500ms}")
        .start();
    let slow = call(&edge, "slow", "15");
    assert_eq!(slow["status"], "DEADLINE_EXCEEDED", "{slow}");
    assert!(slow["seconds"].as_f64().unwrap() < 10.0, "{slow}");
    let stalled = call(&edge, "stalls", "");
    assert_eq!(stalled["status"], "DEADLINE_EXCEEDED", "{stalled}");
    assert_eq!(stalled["details"], "response_stalled");
    let gone = site(&[]).peers([port::ClosedPort::new().address]).start();
    let refused = call(&gone, "unary", "word");
    assert_eq!(refused["status"], "UNAVAILABLE", "{refused}");
    assert_eq!(refused["details"], "connect_failed");
}

#[test]
fn grpc_truncated_response_has_status_unavailable() {
    let server = Server::start();
    let edge = site(&[&server]).start();
    let died = call(&edge, "dies", "");
    assert_eq!(died["status"], "UNAVAILABLE", "{died}");
    assert_eq!(died["details"], "response_truncated");
    let fault = ["fault=\"response_truncated\""];
    edge.admin
        .wait_for_metric("clockwise_faults_total", &fault, 1);
}

#[test]
fn grpc_stream_with_a_moved_key_has_status_unavailable() {
    let servers = [Server::start(), Server::start()];
    let rules = "{after: 400ms, per_second: 10}";
    let site = site(&servers.each_ref()).app("key", "path");
    let edge = site.app("close_moved_streams", rules).start();
    let home = edge.admin.walk("app", "/test.Echo/stalls")[0].clone();
    let moved = thread::scope(|scope| {
        let stalling = scope.spawn(|| call(&edge, "stalls", ""));
        edge.admin
            .wait_for_metric("clockwise_peer_in_flight", &[], 1);
        assert!(edge.command(&["drain", "app", &home]).status.success());
        stalling.join().unwrap()
    });
    assert_eq!(moved["status"], "UNAVAILABLE", "{moved}");
    assert_eq!(moved["details"], "moved");
    edge.admin
        .wait_for_metric("clockwise_upstream_moved_streams_total", &[], 1);
    let left = ConfigBuilder::of([&home]).app("protocol", "h2c");
    let left = left.top("listeners", H2C).start();
    wait::until("the server to be told", || {
        call(&left, "stalling", "")["answer"] == "0"
    });
}

#[test]
fn grpc_call_refused_by_the_peer_is_retried() {
    // The origin is no gRPC server, so the call fails; the test checks that the request was sent twice.
    let origin = Origin::start(&[
        Http2Behaviour::ResetEarly(REFUSED_STREAM),
        Http2Behaviour::Trailers,
    ]);
    let edge = site(&[]).peers([origin.label()]).start();
    call(&edge, "large", "10");
    assert_eq!(origin.requests(), 2);
}

#[test]
fn grpc_health_check_works_as_probe() {
    let server = Server::start();
    let label = server.address.to_string();
    let health =
        |service: &str| format!("{{grpc: {service}, interval: 1s, timeout: 1s, fall: 1, rise: 1}}");
    for (service, state) in [("true", "up"), ("test.Echo", "up"), ("test.Other", "down")] {
        let edge = site(&[&server]).app("health", &health(service)).start();
        edge.admin.wait_for_state("app", &label, state);
        let view = edge.admin.get("/v1/upstreams/app").json();
        let why = &view["peers"][0]["probe"]["failure"];
        assert_eq!(*why == "grpc-status 5", state == "down", "{why}");
    }
    let probed = site(&[&server]).app("health", &health("true")).start();
    let plain = site(&[&server]).start();
    probed.admin.wait_for_state("app", &label, "up");
    call(&plain, "set_health", "2");
    probed.admin.wait_for_state("app", &label, "down");
    call(&plain, "set_health", "1");
    probed.admin.wait_for_state("app", &label, "up");
}
