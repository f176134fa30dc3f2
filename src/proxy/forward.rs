//! Phase 6, both ways: what the peer is told about the client, and what the response means for the
//! connection's clock. A request's hop-by-hop fields are Pingora's work.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{CONNECTION, FORWARDED, HOST};
use http::{HeaderName, HeaderValue};
use pingora_error::Result;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::context::{Ask, Context};
use crate::clock;
use crate::config::HostHeader;
use crate::connection::Phase;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Nothing that an untrusted client says of its own way here is passed on.
const CLAIMS: [HeaderName; 4] = [
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
    FORWARDED,
];

/// Writes the fields that a peer gets from us into the request for it.
pub(super) fn request(session: &Session, request: &mut RequestHeader, ctx: &Context) -> Result<()> {
    let forwarding = &ctx.snapshot.forwarding;
    let remote = session
        .client_addr()
        .and_then(|address| address.as_inet())
        .map(|inet| inet.ip().to_canonical());
    if !ctx.ask.from_trusted {
        for claim in &CLAIMS {
            request.remove_header(claim);
        }
    }
    if let Some(remote) = remote {
        if forwarding.x_forwarded {
            x_forwarded(request, &ctx.ask, remote)?;
        }
        if forwarding.forwarded {
            append(request, &FORWARDED, &forwarded_element(&ctx.ask, remote))?;
        }
    }
    if let (Some(name), Some(id)) = (&forwarding.request_id, &ctx.ask.id) {
        request.insert_header(name.clone(), id.clone())?;
    }
    host(request, ctx)
}

/// The response's header came.
pub(super) fn response(session: &mut Session, response: &mut ResponseHeader, ctx: &mut Context) {
    let Some(connection) = &ctx.connection else {
        return;
    };
    let status = response.status.as_u16();
    if status != 101 {
        remove_hop_by_hop(response);
    }
    if status == 101 {
        session.set_read_timeout(None);
        connection.begin_tunnel();
    } else if response.status.is_informational() {
        return super::connect::progress(ctx);
    } else {
        connection.enter(Phase::Response, ctx.gap);
    }
    ctx.status = status;
    ctx.first_byte = Some(clock::since_start());
    tunnel_progress(ctx);
}

/// Removes what a peer says to us alone (RFC 9110, 7.6.1): the fields that `Connection` names, and
/// those that were always meant so. Pingora does this for requests only. `Transfer-Encoding` stays:
/// it is Pingora's to translate.
fn remove_hop_by_hop(response: &mut ResponseHeader) {
    const ALWAYS: [&str; 4] = ["keep-alive", "proxy-connection", "te", "upgrade"];
    const KEPT: [&str; 2] = ["close", "transfer-encoding"];
    if let Some(named) = response.headers.get(CONNECTION).cloned() {
        let named = named.to_str().unwrap_or("").split(',').map(str::trim);
        for name in named.filter(|name| !KEPT.iter().any(|kept| name.eq_ignore_ascii_case(kept))) {
            response.remove_header(name);
        }
    }
    for name in ALWAYS {
        if response.headers.contains_key(name) {
            response.remove_header(name);
        }
    }
}

/// A piece of the response's body passed.
pub(super) fn body(piece: Option<&Bytes>, ctx: &Context) {
    if piece.is_none() {
        return;
    }
    let Some(connection) = &ctx.connection else {
        return;
    };
    match connection.phase() {
        Phase::Tunnel => tunnel_progress(ctx),
        Phase::Response if ctx.gap.is_some() => connection.enter(Phase::Response, ctx.gap),
        _ => {}
    }
}

/// Bytes passed through a tunnel, whichever way: its idle time starts anew.
pub(super) fn tunnel_progress(ctx: &Context) {
    if let (Some(connection), Some(upstream)) = (&ctx.connection, ctx.upstream())
        && connection.phase() == Phase::Tunnel
    {
        connection.enter(Phase::Tunnel, Some(upstream.config.timeouts.tunnel));
    }
}

fn host(request: &mut RequestHeader, ctx: &Context) -> Result<()> {
    let (Some(upstream), Some(peer)) = (ctx.upstream(), ctx.peer()) else {
        return Ok(());
    };
    match &upstream.config.host_header {
        HostHeader::Keep => Ok(()),
        HostHeader::Peer => request.insert_header(HOST, &*peer.written),
        HostHeader::Set(host) => request.insert_header(HOST, host.clone()),
    }
}

fn x_forwarded(request: &mut RequestHeader, ask: &Ask, remote: IpAddr) -> Result<()> {
    append(request, &X_FORWARDED_FOR, &remote.to_string())?;
    if !request.headers.contains_key(X_FORWARDED_PROTO) {
        request.insert_header(X_FORWARDED_PROTO, SCHEME)?;
    }
    if !request.headers.contains_key(X_FORWARDED_HOST)
        && let Ok(host) = HeaderValue::from_str(ask.host_text())
        && !host.is_empty()
    {
        request.insert_header(X_FORWARDED_HOST, host)?;
    }
    Ok(())
}

/// How the client spoke to us.
const SCHEME: HeaderValue = HeaderValue::from_static("http");

/// One element of `Forwarded` (RFC 7239, 4): an IPv6 address is bracketed, and so quoted.
fn forwarded_element(ask: &Ask, remote: IpAddr) -> String {
    let client = match remote {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("\"[{v6}]\""),
    };
    match ask.host_text() {
        "" => format!("for={client};proto=http"),
        host => format!("for={client};host=\"{host}\";proto=http"),
    }
}

/// Appends to a list field, on one line: some servers look at the first line only.
fn append(request: &mut RequestHeader, name: &HeaderName, element: &str) -> Result<()> {
    let mut list = String::new();
    for line in request.headers.get_all(name) {
        if let Ok(line) = line.to_str() {
            list.push_str(line);
            list.push_str(", ");
        }
    }
    list.push_str(element);
    request.insert_header(name.clone(), list)
}
