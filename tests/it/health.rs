//! The peers in use: probes, failures of real traffic, drain and enable.

use serde_json::Value;

use crate::support::client::Request;
use crate::support::edge::{ConfigBuilder, Edge, run};
use crate::support::load::keys;
use crate::support::origin::{Behaviour, Origin};
use crate::support::port::FullBacklog;
use crate::support::wait;

/// On a busy machine a peer that is well may take most of a second to answer.
const TCP: &str = "{tcp: true, interval: 1s, timeout: 1s, fall: 2, rise: 1}";
const HTTP: &str = "{http: /healthz, interval: 1s, timeout: 1s, fall: 2, rise: 1}";

/// Two origins, the second of which a test makes ill.
struct ProbedOrigins {
    edge: Edge,
    well: Origin,
    ill: Origin,
}

impl ProbedOrigins {
    fn probed(health: &str) -> Self {
        Self::with(|site| site.app("health", health))
    }

    fn with(change: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        let (well, ill) = (Origin::start(), Origin::start());
        let edge = change(ConfigBuilder::of([well.label(), ill.label()])).start();
        Self { edge, well, ill }
    }

    fn wait_for(&self, state: &str) {
        self.edge
            .admin
            .wait_for_state("app", &self.ill.label(), state);
    }

    /// Asserts that the healthy origin alone serves.
    #[track_caller]
    fn assert_spared(&self) {
        for key in keys(50) {
            let echo = self.edge.echo(&Request::get(&format!("/?k={key}")));
            assert_eq!(echo["origin"], self.well.label());
        }
    }

    /// Asserts that both serve.
    #[track_caller]
    fn assert_shared(&self) {
        let serve = |key| {
            self.edge
                .get(&format!("/?k={key}"))
                .text()
                .contains(&self.ill.label())
        };
        assert!(keys(50).into_iter().any(serve), "no key came back");
    }
}

#[test]
fn tcp_probe_takes_a_peer_down_and_up() {
    let mut pair = ProbedOrigins::probed(TCP);
    pair.assert_shared();
    pair.ill.down();
    pair.wait_for("down");
    pair.assert_spared();
    pair.ill.up();
    pair.wait_for("up");
    pair.assert_shared();
}

#[test]
fn http_probe_requires_a_success_status() {
    let pair = ProbedOrigins::probed(HTTP);
    for status in ["500 No", "404 No", "101 No"] {
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n");
        pair.ill.behave(Behaviour::Raw(answer.into()));
        pair.wait_for("down");
        pair.assert_spared();
        pair.ill.behave(Behaviour::Echo);
        pair.wait_for("up");
    }
    pair.assert_shared();
}

#[test]
fn http_probe_expects_the_configured_status() {
    let pair = ProbedOrigins::probed(
        "{http: /healthz, expect: \"418\", interval: 1s, timeout: 1s, fall: 1, rise: 1}",
    );
    pair.wait_for("down");
    pair.ill.behave(Behaviour::Raw(
        "HTTP/1.1 418 Teapot\r\nContent-Length: 0\r\n\r\n".into(),
    ));
    pair.wait_for("up");
}

#[test]
fn http_probe_waits_for_the_final_response() {
    let pair = ProbedOrigins::probed(HTTP);
    pair.ill.behave(Behaviour::Raw(
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".into(),
    ));
    pair.wait_for("down");
    pair.ill.behave(Behaviour::Raw(
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".into(),
    ));
    pair.wait_for("up");
}

#[test]
fn tcp_probe_uses_its_configured_timeout() {
    let (well, full) = (Origin::start(), FullBacklog::new());
    let health = "{tcp: true, interval: 5s, timeout: 2s, fall: 1}";
    let site = ConfigBuilder::of([well.label(), full.address.to_string()]).app("health", health);
    let (edge, took) = wait::timed(|| site.start());
    edge.admin
        .wait_for_state("app", &full.address.to_string(), "down");
    assert!(took.as_millis() > 1800, "given up after {took:?}");
}

#[test]
fn probe_that_hangs_fails() {
    let pair = ProbedOrigins::probed(HTTP);
    pair.ill.behave(Behaviour::Hold);
    pair.wait_for("down");
    pair.assert_spared();
}

#[test]
fn probe_with_an_endless_response_fails() {
    let pair = ProbedOrigins::probed(HTTP);
    pair.ill
        .behave(Behaviour::Raw("HTTP/1.1 200 OK\r\nX-Slow: y".into()));
    pair.wait_for("down");
}

#[test]
fn probe_thresholds_fall_and_rise_are_applied() {
    let mut pair =
        ProbedOrigins::probed("{tcp: true, interval: 300ms, timeout: 300ms, fall: 3, rise: 3}");
    let ((), fell) = wait::timed(|| {
        pair.ill.down();
        pair.wait_for("down");
    });
    assert!(
        fell.as_millis() >= 500,
        "down after {fell:?}: less than three probes"
    );
    let ((), rose) = wait::timed(|| {
        pair.ill.up();
        pair.wait_for("up");
    });
    assert!(
        rose.as_millis() >= 500,
        "up after {rose:?}: less than three probes"
    );
}

#[test]
fn peer_down_at_start_never_gets_a_request() {
    let (well, ill) = (
        Origin::start(),
        Origin::behaving(Behaviour::Raw("HTTP/1.1 503 No\r\n\r\n".into())),
    );
    let health = "{http: /healthz, interval: 10s, timeout: 10s, fall: 3, rise: 2}";
    let edge = ConfigBuilder::of([well.label(), ill.label()])
        .app("health", health)
        .start();
    for key in keys(50) {
        assert_eq!(
            edge.echo(&Request::get(&format!("/?k={key}")))["origin"],
            well.label()
        );
    }
    assert_eq!(edge.admin.state("app", &ill.label()), "down");
}

#[test]
fn first_probe_round_ends_although_a_peer_hangs() {
    let (well, full) = (Origin::start(), FullBacklog::new());
    let health = "{tcp: true, interval: 60s, timeout: 300ms, fall: 3, rise: 2}";
    let site = ConfigBuilder::of([well.label(), full.address.to_string()]).app("health", health);
    let edge = site.start();
    assert_eq!(edge.admin.state("app", &full.address.to_string()), "down");
}

#[test]
fn connect_failures_eject_a_peer() {
    let mut pair = ProbedOrigins::with(|site| {
        site.app(
            "outlier_detection",
            "{failures: 3, eject: 5s, max_eject: 5s}",
        )
        .app("retry", "{attempts: 2}")
    });
    pair.ill.down();
    for key in keys(50) {
        assert_eq!(pair.edge.get(&format!("/?k={key}")).status, 200);
    }
    let retries = pair
        .edge
        .admin
        .metric("clockwise_upstream_retries_total", &["upstream=\"app\""]);
    assert!(
        (3..10).contains(&retries),
        "{retries} requests tried the dead peer"
    );
    pair.edge
        .admin
        .wait_for_metric("clockwise_peer_ejections_total", &["upstream=\"app\""], 1);
    pair.ill.up();
    wait::until("the ejection to end", || {
        keys(20).iter().any(|key| {
            pair.edge
                .get(&format!("/?k={key}"))
                .text()
                .contains(&pair.ill.label())
        })
    });
}

#[test]
fn drain_and_enable_by_admin_api() {
    let pair = ProbedOrigins::with(|site| site);
    let path = format!("/v1/upstreams/app/peers/{}", pair.ill.label());
    assert_eq!(pair.edge.admin.post(&format!("{path}/drain")).status, 200);
    assert_eq!(pair.edge.admin.state("app", &pair.ill.label()), "draining");
    pair.assert_spared();
    assert_eq!(pair.edge.admin.post(&format!("{path}/enable")).status, 200);
    pair.assert_shared();
}

#[test]
fn drain_and_enable_by_command() {
    let pair = ProbedOrigins::with(|site| site);
    pair.edge.cli(&["drain", "app", &pair.ill.label()], "");
    pair.assert_spared();
    pair.edge.cli(&["enable", "app", &pair.ill.label()], "");
    pair.assert_shared();
}

#[test]
fn drain_finishes_requests_in_flight() {
    let pair = ProbedOrigins::with(|site| site);
    pair.ill.behave(Behaviour::Hold);
    let mine = |key: &String| pair.edge.admin.walk("app", key)[0] == pair.ill.label();
    let key = keys(50).into_iter().find(mine).unwrap();
    let mut connection = pair.edge.connect();
    connection
        .send(format!("GET /?k={key} HTTP/1.1\r\nHost: h\r\n\r\n"))
        .unwrap();
    pair.ill.wait_for_requests(1);
    pair.edge.cli(&["drain", "app", &pair.ill.label()], "");
    pair.ill.behave(Behaviour::Echo);
    assert_eq!(
        connection.response().unwrap().json()["origin"],
        pair.ill.label()
    );
}

#[test]
fn all_peers_drained_is_503() {
    let pair = ProbedOrigins::with(|site| site);
    pair.edge.cli(&["drain", "app", &pair.ill.label()], "");
    pair.edge
        .cli(&["drain", "app", &pair.well.label(), "--force"], "");
    assert_eq!(pair.edge.get("/?k=a").status, 503);
}

/// The others drain (even if they keep sessions) or are down; or there are none.
#[test]
fn drain_of_the_last_peer_is_refused_unless_forced() {
    let mut down = ProbedOrigins::probed(TCP);
    down.ill.down();
    down.edge
        .admin
        .wait_for_state("app", &down.ill.label(), "down");
    let draining = ProbedOrigins::with(|site| site.app("drain", "{idle: 1h, deadline: 2h}"));
    draining
        .edge
        .cli(&["drain", "app", &draining.ill.label()], "");
    let single = Origin::start();
    let edge = ConfigBuilder::of([single.label()]).start();
    for (edge, last) in [
        (&down.edge, &down.well),
        (&draining.edge, &draining.well),
        (&edge, &single),
    ] {
        let label = last.label();
        let path = format!("/v1/upstreams/app/peers/{label}/drain");
        let refused = edge.admin.post(&path);
        assert_eq!(refused.status, 409, "{refused:?}");
        assert_eq!(refused.json()["can_force"], true);
        let refused = edge.command(&["drain", "app", &label]);
        let stderr = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(4), "{refused:?}");
        assert!(stderr.contains("--force"), "{stderr}");
        assert_eq!(edge.admin.state("app", &label), "up");
        assert_eq!(edge.get("/?k=a").status, 200);
        let forced = edge.admin.post(&format!("{path}?force")).json();
        assert_eq!(
            (&forced["state"], &forced["moved"]),
            (&"draining".into(), &1.0.into())
        );
        assert_eq!(
            edge.admin.post(&path).status,
            200,
            "it takes no keys any more"
        );
    }
}

#[test]
fn drain_reports_the_share_of_the_keys_that_moves() {
    let pair = ProbedOrigins::with(|site| site);
    let label = pair.ill.label();
    let shares = pair.edge.admin.get("/v1/upstreams/app").json();
    let mut peers = shares["peers"].as_array().unwrap().iter();
    let share = peers.find(|peer| peer["label"] == *label).unwrap()["share"].clone();
    let drained: Value =
        serde_json::from_str(&pair.edge.cli(&["drain", "app", &label, "--json"], "")).unwrap();
    assert_eq!(
        (&drained["moved"], &drained["share_now"]),
        (&share, &0.0.into())
    );
    pair.edge.cli(&["enable", "app", &label], "");
    let percent = format!("{:.8} % of the keys move", share.as_f64().unwrap() * 100.0);
    let text = pair.edge.cli(&["drain", "app", &label], "");
    assert!(text.contains(&percent), "no `{percent}` in: {text}");
    let again = pair.edge.cli(&["drain", "app", &label], "");
    assert!(again.contains("0.00000000 % of the keys move"), "{again}");
    let last = pair
        .edge
        .cli(&["drain", "app", &pair.well.label(), "--force"], "");
    assert!(
        last.contains("100.00000000 % of the keys have no peer now"),
        "{last}"
    );
}

#[test]
fn drain_of_an_unknown_peer_is_an_error() {
    let pair = ProbedOrigins::with(|site| site);
    assert_eq!(
        pair.edge
            .admin
            .post("/v1/upstreams/app/peers/nobody/drain")
            .status,
        404
    );
    assert_eq!(
        pair.edge
            .admin
            .post("/v1/upstreams/nothing/peers/nobody/drain")
            .status,
        404
    );
    let arguments = ["drain", "app", "nobody", "--control", "control.sock"];
    let output = run(pair.edge.directory(), &arguments, "");
    assert_eq!(output.status.code(), Some(4), "{output:?}");
}
