//! Ejection of peers after failures of real requests.

use std::io;

use crate::http2::H2C;
use crate::support::client::Request;
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::http2::Client;
use crate::support::http2_origin::{
    self, END_HEADERS, END_STREAM, HEADERS, Http2Behaviour, INTERNAL_ERROR,
};
use crate::support::load::keys;
use crate::support::origin::{Behaviour, Origin};
use crate::support::wait;

const THREE: &str = "{failures: 3, eject: 60s}";

/// Two origins, the second of which fails the requests of one key that it owns.
struct FailingOrigin<O = Origin> {
    edge: Edge,
    well: O,
    ill: O,
    /// The label of `ill`.
    label: String,
    target: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum ClientVersion {
    Http1,
    Http2,
}

impl FailingOrigin {
    fn start(detection: &str) -> Self {
        Self::with(|site| site.app("outlier_detection", detection))
    }

    fn with(change: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        let origins = [Origin::start(), Origin::start()];
        let labels = origins.each_ref().map(Origin::label);
        Self::over(origins, labels, change)
    }

    fn answer(&self, status: &str) {
        let answer = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
        self.ill.behave(Behaviour::Raw(answer.into()));
    }
}

impl FailingOrigin<http2_origin::Origin> {
    /// Peers of HTTP/2; the second applies these behaviours to its first requests.
    fn over_http2(detection: &str, acts: &[Http2Behaviour]) -> Self {
        let origins = [&[], acts].map(http2_origin::Origin::start);
        let labels = origins.each_ref().map(http2_origin::Origin::label);
        Self::over(origins, labels, |site| {
            site.app("protocol", "h2c")
                .app("outlier_detection", detection)
        })
    }
}

impl<O> FailingOrigin<O> {
    fn over(
        [well, ill]: [O; 2],
        labels: [String; 2],
        change: impl FnOnce(ConfigBuilder) -> ConfigBuilder,
    ) -> Self {
        let site = ConfigBuilder::of(&labels)
            .top("listeners", H2C)
            .app("timeouts", "{first_byte: 500ms}");
        let edge = change(site).start();
        let [_, label] = labels;
        let owns = |key: &String| edge.admin.walk("app", key)[0] == label;
        let key = keys(50).into_iter().find(owns).unwrap();
        let target = format!("/?k={key}");
        Self {
            edge,
            well,
            ill,
            label,
            target,
        }
    }

    fn ask(&self, version: ClientVersion) -> u16 {
        match version {
            ClientVersion::Http1 => self.edge.get(&self.target).status,
            ClientVersion::Http2 => {
                let answer = Client::open(self.edge.address).get(&self.target);
                *answer
                    .statuses
                    .iter()
                    .rfind(|status| **status >= 200)
                    .unwrap()
            }
        }
    }

    fn state(&self) -> String {
        self.edge.admin.state("app", &self.label)
    }
}

fn failures() -> Vec<(&'static str, Behaviour, u16)> {
    let raw = |text: &str| Behaviour::Raw(text.into());
    vec![
        (
            "500",
            raw("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
            500,
        ),
        (
            "503",
            raw("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"),
            503,
        ),
        ("no response", Behaviour::Hold, 504),
        ("reset", Behaviour::Reset, 502),
        ("close", Behaviour::Last(Vec::new()), 502),
        (
            "half a header",
            Behaviour::Last(b"HTTP/1.1 200 OK\r\nX: ".into()),
            502,
        ),
        (
            "no HTTP",
            Behaviour::Last(b"hello, world\r\n\r\n".into()),
            502,
        ),
        (
            "1xx only",
            Behaviour::Last(b"HTTP/1.1 103 Hints\r\n\r\n".into()),
            502,
        ),
    ]
}

#[test]
fn peer_that_accepts_and_fails_is_ejected() {
    for version in [ClientVersion::Http1, ClientVersion::Http2] {
        for (name, behaviour, status) in failures() {
            // Only what is to time out is given little time: a busy machine is late with all else.
            let first_byte = if status == 504 { "500ms" } else { "20s" };
            let scene = FailingOrigin::with(|site| {
                let site = site.app("outlier_detection", THREE);
                site.app("timeouts", &format!("{{first_byte: {first_byte}}}"))
            });
            scene.ill.behave(behaviour);
            for _ in 0..3 {
                assert_eq!(scene.ask(version), status, "{name}, {version:?}");
            }
            let what = format!("the peer to be ejected after: {name}, {version:?}");
            wait::until(&what, || scene.state() == "ejected");
            assert_eq!(scene.ask(version), 200, "{name}, {version:?}");
            assert_eq!(scene.ill.requests(), 3, "{name}, {version:?}");
            assert_eq!(scene.well.requests(), 1, "{name}, {version:?}");
        }
    }
}

const ENDS: u8 = END_HEADERS | END_STREAM;

const HTTP2_FAILURES: [(&str, Http2Behaviour, u16); 8] = [
    // `:status` from the static table, or with its value (RFC 7541 appendices A and B).
    (
        "500",
        Http2Behaviour::Frames(&[(HEADERS, ENDS, b"\x8e")]),
        500,
    ),
    (
        "503",
        Http2Behaviour::Frames(&[(HEADERS, ENDS, b"\x08\x03503")]),
        503,
    ),
    ("no response", Http2Behaviour::Hold, 504),
    ("reset", Http2Behaviour::Reset(INTERNAL_ERROR), 502),
    (
        "reset after the header",
        Http2Behaviour::ResetEarly(INTERNAL_ERROR),
        502,
    ),
    ("close", Http2Behaviour::LastFramesEarly(&[]), 502),
    (
        "no status",
        Http2Behaviour::Frames(&[(HEADERS, ENDS, b"\x00\x01a\x01b")]),
        502,
    ),
    (
        "1xx only",
        Http2Behaviour::LastFramesEarly(&[(HEADERS, END_HEADERS, b"\x08\x03103")]),
        502,
    ),
];

#[test]
fn http2_peer_that_accepts_and_fails_is_ejected() {
    for version in [ClientVersion::Http1, ClientVersion::Http2] {
        for (name, act, status) in HTTP2_FAILURES {
            let scene = FailingOrigin::over_http2(THREE, &[act; 3]);
            for _ in 0..3 {
                assert_eq!(scene.ask(version), status, "{name}, {version:?}");
            }
            let what = format!("the peer to be ejected after: {name}, {version:?}");
            wait::until(&what, || scene.state() == "ejected");
            assert_eq!(scene.ask(version), 200, "{name}, {version:?}");
            assert_eq!(scene.ill.requests(), 3, "{name}, {version:?}");
            assert_eq!(scene.well.requests(), 1, "{name}, {version:?}");
        }
    }
}

#[test]
fn response_of_an_http2_peer_that_is_no_failure_does_not_eject_it() {
    const NOT_FOUND: Http2Behaviour = Http2Behaviour::Frames(&[(HEADERS, ENDS, b"\x08\x03404")]);
    const NOT_IMPLEMENTED: Http2Behaviour =
        Http2Behaviour::Frames(&[(HEADERS, ENDS, b"\x08\x03501")]);
    const ERROR: Http2Behaviour = Http2Behaviour::Frames(&[(HEADERS, ENDS, b"\x8e")]);
    let one = "{failures: 1, eject: 60s}";
    let no_5xx = "{failures: 1, eject: 60s, count: [connect, timeout, reset]}";
    for (detection, act, status) in [
        (one, NOT_FOUND, 404),
        (one, NOT_IMPLEMENTED, 501),
        (no_5xx, ERROR, 500),
    ] {
        let scene = FailingOrigin::over_http2(detection, &[act; 3]);
        for version in [ClientVersion::Http1, ClientVersion::Http2] {
            assert_eq!(scene.ask(version), status, "{version:?}");
            scene.edge.settle();
        }
        assert_eq!(scene.state(), "up", "{detection}: {status}");
    }
}

#[test]
fn response_that_is_no_failure_of_the_peer_does_not_eject_it() {
    for (detection, status) in [
        ("{failures: 1, eject: 60s}", "404"),
        ("{failures: 1, eject: 60s}", "501"),
        ("{failures: 1, eject: 60s}", "505"),
        (
            "{failures: 1, eject: 60s, count: [connect, timeout, reset]}",
            "500",
        ),
        ("{failures: 1, eject: 60s, max_ejected: 0%}", "500"),
    ] {
        let scene = FailingOrigin::start(detection);
        scene.answer(status);
        for _ in 0..3 {
            assert_eq!(scene.ask(ClientVersion::Http1).to_string(), status);
            scene.edge.settle();
        }
        assert_eq!(scene.state(), "up", "{detection}: {status}");
    }
}

#[test]
fn success_between_failures_keeps_the_peer() {
    let scene = FailingOrigin::start(THREE);
    for status in ["500", "500", "404", "500", "500", "200", "500"] {
        scene.answer(status);
        assert_eq!(scene.ask(ClientVersion::Http1).to_string(), status);
        scene.edge.settle();
    }
    assert_eq!(scene.state(), "up");
}

#[test]
fn stale_pooled_connection_is_no_failure_of_the_peer() {
    let scene = FailingOrigin::start("{failures: 1, eject: 60s}");
    scene.ill.behave(Behaviour::ResetReused);
    for _ in 0..4 {
        assert_eq!(scene.ask(ClientVersion::Http1), 200);
        scene.edge.settle();
    }
    // A POST on such a connection is not repeated; that is no failure of the peer either.
    let post = scene
        .edge
        .send(&Request::post(&scene.target, b"x".as_slice()));
    assert!([200, 502].contains(&post.status), "{post:?}");
    scene.edge.settle();
    assert_eq!(scene.state(), "up");
}

#[test]
fn client_that_leaves_is_no_failure_of_the_peer() -> io::Result<()> {
    let scene = FailingOrigin::start("{failures: 1, eject: 60s}");
    scene.ill.behave(Behaviour::Hold);
    for request in 1..=3 {
        let mut client = scene.edge.connect();
        client.begin(&Request::get(&scene.target))?;
        scene.ill.wait_for_requests(request);
        client.reset();
    }
    scene.edge.settle();
    assert_eq!(scene.state(), "up");
    Ok(())
}

#[test]
fn last_available_peer_is_not_ejected_for_its_responses() {
    let scene = FailingOrigin::start("{failures: 1, eject: 60s, max_ejected: 100%}");
    let no = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n";
    scene.ill.behave(Behaviour::Raw(no.into()));
    scene.well.behave(Behaviour::Raw(no.into()));
    for _ in 0..4 {
        assert_eq!(scene.ask(ClientVersion::Http1), 500);
        scene.edge.settle();
    }
    assert_eq!(scene.state(), "ejected");
    assert_eq!(scene.edge.admin.state("app", &scene.well.label()), "up");
    let prevented = "clockwise_upstream_ejections_prevented_total";
    scene.edge.admin.wait_for_metric(prevented, &[], 3);
}

#[test]
fn passed_probes_do_not_end_an_ejection_for_responses() {
    let probe = "{tcp: true, interval: 200ms, timeout: 200ms, fall: 3, rise: 1}";
    let scene = FailingOrigin::with(|site| {
        site.app("health", probe)
            .app("outlier_detection", "{failures: 1, eject: 60s}")
    });
    scene.answer("500");
    assert_eq!(scene.ask(ClientVersion::Http1), 500);
    wait::until("the peer to be ejected", || scene.state() == "ejected");
    let probed = scene.ill.connections() + 3;
    wait::until("three probes", || scene.ill.connections() >= probed);
    assert_eq!(scene.state(), "ejected");
}
