//! The model as YAML that reads as if a person had written it.
//!
//! Invariant: every text that comes from the old configuration goes through [`scalar`] or is a comment
//! without line breaks, so it can be nothing but a value.

use std::collections::HashSet;
use std::fmt::Write;
use std::time::Duration;

use super::draft::{
    ConfigDraft, HealthDraft, KeySourceDraft, ListenerDraft, OutlierDetectionDraft, PeerDraft,
    ProbeDraft, RingDraft, RouteDraft, SendProxyDraft, SizeLimit, UpstreamDraft,
};
use super::tls::{CertificateDraft, TlsOriginationDraft, TlsTerminationDraft};
use crate::route::{HostPattern, PathPrefix};

/// Comments are broken into lines of at most this many characters, if they have spaces.
const COMMENT_WIDTH: usize = 100;

/// The whole file; `name` is that of the old one.
pub(super) fn yaml(name: &str, setup: &ConfigDraft) -> String {
    let mut page = YamlWriter::default();
    let head = format!(
        "From {name}, by `clockwise migrate`. Look at the comments, then ask `clockwise check`."
    );
    page.comment(0, &head);
    page.comments(0, &setup.comments);
    page.line(0, "");
    page.line(0, "listeners:");
    setup
        .listeners
        .iter()
        .for_each(|listener| page.listener(listener));
    page.line(0, "");
    page.line(0, "routes:");
    setup.routes.iter().for_each(|route| page.route(route));
    page.line(0, "");
    page.line(0, "upstreams:");
    for (index, upstream) in setup.upstreams.iter().enumerate() {
        if index > 0 {
            page.line(0, "");
        }
        page.upstream(upstream);
    }
    page.process_settings(setup);
    page.0
}

#[derive(Default)]
struct YamlWriter(String);

/// `key: value` pairs on one line, those that were said.
type YamlPairs = Vec<(&'static str, Option<String>)>;

impl YamlWriter {
    fn line(&mut self, indent: usize, text: &str) {
        let indent = if text.is_empty() { 0 } else { indent };
        // Writing to a `String` cannot fail.
        let _ = writeln!(self.0, "{:indent$}{text}", "");
    }

    fn comments(&mut self, indent: usize, comments: &[String]) {
        let mut said = HashSet::new();
        for comment in comments.iter().filter(|comment| said.insert(*comment)) {
            self.comment(indent, comment);
        }
    }

    /// Follow-up lines are set in, so that it is seen where the next comment begins.
    fn comment(&mut self, indent: usize, text: &str) {
        let mut line = "#".to_owned();
        for word in text.split_whitespace() {
            if line.chars().count() + word.chars().count() >= COMMENT_WIDTH && line.len() > 4 {
                self.line(indent, &line);
                "#  ".clone_into(&mut line);
            }
            line.push(' ');
            line.push_str(word);
        }
        self.line(indent, &line);
    }

    fn listener(&mut self, listener: &ListenerDraft) {
        self.comments(2, &listener.comments);
        self.line(2, &format!("- address: {}", scalar(&listener.address)));
        self.pair(4, "backlog", listener.backlog);
        self.pair(4, "ipv6_only", Some("true").filter(|_| listener.ipv6_only));
        let believed = listener.accept_proxy_from.as_ref();
        let introduced = believed.map(|from| {
            let from: Vec<String> = from.iter().map(|network| scalar(network)).collect();
            format!("{{from: [{}]}}", from.join(", "))
        });
        self.pair(4, "proxy_protocol", introduced);
        self.pair(4, "tls", listener.tls.as_ref().and_then(tls_termination));
        let redirect = listener.https_redirect.map(|(port, _)| port);
        self.pair(4, "https_redirect", redirect);
    }

    fn route(&mut self, route: &RouteDraft) {
        self.comments(2, &route.comments);
        let host = Some(&route.host).filter(|host| **host != HostPattern::Any);
        let path = Some(&route.path).filter(|path| **path != PathPrefix::ROOT);
        let pairs: YamlPairs = vec![
            ("host", host.map(|host| scalar(&host.to_string()))),
            ("path", path.map(|path| scalar(&path.to_string()))),
            ("upstream", Some(scalar(&route.upstream))),
            ("max_body_size", route.max_body_size.map(clamped_size)),
            (
                "client_cert",
                route.client_cert.then(|| "required".to_owned()),
            ),
        ];
        let said = pairs
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)));
        for (index, (key, value)) in said.enumerate() {
            let mark = if index == 0 { "- " } else { "  " };
            self.line(2, &format!("{mark}{key}: {value}"));
        }
    }

    fn upstream(&mut self, upstream: &UpstreamDraft) {
        self.line(2, &format!("{}:", scalar(&upstream.name)));
        self.comments(4, &upstream.comments);
        self.pair(4, "key", keys(&upstream.key));
        self.pair(4, "ring", upstream.ring.as_ref().map(ring));
        self.pair(4, "bounded_load", upstream.bounded_load.as_ref());
        self.pair(4, "slow_start", upstream.slow_start.map(clamped_duration));
        self.line(4, "peers:");
        upstream.peers.iter().for_each(|peer| self.peer(peer));
        self.pair(4, "health", health(&upstream.health));
        self.pair(
            4,
            "outlier_detection",
            outlier_detection(upstream.outlier_detection),
        );
        self.retry_and_timeouts(upstream);
        self.pair(
            4,
            "host_header",
            upstream.host_header.as_deref().map(scalar),
        );
        self.pair(
            4,
            "proxy_protocol",
            upstream.send_proxy.as_ref().map(send_proxy),
        );
        self.pair(4, "tls", upstream.tls.as_ref().map(tls_origination));
        self.pair(4, "protocol", upstream.protocol);
        self.pair(4, "grpc_web", Some("true").filter(|_| upstream.grpc_web));
    }

    fn peer(&mut self, peer: &PeerDraft) {
        self.comments(6, &peer.comments);
        let weight = Some(peer.weight).filter(|weight| *weight != 1);
        let names = [&peer.label, &peer.id, &peer.server_name];
        if weight.is_none() && names.into_iter().all(Option::is_none) {
            self.line(6, &format!("- {}", scalar(&peer.address)));
            return;
        }
        let pairs = vec![
            ("address", Some(scalar(&peer.address))),
            ("label", peer.label.as_deref().map(scalar)),
            ("weight", weight.map(|weight| weight.to_string())),
            ("id", peer.id.as_deref().map(scalar)),
            ("server_name", peer.server_name.as_deref().map(scalar)),
        ];
        self.line(6, &format!("- {}", flow_map(pairs).unwrap_or_default()));
    }

    fn retry_and_timeouts(&mut self, upstream: &UpstreamDraft) {
        let retry = upstream.retry;
        let retries = match retry.attempts {
            Some(1) => Some("off".to_owned()),
            attempts => flow_map(vec![
                ("attempts", attempts.map(|number| number.to_string())),
                ("timeout", retry.timeout.map(clamped_duration)),
            ]),
        };
        self.pair(4, "retry", retries);
        let times = upstream.timeouts;
        let times = flow_map(vec![
            ("connect", times.connect.map(clamped_duration)),
            ("first_byte", times.first_byte.map(clamped_duration)),
            ("read", times.read.map(clamped_duration)),
            ("write", times.write.map(clamped_duration)),
            ("idle", times.idle.map(clamped_duration)),
            ("tunnel", times.tunnel.map(clamped_duration)),
        ]);
        self.pair(4, "timeouts", times);
    }

    fn process_settings(&mut self, setup: &ConfigDraft) {
        let start = self.0.len();
        self.downstream(setup);
        if !setup.trusted_proxies.is_empty() {
            let networks: Vec<_> = setup
                .trusted_proxies
                .iter()
                .map(|text| scalar(text))
                .collect();
            self.pair(
                0,
                "trusted_proxies",
                Some(format!("[{}]", networks.join(", "))),
            );
        }
        self.pair(0, "threads", setup.threads.as_deref());
        let log = setup.access_log.as_deref();
        let path = log.map(|path| {
            if path == "off" {
                path.to_owned()
            } else {
                scalar(path)
            }
        });
        self.pair(
            0,
            "access_log",
            path.map(|path| format!("{{path: {path}}}")),
        );
        let level = setup.error_level.map(|level| format!("{{level: {level}}}"));
        self.pair(0, "error_log", level);
        self.pair(
            0,
            "drain_timeout",
            setup.drain_timeout.map(clamped_duration),
        );
        self.pair(0, "pool_size", setup.pool_size);
        if self.0.len() > start {
            self.0.insert(start, '\n');
        }
    }

    fn downstream(&mut self, setup: &ConfigDraft) {
        let down = &setup.downstream;
        let pairs: YamlPairs = vec![
            ("header_timeout", down.header_timeout.map(clamped_duration)),
            ("keepalive", down.keepalive.map(clamped_duration)),
            (
                "keepalive_requests",
                down.keepalive_requests.map(clamped_count),
            ),
            ("read_timeout", down.read_timeout.map(clamped_duration)),
            ("write_timeout", down.write_timeout.map(clamped_duration)),
            ("max_connections", down.max_connections.map(clamped_count)),
            (
                "max_header_size",
                down.max_header_size
                    .map(|bytes| clamped_size(SizeLimit::Bytes(bytes))),
            ),
            (
                "max_uri_length",
                down.max_uri_length
                    .map(|bytes| clamped_size(SizeLimit::Bytes(bytes))),
            ),
            ("max_body_size", down.max_body_size.map(clamped_size)),
        ];
        if pairs.iter().any(|(_, value)| value.is_some()) {
            self.line(0, "downstream:");
            for (key, value) in pairs {
                self.pair(2, key, value);
            }
        }
    }

    fn pair(&mut self, indent: usize, key: &str, value: Option<impl std::fmt::Display>) {
        if let Some(value) = value {
            self.line(indent, &format!("{key}: {value}"));
        }
    }
}

fn flow_map(pairs: YamlPairs) -> Option<String> {
    let said = pairs
        .into_iter()
        .filter_map(|(key, value)| Some(format!("{key}: {}", value?)));
    let said: Vec<_> = said.collect();
    (!said.is_empty()).then(|| format!("{{{}}}", said.join(", ")))
}

fn keys(sources: &[KeySourceDraft]) -> Option<String> {
    match sources {
        [] => None,
        [one] => Some(source(one)),
        several => Some(source_list(several)),
    }
}

fn source_list(sources: &[KeySourceDraft]) -> String {
    let each: Vec<_> = sources.iter().map(source).collect();
    format!("[{}]", each.join(", "))
}

fn source(key: &KeySourceDraft) -> String {
    match key {
        KeySourceDraft::ClientIp => "client_ip".to_owned(),
        KeySourceDraft::ClientIpBinary => "{client_ip: {form: binary}}".to_owned(),
        KeySourceDraft::ClientNetwork { v4, v6 } => {
            format!("{{client_ip: {{v4: {v4}, v6: {v6}}}}}")
        }
        KeySourceDraft::Header(name) => format!("{{header: {}}}", scalar(name)),
        KeySourceDraft::HeaderElement(name, end) => {
            format!("{{header: {{name: {}, element: {end}}}}}", scalar(name))
        }
        KeySourceDraft::Cookie(name) => format!("{{cookie: {}}}", scalar(name)),
        KeySourceDraft::Query(name) => format!("{{query: {}}}", scalar(name)),
        KeySourceDraft::Path => "path".to_owned(),
        KeySourceDraft::PathAndQuery => "path_and_query".to_owned(),
        KeySourceDraft::Host => "host".to_owned(),
        KeySourceDraft::Any(sources, None) => format!("{{any: {}}}", source_list(sources)),
        KeySourceDraft::Any(sources, Some(separator)) => {
            format!(
                "{{any: {}, separator: {}}}",
                source_list(sources),
                scalar(separator)
            )
        }
    }
}

/// `None`: there is no certificate, and so no TLS.
fn tls_termination(tls: &TlsTerminationDraft) -> Option<String> {
    let files = |one: &CertificateDraft| -> YamlPairs {
        vec![
            ("cert", Some(scalar(&one.cert))),
            ("key", Some(scalar(&one.key))),
            ("ocsp", one.ocsp.as_deref().map(scalar)),
        ]
    };
    let mut pairs = match tls.certificates.as_slice() {
        [] => return None,
        [one] => files(one),
        several => {
            let each: Vec<_> = several
                .iter()
                .filter_map(|one| flow_map(files(one)))
                .collect();
            vec![("certificates", Some(format!("[{}]", each.join(", "))))]
        }
    };
    let hsts = tls.hsts.and_then(|hsts| {
        flow_map(vec![
            ("max_age", Some(duration_text(hsts.max_age))),
            ("subdomains", hsts.subdomains.then(|| "true".to_owned())),
            ("preload", hsts.preload.then(|| "true".to_owned())),
        ])
    });
    let clients = tls.client_auth.as_ref().and_then(|clients| {
        let mode = if clients.required {
            "required"
        } else {
            "optional"
        };
        flow_map(vec![
            ("mode", Some(mode.to_owned())),
            ("ca", Some(scalar(&clients.ca))),
            ("crl", clients.crl.as_deref().map(scalar)),
        ])
    });
    pairs.extend([
        ("min_version", tls.min_version.map(str::to_owned)),
        ("http2", tls.http2.map(|http2| http2.to_string())),
        ("hsts", hsts),
        ("client_auth", clients),
    ]);
    flow_map(pairs)
}

fn tls_origination(tls: &TlsOriginationDraft) -> String {
    let shown = tls.client_certificate.as_ref();
    let pairs = vec![
        ("server_name", tls.server_name.as_deref().map(scalar)),
        ("ca", tls.ca.as_deref().map(scalar)),
        ("cert", shown.map(|(cert, _)| scalar(cert))),
        ("key", shown.map(|(_, key)| scalar(key))),
        ("min_version", tls.min_version.map(str::to_owned)),
        ("verify", (!tls.verify).then(|| "false".to_owned())),
    ];
    flow_map(pairs).unwrap_or_else(|| "true".to_owned())
}

fn send_proxy(introduction: &SendProxyDraft) -> String {
    let SendProxyDraft { version, tlvs } = introduction;
    if tlvs.is_empty() {
        return (*version).to_owned();
    }
    format!("{{version: {version}, tlvs: [{}]}}", tlvs.join(", "))
}

fn ring(ring: &RingDraft) -> String {
    let mut text = format!("{{dialect: {}", ring.dialect);
    for (key, value) in &ring.options {
        let _ = write!(text, ", {key}: {value}");
    }
    text + "}"
}

fn health(health: &HealthDraft) -> Option<String> {
    match health {
        HealthDraft::Unset => None,
        HealthDraft::Off => Some("off".to_owned()),
        HealthDraft::On(probe) => Some(probe_map(probe)),
    }
}

fn probe_map(probe: &ProbeDraft) -> String {
    let tcp = probe.http.is_none().then(|| "true".to_owned());
    // A TCP probe asks for nothing.
    let host = probe.host.as_deref().filter(|_| probe.http.is_some());
    let expect = match probe.expect.as_slice() {
        _ if probe.http.is_none() => None,
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("[{}]", several.join(", "))),
    };
    let pairs = vec![
        ("tcp", tcp),
        ("http", probe.http.as_deref().map(scalar)),
        ("host", host.map(scalar)),
        ("expect", expect),
        ("interval", probe.interval.map(clamped_duration)),
        ("timeout", probe.timeout.map(clamped_duration)),
        ("fall", probe.fall.map(|number| number.to_string())),
        ("rise", probe.rise.map(|number| number.to_string())),
    ];
    flow_map(pairs).unwrap_or_default()
}

fn outlier_detection(detection: OutlierDetectionDraft) -> Option<String> {
    match detection {
        OutlierDetectionDraft::Unset => None,
        OutlierDetectionDraft::Off => Some("off".to_owned()),
        OutlierDetectionDraft::On { failures, eject } => Some(format!(
            "{{failures: {failures}, eject: {}}}",
            clamped_duration(eject)
        )),
    }
}

/// With the largest unit that needs no fraction, within what we allow.
fn clamped_duration(value: Duration) -> String {
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    duration_text(value.min(YEAR))
}

/// The same, without that bound.
fn duration_text(value: Duration) -> String {
    const UNITS: [(u128, &str); 3] = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let millis = value.as_millis().max(1);
    let unit = UNITS
        .iter()
        .find(|(factor, _)| millis.is_multiple_of(*factor));
    unit.map_or_else(
        || format!("{millis}ms"),
        |(factor, unit)| format!("{}{unit}", millis / factor),
    )
}

/// Within what we allow.
fn clamped_count(number: u64) -> String {
    const MOST: u64 = 1_000_000_000;
    number.min(MOST).to_string()
}

/// Within what we allow.
fn clamped_size(value: SizeLimit) -> String {
    const MOST: u64 = 1 << 50;
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let SizeLimit::Bytes(bytes) = value else {
        return "off".to_owned();
    };
    let bytes = bytes.min(MOST);
    let unit = UNITS
        .iter()
        .find(|(factor, _)| bytes > 0 && bytes.is_multiple_of(*factor));
    unit.map_or_else(
        || bytes.to_string(),
        |(factor, unit)| format!("{}{unit}", bytes / factor),
    )
}

/// A text as a YAML value, in quotes only where it needs them.
fn scalar(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:-".contains(c);
    let begins = text.starts_with(|c: char| c.is_ascii_alphanumeric() || "_/".contains(c));
    let word = matches!(
        text.to_ascii_lowercase().as_str(),
        "true" | "false" | "null" | "on" | "off" | "yes" | "no" | "y" | "n"
    );
    if begins && !word && !text.ends_with(':') && text.chars().all(plain) {
        return text.to_owned();
    }
    // A JSON string is a YAML one.
    serde_json::to_string(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_scalar_is_quoted_where_it_would_change_type() {
        for (text, written) in [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[::1]:80", "\"[::1]:80\""),
            ("*.example.com", "\"*.example.com\""),
            ("off", "\"off\""),
            ("a: b", "\"a: b\""),
            ("a\n- b", "\"a\\n- b\""),
            ("", "\"\""),
        ] {
            assert_eq!(scalar(text), written);
        }
    }

    #[test]
    fn yaml_durations_and_sizes_use_the_largest_exact_unit() {
        let shown = |millis| clamped_duration(Duration::from_millis(millis));
        assert_eq!(
            [shown(0), shown(1500), shown(90_000)],
            ["1ms", "1500ms", "90s"]
        );
        assert_eq!([shown(60_000), shown(7_200_000)], ["1m", "2h"]);
        let shown = |bytes| clamped_size(SizeLimit::Bytes(bytes));
        assert_eq!(
            [shown(0), shown(1000), shown(10 << 20)],
            ["0", "1000", "10MiB"]
        );
    }
}
