//! TLS to peers: a peer without a valid certificate gets no request, also after the trusted CAs change.

use jiff::Timestamp;

use crate::http2::H2C;
use crate::support::client::{Connection, Request, Response};
use crate::support::edge::{ConfigBuilder, Edge, run};
use crate::support::http2::Client;
use crate::support::http2_origin::{self, HTTP_1_1_REQUIRED, Http2Behaviour};
use crate::support::nginx::Nginx;
use crate::support::origin::{Behaviour, Origin};
use crate::support::raw_peer::RawPeer;
use crate::support::reference_proxy::ReferenceProxy;
use crate::support::tls::Authority;
use crate::support::{port, wait};

const FAILURES: &str = "clockwise_upstream_tls_failures_total";

/// What the peer saw: the name it was asked for, and so on.
const SAYS: &str = "location / { return 200 \
    \"$ssl_server_name $ssl_protocol $server_protocol $connection_requests $ssl_client_s_dn\"; }";

#[test]
fn upstream_tls_peer_with_a_valid_certificate_is_used() {
    let authority = Authority::new();
    let peer = secure(&authority.issue("app", &["app.test"]), SAYS);
    let edge = named(&peer, &authority, "").start();
    assert_eq!(said(&edge), "app.test TLSv1.3 HTTP/1.1 1 ");
    assert_eq!(said(&edge), "app.test TLSv1.3 HTTP/1.1 2 ", "reused");
}

#[test]
fn upstream_tls_peer_with_an_invalid_certificate_is_502() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let cases = [
        (authority.issue("other", &["other.test"]), "name"),
        (
            authority.issue_for("old", &["app.test"], (year(2019), year(2020))),
            "date",
        ),
        (
            authority.issue_for("new", &["app.test"], (year(2090), year(2095))),
            "date",
        ),
        (stranger.issue("app", &["app.test"]), "issuer"),
        (own("self", &authority), "issuer"),
    ];
    for (pair, reason) in cases {
        let peer = secure(&pair, SAYS);
        let edge = named(&peer, &authority, "").start();
        let refused = edge.get("/?k=a");
        assert_eq!(
            (refused.status, &*refused.text()),
            (502, "502 tls_failed\n")
        );
        let label = format!("reason=\"{reason}\"");
        edge.admin.wait_for_metric(FAILURES, &[&label], 1);
        assert_eq!(edge.admin.metric(FAILURES, &[]), 1);
    }
}

#[test]
fn upstream_tls_failure_goes_to_the_next_peer_and_ejects() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let good = secure(&authority.issue("app", &["app.test"]), SAYS);
    let bad = secure(&stranger.issue("app", &["app.test"]), SAYS);
    let site = site(&[&good, &bad], &tls(&authority, "server_name: app.test"));
    let site = site.app("retry", "{attempts: 2}");
    let edge = site
        .app("outlier_detection", "{failures: 1, eject: 60s}")
        .start();
    for key in 0..20 {
        assert_eq!(edge.get(&format!("/?k={key}")).status, 200);
    }
    assert_eq!(edge.admin.metric(FAILURES, &["reason=\"issuer\""]), 1);
    assert_eq!(edge.admin.state("app", &bad.label()), "ejected");
    let why = "is ejected for 60s: TLS: its certificate is from an unknown issuer";
    edge.wait_for_stderr(why, 1);
}

#[test]
fn upstream_tls_system_roots_reject_a_private_ca() {
    let authority = Authority::new();
    let peer = secure(&authority.issue("app", &["app.test"]), SAYS);
    let edge = site(&[&peer], "{server_name: app.test}").start();
    assert_eq!(edge.get("/?k=a").text(), "502 tls_failed\n");
}

#[test]
fn upstream_tls_ip_address_in_the_certificate_is_verified() {
    let authority = Authority::new();
    let peer = secure(&authority.issue("app", &["127.0.0.1"]), SAYS);
    let edge = site(&[&peer], &tls(&authority, "server_name: 127.0.0.1")).start();
    assert_eq!(said(&edge), " TLSv1.3 HTTP/1.1 1 ", "no name is asked for");
}

#[test]
fn upstream_tls_verify_name_can_differ_per_peer() {
    let authority = Authority::new();
    let [a, b] = ["a.test", "b.test"].map(|name| secure(&authority.issue(name, &[name]), SAYS));
    let peer =
        |peer: &Nginx, name| format!("{{address: \"{}\", server_name: {name}}}", peer.address);
    let site = ConfigBuilder::of([peer(&a, "a.test"), peer(&b, "b.test")]);
    let edge = site
        .app("tls", &tls(&authority, "server_name: other.test"))
        .start();
    for key in 0..10 {
        let response = edge.get(&format!("/?k={key}"));
        assert!(response.text().contains(".test TLSv1.3"), "{response:?}");
    }
}

#[test]
fn upstream_tls_client_certificate_is_sent_on_request() {
    let authority = Authority::new();
    let asks = format!(
        "ssl_verify_client on; ssl_client_certificate {}; {SAYS}",
        authority.path("ca.crt").display()
    );
    let peer = secure(&authority.issue("app", &["app.test"]), &asks);
    let shown = authority.issue("edge", &["edge.test"]);
    let edge = named(&peer, &authority, shown.trim_matches(['{', '}'])).start();
    assert_eq!(said(&edge), "app.test TLSv1.3 HTTP/1.1 1 CN=edge");
    let edge = named(&peer, &authority, "").start();
    assert_eq!(edge.get("/?k=a").status, 400, "nginx says so within TLS");
}

#[test]
fn upstream_tls_old_versions_need_configuration() {
    let authority = Authority::new();
    let old = format!("ssl_protocols TLSv1.2; {SAYS}");
    let peer = secure(&authority.issue("app", &["app.test"]), &old);
    let edge = named(&peer, &authority, "").start();
    assert_eq!(said(&edge), "app.test TLSv1.2 HTTP/1.1 1 ");
    let edge = named(&peer, &authority, "min_version: 1.3").start();
    let refused = edge.get("/?k=a");
    assert_eq!(refused.text(), "502 tls_failed\n");
    edge.admin
        .wait_for_metric(FAILURES, &["reason=\"other\""], 1);
    edge.admin
        .wait_for_metric("clockwise_peer_connect_failures_total", &[], 1);
}

#[test]
fn upstream_tls_server_name_from_host_does_not_eject_on_failure() {
    let authority = Authority::new();
    let peer = secure(&authority.issue("ab", &["a.test", "b.test"]), SAYS);
    let site = site(&[&peer], &tls(&authority, "server_name: host"));
    let edge = site
        .app("outlier_detection", "{failures: 1, eject: 60s}")
        .start();
    let ask = |host: &str| edge.send(&Request::get("/?k=a").header("Host", host));
    assert_eq!(ask("a.test").text(), "a.test TLSv1.3 HTTP/1.1 1 ");
    assert_eq!(
        ask("B.test:8080").text(),
        "B.test TLSv1.3 HTTP/1.1 1 ",
        "another pool"
    );
    assert_eq!(ask("c.test").text(), "502 tls_failed\n");
    assert_eq!(ask("127.0.0.1").text(), "502 tls_failed\n");
    assert_eq!(ask("a..b").text(), "400 bad_host\n");
    assert_eq!(ask("").status, 400);
    assert_eq!(ask("a.test").text(), "a.test TLSv1.3 HTTP/1.1 2 ");
    let mut old = edge.connect();
    old.send("GET /?k=a HTTP/1.0\r\n\r\n").unwrap();
    assert_eq!(old.response().unwrap().status, 400, "no host name");
}

#[test]
fn upstream_tls_without_verification_is_reported() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let peer = secure(
        &stranger.issue_for("old", &["other.test"], (year(2019), year(2020))),
        SAYS,
    );
    let site = site(&[&peer], "{verify: false}");
    let edge = site.start();
    assert_eq!(said(&edge), " TLSv1.3 HTTP/1.1 1 ");
    let warning = "upstream app: the certificates of its peers are not verified";
    let warned = |times| {
        wait::until("the warning", || {
            edge.stderr().matches(warning).count() == times
        });
    };
    warned(1);
    assert!(edge.command(&["reload"]).status.success());
    warned(2);
    let status = edge.command(&["status"]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(
        status.contains("app: the certificates of its peers are not verified"),
        "{status}"
    );
    let json = edge.admin.get("/v1/status").json();
    assert_eq!(json["upstreams"]["app"]["tls"]["verify"], false);
    let checked = run(edge.directory(), &["check", "-c", "clockwise.yaml"], "");
    let text = format!("{checked:?}");
    assert!(
        checked.status.success() && text.contains("not verified"),
        "{text}"
    );
    drop(authority);
}

#[test]
fn upstream_tls_new_ca_applies_to_the_next_request() {
    let (first, second) = (Authority::new(), Authority::new());
    let peer = secure(&first.issue("app", &["app.test"]), SAYS);
    let edge = named(&peer, &first, "").start();
    assert_eq!(said(&edge), "app.test TLSv1.3 HTTP/1.1 1 ");
    let ours = std::fs::read_to_string(first.path("ca.crt")).unwrap();
    let theirs = std::fs::read_to_string(second.path("ca.crt")).unwrap();
    first.replace("ca.crt", &theirs);
    assert!(edge.command(&["reload"]).status.success());
    let refused = edge.get("/?k=a").text();
    assert_eq!(refused, "502 tls_failed\n", "not over the old connection");
    first.replace("ca.crt", "nonsense");
    let reload = edge.command(&["reload"]);
    let why = String::from_utf8_lossy(&reload.stderr).into_owned();
    assert!(
        !reload.status.success() && why.contains("the file contains no certificate"),
        "{why}"
    );
    first.replace("ca.crt", &ours);
    assert!(edge.command(&["reload"]).status.success());
    assert!(said(&edge).starts_with("app.test TLSv1.3 HTTP/1.1 "));
}

#[test]
fn upstream_tls_new_client_certificate_applies_to_the_next_request() {
    let authority = Authority::new();
    let asks = format!(
        "ssl_verify_client optional_no_ca; ssl_client_certificate {}; {SAYS}",
        authority.path("ca.crt").display()
    );
    let peer = secure(&authority.issue("app", &["app.test"]), &asks);
    let shown = authority.issue("edge", &["edge.test"]);
    let edge = named(&peer, &authority, shown.trim_matches(['{', '}'])).start();
    assert_eq!(said(&edge), "app.test TLSv1.3 HTTP/1.1 1 CN=edge");
    authority.issue("next", &["edge.test"]);
    for kind in ["crt", "key"] {
        let new = std::fs::read_to_string(authority.path(&format!("next.{kind}"))).unwrap();
        authority.replace(&format!("edge.{kind}"), &new);
    }
    assert!(edge.command(&["reload"]).status.success());
    assert_eq!(said(&edge), "app.test TLSv1.3 HTTP/1.1 1 CN=next");
}

#[test]
fn upstream_tls_peer_that_refused_http2_once_is_offered_it_again_if_it_must_speak_it() {
    let authority = Authority::new();
    authority.issue("app", &["app.test"]);
    let origin = http2_origin::Origin::start(&[Http2Behaviour::ResetEarly(HTTP_1_1_REQUIRED)]);
    let front = haproxy_with_tls(&authority, "app", &origin.label());
    let edge = ConfigBuilder::of([front.address])
        .app("tls", &tls(&authority, "server_name: app.test"))
        .app("protocol", "h2")
        .start();
    let refused = edge.get("/?k=a");
    assert_eq!(refused.status, 502, "{refused:?}");
    edge.settle();
    assert!(said(&edge).starts_with("connection "), "{}", edge.stderr());
}

#[test]
fn upstream_tls_tunnel_is_encrypted_and_verified() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let origin = Origin::behaving(Behaviour::Upgrade);
    let relay = format!(
        "location / {{ proxy_pass http://{}; proxy_http_version 1.1; \
         proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }}",
        origin.address
    );
    let peer = secure(&authority.issue("app", &["app.test"]), &relay);
    for protocol in ["http1", "auto"] {
        let edge = named(&peer, &authority, "")
            .app("protocol", protocol)
            .start();
        let mut socket = upgraded(&edge);
        for word in ["one", "two"] {
            socket.send(word).unwrap();
            assert_eq!(socket.exactly(3).unwrap(), word.as_bytes());
        }
    }
    let edge = named(&peer, &stranger, "").start();
    assert_eq!(
        edge.send(&Request::socket("/?k=a")).text(),
        "502 tls_failed\n"
    );
    let edge = named(&peer, &authority, "min_version: 1.3").start();
    upgraded(&edge);
    let old = format!("ssl_protocols TLSv1.2; {relay}");
    let peer = secure(&authority.yaml("app"), &old);
    let edge = named(&peer, &authority, "min_version: 1.3").start();
    assert_eq!(
        edge.send(&Request::socket("/?k=a")).text(),
        "502 tls_failed\n"
    );
}

#[test]
fn upstream_tls_probes_verify_like_requests() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    for probe in ["tcp: true", "http: /healthz"] {
        let health = format!("{{{probe}, interval: 1s, timeout: 1s, fall: 1, rise: 1}}");
        let peer = secure(&authority.issue("app", &["app.test"]), SAYS);
        let edge = named(&peer, &authority, "").app("health", &health).start();
        edge.admin.wait_for_state("app", &peer.label(), "up");
        let edge = named(&peer, &stranger, "").app("health", &health).start();
        edge.admin.wait_for_state("app", &peer.label(), "down");
        let view = edge.admin.get("/v1/upstreams/app").json();
        let why = &view["peers"][0]["probe"]["failure"];
        assert_eq!(why, "TLS: its certificate is from an unknown issuer");
    }
}

#[test]
fn upstream_tls_probe_uses_the_configured_host_as_sni() {
    let authority = Authority::new();
    let peer = secure(&authority.issue("app", &["app.test"]), SAYS);
    let with = |host: &str| {
        let health =
            format!("{{http: /, host: {host}, interval: 1s, timeout: 1s, fall: 1, rise: 1}}");
        site(&[&peer], &tls(&authority, "server_name: host")).app("health", &health)
    };
    let edge = with("app.test:80").start();
    edge.admin.wait_for_state("app", &peer.label(), "up");
    let edge = with("other.test").start();
    edge.admin.wait_for_state("app", &peer.label(), "down");
}

#[test]
fn upstream_tls_alpn_selects_http2() {
    let authority = Authority::new();
    let pair = authority.issue("app", &["app.test"]);
    let says = "location / { return 200 \"$server_protocol $connection_requests\"; }";
    let (new, old) = (secure_with("ssl http2", &pair, says), secure(&pair, says));
    let spoken = |peer: &Nginx, protocol: &str| {
        let edge = named(peer, &authority, "")
            .app("protocol", protocol)
            .start();
        let first = edge.get("/?k=a").text();
        edge.settle();
        [first, edge.get("/?k=a").text()]
    };
    let two = ["HTTP/2.0 1", "HTTP/2.0 2"];
    assert_eq!(spoken(&new, "auto"), two);
    assert_eq!(spoken(&new, "h2"), two);
    assert_eq!(spoken(&new, "http1"), ["HTTP/1.1 1", "HTTP/1.1 2"]);
    assert_eq!(spoken(&old, "auto"), ["HTTP/1.1 1", "HTTP/1.1 2"]);
    assert_eq!(
        spoken(&old, "h2"),
        ["502 tls_failed\n"; 2],
        "nothing less will do"
    );
}

#[test]
fn upstream_tls_alpn_selects_http2_for_http2_clients() {
    let authority = Authority::new();
    let pair = authority.issue("app", &["app.test"]);
    let says = "location / { return 200 \"$server_protocol $connection_requests\"; }";
    let (new, old) = (secure_with("ssl http2", &pair, says), secure(&pair, says));
    let spoken = |peer: &Nginx, protocol: &str| {
        let edge = named(peer, &authority, "")
            .app("protocol", protocol)
            .top("listeners", H2C)
            .start();
        let mut client = Client::open(edge.address);
        [(); 2].map(|()| {
            let text = client.get("/?k=a").body;
            edge.settle();
            String::from_utf8(text).unwrap()
        })
    };
    let two = ["HTTP/2.0 1", "HTTP/2.0 2"];
    assert_eq!(spoken(&new, "auto"), two);
    assert_eq!(spoken(&new, "h2"), two);
    assert_eq!(spoken(&old, "auto"), ["HTTP/1.1 1", "HTTP/1.1 2"]);
    assert_eq!(spoken(&old, "h2"), ["502 tls_failed\n"; 2]);
}

/// RFC 9112 §9.8: anyone between can end the TCP connection, only the peer can send the alert.
#[test]
fn upstream_tls_end_without_closing_alert_cuts_a_response_without_length() {
    let authority = Authority::new();
    authority.issue("app", &["app.test"]);
    let peer = RawPeer::secure(authority.server("app"));
    let tls = tls(&authority, "server_name: app.test");
    let site = ConfigBuilder::of([peer.address]).app("tls", &tls);
    let edge = site.start();
    for has_alert in [true, false] {
        let mut client = edge.connect();
        client
            .send("GET /?k=a HTTP/1.1\r\nHost: h\r\n\r\n")
            .unwrap();
        let mut peer = peer.accept();
        peer.read_request().unwrap();
        peer.send("HTTP/1.1 200 OK\r\n\r\nhello").unwrap();
        if has_alert {
            peer.finish_sending();
        }
        drop(peer);
        let response = client.response();
        assert_eq!(response.is_ok(), has_alert, "{response:?}");
    }
}

fn year(number: i16) -> Timestamp {
    format!("{number}-01-01T00:00:00Z").parse().unwrap()
}

/// A certificate that is its own issuer.
fn own(file: &str, directory: &Authority) -> String {
    let own = rcgen::generate_simple_self_signed(["app.test".to_owned()]).unwrap();
    directory.replace(&format!("{file}.crt"), own.cert.pem());
    directory.replace(&format!("{file}.key"), own.signing_key.serialize_pem());
    directory.yaml(file)
}

/// Decrypts for the server at `to`, which is offered both versions of HTTP.
fn haproxy_with_tls(authority: &Authority, file: &str, to: &str) -> ReferenceProxy {
    let pem = ["crt", "key"]
        .map(|end| std::fs::read_to_string(authority.path(&format!("{file}.{end}"))).unwrap());
    let address = port::free();
    let text = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n\
         frontend f\n  bind {address} ssl crt app.pem alpn h2,http/1.1\n  default_backend b\n\
         backend b\n  server s {to}\n"
    );
    let files = [("haproxy.cfg", text.as_str()), ("app.pem", &pem.concat())];
    ReferenceProxy::start("haproxy", &["-db", "-f", "haproxy.cfg"], address, &files)
}

/// An nginx with this certificate, and these directives.
pub(crate) fn secure(pair: &str, server: &str) -> Nginx {
    secure_with("ssl", pair, server)
}

fn secure_with(listen: &str, pair: &str, server: &str) -> Nginx {
    let files = pair.trim_matches(['{', '}']);
    let files = files.replace("cert: ", "ssl_certificate ");
    let files = files.replace(", key: ", "; ssl_certificate_key ");
    let protocols = if server.contains("ssl_protocols") {
        ""
    } else {
        "ssl_protocols TLSv1.2 TLSv1.3;"
    };
    Nginx::serving(listen, &format!("{files}; {protocols} {server}"))
}

fn tls(authority: &Authority, more: &str) -> String {
    format!("{{ca: {}, {more}}}", authority.path("ca.crt").display())
}

fn site(peers: &[&Nginx], tls: &str) -> ConfigBuilder {
    ConfigBuilder::of(peers.iter().map(|peer| peer.label())).app("tls", tls)
}

/// The peer has to prove that it is `app.test`, to this authority.
fn named(peer: &Nginx, authority: &Authority, more: &str) -> ConfigBuilder {
    let more = format!("server_name: app.test, {more}");
    site(&[peer], &tls(authority, more.trim_end_matches([',', ' '])))
}

#[track_caller]
fn said(edge: &Edge) -> String {
    let response: Response = edge.get("/?k=a");
    assert_eq!(response.status, 200, "{response:?} {}", edge.stderr());
    edge.settle();
    response.text()
}

#[track_caller]
fn upgraded(edge: &Edge) -> Connection {
    let mut connection = edge.connect();
    let request = "GET /?k=a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    connection.send(request).unwrap();
    let head = connection.head().unwrap();
    assert_eq!(head.status, 101, "{head:?}");
    connection
}
