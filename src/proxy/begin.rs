//! `early_request_filter`: links a request to its connection, and sets the limits of Pingora's session.

use std::sync::Arc;

use http::{Uri, Version};
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::header::http1_header_size;
use crate::downstream::Exchange;
use crate::phases::request_info::ParsedRequestLine;
use crate::phases::validate::has_http_scheme;
use crate::phases::{Context, begin};

/// The header is complete: finds the exchange, and applies the connection's limits.
pub(super) fn begin_request(session: &mut Session, ctx: &mut Context) {
    let exchange = session
        .digest()
        .and_then(|digest| digest.proxy_digest.as_deref())
        .and_then(Exchange::from_digest)
        .map(Arc::clone);
    let request = session.req_header();
    let line = ParsedRequestLine {
        method: request.method.clone(),
        uri: target_uri(request),
        version: request.version,
    };
    // A client of HTTP/1.0 must not get interim responses (RFC 9110 §15.2).
    let is_old = line.version < Version::HTTP_11;
    begin::begin_request(exchange, line, request, ctx);
    if let Some(exchange) = &ctx.exchange {
        note_request_length(session, exchange);
        apply_limits(session, exchange);
    }
    session.set_ignore_info_resp(is_old);
}

/// The target. Pingora 0.9.1 leaves the host of a whole URI off, although a request of HTTP/1.0 may have no other.
fn target_uri(request: &RequestHeader) -> Uri {
    let target = request.raw_path();
    let whole = has_http_scheme(target).then(|| Uri::try_from(target).ok());
    whole.flatten().unwrap_or_else(|| request.uri.clone())
}

fn note_request_length(session: &mut Session, exchange: &Exchange) {
    let length = http1_header_size(session)
        .and_then(|header| begin::request_length(header, session.req_header()));
    if let Some(length) = length {
        exchange.set_request_length(length);
    } else if session.is_body_empty() {
        exchange.mark_body_complete();
    }
}

fn apply_limits(session: &mut Session, exchange: &Exchange) {
    let connection = &exchange.connection;
    session.set_read_timeout(Some(connection.limits.read_timeout));
    session.set_write_timeout(Some(connection.limits.write_timeout));
    session.set_total_drain_timeout(Some(connection.limits.read_timeout));
    if connection.is_at_connection_limit() {
        session.set_keepalive(None);
    }
}
