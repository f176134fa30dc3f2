//! Phase 2, first: joins a request with its connection, and starts its clocks.

use std::sync::Arc;

use http::Version;
use http::header::TRANSFER_ENCODING;
use pingora::http::RequestHeader;
use pingora::proxy::Session;

use super::context::Context;
use super::request_body::declared_length;
use super::request_info::RequestInfo;
use crate::downstream::Exchange;
use crate::grpc;

/// The header is complete: finds the exchange, applies the connection's limits, and keeps what the rest of
/// the request needs of its header.
pub(crate) fn begin_request(session: &mut Session, ctx: &mut Context) {
    ctx.exchange = session
        .digest()
        .and_then(|digest| digest.proxy_digest.as_deref())
        .and_then(Exchange::from_digest)
        .map(Arc::clone);
    if let Some(exchange) = &ctx.exchange {
        begin_exchange(session, exchange);
    }
    // A client of HTTP/1.0 knows no interim responses (RFC 9110, 15.2).
    let is_old = session.req_header().version < Version::HTTP_11;
    session.set_ignore_info_resp(is_old);
    ctx.request = RequestInfo::new(session.req_header(), ctx.connection(), &ctx.snapshot);
}

fn begin_exchange(session: &mut Session, exchange: &Exchange) {
    let connection = &exchange.connection;
    exchange.begin_request();
    if let Some(limit) = grpc::parse_timeout(&session.req_header().headers) {
        exchange.cap_request_time(limit);
    }
    let header_length = session
        .as_http1()
        .map(|http1| http1.get_headers_raw_bytes().len());
    let length = header_length.and_then(|header| request_length(header, session.req_header()));
    if let Some(length) = length {
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

/// The bytes of the whole request of HTTP/1, header and body; `None`: the body is chunked, and only its last
/// chunk shows the length.
fn request_length(header_length: usize, request: &RequestHeader) -> Option<u64> {
    if request.headers.contains_key(TRANSFER_ENCODING) {
        return None;
    }
    let body = declared_length(request).unwrap_or(0);
    (header_length as u64).checked_add(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn length(fields: &[(&'static str, &'static str)]) -> Option<u64> {
        let mut request = RequestHeader::build("POST", b"/", None).unwrap();
        for (name, value) in fields {
            request.insert_header(*name, *value).unwrap();
        }
        request_length(100, &request)
    }

    #[test]
    fn request_length_is_header_and_body_unless_chunked() {
        assert_eq!(length(&[]), Some(100));
        assert_eq!(length(&[("content-length", "7")]), Some(107));
        let chunked = ("transfer-encoding", "chunked");
        assert_eq!(length(&[chunked]), None);
        assert_eq!(length(&[("content-length", "7"), chunked]), None);
        assert_eq!(length(&[("content-length", "18446744073709551615")]), None);
    }
}
