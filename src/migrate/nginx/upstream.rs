//! `upstream`: servers and load balancing.

use std::time::Duration;

use super::syntax::Directive;
use super::unknown::note_unknown;
use super::{units, variables};
use crate::config;
use crate::migrate::clamp::NoteSubject;
use crate::migrate::draft::{
    KeySourceDraft, OutlierDetectionDraft, PeerDraft, RingDraft, UpstreamDraft,
};
use crate::migrate::notes::Notes;
use crate::migrate::source::SourceSpan;
use crate::ring::Weight;

const MODULO: &str = "without `consistent`, nginx hashes modulo the total weight, which Clockwise does not do; most keys will move once";
const NO_KEY: &str =
    "Clockwise chooses a server by a key, which is the client's address by default; choose `key`";

/// The upstream of a block, before the settings of its locations.
pub(super) fn upstream(block: &Directive, maps: &[&Directive], notes: &Notes<'_>) -> UpstreamDraft {
    let mut upstream = UpstreamDraft {
        name: block.argument(0).to_owned(),
        ..UpstreamDraft::default()
    };
    let mut limits = Vec::new();
    let mut chosen = false;
    for directive in block.children() {
        match directive.name.text.as_str() {
            "server" => limits.extend(server(directive, &mut upstream, notes)),
            "hash" => hash(directive, &mut upstream, maps, notes),
            "ip_hash" => ip_hash(directive, &mut upstream, notes),
            "least_conn" | "random" | "least_time" => {
                upstream
                    .comments
                    .push(notes.gap(directive.span(), &directive.text(), NO_KEY));
            }
            "keepalive_timeout" => upstream.timeouts.idle = units::duration(directive.argument(0)),
            "keepalive" | "zone" | "keepalive_requests" | "keepalive_time" => {}
            _ => note_unknown(directive, &mut upstream.comments, notes),
        }
        chosen |= matches!(
            directive.name.text.as_str(),
            "hash" | "ip_hash" | "least_conn" | "random" | "least_time"
        );
    }
    if !chosen && upstream.peers.len() > 1 {
        upstream
            .comments
            .push(notes.remark(block.span(), &block.text(), NO_KEY));
    }
    upstream.outlier_detection = outlier_detection(&limits, block, &mut upstream.comments, notes);
    upstream
}

/// The address of a `server` or `proxy_pass`, with `default_port` if it has none.
pub(super) fn address(text: &str, default_port: u16) -> Option<String> {
    let port = text
        .rsplit_once(':')
        .filter(|(_, port)| !port.contains(']'));
    let address = match port {
        Some(_) => text.to_owned(),
        None => format!("{text}:{default_port}"),
    };
    Some(address).filter(|address| config::is_address(address))
}

/// `max_fails` and `fail_timeout`.
#[derive(Clone, Copy, PartialEq, Eq)]
struct FailLimits {
    fails: Option<u64>,
    timeout: Option<Duration>,
}

fn server(
    directive: &Directive,
    upstream: &mut UpstreamDraft,
    notes: &Notes<'_>,
) -> Option<FailLimits> {
    let text = directive.argument(0);
    let Some(address) = address(text, 80) else {
        let why = "a peer is a host name or an IP address with a port";
        upstream
            .comments
            .push(notes.gap(directive.span(), &directive.text(), why));
        return None;
    };
    let mut peer = PeerDraft::new(address);
    peer.span = directive.span();
    peer.id = (peer.address != text).then(|| text.to_owned());
    let mut limits = FailLimits {
        fails: None,
        timeout: None,
    };
    let mut present = true;
    for word in directive.arguments.iter().skip(1) {
        let (name, value) = word.text.split_once('=').unwrap_or((&word.text, ""));
        let subject = format!("server {text} {}", word.text);
        match name {
            "weight" => peer.weight = value.parse().unwrap_or(1),
            "max_fails" => limits.fails = value.parse().ok(),
            "fail_timeout" => limits.timeout = units::duration(value),
            "slow_start" => {
                let subject = NoteSubject {
                    span: word.span,
                    text: &subject,
                };
                upstream.set_slow_start(units::duration(value), subject, notes);
            }
            "down" | "backup" => present = false,
            _ => {}
        }
        let comment = option_comment(name, word.span, &subject, notes);
        if present {
            peer.comments.extend(comment);
        } else {
            upstream.comments.extend(comment);
        }
    }
    clamp_weight(&mut peer, directive, notes);
    present.then(|| {
        upstream.peers.push(peer);
        limits
    })
}

fn option_comment(
    name: &str,
    span: SourceSpan,
    subject: &str,
    notes: &Notes<'_>,
) -> Option<String> {
    let why = option_advice(name)?;
    Some(if name == "down" {
        notes.remark(span, subject, why)
    } else {
        notes.gap(span, subject, why)
    })
}

fn option_advice(name: &str) -> Option<&'static str> {
    Some(match name {
        "down" => {
            "a server that is down is left out; its keys go to the next server on the ring, as in nginx"
        }
        "backup" => "Clockwise has no backup servers; this one is left out",
        "max_conns" => "to limit the load of a server, use `bounded_load` of the upstream",
        "resolve" | "service" => {
            "Clockwise resolves names when the configuration is loaded, and again only while a name has no address"
        }
        "route" | "drain" => "this belongs to the sticky sessions of nginx",
        _ => return None,
    })
}

fn clamp_weight(peer: &mut PeerDraft, directive: &Directive, notes: &Notes<'_>) {
    let most = u64::from(Weight::MAX.get());
    if !(1..=most).contains(&peer.weight) {
        peer.weight = peer.weight.clamp(1, most);
        let why = format!(
            "a weight is 1 to {most}; {} is written, and keys will move",
            peer.weight
        );
        peer.comments
            .push(notes.gap(directive.span(), &directive.text(), &why));
    }
}

fn hash(
    directive: &Directive,
    upstream: &mut UpstreamDraft,
    maps: &[&Directive],
    notes: &Notes<'_>,
) {
    let (span, subject) = (directive.span(), directive.text());
    let comments = &mut upstream.comments;
    match variables::key(directive.argument(0), maps) {
        Ok(hashed) => {
            upstream.key = hashed.key;
            let remarks = hashed.remarks.into_iter();
            comments.extend(remarks.map(|what| notes.remark(span, &subject, what)));
        }
        Err(why) => comments.push(notes.gap(span, &subject, &why)),
    }
    if directive.argument(1) == "consistent" {
        upstream.ring = Some(RingDraft {
            dialect: "nginx",
            options: Vec::new(),
        });
    } else {
        // The keys move anyway, and on another ring an empty key would be one.
        let key = std::mem::take(&mut upstream.key).into_iter();
        upstream.key = key.map(KeySourceDraft::without_options).collect();
        comments.push(notes.gap(span, &subject, MODULO));
        upstream.peers.iter_mut().for_each(|peer| peer.id = None);
    }
}

/// nginx hashes the first three bytes of an IPv4 address, or the whole IPv6 address.
fn ip_hash(directive: &Directive, upstream: &mut UpstreamDraft, notes: &Notes<'_>) {
    upstream.key = vec![KeySourceDraft::ClientNetwork { v4: 24, v6: 128 }];
    let why = "nginx hashes modulo the total weight, which Clockwise does not do; the key is the same network, but most clients will move once";
    upstream
        .comments
        .push(notes.gap(directive.span(), "ip_hash", why));
}

/// One setting for all servers, by the first server that has one.
fn outlier_detection(
    limits: &[FailLimits],
    block: &Directive,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> OutlierDetectionDraft {
    let is_set = |limits: &&FailLimits| limits.fails.is_some() || limits.timeout.is_some();
    let Some(first) = limits.iter().find(is_set) else {
        return OutlierDetectionDraft::Unset;
    };
    if limits.iter().any(|limits| limits != first) {
        let what = "`max_fails` and `fail_timeout` differ between servers; `outlier_detection` is the same for all, by the first server that sets one of them";
        comments.push(notes.remark(block.span(), &block.text(), what));
    }
    match first.fails {
        Some(0) => OutlierDetectionDraft::Off,
        fails => OutlierDetectionDraft::On {
            failures: fails.unwrap_or(1).min(1000),
            eject: first.timeout.unwrap_or(Duration::from_secs(10)),
        },
    }
}
