//! The PROXY protocol, from clients and to peers.

use std::io::Write;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::support::client::{Connection, Request};
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::origin::{Behaviour, Origin};
use crate::support::reference_proxy::ReferenceProxy;
use crate::support::tls::Authority;
use crate::support::{port, wait};

const REFUSED: &str = "clockwise_listener_refused_connections_total";
const LINE: &str = "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n";
const GET: &str = "GET /?k=a HTTP/1.1\r\nHost: test\r\n\r\n";

#[test]
fn proxy_protocol_from_haproxy_sets_the_client_address() {
    let (_origin, edge) = believing("");
    for (word, version) in [("send-proxy", 1), ("send-proxy-v2", 2)] {
        let front = haproxy_in_front(edge.address, word);
        let client: IpAddr = "127.0.0.77".parse().unwrap();
        let mut connection = Connection::from(client, front.address).unwrap();
        let echo = connection.get(&format!("/{version}?k=a")).unwrap().json();
        assert_eq!(header(&echo, "x-forwarded-for"), "127.0.0.77", "{word}");
        let line = logged(&edge, &format!("/{version}"));
        assert_eq!(line["client"], "127.0.0.77", "{line}");
        assert_eq!(line["proxy_protocol"]["version"], version);
        assert_eq!(line["proxy_protocol"]["origin"], "client");
        let from = line["proxy_protocol"]["from"].as_str().unwrap();
        assert!(from.starts_with("127.0.0.1:"), "{from}");
    }
}

#[test]
fn proxy_protocol_from_curl_works_before_tls() {
    let origin = Origin::start();
    let authority = Authority::new();
    let tls = authority.issue("a", &["a.test"]);
    let edge = site(
        &origin,
        &format!("from: [127.0.0.0/8]}}, tls: {tls}, backlog: 64"),
    )
    .start();
    let echo = authority.curl("a.test", edge.address, &["--haproxy-protocol"]);
    let echo: Value = serde_json::from_str(&echo).unwrap();
    assert_eq!(header(&echo, "x-forwarded-for"), "127.0.0.1");
    assert_eq!(header(&echo, "x-forwarded-proto"), "https");
    let plain = authority.try_curl("a.test", edge.address, &[]);
    assert!(!plain.status.success(), "without a header: {plain:?}");
    edge.admin
        .wait_for_metric(REFUSED, &["reason=\"no_header\""], 1);
}

#[test]
fn proxy_protocol_source_address_is_the_client() {
    let (_origin, edge) = believing("");
    for pieces in [
        vec![format!("{LINE}{GET}")],
        vec![LINE.to_owned(), GET.to_owned()],
        LINE.chars()
            .map(String::from)
            .chain([GET.to_owned()])
            .collect(),
    ] {
        let mut connection = edge.connect();
        for piece in pieces {
            connection.send(piece).unwrap();
        }
        let echo = connection.response().unwrap().json();
        assert_eq!(header(&echo, "x-forwarded-for"), "192.0.2.1");
        let again = connection.get("/?k=a").unwrap().json();
        assert_eq!(header(&again, "x-forwarded-for"), "192.0.2.1");
    }
}

#[test]
fn proxy_protocol_source_address_is_the_key() {
    let origins = Origin::some(4);
    let labels: Vec<String> = origins.iter().map(Origin::label).collect();
    let site = ConfigBuilder::of(&labels).top("listeners", &listeners("from: [127.0.0.0/8]}"));
    let edge = site.app("key", "client_ip").start();
    let clients: Vec<String> = (1..=20).map(|n| format!("192.0.2.{n}")).collect();
    let predicted = edge.predict(&clients, 1);
    for (client, walk) in clients.iter().zip(predicted) {
        let line = format!("PROXY TCP4 {client} 198.51.100.1 1 2\r\n");
        assert_eq!(asked(&edge, line)["origin"], walk[0]);
    }
}

#[test]
fn proxy_protocol_v2_tlvs_are_logged() {
    let (_origin, edge) = believing("");
    let tlvs = [&[2, 0, 6][..], b"a.test", &[5, 0, 2], b"id", &tls_tlv()].concat();
    let echo = asked(&edge, binary(0x21, "192.0.2.1:7".parse().unwrap(), &tlvs));
    assert_eq!(header(&echo, "x-forwarded-for"), "192.0.2.1");
    assert_eq!(
        header(&echo, "x-forwarded-proto"),
        "https",
        "sent to the proxy that forwards it"
    );
    let tlvs = &logged(&edge, "/")["proxy_protocol"];
    assert_eq!(tlvs["authority"], "a.test");
    assert_eq!(tlvs["unique_id"], "id");
    assert_eq!(tlvs["tls"], "TLSv1.3");
}

#[test]
fn proxy_protocol_local_or_unknown_uses_the_socket_address() {
    let (_origin, edge) = believing("");
    let local = binary(0x20, "192.0.2.1:7".parse().unwrap(), &[]);
    for header_bytes in [local, b"PROXY UNKNOWN\r\n".to_vec()] {
        let echo = asked(&edge, header_bytes);
        assert_eq!(header(&echo, "x-forwarded-for"), "127.0.0.1");
    }
}

#[test]
fn proxy_protocol_source_address_is_matched_with_trusted_proxies() {
    let origin = Origin::start();
    let edge = site(&origin, "from: [127.0.0.0/8]}")
        .top("trusted_proxies", "[192.0.2.0/24]")
        .top("access_log", "{path: access.log}")
        .start();
    let forwarded = GET.replace("\r\n\r\n", "\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n");
    let mut connection = edge.connect();
    connection.send(format!("{LINE}{forwarded}")).unwrap();
    let echo = connection.response().unwrap().json();
    assert_eq!(header(&echo, "x-forwarded-for"), "203.0.113.9, 192.0.2.1");
    assert_eq!(logged(&edge, "/")["client"], "203.0.113.9");
    let stranger = LINE.replace("192.0.2.1", "198.51.100.7");
    let mut connection = edge.connect();
    connection.send(format!("{stranger}{forwarded}")).unwrap();
    let echo = connection.response().unwrap().json();
    assert_eq!(header(&echo, "x-forwarded-for"), "198.51.100.7");
}

#[test]
fn proxy_protocol_invalid_header_is_closed_and_counted_by_reason() {
    let (_origin, edge) = believing("");
    let mut broken = binary(0x21, "192.0.2.1:7".parse().unwrap(), &[3, 0, 4, 0, 0, 0, 0]);
    let mut long = broken.clone();
    (long[14], long[15]) = (0xff, 0xff);
    broken[16] ^= 1;
    for (bytes, reason) in [
        (GET.as_bytes().to_vec(), "no_header"),
        (b"\r\n\r\n\0\r\nQUIZ\n".to_vec(), "no_header"),
        (
            format!("PROXY {}", "x".repeat(200)).into_bytes(),
            "header_too_long",
        ),
        (long, "header_too_long"),
        (
            LINE.replace("TCP4", "TCP5").into_bytes(),
            "header_malformed",
        ),
        (
            binary(0x2f, "192.0.2.1:7".parse().unwrap(), &[]),
            "header_malformed",
        ),
        (broken, "header_checksum"),
    ] {
        let label = format!("reason=\"{reason}\"");
        let before = edge.admin.metric(REFUSED, &[&label]);
        let mut connection = edge.connect();
        connection.send(bytes).unwrap();
        connection.time_to_close();
        edge.admin.wait_for_metric(REFUSED, &[&label], before + 1);
    }
    let mut cut = edge.connect();
    cut.send(&LINE[..20]).unwrap();
    cut.finish_sending();
    assert_eq!(cut.rest().unwrap(), b"", "nothing is said to it");
    edge.admin
        .wait_for_metric(REFUSED, &["reason=\"header_truncated\""], 1);
    assert_eq!(header(&asked(&edge, LINE), "x-forwarded-for"), "192.0.2.1");
}

#[test]
fn proxy_protocol_second_header_is_400() {
    let (_origin, edge) = believing("");
    let mut connection = edge.connect();
    connection.send(format!("{LINE}{LINE}{GET}")).unwrap();
    assert_eq!(connection.response().unwrap().status, 400);
}

#[test]
fn proxy_protocol_header_has_one_deadline() {
    let origin = Origin::start();
    let edge = site(&origin, "from: [127.0.0.0/8], timeout: 1s}").start();
    let mut silent = edge.connect();
    wait::assert_about(silent.time_to_close(), Duration::from_secs(1));
    let mut socket = TcpStream::connect(edge.address).unwrap();
    let ((), took) = wait::timed(|| {
        for byte in LINE.bytes() {
            if socket.write_all(&[byte]).is_err() {
                break;
            }
            thread::sleep(Duration::from_millis(100));
        }
    });
    wait::assert_about(took, Duration::from_secs(1));
    edge.admin
        .wait_for_metric(REFUSED, &["reason=\"header_timeout\""], 2);
}

#[test]
fn proxy_protocol_untrusted_source_is_rejected_or_served_without() {
    let origin = Origin::start();
    let strict = site(&origin, "from: [10.0.0.0/8]}").start();
    let mut connection = strict.connect();
    let _ = connection.send(format!("{LINE}{GET}"));
    connection.time_to_close();
    strict
        .admin
        .wait_for_metric(REFUSED, &["reason=\"untrusted_source\""], 1);
    let open = site(&origin, "from: [10.0.0.0/8], untrusted: accept}").start();
    let echo = open.echo(&Request::get("/?k=a"));
    assert_eq!(header(&echo, "x-forwarded-for"), "127.0.0.1");
    let mut liar = open.connect();
    liar.send(format!("{LINE}{GET}")).unwrap();
    assert_eq!(
        liar.response().unwrap().status,
        400,
        "it is no header there"
    );
}

#[test]
fn proxy_protocol_tls_at_the_balancer_prevents_https_redirect() {
    let origin = Origin::start();
    let edge = site(&origin, "from: [127.0.0.0/8]}, https_redirect: 443").start();
    let client: SocketAddr = "192.0.2.1:7".parse().unwrap();
    let mut plain = edge.connect();
    plain.send(binary(0x21, client, &[])).unwrap();
    let answer = plain.get("/a?k=a").unwrap();
    assert_eq!(answer.status, 308);
    assert_eq!(answer.header("location"), Some("https://test/a?k=a"));
    let mut secure = edge.connect();
    secure.send(binary(0x21, client, &tls_tlv())).unwrap();
    assert_eq!(secure.get("/a?k=a").unwrap().status, 200);
}

#[test]
fn proxy_protocol_source_address_is_used_for_the_per_client_limit() {
    let origin = Origin::start();
    let edge = site(&origin, "from: [127.0.0.0/8]}")
        .downstream("{max_connections_per_client: 3}")
        .start();
    let barrier = Arc::new(Barrier::new(20));
    let crowd: Vec<_> = (0..20)
        .map(|_| {
            let (address, barrier) = (edge.address, Arc::clone(&barrier));
            thread::spawn(move || {
                barrier.wait();
                let mut connection = Connection::open(address);
                let _ = connection.send(format!("{LINE}{GET}"));
                connection.response().is_ok().then_some(connection)
            })
        })
        .collect();
    let served: Vec<_> = crowd
        .into_iter()
        .filter_map(|one| one.join().unwrap())
        .collect();
    assert_eq!(served.len(), 3);
    let limit = ["reason=\"client_limit\""];
    edge.admin.wait_for_metric(REFUSED, &limit, 17);
    assert_eq!(
        header(
            &asked(&edge, LINE.replace("2.1 ", "2.2 ")),
            "x-forwarded-for"
        ),
        "192.0.2.2"
    );
    drop(served);
    wait::until("a place to be free", || {
        let mut connection = edge.connect();
        let _ = connection.send(format!("{LINE}{GET}"));
        connection.response().is_ok()
    });
    let v6 = |host: &str| format!("PROXY TCP6 2001:db8::{host} ::1 1 2\r\n{GET}");
    let mut held = Vec::new();
    for host in ["1", "2", "3", "4"] {
        let mut connection = edge.connect();
        let _ = connection.send(v6(host));
        let served = connection.response().is_ok();
        assert_eq!(served, host != "4", "one /64 is one client");
        held.push(connection);
    }
}

#[test]
fn proxy_protocol_to_nginx_carries_the_client_address() {
    let nginx = nginx_behind();
    let edge = ConfigBuilder::of([nginx.address])
        .app("proxy_protocol", "v1")
        .app("health", "{http: /, interval: 100ms}")
        .start();
    edge.admin
        .wait_for_state("app", &nginx.address.to_string(), "up");
    let mut one = Connection::from("127.0.0.91".parse().unwrap(), edge.address).unwrap();
    let mut two = Connection::from("127.0.0.92".parse().unwrap(), edge.address).unwrap();
    let ask = |connection: &mut Connection| {
        let text = connection.get("/?k=a").unwrap().text();
        let (client, upstream) = text.split_once(' ').unwrap();
        (client.to_owned(), upstream.to_owned())
    };
    let (first, theirs) = (ask(&mut one), ask(&mut two));
    assert!(first.0.starts_with("127.0.0.91:"), "{first:?}");
    assert!(theirs.0.starts_with("127.0.0.92:"), "{theirs:?}");
    assert_eq!(ask(&mut one), first, "its own connection is used again");
    assert_eq!(ask(&mut two), theirs);
    assert_ne!(first.1, theirs.1, "and not another client's");
}

#[test]
fn proxy_protocol_to_haproxy_carries_addresses_and_tlvs() {
    let authority = Authority::new();
    let haproxy = haproxy_behind(
        "http-request return status 200 content-type text/plain lf-string \
        \"%ci:%cp %[dst]:%[dst_port] %[fc_pp_authority] %[fc_pp_unique_id]\"",
    );
    let tls = authority.issue("a", &["a.test"]);
    let told = "{version: v2, tlvs: [authority, alpn, tls, unique_id, checksum]}";
    let edge = ConfigBuilder::of([haproxy.address])
        .app("proxy_protocol", told)
        .top(
            "listeners",
            &format!("[{{address: \"127.0.0.1:0\", tls: {tls}}}]"),
        )
        .start();
    let own = [
        "--header",
        "x-request-id: number-1",
        "--interface",
        "127.0.0.93",
    ];
    let output = authority.curl("a.test", edge.address, &own);
    let words: Vec<&str> = output.split(' ').collect();
    assert!(words[0].starts_with("127.0.0.93:"), "{output}");
    assert_eq!(words[1], edge.address.to_string());
    assert_eq!(words[2..], ["a.test", "number-1"]);
}

#[test]
fn proxy_protocol_received_addresses_and_tlvs_are_forwarded() {
    let haproxy = haproxy_behind(
        "http-request return status 200 content-type text/plain lf-string \
        \"%ci:%cp %[dst]:%[dst_port] %[fc_pp_authority] %[fc_pp_unique_id]\"",
    );
    let edge = ConfigBuilder::of([haproxy.address])
        .app(
            "proxy_protocol",
            "{version: v2, tlvs: [authority, unique_id, tls]}",
        )
        .top("listeners", &listeners("from: [127.0.0.0/8]}"))
        .start();
    let tlvs = [&[2, 0, 6][..], b"a.test", &[5, 0, 2], b"id", &tls_tlv()].concat();
    let mut connection = edge.connect();
    connection
        .send(binary(0x21, "192.0.2.1:7".parse().unwrap(), &tlvs))
        .unwrap();
    let output = connection.get("/?k=a").unwrap().text();
    assert_eq!(output, "192.0.2.1:7 198.51.100.1:443 a.test id");
}

#[test]
fn proxy_protocol_header_is_sent_before_a_tunnel() {
    let origin = Origin::behaving(Behaviour::Upgrade);
    let address = origin.address;
    let haproxy = haproxy_behind(&format!(
        "mode tcp\n  default_backend b\nbackend b\n  mode tcp\n  server s {address}"
    ));
    let edge = ConfigBuilder::of([haproxy.address])
        .app("proxy_protocol", "v2")
        .start();
    let mut connection = edge.connect();
    let answer = connection.exchange(&Request::socket("/?k=a")).unwrap();
    assert_eq!(answer.status, 101);
    connection.send("ping").unwrap();
    assert_eq!(connection.exactly(4).unwrap(), b"ping");
}

#[test]
fn proxy_protocol_version_the_peer_does_not_speak_fails_the_attempt() {
    // It takes the bytes for a request, and says 400 or nothing.
    let origin = Origin::start();
    let edge = ConfigBuilder::of([origin.label()])
        .app("proxy_protocol", "v2")
        .start();
    assert_ne!(edge.get("/?k=a").status, 200);
}

/// An instance that trusts all addresses of this machine, with more keys for the listener.
fn believing(more: &str) -> (Origin, Edge) {
    let origin = Origin::start();
    let site = site(&origin, &format!("from: [127.0.0.0/8]}}{more}"));
    let edge = site.top("access_log", "{path: access.log}").start();
    (origin, edge)
}

fn site(origin: &Origin, rule: &str) -> ConfigBuilder {
    ConfigBuilder::of([origin.label()]).top("listeners", &listeners(rule))
}

fn listeners(rule: &str) -> String {
    format!("[{{address: \"127.0.0.1:0\", proxy_protocol: {{{rule}}}]")
}

/// What the origin was asked by a connection that begins with these bytes.
#[track_caller]
fn asked(edge: &Edge, header: impl AsRef<[u8]>) -> Value {
    let mut connection = edge.connect();
    connection
        .send([header.as_ref(), GET.as_bytes()].concat())
        .unwrap();
    connection.response().unwrap().json()
}

#[track_caller]
fn header<'a>(echo: &'a Value, name: &str) -> &'a str {
    let headers = echo["headers"].as_array().unwrap().iter();
    let mut found = headers.filter(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name));
    let found = found
        .next()
        .unwrap_or_else(|| panic!("no {name} in {echo}"));
    found[1].as_str().unwrap()
}

/// The line of the last request for this path.
#[track_caller]
fn logged(edge: &Edge, path: &str) -> Value {
    edge.log_line(|line| line["path"] == path)
}

/// A header of version 2 from an IPv4 address to 198.51.100.1:443.
fn binary(command: u8, source: SocketAddr, tlvs: &[u8]) -> Vec<u8> {
    let IpAddr::V4(ip) = source.ip() else {
        panic!("no IPv4 address");
    };
    let length = u16::try_from(12 + tlvs.len()).unwrap().to_be_bytes();
    let ports = [source.port().to_be_bytes(), 443_u16.to_be_bytes()].concat();
    let fixed = [command, 0x11, length[0], length[1]];
    let addresses = [ip.octets(), [198, 51, 100, 1]].concat();
    [
        b"\r\n\r\n\0\r\nQUIT\n",
        &fixed[..],
        &addresses,
        &ports,
        tlvs,
    ]
    .concat()
}

/// "The client came over TLS 1.3."
fn tls_tlv() -> Vec<u8> {
    [&[0x20, 0, 15, 1, 0, 0, 0, 1, 0x21, 0, 7][..], b"TLSv1.3"].concat()
}

fn haproxy_in_front(to: SocketAddr, word: &str) -> ReferenceProxy {
    let address = port::free();
    let text = format!(
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n\
         frontend f\n  bind {address}\n  default_backend b\n\
         backend b\n  server s {to} {word}\n"
    );
    let files = [("haproxy.cfg", text.as_str())];
    ReferenceProxy::start("haproxy", &["-db", "-f", "haproxy.cfg"], address, &files)
}

fn haproxy_behind(rules: &str) -> ReferenceProxy {
    let address = port::free();
    let text = format!(
        "defaults\n  mode http\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n\
         frontend f\n  bind {address} accept-proxy\n  {rules}\n"
    );
    let files = [("haproxy.cfg", text.as_str())];
    ReferenceProxy::start("haproxy", &["-db", "-f", "haproxy.cfg"], address, &files)
}

/// Responds with the client from the PROXY header and the number of the connection.
fn nginx_behind() -> ReferenceProxy {
    let address = port::free();
    let text = format!(
        "daemon off; master_process off; pid @DIR@/pid; events {{}}\n\
         http {{ access_log off; client_body_temp_path @DIR@/a; proxy_temp_path @DIR@/b;\n\
         fastcgi_temp_path @DIR@/c; uwsgi_temp_path @DIR@/d; scgi_temp_path @DIR@/e;\n\
         server {{ listen {address} proxy_protocol; location / {{\n\
         return 200 \"$proxy_protocol_addr:$proxy_protocol_port $connection\"; }} }} }}\n"
    );
    let arguments = ["-p", "@DIR@", "-c", "nginx.conf", "-e", "stderr"];
    ReferenceProxy::start("nginx", &arguments, address, &[("nginx.conf", &text)])
}
