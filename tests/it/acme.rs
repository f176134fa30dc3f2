//! Certificates from an ACME authority: ordered from a real one, renewed, kept, revoked.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustls::ClientConfig;
use serde_json::Value;

use crate::support::client::Request;
use crate::support::edge::{ConfigBuilder, Edge, run};
use crate::support::origin::Origin;
use crate::support::pebble::{ACCOUNT_KEY, Options, Pebble, shown};
use crate::support::tls::{ask, connect};
use crate::support::{client, wait};

const FAILURES: &str = "clockwise_listener_handshake_failures_total";
const ORDERS: &str = "clockwise_acme_orders_total";
const TLS_ALPN: &str = ", challenge: tls-alpn-01";

#[test]
fn acme_http01_first_certificate_is_served_without_restart() {
    let origin = Origin::start();
    let pebble = Pebble::start();
    // Nowhere to look: the first order cannot have come to its end yet when the handshake is refused.
    pebble.point("a.test", "127.0.0.9");
    let edge = pebble
        .site(
            ConfigBuilder::of([origin.address]),
            "{acme: [a.test, www.a.test]}",
            "",
        )
        .start();
    let client = pebble.client();
    connect(&client, "a.test", pebble.tls).unwrap_err();
    edge.admin
        .wait_for_metric(FAILURES, &["reason=\"no_certificate\""], 1);
    edge.admin
        .wait_for_metric(ORDERS, &["result=\"failed\""], 1);
    pebble.point_home("a.test");
    order(&edge, "renew", "a.test");
    let mut session = connect(&client, "a.test", pebble.tls).unwrap();
    assert!(
        ask(&mut session, "a.test")
            .unwrap()
            .starts_with("HTTP/1.1 200")
    );
    connect(&client, "www.a.test", pebble.tls).unwrap();
    let status = edge.admin.get("/v1/status").json()["certificates"].clone();
    assert_eq!(status["count"], 1);
    let one = &status["ordered"][0];
    assert_eq!(one["names"], serde_json::json!(["a.test", "www.a.test"]));
    assert!(
        one["issuer"].as_str().unwrap().starts_with("Pebble"),
        "{one}"
    );
    assert_eq!((&one["error"], &one["failures"]), (&Value::Null, &0.into()));
    assert!(
        one["next_order"].as_str() < one["valid_until"].as_str(),
        "{one}"
    );
    let text = String::from_utf8(edge.command(&["status"]).stdout).unwrap();
    assert!(
        text.contains("acme            a.test: issuer Pebble"),
        "{text}"
    );
    edge.admin
        .wait_for_metric(ORDERS, &["certificate=\"a.test\"", "result=\"ok\""], 1);
}

#[test]
fn acme_tls_alpn01_works_without_an_http_listener() {
    let origin = Origin::start();
    let pebble = Pebble::with(Options {
        // Three in a row end an order, of which there are about fifteen requests: one order in twenty
        // is tried again, after 5 s.
        bad_nonces: 15,
        ..Options::default()
    });
    let listeners = format!(
        "[{{address: \"{}\", tls: {{acme: [b.test, c.test]}}}}]",
        pebble.tls
    );
    let site = ConfigBuilder::of([origin.address]).top("listeners", &listeners);
    let edge = site
        .top("acme", &pebble.acme(&format!("{TLS_ALPN}, key_type: p384")))
        .start();
    let client = pebble.client();
    let mut session = pebble.wait_for(&client, "c.test");
    assert!(
        ask(&mut session, "c.test")
            .unwrap()
            .starts_with("HTTP/1.1 200")
    );
    edge.admin
        .wait_for_metric(FAILURES, &["reason=\"acme_challenge\""], 2);
    // Without a validation in progress there is no such certificate.
    let output = Command::new("openssl")
        .args(["s_client", "-connect", &pebble.tls.to_string()])
        .args(["-servername", "b.test", "-alpn", "acme-tls/1"])
        .output();
    let output = output.unwrap();
    assert!(!output.status.success(), "{output:?}");
}

#[test]
fn acme_http01_answers_only_ordered_tokens() {
    let origin = Origin::start();
    let pebble = Pebble::start();
    let listeners = format!("[{{address: \"{}\"}}]", pebble.http);
    let edge = ConfigBuilder::of([origin.address])
        .top("listeners", &listeners)
        .start();
    let request = Request::get("/.well-known/acme-challenge/of-the-peer?k=a");
    let answer = client::send(edge.address, &request);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(
        answer.json()["target"],
        "/.well-known/acme-challenge/of-the-peer?k=a"
    );
}

#[test]
fn acme_renewal_serves_the_new_certificate_and_drops_no_connection() {
    let origin = Origin::start();
    let pebble = Pebble::start();
    let site = ConfigBuilder::of([origin.address]).downstream("{keepalive: 10m}");
    let edge = pebble.site(site, "{acme: a.test}", "").start();
    let client = pebble.client();
    let mut before = pebble.wait_for(&client, "a.test");
    let (asking, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
    let visitors = [(); 2].map(|()| visit(&pebble, &client, &asking, &asked));
    for _ in 0..3 {
        let had = asked.load(Ordering::SeqCst);
        order(&edge, "renew", "a.test");
        wait::until("visitors to come", || {
            asked.load(Ordering::SeqCst) > had + 4
        });
    }
    asking.store(false, Ordering::SeqCst);
    for visitor in visitors {
        visitor.join().unwrap();
    }
    let after = connect(&client, "a.test", pebble.tls).unwrap();
    assert_ne!(shown(&before), shown(&after));
    assert!(
        ask(&mut before, "a.test")
            .unwrap()
            .starts_with("HTTP/1.1 200")
    );
    assert!(!pebble.has_revoked(&shown(&before)));
}

/// Sends requests repeatedly, and expects a response each time.
fn visit(
    pebble: &Pebble,
    client: &Arc<ClientConfig>,
    asking: &Arc<AtomicBool>,
    asked: &Arc<AtomicU32>,
) -> thread::JoinHandle<()> {
    let (tls, client) = (pebble.tls, Arc::clone(client));
    let (asking, asked) = (Arc::clone(asking), Arc::clone(asked));
    thread::spawn(move || {
        while asking.load(Ordering::SeqCst) {
            let mut session = connect(&client, "a.test", tls).unwrap();
            assert!(
                ask(&mut session, "a.test")
                    .unwrap()
                    .starts_with("HTTP/1.1 200")
            );
            asked.fetch_add(1, Ordering::SeqCst);
        }
    })
}

#[test]
fn acme_short_lived_certificate_is_renewed_in_time() {
    /// Long enough that a busy machine renews between two thirds of it and its end; seconds.
    const LIFE: u32 = 45;
    let origin = Origin::start();
    let pebble = Pebble::with(Options {
        life: Some(LIFE),
        ..Options::default()
    });
    let edge = serving_a(&pebble, &origin);
    let client = pebble.client();
    let first = shown(&pebble.wait_for(&client, "a.test"));
    wait::until_due(
        Duration::from_secs(LIFE.into()),
        "another certificate",
        || {
            // Clients get a valid certificate meanwhile.
            shown(&connect(&client, "a.test", pebble.tls).unwrap()) != first
        },
    );
    edge.admin.wait_for_metric(ORDERS, &["result=\"ok\""], 2);
}

#[test]
fn acme_renewal_follows_the_ari_window() {
    let origin = Origin::start();
    let pebble = Pebble::with(Options {
        life: Some(60),
        ..Options::default()
    });
    let directory = pebble.suggest("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z");
    let acme = pebble.acme("");
    let own = acme.split('"').nth(1).unwrap();
    let acme = acme.replace(own, &format!("https://{directory}/dir"));
    let site = pebble.site(ConfigBuilder::of([origin.address]), "{acme: a.test}", "");
    let edge = site.top("acme", &acme).start();
    // By itself it would be renewed after more than half a minute.
    edge.admin.wait_for_metric(ORDERS, &["result=\"ok\""], 2);
    assert_eq!(edge.admin.metric(ORDERS, &["result=\"failed\""]), 0);
}

#[test]
fn acme_revoke_orders_a_new_certificate_first() {
    let origin = Origin::start();
    let pebble = Pebble::start();
    let edge = serving_a(&pebble, &origin);
    let client = pebble.client();
    let before = shown(&pebble.wait_for(&client, "a.test"));
    order(&edge, "revoke", "a.test");
    let after = shown(&connect(&client, "a.test", pebble.tls).unwrap());
    assert_ne!(before, after);
    assert!(pebble.has_revoked(&before) && !pebble.has_revoked(&after));
    let output = edge.command(&["certificate", "renew", "nobody.test"]);
    assert_eq!(output.status.code(), Some(4), "{output:?}");
}

#[test]
fn acme_failed_order_is_reported_and_retried() {
    let origin = Origin::start();
    let pebble = Pebble::start();
    pebble.point("b.test", "127.0.0.9");
    let list = "{certificates: [{acme: a.test}, {acme: b.test}]}";
    let edge = pebble
        .site(ConfigBuilder::of([origin.address]), list, "")
        .start();
    let client = pebble.client();
    // One name that points elsewhere does not affect the others.
    pebble.wait_for(&client, "a.test");
    let status = wait::value("the failure in the status", || {
        let status = certificate(&edge, "b.test");
        (status["failures"] == 1).then_some(status)
    });
    let message = status["error"]["text"].as_str().unwrap();
    assert!(
        message.contains("b.test") && message.contains("127.0.0.9"),
        "{message}"
    );
    edge.wait_for_stderr(message, 1);
    assert!(status["next_order"].as_str() > status["error"]["at"].as_str());
    connect(&client, "b.test", pebble.tls).unwrap_err();
    pebble.point_home("b.test");
    order(&edge, "renew", "b.test");
    connect(&client, "b.test", pebble.tls).unwrap();
    assert_eq!(certificate(&edge, "b.test")["error"], Value::Null);
}

#[test]
fn acme_unreachable_server_is_retried_soon() {
    let origin = Origin::start();
    let mut pebble = Pebble::start();
    pebble.stop();
    let edge = serving_a(&pebble, &origin);
    wait::until("the failure to be told", || {
        certificate(&edge, "a.test")["failures"] != 0
    });
    pebble.resume();
    pebble.wait_for(&pebble.client(), "a.test");
}

#[test]
fn acme_restart_reuses_certificate_and_account() {
    let origin = Origin::start();
    let mut pebble = Pebble::start();
    let mut edge = serving_a(&pebble, &origin);
    let client = pebble.client();
    let before = shown(&pebble.wait_for(&client, "a.test"));
    let account = fs::read(stored(&edge, &pebble, "account.json")).unwrap();
    edge.signal("TERM");
    edge.wait();
    edge.restart();
    // From the first handshake on.
    assert_eq!(
        shown(&connect(&client, "a.test", pebble.tls).unwrap()),
        before
    );
    order(&edge, "renew", "a.test");
    assert_eq!(
        fs::read(stored(&edge, &pebble, "account.json")).unwrap(),
        account
    );
    // An authority that has lost the account is given another.
    pebble.stop();
    pebble.resume();
    order(&edge, "renew", "a.test");
    assert_ne!(
        fs::read(stored(&edge, &pebble, "account.json")).unwrap(),
        account
    );
    connect(&pebble.client(), "a.test", pebble.tls).unwrap();
}

#[test]
fn acme_account_unknown_to_the_authority_is_replaced_once_by_concurrent_orders() {
    let origin = Origin::start();
    let mut pebble = Pebble::start();
    let names = ["a.test", "b.test", "c.test", "d.test"];
    let certificates = names.map(|name| format!("{{acme: {name}}}")).join(", ");
    let list = format!("{{certificates: [{certificates}]}}");
    let edge = pebble
        .site(ConfigBuilder::of([origin.address]), &list, "")
        .start();
    for name in names {
        pebble.wait_for(&pebble.client(), name);
    }
    wait::until("the first orders to end", || {
        names
            .iter()
            .all(|name| certificate(&edge, name)["busy"] == false)
    });
    edge.wait_for_stderr("acme: created account", 1);
    pebble.stop();
    pebble.resume();
    thread::scope(|scope| {
        let edge = &edge;
        for name in names {
            scope.spawn(move || order(edge, "renew", name));
        }
    });
    assert_eq!(edge.stderr().matches("acme: created account").count(), 2);
    let files = all_below(&edge.directory().join("acme"));
    let aside = files
        .iter()
        .filter(|path| path.extension().is_some_and(|ext| ext == "bad"));
    assert_eq!(aside.count(), 1, "{files:?}");
}

#[test]
fn acme_upgrade_reuses_certificate_and_account() {
    let origin = Origin::start();
    let pebble = Pebble::start();
    let site = pebble.site(ConfigBuilder::of([origin.address]), "{acme: a.test}", "");
    let edge = Edge::start_replaceable(&site.yaml());
    let client = pebble.client();
    let before = pebble.wait_for(&client, "a.test");
    let output = edge.command(&["upgrade"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        shown(&connect(&client, "a.test", pebble.tls).unwrap()),
        shown(&before)
    );
    // The old process still has a connection, and orders nothing any more.
    wait::until("the new process to lead", || {
        let output = edge.command(&["certificate", "renew", "a.test"]);
        output.status.success()
    });
    assert_ne!(
        shown(&connect(&client, "a.test", pebble.tls).unwrap()),
        shown(&before)
    );
}

#[test]
fn acme_shared_storage_one_process_orders_and_both_serve() {
    let origin = Origin::start();
    let pebble = Pebble::start();
    let first = serving_a(&pebble, &origin);
    let client = pebble.client();
    let before = shown(&pebble.wait_for(&client, "a.test"));
    let storage = format!("storage: {}", first.directory().join("acme").display());
    let second = ConfigBuilder::of([origin.address])
        .top(
            "listeners",
            "[{address: \"127.0.0.1:0\", tls: {acme: a.test}}]",
        )
        .top(
            "acme",
            &pebble.acme(TLS_ALPN).replace("storage: acme", &storage),
        )
        .start();
    assert_eq!(
        shown(&connect(&client, "a.test", second.address).unwrap()),
        before
    );
    wait::until("it to know that the other orders", || {
        certificate(&second, "a.test")["ordered_elsewhere"] == true
    });
    assert!(
        !second
            .command(&["certificate", "renew", "a.test"])
            .status
            .success()
    );
    order(&first, "renew", "a.test");
    wait::until("the new one to be shown by both", || {
        shown(&connect(&client, "a.test", second.address).unwrap()) != before
    });
}

#[test]
fn acme_challenge_is_answered_by_a_process_that_does_not_order() {
    let origin = Origin::start();
    for challenge in ["http-01", "tls-alpn-01"] {
        let pebble = Pebble::start();
        let storage = tempfile::tempdir().unwrap();
        let acme = pebble.acme(&format!(", challenge: {challenge}"));
        let place = format!("storage: {}", storage.path().join("acme").display());
        let acme = acme.replace("storage: acme", &place);
        let site = |plain: &str, encrypted: &str| {
            let listeners = format!(
                "[{{address: \"{encrypted}\", tls: {{acme: a.test}}}}, {{address: \"{plain}\"}}]"
            );
            let site = ConfigBuilder::of([origin.address]).top("listeners", &listeners);
            site.top("acme", &acme)
        };
        let leader = site("127.0.0.1:0", "127.0.0.1:0").start();
        leader
            .admin
            .wait_for_metric(ORDERS, &["result=\"failed\""], 1);
        let follower = site(&pebble.http.to_string(), &pebble.tls.to_string()).start();
        wait::until("it to know that the other orders", || {
            certificate(&follower, "a.test")["ordered_elsewhere"] == true
        });
        order(&leader, "renew", "a.test");
        pebble.wait_for(&pebble.client(), "a.test");
        let files = all_below(storage.path());
        let answers = files
            .iter()
            .filter(|path| path.parent().unwrap().ends_with("answers"));
        assert_eq!(answers.count(), 0, "{challenge}: {files:?}");
        // A path cannot leave the directory of challenges.
        let request = Request::get("/.well-known/acme-challenge/../account.json?k=a");
        let response = client::send(pebble.http, &request).json();
        assert_eq!(
            response["target"],
            "/.well-known/acme-challenge/../account.json?k=a"
        );
    }
}

#[test]
fn acme_reload_orders_added_names() {
    let origin = Origin::start();
    let pebble = Pebble::start();
    let site = |names: &str| pebble.site(ConfigBuilder::of([origin.address]), names, "");
    let edge = site("{acme: a.test}").start();
    let client = pebble.client();
    pebble.wait_for(&client, "a.test");
    edge.rewrite(&site("{certificates: [{acme: [a.test, b.test]}, {acme: c.test}]}").yaml());
    assert!(edge.command(&["reload"]).status.success());
    // Until the new one is there, the one before is shown.
    connect(&client, "a.test", pebble.tls).unwrap();
    pebble.wait_for(&client, "b.test");
    pebble.wait_for(&client, "c.test");
    edge.rewrite(&site("{acme: c.test}").yaml());
    assert!(edge.command(&["reload"]).status.success());
    wait::until("the others to be forgotten", || {
        let status = edge.admin.get("/v1/status").json();
        status["certificates"]["ordered"].as_array().unwrap().len() == 1
    });
}

#[test]
fn acme_external_account_binding_is_required_and_used() {
    let origin = Origin::start();
    let pebble = Pebble::with(Options {
        closed: true,
        ..Options::default()
    });
    let site =
        |more: &str| pebble.site(ConfigBuilder::of([origin.address]), "{acme: a.test}", more);
    let edge = site("").start();
    let message = wait::value("the failure in the status", || {
        let status = certificate(&edge, "a.test");
        status["error"]["text"].as_str().map(str::to_owned)
    });
    assert!(message.contains("externalAccountRequired"), "{message}");
    let key = pebble.path("eab.key");
    fs::write(&key, format!("{ACCOUNT_KEY}\n")).unwrap();
    fs::set_permissions(&key, Permissions::from_mode(0o600)).unwrap();
    let account = format!(
        ", external_account: {{id: kid-1, hmac_key_file: {}}}",
        key.display()
    );
    edge.rewrite(&site(&account).yaml());
    assert!(edge.command(&["reload"]).status.success());
    order(&edge, "renew", "a.test");
    connect(&pebble.client(), "a.test", pebble.tls).unwrap();
}

#[test]
fn acme_storage_files_are_readable_by_the_owner_only() {
    let origin = Origin::start();
    let pebble = Pebble::start();
    let mut edge = serving_a(&pebble, &origin);
    pebble.wait_for(&pebble.client(), "a.test");
    edge.signal("TERM");
    edge.wait();
    let folder = edge.directory().join("acme");
    for path in all_below(&folder) {
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{}", path.display());
    }
    fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
    let pem = stored(&edge, &pebble, "a.test.pem");
    fs::set_permissions(&pem, Permissions::from_mode(0o644)).unwrap();
    edge.restart();
    wait::until("the permissions to be corrected, and the warnings", || {
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        let text = edge.stderr();
        mode(&folder) == 0o700
            && mode(&pem) == 0o600
            && text.matches("other users had access to").count() == 2
    });
}

#[test]
fn acme_corrupt_storage_file_is_moved_aside_and_reordered() {
    let origin = Origin::start();
    let pebble = Pebble::start();
    let mut edge = serving_a(&pebble, &origin);
    let client = pebble.client();
    let before = shown(&pebble.wait_for(&client, "a.test"));
    edge.signal("TERM");
    edge.wait();
    for file in ["a.test.pem", "a.test.json", "account.json"] {
        let path = stored(&edge, &pebble, file);
        let text = fs::read(&path).unwrap();
        fs::write(&path, &text[..text.len() / 2]).unwrap();
    }
    edge.restart();
    assert_ne!(shown(&pebble.wait_for(&client, "a.test")), before);
    let files = all_below(&edge.directory().join("acme"));
    let aside = files
        .iter()
        .filter(|path| path.extension().is_some_and(|ext| ext == "bad"));
    assert_eq!(aside.count(), 3, "{files:?}");
    edge.wait_for_stderr("cannot be used", 3);
}

#[test]
fn acme_storage_that_is_not_writable_prevents_the_order() {
    let origin = Origin::start();
    let pebble = Pebble::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "no directory").unwrap();
    let storage = format!("storage: {}/acme", file.display());
    let acme = pebble.acme("").replace("storage: acme", &storage);
    let site = pebble.site(ConfigBuilder::of([origin.address]), "{acme: a.test}", "");
    let edge = site.top("acme", &acme).start();
    let message = wait::value("the failure in the status", || {
        let status = certificate(&edge, "a.test");
        status["error"]["text"].as_str().map(str::to_owned)
    });
    assert!(message.contains(&file.display().to_string()), "{message}");
    let output = edge.command(&["certificate", "renew", "a.test"]);
    assert!(!output.status.success(), "{output:?}");
    // It serves all the same.
    let answer = client::send(pebble.http, &Request::get("/?k=a"));
    assert_eq!(answer.status, 308);
    assert_eq!(edge.admin.metric(ORDERS, &[]), 0);
}

#[test]
fn acme_unreadable_certificate_is_neither_replaced_nor_ordered_until_it_is_readable() {
    let origin = Origin::start();
    let pebble = Pebble::start();
    let directory = tempfile::tempdir().unwrap();
    let unreadable = directory.path().join(pebble.folder()).join("b.test.pem");
    // Root may read every file, but no directory.
    fs::create_dir_all(&unreadable).unwrap();
    let storage = format!("storage: {}", directory.path().display());
    let acme = pebble.acme("").replace("storage: acme", &storage);
    let names = "{certificates: [{acme: a.test}, {acme: b.test}]}";
    let site = pebble.site(ConfigBuilder::of([origin.address]), names, "");
    let edge = site.top("acme", &acme).start();
    let client = pebble.client();
    pebble.wait_for(&client, "a.test");
    let path = unreadable.display().to_string();
    let message = wait::value("the failure in the status", || {
        let status = certificate(&edge, "b.test");
        status["error"]["text"].as_str().map(str::to_owned)
    });
    assert!(
        message.contains(&path) && message.contains("move it away"),
        "{message}"
    );
    edge.wait_for_stderr(&message, 2); // at the start and by the task that orders
    let failures = "clockwise_acme_failures";
    assert!(edge.admin.metric(failures, &["certificate=\"b.test\""]) > 0);
    let output = edge.command(&["certificate", "renew", "b.test"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(&path), "{said}");
    assert_eq!(edge.admin.metric(ORDERS, &["certificate=\"b.test\""]), 0);
    fs::remove_dir(&unreadable).unwrap();
    pebble.wait_for(&client, "b.test");
    assert_eq!(certificate(&edge, "b.test")["error"], Value::Null);
}

#[test]
fn acme_check_contacts_no_server() {
    let directory = tempfile::tempdir().unwrap();
    let yaml = "acme: {directory: \"https://127.0.0.1:1/dir\", storage: nowhere}\n\
                listeners: [{address: 127.0.0.1:80}, {address: 127.0.0.1:443, tls: {acme: a.test}}]\n\
                routes: [{upstream: app}]\nupstreams: {app: {peers: [127.0.0.1:9001]}}\n";
    fs::write(directory.path().join("c.yaml"), yaml).unwrap();
    let output = run(directory.path(), &["check", "-c", "c.yaml"], "");
    assert!(output.status.success(), "{output:?}");
    assert!(!directory.path().join("nowhere").exists());
}

/// An instance that orders a certificate for `a.test`.
fn serving_a(pebble: &Pebble, origin: &Origin) -> Edge {
    pebble
        .site(ConfigBuilder::of([origin.address]), "{acme: a.test}", "")
        .start()
}

/// Has a certificate ordered, and sees that it is.
#[track_caller]
fn order(edge: &Edge, what: &str, name: &str) {
    let output = edge.command(&["certificate", what, name]);
    assert!(output.status.success(), "{output:?}\n{}", edge.stderr());
}

/// What the status says of a certificate.
fn certificate(edge: &Edge, name: &str) -> Value {
    let status = edge.admin.get("/v1/status").json();
    let ordered = status["certificates"]["ordered"].as_array().unwrap();
    let one = ordered.iter().find(|one| one["name"] == name);
    one.cloned().unwrap_or_default()
}

fn stored(edge: &Edge, pebble: &Pebble, file: &str) -> PathBuf {
    edge.directory()
        .join("acme")
        .join(pebble.folder())
        .join(file)
}

/// A directory, and all that is in it.
fn all_below(path: &Path) -> Vec<PathBuf> {
    let mut all = vec![path.to_owned()];
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap();
        all.extend(entries.flat_map(|entry| all_below(&entry.unwrap().path())));
    }
    all
}
