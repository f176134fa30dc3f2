//! The keys of every section, and the advice for a key that a section does not have.

use std::collections::BTreeSet;

use super::report::quote;

/// A kind of map in the configuration.
#[derive(Debug)]
pub(super) struct SectionSchema {
    /// Its name in messages, as in "unknown key in {title}".
    pub(super) title: &'static str,
    /// Its place: `NAME` is any name, `[]` any item of a list.
    pub(super) path: &'static str,
    /// A short valid value, for the help of a message.
    pub(super) example: &'static str,
    pub(super) keys: &'static [&'static str],
}

macro_rules! sections {
    ($($id:ident: $title:literal at $path:literal as $example:literal [$($key:literal)*];)*) => {
        $(pub(super) static $id: SectionSchema =
            SectionSchema { title: $title, path: $path, example: $example, keys: &[$($key),*] };)*
        /// All sections, the outer ones first.
        pub(super) static ALL: &[&SectionSchema] = &[$(&$id),*];
    };
}

sections! {
    ROOT: "the configuration" at "" as "drain_timeout: 80s" [
        "listeners" "routes" "upstreams" "downstream" "forwarding" "trusted_proxies" "admin"
        "threads" "access_log" "error_log" "control" "drain_timeout" "upgrade_timeout" "watch"
        "state_file" "pool_size" "acme"
    ];
    ACME: "`acme`" at "acme" as "{directory: letsencrypt, contact: [mailto:ops@example.org]}" [
        "directory" "contact" "storage" "key_type" "external_account" "ca" "renew_before"
        "challenge"
    ];
    EXTERNAL_ACCOUNT: "`external_account`" at "acme.external_account"
        as "{id: my-account, hmac_key_file: /etc/clockwise/eab.key}" ["id" "hmac_key_file"];
    LISTENER: "a listener" at "listeners[]" as "{address: 0.0.0.0:8080}" [
        "address" "backlog" "ipv6_only" "reuse_port" "freebind" "mode" "owner" "group"
        "proxy_protocol" "tls" "h2c" "https_redirect"
    ];
    ACCEPT_PROXY: "`proxy_protocol`" at "listeners[].proxy_protocol"
        as "{from: [10.0.0.0/8]}" ["from" "timeout" "untrusted"];
    TLS: "`tls`" at "listeners[].tls" as "{cert: server.crt, key: server.key}" [
        "cert" "key" "ocsp" "acme" "certificates" "min_version" "handshake_timeout" "client_auth"
        "http2" "hsts"
    ];
    HSTS: "`hsts`" at "listeners[].tls.hsts" as "{max_age: 8760h}" [
        "max_age" "subdomains" "preload"
    ];
    CERTIFICATE: "a certificate" at "listeners[].tls.certificates[]"
        as "{cert: server.crt, key: server.key}" ["cert" "key" "ocsp" "acme"];
    CLIENT_AUTH: "`client_auth`" at "listeners[].tls.client_auth"
        as "{mode: required, ca: clients.crt}" ["mode" "ca" "crl"];
    ROUTE: "a route" at "routes[]" as "{path: /, upstream: app}" [
        "host" "path" "methods" "upstream" "max_body_size" "client_cert"
    ];
    UPSTREAM: "an upstream" at "upstreams.NAME" as "{peers: [10.0.0.1:8080]}" [
        "key" "missing_key" "ring" "peers" "health" "outlier_detection" "retry" "timeouts"
        "host_header" "proxy_protocol" "max_moved" "bounded_load" "slow_start" "drain" "hot_keys" "flap_damping"
        "close_moved_streams" "protocol" "h2" "tls" "grpc_web"
    ];
    PEER: "a peer" at "upstreams.NAME.peers[]" as "{address: 10.0.0.1:8080, weight: 2}" [
        "address" "label" "weight" "id" "server_name"
    ];
    H2: "`h2`" at "upstreams.NAME.h2" as "{max_streams: 100}" ["max_streams" "ping"];
    PEER_TLS: "`tls`" at "upstreams.NAME.tls" as "{ca: FILE, server_name: app.example.com}" [
        "ca" "server_name" "cert" "key" "min_version" "verify"
    ];
    KEY_SOURCE: "a key source" at "upstreams.NAME.key[]" as "{cookie: sid}" [
        "client_ip" "header" "cookie" "query" "path_segment" "all" "any" "separator"
    ];
    CLIENT_IP: "`client_ip`" at "upstreams.NAME.key[].client_ip" as "{v4: 24, v6: 64}" [
        "v4" "v6" "form"
    ];
    HEADER: "`header`" at "upstreams.NAME.key[].header" as "{name: x-forwarded-for, element: last}" [
        "name" "element"
    ];
    COOKIE: "`cookie`" at "upstreams.NAME.key[].cookie" as "{name: cw, generate: true}" [
        "name" "generate" "ttl" "refresh" "same_site" "secure" "http_only" "path" "domain"
    ];
    RING: "`ring`" at "upstreams.NAME.ring" as "{dialect: ketama, points: 160}" [
        "dialect" "points" "replicas" "hash" "avalanche" "by" "hash_tag" "minimum_ring_size"
        "maximum_ring_size"
    ];
    HEALTH: "`health`" at "upstreams.NAME.health" as "{http: /healthz, interval: 2s}" [
        "tcp" "http" "grpc" "host" "expect" "interval" "timeout" "fall" "rise"
    ];
    OUTLIER_DETECTION: "`outlier_detection`" at "upstreams.NAME.outlier_detection"
        as "{failures: 3, eject: 10s}" [
        "failures" "eject" "max_eject"
    ];
    BOUNDED_LOAD: "`bounded_load`" at "upstreams.NAME.bounded_load" as "{factor: 1.25, wait: 5ms}" [
        "factor" "wait"
    ];
    SLOW_START: "`slow_start`" at "upstreams.NAME.slow_start" as "{time: 60s}" [
        "time" "at_start"
    ];
    DRAIN: "`drain`" at "upstreams.NAME.drain" as "{idle: 10m, deadline: 1h}" [
        "idle" "deadline" "keys"
    ];
    HOT_KEYS: "`hot_keys`" at "upstreams.NAME.hot_keys" as "{share: 2%, spread: 3}" [
        "share" "spread"
    ];
    FLAP_DAMPING: "`flap_damping`" at "upstreams.NAME.flap_damping" as "{flips: 3, half_life: 1m}" [
        "flips" "half_life" "max"
    ];
    CLOSE_MOVED_STREAMS: "`close_moved_streams`" at "upstreams.NAME.close_moved_streams"
        as "{after: 1m, per_second: 10}" ["after" "per_second"];
    RETRY: "`retry`" at "upstreams.NAME.retry" as "{attempts: 3, timeout: 10s}" [
        "attempts" "timeout"
    ];
    TIMEOUTS: "`timeouts`" at "upstreams.NAME.timeouts" as "{connect: 1s, read: 60s}" [
        "connect" "first_byte" "read" "stream" "write" "idle" "tunnel"
    ];
    TUNNEL: "`tunnel`" at "upstreams.NAME.timeouts.tunnel" as "{idle: 1h, total: 8h}" [
        "idle" "total"
    ];
    SEND_PROXY: "`proxy_protocol`" at "upstreams.NAME.proxy_protocol"
        as "{version: v2, tlvs: [authority, tls]}" ["version" "tlvs"];
    DOWNSTREAM: "`downstream`" at "downstream" as "{keepalive: 60s, max_body_size: 1MiB}" [
        "header_timeout" "keepalive" "keepalive_requests" "read_timeout" "write_timeout"
        "request_timeout" "max_streams" "max_connections" "max_connections_per_client"
        "max_header_size" "max_uri_length" "max_body_size"
    ];
    PER_CLIENT: "`max_connections_per_client`" at "downstream.max_connections_per_client"
        as "{limit: 100, v6: 64}" ["limit" "v4" "v6"];
    FORWARDING: "`forwarding`" at "forwarding" as "{x_forwarded: true}" [
        "x_forwarded" "forwarded" "client_cert" "request_id"
    ];
    ADMIN: "`admin`" at "admin" as "{address: 127.0.0.1:9900}" ["address" "token"];
    ACCESS_LOG: "`access_log`" at "access_log" as "{path: stdout}" ["path"];
    ERROR_LOG: "`error_log`" at "error_log" as "{level: info}" ["level"];
    STATE_FILE: "`state_file`" at "state_file" as "{path: /var/lib/clockwise/state.json}" [
        "path" "max_age"
    ];
}

/// Keys and values that have been renamed: section, old, new. A value is written `key: value`.
static RENAMED: &[(&SectionSchema, &str, &str)] = &[
    (&UPSTREAM, "passive", "outlier_detection"),
    (&ACCEPT_PROXY, "others", "untrusted"),
    (&ACCEPT_PROXY, "untrusted: refuse", "untrusted: reject"),
    (&ACCEPT_PROXY, "untrusted: serve", "untrusted: accept"),
];

/// Keys of other proxies: theirs, ours.
const FOREIGN_KEYS: &[(&str, &str)] = &[
    ("accept-proxy", "proxy_protocol"),
    ("accept_proxy", "proxy_protocol"),
    ("acme_ca", "directory"),
    ("backend", "upstream"),
    ("backends", "upstreams"),
    ("balance", "key"),
    ("bind", "address"),
    ("hash-balance-factor", "bounded_load"),
    ("hash_balance_factor", "bounded_load"),
    ("slowstart", "slow_start"),
    ("ssl", "tls"),
    ("ssl_certificate", "cert"),
    ("ssl_certificate_key", "key"),
    ("caserver", "directory"),
    ("ca-file", "ca"),
    ("cacert", "ca"),
    ("certificate", "cert"),
    ("proxy_ssl_name", "server_name"),
    ("sni", "server_name"),
    ("cluster", "upstream"),
    ("clusters", "upstreams"),
    ("domain", "host"),
    ("eab", "external_account"),
    ("email", "contact"),
    ("endpoints", "peers"),
    ("file", "path"),
    ("frontends", "listeners"),
    ("hash", "key"),
    ("hash_key", "key"),
    ("health_check", "health"),
    ("healthcheck", "health"),
    ("keytype", "key_type"),
    ("listen", "listeners"),
    ("locations", "routes"),
    ("log", "access_log"),
    ("log_level", "error_log"),
    ("members", "peers"),
    ("name", "label"),
    ("nodes", "peers"),
    ("prefix", "path"),
    ("proxy_pass", "upstream"),
    ("retries", "retry"),
    ("rules", "routes"),
    ("send-proxy", "proxy_protocol"),
    ("send_proxy", "proxy_protocol"),
    ("server", "address"),
    ("servers", "peers"),
    ("shutdown_timeout", "drain_timeout"),
    ("target", "upstream"),
    ("targets", "peers"),
    ("timeout", "timeouts"),
    ("uri", "path"),
    ("url", "address"),
    ("workers", "threads"),
];

/// The new name of a key, or of a `key: value`, of `section` that has been renamed.
pub(super) fn renamed(section: &SectionSchema, old: &str) -> Option<&'static str> {
    let found = RENAMED
        .iter()
        .find(|(of, name, _)| std::ptr::eq(*of, section) && *name == old);
    found.map(|(_, _, new)| *new)
}

/// The advice for a key that `section` does not have, and the key of `section` that was probably meant.
pub(super) fn unknown_key_advice(
    section: &SectionSchema,
    key: &str,
) -> (String, Option<&'static str>) {
    if key == "<<" {
        return (
            "merge keys are not part of YAML 1.2; write the keys out".to_owned(),
            None,
        );
    }
    if let Some(near) = nearest(key, section.keys.iter().copied()) {
        return (format!("did you mean `{near}`?"), Some(near));
    }
    let homes = sections_with_key(key);
    if !homes.is_empty() {
        return (format!("`{key}` belongs in {}", homes.join(" or ")), None);
    }
    match FOREIGN_KEYS
        .iter()
        .find(|(theirs, _)| key.eq_ignore_ascii_case(theirs))
    {
        Some((_, ours)) => foreign_key_advice(section, key, ours),
        None => (list_keys(section), None),
    }
}

/// The candidate of which `word` is probably a misspelling.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // The distance costs the product of both lengths; no key is longer.
    const MAX: usize = 64;
    let word = Some(word)
        .filter(|word| word.len() <= MAX)?
        .to_lowercase()
        .replace('-', "_");
    let bound = (word.chars().count() / 3).clamp(1, 3);
    let distance = |candidate: &str| {
        strsim::damerau_levenshtein(&word, &candidate.to_lowercase().replace('-', "_"))
    };
    let near = candidates
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= bound)
        .map(|candidate| (distance(candidate), candidate));
    near.filter(|(distance, _)| *distance <= bound)
        .min()
        .map(|(_, candidate)| candidate)
}

/// The places of all sections that have exactly this key.
fn sections_with_key(key: &str) -> Vec<String> {
    let with_key = ALL.iter().filter(|section| section.keys.contains(&key));
    with_key
        .map(|section| section_location(section))
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

fn section_location(section: &SectionSchema) -> String {
    match section.path {
        "" => "the top level of the file".to_owned(),
        path if section.title.starts_with('`') => format!("`{path}`"),
        path => format!("{} (`{path}`)", section.title),
    }
}

fn foreign_key_advice(
    section: &SectionSchema,
    key: &str,
    ours: &'static str,
) -> (String, Option<&'static str>) {
    let message = format!("{} is called `{ours}` here", quote(key));
    if section.keys.contains(&ours) {
        return (message, Some(ours));
    }
    (
        format!("{message}, in {}", sections_with_key(ours).join(" or ")),
        None,
    )
}

fn list_keys(section: &SectionSchema) -> String {
    let keys = section
        .keys
        .iter()
        .map(|key| format!("`{key}`"))
        .collect::<Vec<_>>()
        .join(", ");
    format!("the keys of {} are {keys}", section.title)
}
