//! Phase 6, both ways: what the peer is told about the client, and what the response means for the
//! connection's clock. A request's hop-by-hop fields are Pingora's work.

use std::net::IpAddr;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, STRICT_TRANSPORT_SECURITY, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderName, HeaderValue, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session;
use pingora::{ErrorType, OrErr, Result};

use super::context::{Context, RequestInfo};
use crate::clock;
use crate::config::HostHeader;
use crate::downstream::{Connection, Exchange, Phase};
use crate::grpc;

// As text: Pingora's map takes a field's name apart anew, and copies all but static text.
const FORWARDED: &str = "forwarded";
const X_FORWARDED_FOR: &str = "x-forwarded-for";
pub(super) const X_FORWARDED_PROTO: &str = "x-forwarded-proto";
const X_FORWARDED_HOST: &str = "x-forwarded-host";
const CLIENT_CERT: &str = "client-cert";

/// Nothing that an untrusted client says of its own way here is passed on.
const FORWARDING_FIELDS: [&str; 9] = [
    FORWARDED,
    X_FORWARDED_FOR,
    X_FORWARDED_PROTO,
    X_FORWARDED_HOST,
    "x-forwarded-port",
    "x-forwarded-server",
    "x-real-ip",
    CLIENT_CERT,
    "client-cert-chain",
];

/// Writes the fields that a peer gets from us into the request for it.
pub(super) fn set_request_headers(request: &mut RequestHeader, ctx: &Context) -> Result<()> {
    let forwarding = &ctx.snapshot.forwarding;
    collapse_content_length(request)?;
    remove_forwarding_fields(request, ctx.request.from_trusted);
    if let Some(connection) = ctx.connection()
        && let (Some(client), Some(text)) = (connection.client_addr, &connection.client_ip_value)
    {
        if forwarding.x_forwarded {
            set_x_forwarded(request, &ctx.request, text, scheme(connection))?;
        }
        if forwarding.forwarded {
            let element = forwarded_element(&ctx.request, client.ip(), scheme(connection));
            append_to_list(
                request,
                FORWARDED,
                element.try_into().or_err(ErrorType::InternalError, "for")?,
            )?;
        }
    }
    if let Some(connection) = ctx.connection() {
        set_client_cert(request, connection, forwarding.client_cert)?;
    }
    if let (Some(name), Some(id)) = (&forwarding.request_id, &ctx.request.id) {
        request.insert_header(name.clone(), id.clone())?;
    }
    set_grpc_timeout(request, ctx)?;
    set_host(request, ctx)
}

/// A peer of gRPC is told how long its client still waits: some of the time may be gone.
fn set_grpc_timeout(request: &mut RequestHeader, ctx: &Context) -> Result<()> {
    let left = ctx
        .exchange
        .as_deref()
        .and_then(Exchange::request_time_left);
    match left.filter(|_| grpc::parse_timeout(&request.headers).is_some()) {
        Some(left) => request.insert_header(grpc::TIMEOUT, grpc::format_timeout(left)),
        None => Ok(()),
    }
}

/// Of HTTP/2 from end to end, where trailers pass, a peer is told who waits for them (RFC 9113, 8.2.2):
/// servers of gRPC answer nobody else. Pingora takes the field out.
pub(super) fn set_te_trailers(asked: &RequestHeader, request: &mut RequestHeader) -> Result<()> {
    let h2 = asked.version == Version::HTTP_2 && request.version == Version::HTTP_2;
    let waits = asked.headers.get(TE).is_some_and(|te| te == "trailers");
    if h2 && waits {
        return request.insert_header(TE, "trailers");
    }
    Ok(())
}

/// Where we ask clients for certificates, what is said of them is ours alone.
fn set_client_cert(request: &mut RequestHeader, connection: &Connection, told: bool) -> Result<()> {
    if connection.requests_client_cert() {
        request.remove_header(CLIENT_CERT);
    }
    let shown = connection.client_certificate().filter(|_| told);
    match shown.and_then(|shown| shown.header_value.clone()) {
        Some(field) => request.insert_header(CLIENT_CERT, field),
        None => Ok(()),
    }
}

/// A length that was said several times, which Pingora lets pass where all are equal, is passed on
/// once (RFC 9112, 6.3): a peer may read several in its own way.
fn collapse_content_length(request: &mut RequestHeader) -> Result<()> {
    let mut lengths = request.headers.get_all(CONTENT_LENGTH).iter();
    let (Some(first), more) = (lengths.next(), lengths.next().is_some()) else {
        return Ok(());
    };
    if !more && !first.as_bytes().contains(&b',') {
        return Ok(());
    }
    let said = first.to_str().unwrap_or_default();
    let once = said.split(',').next().unwrap_or_default().trim().to_owned();
    request.insert_header(CONTENT_LENGTH, once)
}

/// The response's header came, and Pingora has settled how its body is framed.
pub(super) fn prepare_response(
    session: &mut Session,
    response: &mut ResponseHeader,
    ctx: &mut Context,
) -> Result<()> {
    let status = response.status.as_u16();
    if status != 101 {
        remove_hop_by_hop(response);
        if response.status.is_informational() {
            response.remove_header(&CONNECTION);
            super::connect::on_progress(ctx);
            return Ok(());
        }
        frame_until_close(session, response, ctx);
    }
    super::sticky_cookie::set_cookie(session, response, ctx)?;
    begin_response(session, response, ctx);
    ctx.status = status;
    ctx.first_byte = Some(clock::since_start());
    set_hsts(response, ctx)
}

/// Tells browsers to come back with HTTPS only, where the operator wants that (RFC 6797, 7.1).
pub(super) fn set_hsts(response: &mut ResponseHeader, ctx: &Context) -> Result<()> {
    let connection = ctx.connection();
    let secured = connection.and_then(|connection| connection.tls.as_ref());
    match secured.and_then(|secured| secured.hsts.clone()) {
        Some(hsts) => response.insert_header(STRICT_TRANSPORT_SECURITY, hsts),
        None => Ok(()),
    }
}

/// The final response passes; or the protocol changes, and there is none any more.
fn begin_response(session: &mut Session, response: &ResponseHeader, ctx: &Context) {
    let (Some(exchange), Some(upstream)) = (&ctx.exchange, ctx.upstream()) else {
        return;
    };
    let timeouts = &upstream.config.timeouts;
    exchange.begin_response();
    if response.status == 101 {
        session.set_read_timeout(None);
        let tunnel = timeouts.tunnel;
        return exchange.begin_tunnel(tunnel.idle, tunnel.total, timeouts.write);
    }
    let is_call = grpc::is_grpc_request(&session.req_header().headers);
    if is_call {
        // Of a call both directions may be silent; the phase's limit holds for the two together.
        session.set_read_timeout(None);
    }
    let is_stream = is_call || super::stream_limits::is_event_stream(&response.headers);
    let limit = if is_stream {
        timeouts.stream
    } else {
        timeouts.read
    };
    exchange.enter(Phase::Response, Some(limit));
    // Pingora looks at that only when it reads a request.
    if exchange.connection.is_draining() {
        session.set_keepalive(None);
    }
}

/// HTTP/1.0 knows no chunks (RFC 9112, 6.1): there, the end of the connection ends the body.
fn frame_until_close(session: &mut Session, response: &mut ResponseHeader, ctx: &mut Context) {
    if ctx.request.version < Version::HTTP_11 && response.headers.contains_key(TRANSFER_ENCODING) {
        response.remove_header(&TRANSFER_ENCODING);
        session.set_keepalive(None);
        ctx.response_ends_at_close = true;
    }
}

/// Removes what a peer says to us alone (RFC 9110, 7.6.1): the fields that `Connection` names, and
/// those that were always meant so. Pingora does this for requests only. `Transfer-Encoding` stays:
/// it is Pingora's to translate; and so does the `Upgrade` that a 426 cannot be without (RFC 9110, 15.5.22).
fn remove_hop_by_hop(response: &mut ResponseHeader) {
    const HOP_BY_HOP: [HeaderName; 3] = [
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        TE,
    ];
    /// Options that are no field's name, or one that is dealt with elsewhere.
    const HANDLED_ELSEWHERE: [&str; 5] = [
        "close",
        "content-length",
        "keep-alive",
        "transfer-encoding",
        "upgrade",
    ];
    let lines: Vec<_> = response
        .headers
        .get_all(CONNECTION)
        .iter()
        .cloned()
        .collect();
    for line in &lines {
        let named = line.to_str().unwrap_or("").split(',').map(str::trim);
        for name in named.filter(|name| {
            !HANDLED_ELSEWHERE
                .iter()
                .any(|kept| name.eq_ignore_ascii_case(kept))
        }) {
            response.remove_header(name);
        }
    }
    for name in &HOP_BY_HOP {
        response.remove_header(name);
    }
    if response.status != StatusCode::UPGRADE_REQUIRED {
        response.remove_header(&UPGRADE);
    }
}

/// A piece of the response's body passed.
pub(super) fn on_response_body(piece: Option<&Bytes>, ctx: &mut Context) {
    let Some(piece) = piece else { return };
    ctx.response_body_bytes += piece.len() as u64;
    if let Some(exchange) = &ctx.exchange {
        exchange.restart_phase_timer();
    }
}

/// Removes what a client says of its own way here. Many servers take `_` in a field's name for `-`, so
/// what is spelled with it came past every proxy before us, and is removed whoever sent it.
fn remove_forwarding_fields(request: &mut RequestHeader, from_trusted: bool) {
    let false_claim = |name: &&HeaderName| {
        let name = name.as_str();
        (!from_trusted || name.contains('_'))
            && FORWARDING_FIELDS
                .iter()
                .any(|claim| matches_folded(name, claim))
    };
    // Most requests have none, and then this allocates nothing.
    let found: Vec<_> = request
        .headers
        .keys()
        .filter(false_claim)
        .cloned()
        .collect();
    for name in &found {
        request.remove_header(name);
    }
}

/// Whether `name` is `claim`, with `_` for any `-`.
fn matches_folded(name: &str, claim: &str) -> bool {
    let folded = |byte| if byte == b'_' { b'-' } else { byte };
    name.len() == claim.len() && name.bytes().map(folded).eq(claim.bytes())
}

fn set_host(request: &mut RequestHeader, ctx: &Context) -> Result<()> {
    let (Some(upstream), Some(peer)) = (ctx.upstream(), ctx.peer()) else {
        return Ok(());
    };
    match &upstream.config.host_header {
        // HTTP/1.0 has none, and HTTP/2 cannot be without (RFC 9113, 8.3.1).
        HostHeader::Keep
            if request.version == Version::HTTP_2 && !request.headers.contains_key(HOST) =>
        {
            request.insert_header(HOST, &*peer.host)
        }
        HostHeader::Keep => Ok(()),
        HostHeader::Peer => request.insert_header(HOST, &*peer.host),
        HostHeader::Set(host) => request.insert_header(HOST, host.clone()),
    }
}

fn set_x_forwarded(
    request: &mut RequestHeader,
    ask: &RequestInfo,
    client: &HeaderValue,
    scheme: &'static str,
) -> Result<()> {
    append_to_list(request, X_FORWARDED_FOR, client.clone())?;
    // What a trusted proxy says of these is nearer to the client than what we see.
    let given = |name| ask.from_trusted && request.headers.contains_key(name);
    let (proto_given, host_given) = (given(X_FORWARDED_PROTO), given(X_FORWARDED_HOST));
    if !proto_given {
        request.insert_header(X_FORWARDED_PROTO, HeaderValue::from_static(scheme))?;
    }
    match ask.host_value() {
        Some(host) if !host_given => request.insert_header(X_FORWARDED_HOST, host),
        _ => Ok(()),
    }
}

/// How the client spoke to us.
fn scheme(connection: &Connection) -> &'static str {
    if connection.is_encrypted() {
        "https"
    } else {
        "http"
    }
}

/// One element of `Forwarded` (RFC 7239, 4): an IPv6 address is bracketed, and so quoted.
fn forwarded_element(ask: &RequestInfo, remote: IpAddr, scheme: &str) -> String {
    let client = match remote {
        IpAddr::V4(v4) => v4.to_string(),
        IpAddr::V6(v6) => format!("\"[{v6}]\""),
    };
    match ask.host_text() {
        "" => format!("for={client};proto={scheme}"),
        host => format!("for={client};host=\"{host}\";proto={scheme}"),
    }
}

/// Appends to a list field, on one line: some servers look at the first line only.
fn append_to_list(
    request: &mut RequestHeader,
    name: &'static str,
    element: HeaderValue,
) -> Result<()> {
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
