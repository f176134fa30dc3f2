//! Writes a draft as YAML, as a person would.
//!
//! Invariant: every text of the old configuration is a value from [`scalar`] or a comment without line breaks,
//! so it cannot change the structure of the YAML.

mod scalars;
mod values;

use std::collections::HashSet;
use std::fmt::Write;

use self::scalars::{YamlPairs, clamped_count, clamped_duration, clamped_size, flow_map, scalar};
use super::draft::{ConfigDraft, ListenerDraft, PeerDraft, RouteDraft, SizeLimit, UpstreamDraft};
use crate::route::{HostPattern, PathPrefix};

/// Comments wrap at this many characters.
const COMMENT_WIDTH: usize = 100;

const PATHS_AS_SENT: &str = "Routes compare paths as they are sent, as before: `/x/../admin` does not take the route of `/admin`. \
                             With `match`, the default, it does.";

/// The whole file; `name` is the old file.
pub(super) fn yaml(name: &str, draft: &ConfigDraft) -> String {
    let mut writer = YamlWriter::default();
    let head = format!(
        "Translated from {name} by `clockwise migrate`. Read the comments, then run `clockwise check`."
    );
    writer.comment(0, &head);
    writer.comments(0, &draft.comments);
    writer.line(0, "");
    writer.line(0, "listeners:");
    draft
        .listeners
        .iter()
        .for_each(|listener| writer.listener(listener));
    writer.line(0, "");
    writer.line(0, "routes:");
    draft.routes.iter().for_each(|route| writer.route(route));
    writer.normalize_path(draft);
    writer.line(0, "");
    writer.line(0, "upstreams:");
    for (index, upstream) in draft.upstreams.iter().enumerate() {
        if index > 0 {
            writer.line(0, "");
        }
        writer.upstream(upstream);
    }
    writer.process_settings(draft);
    writer.0
}

#[derive(Default)]
struct YamlWriter(String);

impl YamlWriter {
    fn line(&mut self, indent: usize, text: &str) {
        let indent = if text.is_empty() { 0 } else { indent };
        // Writing to a `String` cannot fail.
        let _ = writeln!(self.0, "{:indent$}{text}", "");
    }

    fn comments(&mut self, indent: usize, comments: &[String]) {
        let mut seen = HashSet::new();
        for comment in comments.iter().filter(|comment| seen.insert(*comment)) {
            self.comment(indent, comment);
        }
    }

    /// Continuation lines are indented, to show where the next comment begins.
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
        let sources = listener.accept_proxy_from.as_ref();
        let proxy_protocol = sources.map(|from| {
            let from: Vec<String> = from.iter().map(|network| scalar(network)).collect();
            format!("{{from: [{}]}}", from.join(", "))
        });
        self.pair(4, "proxy_protocol", proxy_protocol);
        self.pair(
            4,
            "tls",
            listener.tls.as_ref().and_then(values::tls_termination),
        );
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
            ("upgrade", route.upgrade.as_deref().map(values::upgrade)),
        ];
        let present = pairs
            .into_iter()
            .filter_map(|(key, value)| Some((key, value?)));
        for (index, (key, value)) in present.enumerate() {
            let mark = if index == 0 { "- " } else { "  " };
            self.line(2, &format!("{mark}{key}: {value}"));
        }
    }

    fn normalize_path(&mut self, draft: &ConfigDraft) {
        let Some(rule) = draft.normalize_path else {
            return;
        };
        self.line(0, "");
        if rule == "off" {
            self.comment(0, PATHS_AS_SENT);
        }
        self.pair(0, "normalize_path", Some(rule));
    }

    fn upstream(&mut self, upstream: &UpstreamDraft) {
        self.line(2, &format!("{}:", scalar(&upstream.name)));
        self.comments(4, &upstream.comments);
        self.pair(4, "key", values::keys(&upstream.key));
        self.pair(4, "ring", upstream.ring.as_ref().map(values::ring));
        self.pair(4, "bounded_load", upstream.bounded_load.as_ref());
        self.pair(4, "slow_start", upstream.slow_start.map(clamped_duration));
        self.line(4, "peers:");
        upstream.peers.iter().for_each(|peer| self.peer(peer));
        self.pair(4, "health", values::health(&upstream.health));
        self.pair(
            4,
            "outlier_detection",
            values::outlier_detection(upstream.outlier_detection),
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
            upstream.send_proxy.as_ref().map(values::send_proxy),
        );
        self.pair(4, "tls", upstream.tls.as_ref().map(values::tls_origination));
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

    fn process_settings(&mut self, draft: &ConfigDraft) {
        let start = self.0.len();
        self.downstream(draft);
        if !draft.trusted_proxies.is_empty() {
            let networks: Vec<_> = draft
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
        self.pair(0, "threads", draft.threads.as_deref());
        let log = draft.access_log.as_deref();
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
        let level = draft.error_level.map(|level| format!("{{level: {level}}}"));
        self.pair(0, "error_log", level);
        self.pair(
            0,
            "drain_timeout",
            draft.drain_timeout.map(clamped_duration),
        );
        self.pair(0, "pool_size", draft.pool_size);
        if self.0.len() > start {
            self.0.insert(start, '\n');
        }
    }

    fn downstream(&mut self, draft: &ConfigDraft) {
        let downstream = &draft.downstream;
        let pairs: YamlPairs = vec![
            (
                "header_timeout",
                downstream.header_timeout.map(clamped_duration),
            ),
            ("keepalive", downstream.keepalive.map(clamped_duration)),
            (
                "keepalive_requests",
                downstream.keepalive_requests.map(clamped_count),
            ),
            (
                "read_timeout",
                downstream.read_timeout.map(clamped_duration),
            ),
            (
                "write_timeout",
                downstream.write_timeout.map(clamped_duration),
            ),
            (
                "max_connections",
                downstream.max_connections.map(clamped_count),
            ),
            (
                "max_header_size",
                downstream
                    .max_header_size
                    .map(|bytes| clamped_size(SizeLimit::Bytes(bytes))),
            ),
            (
                "max_uri_length",
                downstream
                    .max_uri_length
                    .map(|bytes| clamped_size(SizeLimit::Bytes(bytes))),
            ),
            ("max_body_size", downstream.max_body_size.map(clamped_size)),
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
