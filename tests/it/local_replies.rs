//! Responses made by Clockwise itself: over every HTTP version each has the request id, HSTS if configured, the
//! same page, no `Server`, a log line and a counter.

use serde_json::Value;

use crate::http2::H2C;
use crate::support::client::{Request, Response};
use crate::support::curl::curl;
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::http2_origin::{Http2Behaviour, Origin as Http2Origin};
use crate::support::origin::{Behaviour, Origin};
use crate::support::tls::Authority;

const HSTS: &str = "max-age=31536000";

/// An instance that logs, in front of an origin that accepts requests and never responds.
fn before_silence(site: impl Fn(ConfigBuilder) -> ConfigBuilder) -> (Edge, Origin) {
    let origin = Origin::start();
    origin.behave(Behaviour::Hold);
    let base = ConfigBuilder::of([origin.label()])
        .app("key", "client_ip")
        .app("timeouts", "{first_byte: 1s}")
        .top("access_log", "{path: access.log}");
    (site(base).start(), origin)
}

/// Checks the log line of the only request, and its counter.
#[track_caller]
fn assert_recorded(edge: &Edge, status: u16, fault: &str, id: &str) -> Value {
    let line = edge.log_lines(1).remove(0);
    assert_eq!(line["status"], status, "{line}");
    assert_eq!(line["fault"], fault, "{line}");
    assert_eq!(line["request_id"], id, "{line}");
    edge.admin.wait_for_metric(
        "clockwise_faults_total",
        &[&format!("fault=\"{fault}\"")],
        1,
    );
    edge.admin
        .wait_for_metric("clockwise_local_replies_total", &[], 1);
    line
}

/// Checks a whole page of HTTP/1; the request id that it has.
#[track_caller]
fn assert_page(response: &Response, status: u16, fault: &str) -> String {
    let page = format!("{status} {fault}\n");
    assert_eq!((response.status, response.text()), (status, page.clone()));
    assert_eq!(response.header("content-type"), Some("text/plain"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    let length = page.len().to_string();
    assert_eq!(response.header("content-length"), Some(length.as_str()));
    assert_eq!(response.header("connection"), Some("close"));
    assert!(response.header("date").is_some());
    assert_eq!(response.header("server"), None);
    response.header("x-request-id").expect("an id").to_owned()
}

#[test]
fn http1_header_timeout_is_a_whole_408() {
    let (edge, _origin) = before_silence(|site| site.downstream("{header_timeout: 1s}"));
    let mut connection = edge.connect();
    connection.send("GET / HTTP/1.1\r\nHost: h\r\n").unwrap();
    let id = assert_page(&connection.response().unwrap(), 408, "header_timeout");
    assert_eq!(id.len(), 32, "a new id: {id}");
    let line = assert_recorded(&edge, 408, "header_timeout", &id);
    assert_eq!((&line["method"], &line["path"]), (&"".into(), &"".into()));
    assert_eq!(line["sent"], "408 header_timeout\n".len(), "{line}");
    edge.admin
        .wait_for_metric("clockwise_listener_header_timeouts_total", &[], 1);
}

#[test]
fn http1_header_too_large_is_a_whole_431() {
    let (edge, _origin) = before_silence(|site| site.downstream("{max_header_size: 16KiB}"));
    let mut connection = edge.connect();
    let endless = format!("GET / HTTP/1.1\r\nHost: h\r\nX: {}", "x".repeat(17 << 10));
    connection.send(endless).unwrap();
    let id = assert_page(&connection.response().unwrap(), 431, "header_too_large");
    assert_recorded(&edge, 431, "header_too_large", &id);
    let reason = ["reason=\"header_too_large\""];
    edge.admin
        .wait_for_metric("clockwise_listener_bad_requests_total", &reason, 1);
}

#[test]
fn http1_body_timeout_of_the_whole_request_is_a_whole_408() {
    let (edge, _origin) = before_silence(|site| {
        let timeouts = "{read_timeout: 5s, request_timeout: 1s}";
        site.downstream(timeouts)
    });
    let mut connection = edge.connect();
    let half = "POST /a HTTP/1.1\r\nHost: h\r\nX-Request-Id: mine\r\nContent-Length: 9\r\n\r\n1";
    connection.send(half).unwrap();
    let id = assert_page(&connection.response().unwrap(), 408, "body_timeout");
    assert_eq!(id, "mine");
    assert_recorded(&edge, 408, "body_timeout", "mine");
}

#[test]
fn http1_first_byte_timeout_is_a_whole_504() {
    let (edge, _origin) = before_silence(|site| site);
    let mut connection = edge.connect();
    let request = Request::get("/a").header("X-Request-Id", "mine");
    let id = assert_page(
        &connection.exchange(&request).unwrap(),
        504,
        "first_byte_timeout",
    );
    assert_eq!(id, "mine");
    assert_recorded(&edge, 504, "first_byte_timeout", "mine");
}

#[test]
fn http1_response_to_head_has_no_body() {
    let (edge, _origin) = before_silence(|site| site);
    let mut connection = edge.connect();
    let head = "HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n";
    connection.send(head).unwrap();
    let received = connection.rest().unwrap();
    let text = String::from_utf8_lossy(&received).to_ascii_lowercase();
    assert!(text.starts_with("http/1.1 504 "), "{text}");
    assert!(text.contains("content-length: 23\r\n"), "{text}");
    assert!(text.ends_with("\r\n\r\n"), "{text}");
}

#[test]
fn aborted_request_over_tls_has_hsts_on_every_carrier() {
    let authority = Authority::new();
    let pair = authority.issue("a", &["a.test"]);
    let tls = pair.replace('}', ", hsts: {max_age: 8760h}}");
    let listeners = format!("[{{address: \"127.0.0.1:0\", tls: {tls}}}]");
    for (version, start) in [("--http1.1", "HTTP/1.1 504"), ("--http2", "HTTP/2 504")] {
        let (edge, _origin) = before_silence(|site| site.top("listeners", &listeners));
        let more = [version, "--include", "--header", "x-request-id: mine"];
        let text = authority.curl("a.test", edge.address, &more);
        assert!(text.starts_with(start), "{text}");
        let lower = text.to_ascii_lowercase();
        for field in [
            format!("strict-transport-security: {HSTS}\r\n"),
            "x-request-id: mine\r\n".to_owned(),
            "content-type: text/plain\r\n".to_owned(),
            "cache-control: no-store\r\n".to_owned(),
        ] {
            assert!(lower.contains(&field), "{field} in {text}");
        }
        assert!(!lower.contains("\nserver:"), "{text}");
        assert!(
            lower.ends_with("\r\n\r\n504 first_byte_timeout\n"),
            "{text}"
        );
        assert_recorded(&edge, 504, "first_byte_timeout", "mine");
    }
}

#[test]
fn grpc_deadline_is_a_header_with_the_status_of_the_fault() {
    let origin = Http2Origin::start(&[Http2Behaviour::Hold]);
    let edge = ConfigBuilder::of([origin.label()])
        .app("protocol", "h2c")
        .app("key", "client_ip")
        .top("listeners", H2C)
        .top("access_log", "{path: access.log}")
        .start();
    let mut curl = curl();
    curl.args(["--http2-prior-knowledge", "--include", "--data-binary", "x"]);
    for field in [
        "content-type: application/grpc+proto",
        "te: trailers",
        "grpc-timeout: 1S",
        "x-request-id: mine",
    ] {
        curl.args(["--header", field]);
    }
    curl.arg(format!("http://{}/test.Echo/unary", edge.address));
    let output = curl.output().expect("curl");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.starts_with("HTTP/2 200"), "{output:?}");
    for field in [
        "content-type: application/grpc+proto\r\n",
        "grpc-status: 4\r\n",
        "grpc-message: request_timeout\r\n",
        "x-request-id: mine\r\n",
    ] {
        assert!(text.contains(field), "{field} in {text}");
    }
    assert!(!text.contains("\nserver:"), "{text}");
    assert_recorded(&edge, 200, "request_timeout", "mine");
}
