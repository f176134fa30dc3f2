//! Phase 2: joins request and connection, refuses what is too large, finds the route.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING, USER_AGENT};
use http::uri::Authority;
use http::{HeaderValue, Method, Version};
use pingora::http::RequestHeader;
use pingora::proxy::Session;
use pingora::{Error, ErrorType, Result};

use super::context::{Context, RequestInfo};
use super::fault::Fault;
use crate::client_addr;
use crate::downstream::{Connection, Exchange, Phase};
use crate::grpc;
use crate::route::{RouteError, host_name};

/// A request id from a client is passed on up to this length; bytes.
const MAX_REQUEST_ID: usize = 128;

/// The header is complete: starts the request's clock and remembers what was asked.
pub(super) fn begin_request(session: &mut Session, ctx: &mut Context) {
    let exchange = session
        .digest()
        .and_then(|digest| digest.proxy_digest.as_deref())
        .and_then(Exchange::from_digest)
        .map(Arc::clone);
    if let Some(exchange) = &exchange {
        let connection = &exchange.connection;
        exchange.begin_request();
        if let Some(limit) = grpc::parse_timeout(&session.req_header().headers) {
            exchange.cap_request_time(limit);
        }
        if let Some(length) = request_length(session) {
            exchange.set_request_length(length);
        } else if session.is_body_empty() {
            exchange.mark_body_complete();
        }
        session.set_read_timeout(Some(connection.limits.read_timeout));
        session.set_write_timeout(Some(connection.limits.write_timeout));
        session.set_total_drain_timeout(Some(connection.limits.read_timeout));
        if connection.is_at_connection_limit() {
            session.set_keepalive(None);
        }
    }
    // A client of HTTP/1.0 knows no interim responses (RFC 9110, 15.2).
    let is_old = session.req_header().version < Version::HTTP_11;
    session.set_ignore_info_resp(is_old);
    ctx.exchange = exchange;
    ctx.request = request_info(session, ctx);
}

/// How long the request is in all, header and body; `None`: its last chunk will tell.
fn request_length(session: &Session) -> Option<u64> {
    let request = session.req_header();
    if request.headers.contains_key(TRANSFER_ENCODING) {
        return None;
    }
    let body = declared_body(request).unwrap_or(0);
    let header = session.as_http1()?.get_headers_raw_bytes().len() as u64;
    header.checked_add(body)
}

/// Refuses what is over a limit or not well formed.
pub(super) fn validate(session: &Session, ctx: &Context) -> Result<(), Fault> {
    check_size(session, ctx)?;
    check_target(session)?;
    check_single_host(session)?;
    check_host(&ctx.request)?;
    check_sni_matches_host(ctx)
}

/// Finds the route, and refuses what is over its limits.
pub(super) fn resolve_route(session: &Session, ctx: &mut Context) -> Result<(), Fault> {
    find_route(ctx)?;
    check_client_certificate(ctx)?;
    check_declared_body(session, ctx)
}

/// A piece of the request's body passed: its size is bounded, and the peer's time starts anew.
pub(super) fn on_request_body(piece: Option<&Bytes>, end: bool, ctx: &mut Context) -> Result<()> {
    ctx.request_body_bytes += piece.map_or(0, |piece| piece.len() as u64);
    if end {
        ctx.complete_body();
    }
    if is_body_too_large(ctx) {
        ctx.fault = Some(Fault::BodyTooLarge);
        return Err(Error::new_down(ErrorType::HTTPStatus(413)));
    }
    super::connect::on_progress(ctx);
    Ok(())
}

/// What passes through a tunnel is no body.
fn is_body_too_large(ctx: &Context) -> bool {
    let limit = ctx.route.as_ref().and_then(|route| route.max_body_size);
    let tunnel = || ctx.exchange.as_deref().map(Exchange::phase) == Some(Phase::Tunnel);
    limit.is_some_and(|limit| ctx.request_body_bytes > limit) && !tunnel()
}

fn request_info(session: &Session, ctx: &Context) -> RequestInfo {
    let request = session.req_header();
    let remote = ctx
        .connection()
        .and_then(|connection| connection.client_addr)
        .map(|client| client.ip());
    let trusted = &ctx.snapshot.trusted_proxies;
    let default = RequestInfo::default();
    RequestInfo {
        method: request.method.clone(),
        uri: request.uri.clone(),
        version: request.version,
        host: request.headers.get(HOST).cloned(),
        client_ip: remote.map_or(default.client_ip, |remote| {
            client_addr::resolve(remote, &request.headers, trusted)
        }),
        from_trusted: remote.is_some_and(|remote| trusted.contains(remote)),
        id: request_id(session, ctx),
        user_agent: request.headers.get(USER_AGENT).cloned(),
    }
}

/// The id the client sent, where it is one; else a new one.
fn request_id(session: &Session, ctx: &Context) -> Option<HeaderValue> {
    let name = ctx.snapshot.forwarding.request_id.as_ref()?;
    let sent = session
        .req_header()
        .headers
        .get(name)
        .filter(|id| is_valid_request_id(id));
    sent.cloned()
        .or_else(|| HeaderValue::from_bytes(&format_request_id(rand::random())).ok())
}

/// As `{:032x}` has it, without the cost of a formatter.
fn format_request_id(id: u128) -> [u8; 32] {
    let mut rest = id;
    let mut text = [0; 32];
    for place in text.iter_mut().rev() {
        let digit = (rest & 0xf) as u8;
        *place = digit + if digit < 10 { b'0' } else { b'a' - 10 };
        rest >>= 4;
    }
    text
}

fn is_valid_request_id(id: &HeaderValue) -> bool {
    (1..=MAX_REQUEST_ID).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
}

fn check_size(session: &Session, ctx: &Context) -> Result<(), Fault> {
    let limits = &ctx.snapshot.config.downstream;
    if session.req_header().raw_path().len() > limits.max_uri_length {
        return Err(Fault::UriTooLong);
    }
    let header = session.as_http1().map_or_else(
        || uncompressed_header_size(session.req_header()),
        |http1| http1.get_headers_raw_bytes().len(),
    );
    if header > limits.max_header_size {
        return Err(Fault::HeaderTooLarge);
    }
    Ok(())
}

/// What a header that was compressed would take as text.
fn uncompressed_header_size(request: &RequestHeader) -> usize {
    const REQUEST_LINE_OVERHEAD: usize = "GET  HTTP/1.1\r\n\r\n".len();
    const FIELD_OVERHEAD: usize = ": \r\n".len();
    let fields = request.headers.iter();
    fields
        .map(|(name, value)| name.as_str().len() + value.len() + FIELD_OVERHEAD)
        .fold(
            REQUEST_LINE_OVERHEAD + request.raw_path().len(),
            usize::saturating_add,
        )
}

/// What only HTTP/2 can carry that a target of HTTP/1 could not be.
fn check_target(session: &Session) -> Result<(), Fault> {
    let request = session.req_header();
    let is_asterisk = request.raw_path() == b"*" && request.method == Method::OPTIONS;
    let is_path = request.raw_path().starts_with(b"/") || is_asterisk;
    if request.version == Version::HTTP_2 && !is_path && request.method != Method::CONNECT {
        return Err(Fault::BadRequest);
    }
    Ok(())
}

/// There is one `Host`. On HTTP/1 Pingora has seen to it that there are not several, and that it is the
/// target's where that has one.
fn check_single_host(session: &Session) -> Result<(), Fault> {
    let request = session.req_header();
    let several = || request.headers.get_all(HOST).iter().nth(1).is_some();
    if request.version == Version::HTTP_2 && several() {
        return Err(Fault::BadHost);
    }
    Ok(())
}

/// RFC 9112, 3.2: HTTP/1.1 has a `Host`; RFC 9113, 8.3.1: so has HTTP/2, as a field or in its place.
fn check_host(ask: &RequestInfo) -> Result<(), Fault> {
    let host = match (&ask.host, ask.uri.authority()) {
        (Some(host), _) => host.as_bytes(),
        (None, Some(authority)) => authority.as_str().as_bytes(),
        (None, None) => b"",
    };
    let missing = ask.host.is_none() && ask.version >= Version::HTTP_11;
    if missing || !is_valid_host(host) {
        return Err(Fault::BadHost);
    }
    Ok(())
}

/// Whether that is `uri-host [":" port]` (RFC 9110, 7.2), or empty: to a peer that speaks HTTP/2 it can
/// be told as nothing else (RFC 9113, 8.3.1).
fn is_valid_host(host: &[u8]) -> bool {
    if host.is_empty() {
        return true;
    }
    let Ok(authority) = Authority::try_from(host) else {
        return false;
    };
    let name = authority.host();
    let port = authority.as_str().strip_prefix(name);
    let of_host = host.iter().all(|&byte| is_host_byte(byte));
    of_host && !name.is_empty() && port.is_some_and(is_valid_port)
}

/// Nothing, or a colon and a number of 16 bits, which may be left out (RFC 3986, 3.2.3).
fn is_valid_port(port: &str) -> bool {
    let Some(number) = port.strip_prefix(':') else {
        return port.is_empty();
    };
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    number.is_empty() || digits && number.parse::<u16>().is_ok()
}

/// Where clients show certificates, who came in under one name asks for that one only (RFC 6066, 11.1;
/// RFC 9110, 7.4): what a proxy or a peer decides by the name in TLS must hold for the request.
fn check_sni_matches_host(ctx: &Context) -> Result<(), Fault> {
    let connection = ctx.connection();
    let secured = connection.and_then(|connection| connection.tls.as_ref());
    let Some(secured) = secured.filter(|secured| secured.requests_client_cert) else {
        return Ok(());
    };
    let asked = host_name(ctx.request.host_text());
    let same = match &secured.sni {
        Some(sni) => asked.eq_ignore_ascii_case(sni),
        // An address is no name that TLS could carry.
        None => asked.is_empty() || asked.starts_with('[') || asked.parse::<IpAddr>().is_ok(),
    };
    if same {
        Ok(())
    } else {
        Err(Fault::Misdirected)
    }
}

/// Whether a byte may stand in `uri-host [":" port]` (RFC 9110, 7.2; RFC 3986, 3.2.2): peers are told the
/// host within quotes and lists, which it must not be able to leave.
fn is_host_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(&byte)
}

fn find_route(ctx: &mut Context) -> Result<(), Fault> {
    if ctx.request.method == Method::CONNECT {
        return Err(Fault::MethodNotAllowed);
    }
    let route = ctx.snapshot.routes.find(
        ctx.request.host_text(),
        ctx.request.path(),
        &ctx.request.method,
    );
    ctx.route = Some(Arc::clone(route.map_err(|miss| match miss {
        RouteError::NoRoute => Fault::NoRoute,
        RouteError::MethodNotAllowed => Fault::MethodNotAllowed,
    })?));
    Ok(())
}

/// A route is reached by every listener: where it demands a certificate, it must have been shown on
/// this connection, and have counted.
fn check_client_certificate(ctx: &Context) -> Result<(), Fault> {
    let demanded = ctx
        .route
        .as_ref()
        .is_some_and(|route| route.requires_client_cert);
    let shown = ctx.connection().and_then(Connection::client_certificate);
    if demanded && shown.is_none() {
        return Err(Fault::ClientCertificateRequired);
    }
    Ok(())
}

fn check_declared_body(session: &Session, ctx: &Context) -> Result<(), Fault> {
    let declared = declared_body(session.req_header());
    let limit = ctx.route.as_ref().and_then(|route| route.max_body_size);
    match (declared, limit) {
        (Some(declared), Some(limit)) if declared > limit => Err(Fault::BodyTooLarge),
        _ => Ok(()),
    }
}

fn declared_body(request: &RequestHeader) -> Option<u64> {
    let declared = request.headers.get(CONTENT_LENGTH)?;
    declared.to_str().ok()?.parse().ok()
}

impl RequestInfo {
    /// The host asked for: of the target where it has one (RFC 9112, 3.2.2), else `Host`.
    pub(super) fn host_text(&self) -> &str {
        let header = || self.host.as_ref().and_then(|host| host.to_str().ok());
        self.uri
            .authority()
            .map(Authority::as_str)
            .or_else(header)
            .unwrap_or("")
    }

    /// That host as a field's value; `None`: there is none, or none that is text.
    pub(super) fn host_value(&self) -> Option<HeaderValue> {
        if self.uri.authority().is_some() {
            return HeaderValue::from_str(self.host_text()).ok();
        }
        let host = self.host.as_ref();
        host.filter(|host| !host.is_empty() && host.to_str().is_ok())
            .cloned()
    }

    /// The path that is matched; `OPTIONS *` asks for the whole server.
    pub(super) fn path(&self) -> &str {
        match self.uri.path() {
            "" | "*" => "/",
            path => path,
        }
    }

    /// The client as the key source `client_ip` sees it.
    pub(super) fn client_ip(&self) -> IpAddr {
        self.client_ip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_header_must_be_a_name_or_address_with_optional_port() {
        for host in [
            "",
            "a",
            "a.test:",
            "a.test:0",
            "a:65535",
            "a_b",
            "[::1]",
            "[::1]:80",
            "127.0.0.1:80",
        ] {
            assert!(is_valid_host(host.as_bytes()), "{host}");
        }
        for host in [
            ":", ":80", "a:b", "a:b:c", "a:65536", "a:+80", "[::1", "::1]", "[::1]80", "a%zz",
            "a%20b", "u@a", "a/b", "a b", "a\"b", "a\u{e9}",
        ] {
            assert!(!is_valid_host(host.as_bytes()), "{host}");
        }
    }
}
