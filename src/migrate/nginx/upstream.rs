//! `upstream`: servers, and how nginx chooses between them.

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

const MODULO: &str =
    "without `consistent` it is a modulo, of which we have no like: most keys will move once";
const NO_KEY: &str =
    "requests go to servers by a key here, the client's address if none is chosen; choose `key`";

/// The upstream that a block describes, without what its locations add.
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

/// The address of a `server` or `proxy_pass`: with a port, which is `usual` where none is said.
pub(super) fn address(text: &str, usual: u16) -> Option<String> {
    let port = text
        .rsplit_once(':')
        .filter(|(_, port)| !port.contains(']'));
    let address = match port {
        Some(_) => text.to_owned(),
        None => format!("{text}:{usual}"),
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
        let why = "a peer is a host or an IP address with a port";
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
            "a server that is down is left out; its keys go where nginx sent them: to the next on the ring"
        }
        "backup" => "there are no servers for bad times only; it is left out",
        "max_conns" => "to bound the load of a server use `bounded_load` of the upstream",
        "resolve" | "service" => "names are looked up when the configuration is loaded",
        "route" | "drain" => "this belongs to nginx's own sticky sessions",
        _ => return None,
    })
}

fn clamp_weight(peer: &mut PeerDraft, directive: &Directive, notes: &Notes<'_>) {
    let most = u64::from(Weight::MAX.get());
    if !(1..=most).contains(&peer.weight) {
        peer.weight = peer.weight.clamp(1, most);
        let why = format!(
            "weights are 1 to {most}; {} is written, and keys will move",
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
    let (place, shown) = (directive.span(), directive.text());
    let comments = &mut upstream.comments;
    match variables::key(directive.argument(0), maps) {
        Ok(hashed) => {
            upstream.key = hashed.key;
            let remarks = hashed.remarks.into_iter();
            comments.extend(remarks.map(|what| notes.remark(place, &shown, what)));
        }
        Err(why) => comments.push(notes.gap(place, &shown, &why)),
    }
    if directive.argument(1) == "consistent" {
        upstream.ring = Some(RingDraft {
            dialect: "nginx",
            options: Vec::new(),
        });
    } else {
        comments.push(notes.gap(place, &shown, MODULO));
        upstream.peers.iter_mut().for_each(|peer| peer.id = None);
    }
}

/// nginx takes the first three octets of an IPv4 address, and the whole of an IPv6 one.
fn ip_hash(directive: &Directive, upstream: &mut UpstreamDraft, notes: &Notes<'_>) {
    upstream.key = vec![KeySourceDraft::ClientNetwork { v4: 24, v6: 128 }];
    let why = "it is a modulo, of which we have no like: the key is the same network, but most clients move once";
    upstream
        .comments
        .push(notes.gap(directive.span(), "ip_hash", why));
}

/// One setting for all servers; the first that says something decides.
fn outlier_detection(
    limits: &[FailLimits],
    block: &Directive,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> OutlierDetectionDraft {
    let said = |limits: &&FailLimits| limits.fails.is_some() || limits.timeout.is_some();
    let Some(first) = limits.iter().find(said) else {
        return OutlierDetectionDraft::Unset;
    };
    if limits.iter().any(|limits| limits != first) {
        let what = "`max_fails` and `fail_timeout` differ between its servers; `outlier_detection` is the same for all";
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
