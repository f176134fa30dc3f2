//! Certificate files over time: expiry, renewal, revocation. Errors are reported while connections continue.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::origin::Origin;
use crate::support::tls::{Authority, ask, connect, fed};
use crate::support::wait;

const EXPIRY: &str = "clockwise_certificate_expiry_time_seconds";
const STAPLED: &str = "clockwise_certificate_stapled";
const SILENT: &str = "OCSP response: no response sent";

#[test]
fn ocsp_response_is_stapled_while_valid() {
    let origin = Origin::start();
    let authority = Authority::new();
    let tls = stapled(&authority);
    // Long enough for a machine with other things to do, and the rest of this test does not wait for it.
    authority.vouch("a", (hours(-1), now() + SignedDuration::from_secs(12)));
    let edge = site(&origin, &tls).start();
    let text = authority.s_client("a.test", edge.address, &["-status"]);
    assert!(text.contains("Cert Status: good"), "{text}");
    assert_eq!(edge.admin.metric(STAPLED, &[]), 1);
    assert!(!edge.stderr().contains("OCSP"), "{}", edge.stderr());
    wait::until("its time to be over", || {
        let text = authority.s_client("a.test", edge.address, &["-status"]);
        text.contains(SILENT)
    });
    assert_eq!(edge.admin.metric(STAPLED, &[]), 0);
    wait::until("the warning about the OCSP response", || {
        edge.stderr().contains("the OCSP response is not stapled")
    });
    assert!(edge.cli(&["status"], "").contains("a.ocsp: the OCSP"));
}

#[test]
fn ocsp_test_response_is_accepted_by_openssl() {
    let authority = Authority::new();
    stapled(&authority);
    authority.vouch("a", (hours(-1), hours(1)));
    let file = |name: &str| authority.path(name).display().to_string();
    let mut command = Command::new("openssl");
    command.args(["ocsp", "-no_nonce", "-respin", &file("a.ocsp")]);
    command.args(["-issuer", &file("ca.crt"), "-cert", &file("a.crt")]);
    let text = fed(command.args(["-CAfile", &file("ca.crt")]), b"");
    assert!(text.contains("Response verify OK"), "{text}");
    assert!(text.contains("a.crt: good"), "{text}");
}

#[test]
fn file_watch_loads_the_ocsp_response_of_a_renewed_certificate() {
    let origin = Origin::start();
    let authority = Authority::new();
    let tls = stapled(&authority);
    authority.vouch("a", (hours(-1), hours(1)));
    let edge = watching(&origin, &tls);
    authority.issue("a", &["a.test"]);
    let status = || authority.s_client("a.test", edge.address, &["-status"]);
    // It is about the one before.
    wait::until("the new certificate", || status().contains(SILENT));
    authority.vouch("a", (hours(-1), hours(1)));
    wait::until("its response", || status().contains("Cert Status: good"));
}

#[test]
fn certificate_near_expiry_is_reported_and_still_served() {
    let origin = Origin::start();
    let authority = Authority::new();
    let end = hours(24 * 3);
    let tls = authority.issue_for("a", &["a.test"], (hours(-24 * 87), end));
    let edge = site(&origin, &tls).start();
    authority.curl("a.test", edge.address, &[]);
    assert_reported(&edge, "warn", "the certificate expires on");
    let label = format!("certificate=\"{}\"", authority.path("a.crt").display());
    let seconds = edge.admin.metric(EXPIRY, &[&label]);
    assert_eq!(i64::try_from(seconds), Ok(end.as_second()));
    authority.issue_for("a", &["a.test"], (hours(-48), hours(-24)));
    assert!(edge.command(&["reload"]).status.success());
    authority.curl("a.test", edge.address, &["--insecure"]);
    assert_reported(&edge, "error", "the certificate expired on");
    authority.issue("a", &["a.test"]);
    assert!(edge.command(&["reload"]).status.success());
    let status = edge.admin.get("/v1/status").json();
    assert_eq!(status["certificates"]["count"], 1);
    assert_eq!(status["certificates"]["warnings"], Value::Array(Vec::new()));
}

#[test]
fn certificate_metric_is_removed_when_no_longer_served() {
    let origin = Origin::start();
    let authority = Authority::new();
    let edge = site(&origin, &authority.issue("a", &["a.test"])).start();
    let shown = |file: &str| {
        let metrics = edge.admin.get("/metrics").text();
        metrics.contains(EXPIRY) && metrics.contains(&format!("/{file}.crt\""))
    };
    assert!(shown("a"));
    edge.rewrite(&site(&origin, &authority.issue("b", &["b.test"])).yaml());
    assert!(edge.command(&["reload"]).status.success());
    assert!(shown("b") && !shown("a"));
}

#[test]
fn file_watch_loads_a_new_certificate() {
    let origin = Origin::start();
    let authority = Authority::new();
    let edge = watching(&origin, &authority.issue("a", &["a.test"]));
    authority.curl("a.test", edge.address, &[]);
    // The key before its certificate: what lies there in between is no pair, and is not used.
    authority.issue("a", &["b.test"]);
    wait_for(&authority, &edge, "b.test");
}

#[test]
fn file_watch_follows_symlinks() {
    let origin = Origin::start();
    let authority = Authority::new();
    authority.issue("one", &["a.test"]);
    authority.issue("two", &["b.test"]);
    let turn = |to: &str| {
        for kind in ["key", "crt"] {
            symlink(format!("{to}.{kind}"), authority.path("link")).unwrap();
            fs::rename(authority.path("link"), authority.path(&format!("a.{kind}"))).unwrap();
        }
    };
    turn("one");
    let edge = watching(&origin, &authority.yaml("a"));
    authority.curl("a.test", edge.address, &[]);
    turn("two");
    wait_for(&authority, &edge, "b.test");
}

#[test]
fn file_watch_with_a_bad_file_keeps_the_old_one_and_reports() {
    let origin = Origin::start();
    let authority = Authority::new();
    let edge = watching(&origin, &authority.issue("a", &["a.test"]));
    authority.replace("a.crt", "-----BEGIN CERTIFICATE-----\n!");
    wait::until("it to be said", || {
        edge.stderr()
            .contains("a.crt`: the file cannot be parsed as PEM")
    });
    authority.curl("a.test", edge.address, &[]);
    authority.issue("a", &["b.test"]);
    wait_for(&authority, &edge, "b.test");
}

#[test]
fn file_watch_loads_a_file_that_was_missing() {
    let origin = Origin::start();
    let authority = Authority::new();
    let edge = watching(&origin, &authority.issue("a", &["a.test"]));
    fs::remove_file(authority.path("a.key")).unwrap();
    assert!(!edge.command(&["reload"]).status.success());
    authority.curl("a.test", edge.address, &[]);
    authority.issue("a", &["b.test"]);
    wait_for(&authority, &edge, "b.test");
}

#[test]
fn file_watch_loads_new_crl_and_client_ca() {
    let origin = Origin::start();
    let (authority, clients, others) = (Authority::new(), Authority::new(), Authority::new());
    clients.revoke(&[]);
    let serial = clients.issue_numbered("device", 77);
    others.issue("other", &["other.test"]);
    let files = ["ca.crt", "clients.crl"].map(|file| clients.path(file).display().to_string());
    let [ca, crl] = files;
    let auth = format!(", client_auth: {{mode: required, ca: {ca}, crl: {crl}}}}}");
    let tls = authority.issue("a", &["a.test"]).replace('}', &auth);
    let edge = watching(&origin, &tls);
    let is_let_in = |file: &str, issuer: &Authority| {
        let config = Arc::new(authority.client_with(file, issuer));
        let asked = connect(&config, "a.test", edge.address);
        asked
            .and_then(|mut session| ask(&mut session, "a.test"))
            .is_ok()
    };
    assert!(is_let_in("device", &clients));
    assert!(!is_let_in("other", &others));
    clients.revoke(&[serial]);
    wait::until("it to be revoked", || !is_let_in("device", &clients));
    others.revoke(&[]);
    for file in ["clients.crl", "ca.crt"] {
        clients.replace(file, fs::read(others.path(file)).unwrap());
    }
    wait::until("the other issuer", || is_let_in("other", &others));
}

/// Asserts that the log, `status` and the admin API report a warning.
fn assert_reported(edge: &Edge, level: &str, text: &str) {
    let is_reported = |line: &str| line.contains(level) && line.contains(text);
    wait::until("the warning in the log", || {
        edge.stderr().lines().any(is_reported)
    });
    let status = edge.cli(&["status"], "");
    assert!(status.contains(text), "{status}");
    let status = edge.admin.get("/v1/status").json();
    let warning = &status["certificates"]["warnings"][0];
    assert!(
        warning["warning"].as_str().unwrap().starts_with(text),
        "{warning}"
    );
    assert!(
        warning["file"].as_str().unwrap().ends_with("/a.crt"),
        "{warning}"
    );
}

fn wait_for(authority: &Authority, edge: &Edge, name: &str) {
    wait::until("the new certificate", || {
        let answer = authority.try_curl(name, edge.address, &[]);
        answer.status.success()
    });
}

/// The YAML of a certificate for `a.test` with an OCSP response.
fn stapled(authority: &Authority) -> String {
    let ocsp = format!(", ocsp: {}}}", authority.path("a.ocsp").display());
    authority.issue("a", &["a.test"]).replace('}', &ocsp)
}

fn watching(origin: &Origin, tls: &str) -> Edge {
    site(origin, tls).top("watch", "100ms").start()
}

fn site(origin: &Origin, tls: &str) -> ConfigBuilder {
    let listener = format!("[{{address: \"127.0.0.1:0\", tls: {tls}}}]");
    ConfigBuilder::of([origin.label()]).top("listeners", &listener)
}

fn hours(hours: i64) -> Timestamp {
    now() + SignedDuration::from_hours(hours)
}

fn now() -> Timestamp {
    Timestamp::now()
}
