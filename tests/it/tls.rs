//! TLS with clients: real clients, rejected ones, and certificates that change at run time.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use jiff::{Timestamp, ToSpan as _};
use rustls::ClientConfig;
use rustls::version::{TLS12, TLS13};
use serde_json::Value;

use crate::support::browser;
use crate::support::client::{Connection, Request};
use crate::support::edge::{ConfigBuilder, Edge, run};
use crate::support::origin::{Behaviour, Origin};
use crate::support::tls::{Authority, Session, ask, ask_for, connect, fed};
use crate::support::{port, wait};

const FAILURES: &str = "clockwise_listener_handshake_failures_total";
const HANDSHAKES: &str = "clockwise_listener_handshakes_total";

#[test]
fn tls_curl_is_served_and_the_peer_sees_https() {
    let origin = Origin::start();
    let authority = Authority::new();
    let site = site(&origin, &authority.issue("a", &["a.test"]));
    let site = site.top("forwarding", "{forwarded: true}");
    let edge = site.top("access_log", "{path: access.log}").start();
    let answer: Value = serde_json::from_str(&authority.curl("a.test", edge.address, &[])).unwrap();
    let headers = answer["headers"].to_string().to_ascii_lowercase();
    assert!(
        headers.contains(r#"["x-forwarded-proto","https"]"#),
        "{headers}"
    );
    assert!(headers.contains("proto=https"), "{headers}");
    let line = &edge.log_lines(1)[0];
    assert_eq!(line["tls"]["version"], "1.3", "{line}");
    assert_eq!(line["tls"]["sni"], "a.test");
    assert_eq!(line["tls"]["resumed"], false);
    assert!(
        line["tls"]["cipher"]
            .as_str()
            .unwrap()
            .starts_with("TLS13_")
    );
    edge.admin
        .wait_for_metric(HANDSHAKES, &["kind=\"full\""], 1);
}

#[test]
fn tls_browser_shows_the_page() {
    let (_origin, authority, edge) = scene();
    let page = format!("https://a.test:{}/?k=a", edge.address.port());
    let shown = browser::show(&page, &authority.key_digest("a"));
    let echoed = shown.to_ascii_lowercase();
    assert!(echoed.contains("sec-ch-ua"), "{shown}");
    assert!(
        echoed.contains(r#"["x-forwarded-proto","https"]"#),
        "{shown}"
    );
}

#[test]
fn tls_certificate_is_selected_by_sni() {
    let origin = Origin::start();
    let authority = Authority::new();
    let list = [
        authority.issue("default", &["default.test"]),
        authority.issue("wild", &["*.example.test"]),
        authority.issue("exact", &["www.example.test"]),
    ];
    let edge = site(&origin, &format!("{{certificates: [{}]}}", list.join(", "))).start();
    for (name, shown) in [
        ("default.test", "default"),
        ("a.example.test", "wild"),
        ("WWW.example.test", "exact"),
    ] {
        authority.curl(name, edge.address, &[]);
        let text = authority.s_client(name, edge.address, &[]);
        assert!(text.contains(&format!("subject=CN = {shown}\n")), "{text}");
    }
    let text = authority.s_client("other.test", edge.address, &[]);
    assert!(text.contains("subject=CN = default\n"), "{text}");
    let output = authority.try_curl("other.test", edge.address, &[]);
    assert_eq!(
        output.status.code(),
        Some(60),
        "curl must not trust it: {output:?}"
    );
}

#[test]
fn tls_old_versions_need_configuration() {
    let origin = Origin::start();
    let authority = Authority::new();
    let pair = authority.issue("a", &["a.test"]);
    let old = site(&origin, &pair).start();
    let text = authority.s_client("a.test", old.address, &["-tls1_2"]);
    assert!(
        text.contains("Protocol  : TLSv1.2") && text.contains("HTTP/1.1 200"),
        "{text}"
    );
    let with = |more: &str| pair.replace('}', &format!(", {more}}}"));
    let new = site(&origin, &with("min_version: 1.3")).start();
    let text = authority.s_client("a.test", new.address, &["-tls1_2"]);
    assert!(text.contains("alert protocol version"), "{text}");
    new.admin
        .wait_for_metric(FAILURES, &["reason=\"incompatible\""], 1);
    assert!(
        authority
            .s_client("a.test", new.address, &[])
            .contains("HTTP/1.1 200")
    );
}

#[test]
fn tls_alpn_selects_the_protocol() {
    let (_origin, authority, edge) = scene();
    for (offered, spoken) in [("http/1.1,h2", "h2"), ("http/1.1", "http/1.1")] {
        let text = authority.s_client("a.test", edge.address, &["-alpn", offered]);
        let agreed = format!("ALPN protocol: {spoken}\n");
        assert!(text.contains(&agreed), "{text}");
    }
    let text = authority.s_client("a.test", edge.address, &["-alpn", "smtp"]);
    assert!(text.contains("alert no application protocol"), "{text}");
    edge.admin
        .wait_for_metric(FAILURES, &["reason=\"protocol\""], 1);
}

#[test]
fn tls_handshake_that_is_slow_does_not_block_others() {
    let origin = Origin::start();
    let authority = Authority::new();
    let pair = authority.issue("a", &["a.test"]);
    let slow = pair.replace('}', ", handshake_timeout: 1s}");
    let edge = site(&origin, &slow).start();
    let mut silent = Connection::open(edge.address);
    let mut half = Connection::open(edge.address);
    half.send([22, 3, 1, 2, 0, 1]).unwrap();
    authority.curl("a.test", edge.address, &[]);
    wait::assert_about(silent.time_to_close(), Duration::from_secs(1));
    half.time_to_close();
    edge.admin
        .wait_for_metric(FAILURES, &["reason=\"timeout\""], 2);
    wait::until("all connections to be closed", || {
        edge.admin.get("/v1/status").json()["connections"] == 0
    });
}

#[test]
fn tls_input_that_is_no_handshake_is_counted_and_not_logged() {
    let (_origin, _authority, edge) = scene();
    let mut plain = Connection::open(edge.address);
    plain.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
    plain.time_to_close();
    drop(Connection::open(edge.address));
    let stranger = Arc::new(Authority::new().client());
    connect(&stranger, "a.test", edge.address).unwrap_err();
    for reason in ["not_tls", "closed", "refused"] {
        let label = format!("reason=\"{reason}\"");
        edge.admin.wait_for_metric(FAILURES, &[&label], 1);
    }
    assert!(!edge.stderr().contains(" warn "), "{}", edge.stderr());
}

#[test]
fn tls_close_notify_is_sent_at_the_end_of_a_response() {
    let (_origin, authority, edge) = scene();
    // Python's `ssl` distinguishes an end without `close_notify` from one with it.
    let script = format!(
        "import socket, ssl\n\
         context = ssl.create_default_context(cafile='{}')\n\
         raw = socket.create_connection(('127.0.0.1', {}), 20)\n\
         tls = context.wrap_socket(raw, server_hostname='a.test', suppress_ragged_eofs=False)\n\
         tls.sendall(b'GET /?k=a HTTP/1.1\\r\\nHost: a.test\\r\\nConnection: close\\r\\n\\r\\n')\n\
         text = b''\n\
         while piece := tls.recv(65536): text += piece\n\
         print(text.split(b'\\r\\n')[0].decode(), tls.version())\n",
        authority.path("ca.crt").display(),
        edge.address.port(),
    );
    let output = fed(&mut Command::new("python3"), script.as_bytes());
    assert_eq!(output, "HTTP/1.1 200 OK TLSv1.3\n");
}

#[test]
fn tls_large_bodies_are_forwarded_both_ways() {
    let origin = Origin::behaving(Behaviour::Body(9_000_001));
    let authority = Authority::new();
    let edge = site(&origin, &authority.issue("a", &["a.test"])).start();
    let body = authority.curl("a.test", edge.address, &[]);
    assert_eq!(body.len(), 9_000_001);
    origin.behave(Behaviour::Echo);
    let upload = authority.path("upload");
    fs::write(&upload, vec![b'x'; 3_000_001]).unwrap();
    let data = format!("@{}", upload.display());
    let echoed = authority.curl("a.test", edge.address, &["--data-binary", &data]);
    let echoed: Value = serde_json::from_str(&echoed).unwrap();
    assert_eq!(echoed["length"], 3_000_001);
}

#[test]
fn tls_client_that_does_not_read_times_out_and_a_slow_one_does_not() {
    let origin = Origin::behaving(Behaviour::Body(40 << 20));
    let authority = Authority::new();
    let pair = authority.issue("a", &["a.test"]);
    let edge = site(&origin, &pair)
        .downstream("{write_timeout: 1s}")
        .start();
    let config = Arc::new(authority.client());
    let mut stalls = open(&authority, &edge);
    stalls
        .write_all(b"GET /?k=a HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .unwrap();
    edge.admin
        .wait_for_metric("clockwise_faults_total", &["fault=\"client_stalled\""], 1);
    let mut slow = connect(&config, "a.test", edge.address).unwrap();
    slow.write_all(b"GET /?k=a HTTP/1.1\r\nHost: a.test\r\n\r\n")
        .unwrap();
    let mut piece = vec![0; 1 << 20];
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(150)); // each of them below the limit, all of them above
        slow.read_exact(&mut piece).expect("more of the body");
    }
}

#[test]
fn tls_idle_connection_ends_with_close_notify() {
    let origin = Origin::start();
    let authority = Authority::new();
    let pair = authority.issue("a", &["a.test"]);
    let edge = site(&origin, &pair)
        .downstream("{keepalive: 500ms}")
        .start();
    let mut session = open(&authority, &edge);
    ask(&mut session, "a.test").unwrap();
    let end = session.read(&mut [0]).map_err(|error| error.kind());
    assert_eq!(end, Ok(0), "`close_notify` before the end");
}

#[test]
fn tls_sessions_are_resumed_across_reloads() {
    let (_origin, authority, edge) = scene();
    for version in ["-tls1_2", "-tls1_3"] {
        let saved = authority.path("session");
        let saved = saved.to_str().unwrap();
        let first = authority.s_client("a.test", edge.address, &[version, "-sess_out", saved]);
        assert!(first.contains("New, TLSv1."), "{first}");
        assert!(edge.command(&["reload"]).status.success());
        let again = authority.s_client("a.test", edge.address, &[version, "-sess_in", saved]);
        assert!(again.contains("Reused, TLSv1."), "{again}");
        assert!(again.contains("HTTP/1.1 200"), "{again}");
    }
    edge.admin
        .wait_for_metric(HANDSHAKES, &["kind=\"resumed\""], 2);
}

#[test]
fn tls_reload_reads_new_certificates_and_keeps_connections() {
    let (_origin, authority, edge) = scene();
    let mut session = open(&authority, &edge);
    ask(&mut session, "a.test").unwrap();
    authority.issue("a", &["b.test"]);
    assert!(edge.command(&["reload"]).status.success());
    authority.curl("b.test", edge.address, &[]);
    assert!(
        !authority
            .try_curl("a.test", edge.address, &[])
            .status
            .success()
    );
    assert!(
        ask(&mut session, "a.test")
            .unwrap()
            .starts_with("HTTP/1.1 200")
    );
}

#[test]
fn tls_reload_with_a_bad_file_keeps_the_old_certificate() {
    let (_origin, authority, edge) = scene();
    for (file, bad, said) in [
        (
            "key",
            "other.key",
            "the private key does not match the certificate",
        ),
        ("key", "empty.crt", "the file contains no private key"),
        ("key", "encrypted.key", "the private key is encrypted"),
        (
            "key",
            "ed448.key",
            "this kind of private key is not supported",
        ),
        ("crt", "broken.crt", "the file cannot be parsed as PEM"),
        ("crt", "der.crt", "it looks like DER"),
        ("crt", "empty.crt", "the file contains no certificate"),
        ("crt", "no-certificate.crt", "certificate 1 of the file"),
        (
            "crt",
            "good.crt",
            "the private key does not match the certificate",
        ),
    ] {
        let file = format!("a.{file}");
        let right = fs::read(authority.path(&file)).unwrap();
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/tls");
        authority.replace(&file, fs::read(format!("{golden}/{bad}")).unwrap());
        let output = edge.command(&["reload"]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{bad}: {text}");
        let placed = text.contains("clockwise.yaml:");
        assert!(text.contains(said) && placed, "{bad}: {text}");
        authority.curl("a.test", edge.address, &[]);
        authority.replace(&file, right);
    }
    fs::remove_file(authority.path("a.key")).unwrap();
    edge.signal("HUP");
    wait::until("it to be said", || edge.stderr().contains("cannot be read"));
    authority.curl("a.test", edge.address, &[]);
    authority.issue("a", &["b.test"]);
    assert!(edge.command(&["reload"]).status.success());
    authority.curl("b.test", edge.address, &[]);
}

#[test]
fn tls_can_be_enabled_and_disabled_on_a_listener_by_reload() {
    let origin = Origin::start();
    let authority = Authority::new();
    let pair = authority.issue("a", &["a.test"]);
    let address = port::free();
    let plain = ConfigBuilder::of([origin.label()]);
    let plain = plain.top("listeners", &format!("[{{address: \"{address}\"}}]"));
    let encrypted = plain
        .clone()
        .top("listeners", &listener(&address.to_string(), &pair));
    let edge = plain.start();
    let mut before = edge.connect();
    assert_eq!(before.get("/?k=a").unwrap().status, 200);
    edge.rewrite(&encrypted.yaml());
    assert!(edge.command(&["reload"]).status.success());
    authority.curl("a.test", address, &[]);
    assert_eq!(before.get("/?k=a").unwrap().status, 200);
    edge.rewrite(&plain.yaml());
    assert!(edge.command(&["reload"]).status.success());
    assert_eq!(edge.get("/?k=a").status, 200);
}

#[test]
fn tls_upgrade_works_and_is_refused_without_the_certificate() {
    let (_origin, authority, edge) = scene();
    let mut session = open(&authority, &edge);
    ask(&mut session, "a.test").unwrap();
    let before = edge.pid();
    assert!(edge.command(&["upgrade"]).status.success());
    assert_ne!(edge.pid(), before);
    authority.curl("a.test", edge.address, &[]);
    assert!(
        ask(&mut session, "a.test")
            .unwrap()
            .to_ascii_lowercase()
            .contains("connection: close")
    );
    let serving = edge.pid();
    fs::remove_file(authority.path("a.crt")).unwrap();
    let output = edge.command(&["upgrade"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("a.crt"), "{text}");
    assert_eq!(edge.pid(), serving);
    authority.curl("a.test", edge.address, &[]);
}

#[test]
fn tls_check_reads_certificate_files() {
    let authority = Authority::new();
    let origin = Origin::start();
    let pair = authority.issue("a", &["a.test"]);
    let site = site(&origin, &pair);
    fs::write(authority.path("c.yaml"), site.yaml()).unwrap();
    assert!(check(&authority).status.success());
    fs::remove_file(authority.path("a.key")).unwrap();
    let output = check(&authority);
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && text.contains("a.key"), "{text}");
    let refused = run(authority.path("").as_path(), &["run", "-c", "c.yaml"], "");
    assert!(!refused.status.success(), "{refused:?}");
}

#[test]
fn tls_client_that_disconnects_is_not_an_error() {
    let (_origin, authority, edge) = scene();
    let mut session = open(&authority, &edge);
    ask(&mut session, "a.test").unwrap();
    drop(session); // without `close_notify`
    let socket = TcpStream::connect(edge.address).unwrap();
    drop(socket);
    wait::until("both to be gone", || {
        edge.admin.get("/v1/status").json()["connections"] == 0
    });
    assert!(!edge.stderr().contains(" error "), "{}", edge.stderr());
    let refused = connect(&Arc::new(Authority::new().client()), "a.test", edge.address);
    let error = refused.map(|_| ()).unwrap_err().kind();
    assert_eq!(error, ErrorKind::InvalidData, "another authority's client");
}

#[test]
fn client_certificate_required_refuses_clients_without_one() {
    let origin = Origin::start();
    let (authority, clients) = (Authority::new(), Authority::new());
    let tls = asking(&authority, &clients, "required", "");
    let site = site(&origin, &tls).app("key", "client_cert");
    let site = site
        .app("missing_key", "reject")
        .top("forwarding", "{client_cert: true}");
    let edge = site.top("access_log", "{path: access.log}").start();
    let output = authority.try_curl("a.test", edge.address, &[]);
    assert!(!output.status.success(), "{output:?}");
    let mut stranger = Arc::new(authority.client_with("a", &authority));
    let refused = connect(&stranger, "a.test", edge.address);
    // With TLS 1.3 a client learns of it with the first answer.
    assert!(
        refused
            .and_then(|mut session| ask(&mut session, "a.test"))
            .is_err()
    );
    edge.admin
        .wait_for_metric(FAILURES, &["reason=\"client_certificate\""], 2);
    clients.issue("device", &["device-7.test"]);
    stranger = Arc::new(authority.client_with("device", &clients));
    let mut session = connect(&stranger, "a.test", edge.address).unwrap();
    let answer = ask(&mut session, "a.test").unwrap().to_ascii_lowercase();
    assert!(answer.contains(r#"["client-cert",":mii"#), "{answer}");
    let answer = ask(&mut session, "other.test").unwrap();
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    edge.log_line(|line| line["tls"]["client"] == "device-7.test");
    edge.log_line(|line| line["fault"] == "misdirected");
}

#[test]
fn client_certificate_can_be_required_by_a_route() {
    let origin = Origin::start();
    let (authority, clients) = (Authority::new(), Authority::new());
    let tls = asking(&authority, &clients, "optional", "");
    let (plain, encrypted) = (port::free(), port::free());
    let listeners = format!("[{{address: \"{plain}\"}}, {{address: \"{encrypted}\", tls: {tls}}}]");
    let routes = "[{upstream: app}, {path: /inside, upstream: app, client_cert: required}]";
    let site = ConfigBuilder::of([origin.label()]).top("listeners", &listeners);
    let edge = site.top("routes", routes).start();
    let answer = edge.get("/inside?k=a");
    assert_eq!(answer.status, 403);
    assert_eq!(answer.text(), "403 client_certificate_required\n");
    assert_eq!(edge.get("/?k=a").status, 200);
    let call = Request::post("/inside", "").header("Content-Type", "application/grpc");
    assert_eq!(edge.send(&call).header("grpc-status"), Some("7"));
    clients.issue("device", &["device.test"]);
    let known = Arc::new(authority.client_with("device", &clients));
    let inside = |client: &Arc<ClientConfig>| {
        let mut session = connect(client, "a.test", encrypted).unwrap();
        ask_for(&mut session, "a.test", "/inside?k=a").unwrap()
    };
    let refused = inside(&Arc::new(authority.client()));
    assert!(refused.starts_with("HTTP/1.1 403"), "{refused}");
    let answer = inside(&known);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    edge.admin.wait_for_metric(
        "clockwise_faults_total",
        &["fault=\"client_certificate_required\""],
        3,
    );
    assert_eq!(origin.requests(), 2);
}

#[test]
fn client_certificate_optional_is_reported_to_the_peer() {
    let origin = Origin::start();
    let (authority, clients) = (Authority::new(), Authority::new());
    let site = site(&origin, &asking(&authority, &clients, "optional", ""));
    let edge = site.top("forwarding", "{client_cert: true}").start();
    let forged = ["-H", "Client-Cert: :AAAA:"];
    let answer = authority
        .curl("a.test", edge.address, &forged)
        .to_ascii_lowercase();
    assert!(!answer.contains("client-cert"), "{answer}");
}

#[test]
fn client_certificate_revoked_is_refused_and_resumes_no_session() {
    let origin = Origin::start();
    let (authority, clients) = (Authority::new(), Authority::new());
    clients.revoke(&[]);
    let crl = format!(", crl: {}", clients.path("clients.crl").display());
    let edge = site(&origin, &asking(&authority, &clients, "required", &crl)).start();
    let serial = clients.issue_numbered("device", 77);
    let config = Arc::new(authority.client_with("device", &clients));
    for _ in 0..2 {
        let mut session = connect(&config, "a.test", edge.address).unwrap();
        ask(&mut session, "a.test").unwrap();
    }
    edge.admin
        .wait_for_metric(HANDSHAKES, &["kind=\"resumed\""], 1);
    clients.revoke(&[serial]);
    assert!(edge.command(&["reload"]).status.success());
    let refused = connect(&config, "a.test", edge.address);
    assert!(
        refused
            .and_then(|mut session| ask(&mut session, "a.test"))
            .is_err()
    );
    edge.admin
        .wait_for_metric(FAILURES, &["reason=\"client_certificate\""], 1);
}

#[test]
fn client_certificate_expiry_limits_session_resumption() {
    let origin = Origin::start();
    let (authority, clients) = (Authority::new(), Authority::new());
    let edge = site(&origin, &asking(&authority, &clients, "required", "")).start();
    for (count, version) in (1..).zip([&TLS12, &TLS13]) {
        let now = Timestamp::now();
        let life = (now - 60.seconds(), now + 6.seconds());
        clients.issue_for("device", &["device.test"], life);
        let config = Arc::new(authority.client_of(version, "device", &clients));
        for _ in 0..3 {
            let mut session = connect(&config, "a.test", edge.address).unwrap();
            ask(&mut session, "a.test").unwrap();
        }
        edge.admin
            .wait_for_metric(HANDSHAKES, &["kind=\"resumed\""], 2 * count);
        wait::until("the certificate to count no more", || {
            let session = connect(&config, "a.test", edge.address);
            session
                .and_then(|mut session| ask(&mut session, "a.test"))
                .is_err()
        });
        edge.admin
            .wait_for_metric(FAILURES, &["reason=\"client_certificate\""], count);
    }
}

#[test]
fn tls_sessions_are_resumed_across_an_upgrade() {
    let (_origin, authority, edge) = scene();
    let saved = authority.path("session");
    let saved = saved.to_str().unwrap();
    authority.s_client("a.test", edge.address, &["-sess_out", saved]);
    assert!(edge.command(&["upgrade"]).status.success());
    let again = authority.s_client("a.test", edge.address, &["-sess_in", saved]);
    assert!(again.contains("Reused, TLSv1."), "{again}");
}

#[test]
fn plain_http_is_redirected_to_https_with_hsts() {
    let origin = Origin::start();
    let authority = Authority::new();
    let (plain, encrypted) = (port::free(), port::free());
    let pair = authority.issue("a", &["a.test"]);
    let tls = pair.replace('}', ", hsts: {max_age: 8760h, subdomains: true}}");
    let https = encrypted.port();
    let listeners = format!(
        "[{{address: \"{plain}\", https_redirect: {https}}}, {{address: \"{encrypted}\", tls: {tls}}}]"
    );
    let edge = ConfigBuilder::of([origin.label()])
        .top("listeners", &listeners)
        .start();
    let mut connection = edge.connect();
    let request = Request::post("/a/b?k=%41", "body").header("Host", "a.test:80");
    for _ in 0..2 {
        let answer = connection.exchange(&request).unwrap();
        assert_eq!(answer.status, 308);
        let location = format!("https://a.test:{https}/a/b?k=%41");
        assert_eq!(answer.header("location"), Some(location.as_str()));
        assert_eq!(
            answer.header("strict-transport-security"),
            None,
            "said over plain HTTP"
        );
        connection = edge.connect();
    }
    assert_eq!(origin.requests(), 0);
    let kept = "strict-transport-security: max-age=31536000; includesubdomains\r\n";
    let config = Arc::new(authority.client());
    let mut session = connect(&config, "a.test", encrypted).unwrap();
    assert!(
        ask(&mut session, "a.test")
            .unwrap()
            .to_ascii_lowercase()
            .contains(kept)
    );
    let refused = ask(&mut session, "a/b").unwrap().to_ascii_lowercase();
    assert!(
        refused.starts_with("http/1.1 400") && refused.contains(kept),
        "{refused}"
    );
}

/// TLS for `a.test` that asks clients for a certificate of `clients`.
fn asking(authority: &Authority, clients: &Authority, mode: &str, crl: &str) -> String {
    let ca = clients.path("ca.crt");
    let auth = format!(
        ", client_auth: {{mode: {mode}, ca: {}{crl}}}}}",
        ca.display()
    );
    authority.issue("a", &["a.test"]).replace('}', &auth)
}

/// One origin behind one encrypted listener, for `a.test`.
fn scene() -> (Origin, Authority, Edge) {
    let origin = Origin::start();
    let authority = Authority::new();
    let edge = site(&origin, &authority.issue("a", &["a.test"])).start();
    (origin, authority, edge)
}

fn site(origin: &Origin, tls: &str) -> ConfigBuilder {
    ConfigBuilder::of([origin.label()]).top("listeners", &listener("127.0.0.1:0", tls))
}

fn listener(address: &str, tls: &str) -> String {
    format!("[{{address: \"{address}\", tls: {tls}}}]")
}

fn open(authority: &Authority, edge: &Edge) -> Session {
    let address: SocketAddr = edge.address;
    connect(&Arc::new(authority.client()), "a.test", address).expect("a session")
}

fn check(authority: &Authority) -> Output {
    run(authority.path("").as_path(), &["check", "-c", "c.yaml"], "")
}
