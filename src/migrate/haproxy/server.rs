//! `server`: address, id and parameters.

use super::address::peer_address;
use super::backend_draft::{BackendDraft, BackendServer, SniSource};
use super::syntax::{HaproxyLine, HaproxyWord, takes_value};
use super::tls::GlobalTls;
use super::{server_tls, units};
use crate::migrate::clamp::NoteSubject;
use crate::migrate::draft::{PeerDraft, SendProxyDraft};
use crate::migrate::notes::Notes;
use crate::ring::Weight;
use crate::ring::haproxy::{Haproxy, ServerNumbers};

const TEMPLATE: &str = "list its servers under `peers`; with `ring: haproxy`, each with the `id` that HAProxy's `show servers state` tells";

/// Reads `server NAME ADDRESS PARAMETER…`.
pub(super) fn server(
    line: &HaproxyLine,
    global_tls: &GlobalTls,
    backend: &mut BackendDraft,
    notes: &Notes<'_>,
) {
    let address = peer_address(line.word(2));
    let mut server = BackendServer {
        used: address.is_some(),
        peer: PeerDraft::new(address.unwrap_or_default()),
        id: None,
        templates_before: std::mem::take(&mut backend.template_servers),
        sni: SniSource::default(),
        send_proxy: None,
    };
    let mut tls_params = server_tls::ServerTlsParams::new(global_tls);
    server.peer.span = line.span;
    if !server.used {
        let why =
            "a peer is a host name or an IP address with a port, or the path of a Unix socket";
        backend
            .upstream
            .comments
            .push(notes.gap(line.span, &line.text(), why));
    }
    let parameters = [backend.default_server.as_slice(), line.tail(3)].concat();
    let mut words = parameters.iter();
    while let Some(word) = words.next() {
        let valued = takes_value(&word.text);
        let value = if valued {
            words.next().map_or("", |word| &word.text)
        } else {
            ""
        };
        read_param(word, value, &mut server, backend);
        let subject = format!("server {} {} {value}", line.word(1), word.text);
        let (span, subject) = (word.span, subject.trim_end());
        let inherited = parameters.len() - words.len() <= backend.default_server.len();
        let full = format!("default-server {} {value}", word.text);
        let full = if inherited { full.trim_end() } else { subject };
        tls_params.read_param(word, value, full, global_tls);
        if word.text == "slowstart" {
            let subject = NoteSubject {
                span,
                text: subject,
            };
            let time = units::duration(value);
            backend.upstream.set_slow_start(time, subject, notes);
        }
        let comment = param_comment(word, value, subject, notes);
        server.peer.comments.extend(comment);
    }
    clamp_weight(&mut server, line, notes);
    set_send_proxy(&mut server, line, backend, notes);
    server_tls::apply_to_upstream(tls_params, &mut server, line, global_tls, backend, notes);
    backend.servers.push(server);
}

/// Counts the servers of `server-template PREFIX NUMBER|FIRST-LAST ADDRESS PARAMETER…`: they take ids.
pub(super) fn server_template(line: &HaproxyLine, backend: &mut BackendDraft, notes: &Notes<'_>) {
    let number = |text: &str| text.parse::<u32>().ok();
    let servers = match line.word(2).split_once('-') {
        Some((first, last)) => number(first)
            .zip(number(last))
            .and_then(|(first, last)| last.checked_sub(first)?.checked_add(1)),
        None => number(line.word(2)),
    };
    backend.template_servers = backend
        .template_servers
        .saturating_add(servers.unwrap_or_default());
    backend
        .upstream
        .comments
        .push(notes.gap(line.span, &line.text(), TEMPLATE));
}

/// All servers of an upstream get the PROXY header of the first.
fn set_send_proxy(
    server: &mut BackendServer,
    line: &HaproxyLine,
    backend: &mut BackendDraft,
    notes: &Notes<'_>,
) {
    let mut used = backend.servers.iter().filter(|server| server.used);
    match used.next() {
        _ if !server.used => {}
        None => backend.upstream.send_proxy = server.send_proxy.take(),
        Some(_) if backend.upstream.send_proxy == server.send_proxy => {}
        Some(_) => {
            let why = "all servers of an upstream share one `proxy_protocol`; put this one into an upstream of its own";
            let comment = notes.gap(line.span, &line.text(), why);
            server.peer.comments.push(comment);
        }
    }
}

/// The TLVs of `proxy-v2-options`, each once, after those of `earlier` parameters; other options have no counterpart.
fn tlvs(earlier: Vec<&'static str>, options: &str) -> Vec<&'static str> {
    let mut tlvs = earlier;
    for option in options.split(',') {
        let tlv = match option {
            "ssl" | "cert-cn" | "ssl-cipher" => "tls",
            "authority" => "authority",
            "unique-id" => "unique_id",
            "crc32c" => "checksum",
            _ => continue,
        };
        if !tlvs.contains(&tlv) {
            tlvs.push(tlv);
        }
    }
    tlvs
}

/// The peers with their ids: the parameter `id`, or a counter over all servers that skips taken ids.
pub(super) fn peers(servers: Vec<BackendServer>, comments: &mut Vec<String>) -> Vec<PeerDraft> {
    let mut numbers = ServerNumbers::new(servers.iter().filter_map(|server| server.id));
    let mut peers = Vec::new();
    for server in servers {
        numbers.skip(server.templates_before);
        let id = numbers.assign(server.id);
        if server.used {
            let id = Some(id).filter(|id| *id <= Haproxy::MAX_ID);
            let id = id.map(|id| id.to_string());
            peers.push(PeerDraft { id, ..server.peer });
        } else {
            comments.extend(server.peer.comments);
        }
    }
    peers
}

fn read_param(
    word: &HaproxyWord,
    value: &str,
    server: &mut BackendServer,
    backend: &mut BackendDraft,
) {
    let number = || {
        value
            .parse::<u64>()
            .ok()
            .filter(|number| (1..=1000).contains(number))
    };
    let probe = &mut backend.probe;
    let header = |version, tlvs: &[&'static str]| {
        let tlvs = tlvs.to_vec();
        Some(SendProxyDraft { version, tlvs })
    };
    match word.text.as_str() {
        "send-proxy" => server.send_proxy = header("v1", &[]),
        "send-proxy-v2" => server.send_proxy = header("v2", &[]),
        "send-proxy-v2-ssl" | "send-proxy-v2-ssl-cn" => {
            server.send_proxy = header("v2", &["tls"]);
        }
        "proxy-v2-options" => {
            let earlier = server.send_proxy.take().map_or(Vec::new(), |one| one.tlvs);
            server.send_proxy = header("v2", &tlvs(earlier, value));
        }
        "weight" => server.peer.weight = value.parse().unwrap_or(1),
        "id" => {
            server.id = value
                .parse()
                .ok()
                .filter(|id| (1..=Haproxy::MAX_ID).contains(id));
        }
        "check" => backend.has_checks = true,
        "no-check" => backend.has_checks = false,
        "inter" => probe.interval = probe.interval.or_else(|| units::duration(value)),
        "fall" => probe.fall = probe.fall.or_else(number),
        "rise" => probe.rise = probe.rise.or_else(number),
        "disabled" | "backup" => server.used = false,
        _ => {}
    }
}

fn param_comment(
    word: &HaproxyWord,
    value: &str,
    subject: &str,
    notes: &Notes<'_>,
) -> Option<String> {
    let why = param_advice(&word.text, value)?;
    let is_translated = match word.text.as_str() {
        "disabled" => true,
        "init-addr" => has_no_fallback_address(value),
        _ => false,
    };
    Some(if is_translated {
        notes.remark(word.span, subject, why)
    } else {
        notes.gap(word.span, subject, why)
    })
}

fn param_advice(name: &str, value: &str) -> Option<&'static str> {
    Some(match name {
        "disabled" => {
            "a disabled server is left out; use `clockwise drain` to take a server off the ring"
        }
        "backup" => "Clockwise has no backup servers; this one is left out",
        "maxconn" => "to limit the load of a server, use `bounded_load` of the upstream",
        "port" | "addr" => "a probe uses the address and port of requests",
        "agent-check" => "Clockwise has no agents; weights are in the configuration",
        "hash-key" if value != "id" => "the ring places a server by its id; keys will move",
        "init-addr" if has_no_fallback_address(value) => {
            "as with `last,libc,none`: a peer without an address gets no requests, and its name is looked up again (`start: tolerant`)"
        }
        "init-addr" => "a peer without an address keeps the last one; another cannot be set",
        "track" => "each upstream probes its own peers",
        "redir" => "Clockwise passes every request to the server",
        _ => return None,
    })
}

/// Whether the methods of `init-addr` are those that Clockwise has; the others are IP addresses.
fn has_no_fallback_address(methods: &str) -> bool {
    let mut methods = methods.split(',');
    methods.all(|method| matches!(method, "last" | "libc" | "none"))
}

/// A server with weight 0 gets no keys, so it is left out.
fn clamp_weight(server: &mut BackendServer, line: &HaproxyLine, notes: &Notes<'_>) {
    let most = u64::from(Weight::MAX.get());
    let weight = server.peer.weight;
    if weight == 0 {
        server.used = false;
        let what = "a server with weight 0 gets no keys; it is left out";
        server
            .peer
            .comments
            .push(notes.remark(line.span, &line.text(), what));
    } else if weight > most {
        server.peer.weight = most;
        let why = format!("a weight is at most {most}, which is written");
        server
            .peer
            .comments
            .push(notes.gap(line.span, &line.text(), &why));
    }
}
