//! Phase 6, both ways: what the peer is told about the client, and what the response means for the
//! connection's clock. A request's hop-by-hop fields are Pingora's work.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{self, CONNECTION, HOST, TE, UPGRADE};
use http::{HeaderName, HeaderValue};
use pingora_error::{ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::context::{Ask, Context};
use crate::clock;
use crate::config::HostHeader;
use crate::connection::Phase;

// As text: Pingora's map takes a field's name apart anew, and copies all but static text.
const FORWARDED: &str = "forwarded";
const X_FORWARDED_FOR: &str = "x-forwarded-for";
const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
const X_FORWARDED_HOST: &str = "x-forwarded-host";

/// Nothing that an untrusted client says of its own way here is passed on.
const CLAIMS: [HeaderName; 4] = [
    HeaderName::from_static(X_FORWARDED_FOR),
    HeaderName::from_static(X_FORWARDED_PROTO),
    HeaderName::from_static(X_FORWARDED_HOST),
    header::FORWARDED,
];

/// Writes the fields that a peer gets from us into the request for it.
pub(super) fn request(request: &mut RequestHeader, ctx: &Context) -> Result<()> {
    let forwarding = &ctx.snapshot.forwarding;
    if !ctx.ask.from_trusted {
        for claim in &CLAIMS {
            request.remove_header(claim);
        }
    }
    if let Some(connection) = &ctx.connection
        && let (Some(client), Some(text)) = (connection.client, &connection.client_text)
    {
        if forwarding.x_forwarded {
            x_forwarded(request, &ctx.ask, text)?;
        }
        if forwarding.forwarded {
            let element = forwarded_element(&ctx.ask, client.ip());
            append(
                request,
                FORWARDED,
                element.try_into().or_err(ErrorType::InternalError, "for")?,
            )?;
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
    const ALWAYS: [HeaderName; 4] = [
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        TE,
        UPGRADE,
    ];
    /// Options that are no field's name, or one that is dealt with elsewhere.
    const KEPT: [&str; 3] = ["close", "keep-alive", "transfer-encoding"];
    if let Some(named) = response.headers.get(CONNECTION).cloned() {
        let named = named.to_str().unwrap_or("").split(',').map(str::trim);
        for name in named.filter(|name| !KEPT.iter().any(|kept| name.eq_ignore_ascii_case(kept))) {
            response.remove_header(name);
        }
    }
    for name in &ALWAYS {
        response.remove_header(name);
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

fn x_forwarded(request: &mut RequestHeader, ask: &Ask, client: &HeaderValue) -> Result<()> {
    append(request, X_FORWARDED_FOR, client.clone())?;
    // What a trusted proxy says of these is nearer to the client than what we see.
    let given = |name| ask.from_trusted && request.headers.contains_key(name);
    let (proto_given, host_given) = (given(X_FORWARDED_PROTO), given(X_FORWARDED_HOST));
    if !proto_given {
        request.insert_header(X_FORWARDED_PROTO, SCHEME)?;
    }
    match ask.host_value() {
        Some(host) if !host_given => request.insert_header(X_FORWARDED_HOST, host),
        _ => Ok(()),
    }
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
fn append(request: &mut RequestHeader, name: &'static str, element: HeaderValue) -> Result<()> {
    let mut list = Vec::new();
    for line in request.headers.get_all(name) {
        list.extend_from_slice(line.as_bytes());
        list.extend_from_slice(b", ");
    }
    if list.is_empty() {
        return request.insert_header(name, element);
    }
    list.extend_from_slice(element.as_bytes());
    request.insert_header(name, list)
}
