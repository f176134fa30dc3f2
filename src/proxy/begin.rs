//! `early_request_filter`: links a request to its connection, and sets the limits of Pingora's session.

use std::sync::Arc;

use pingora::http::RequestHeader;
use pingora::proxy::Session;

use crate::downstream::{Exchange, ReceivedTarget};
use crate::phases::request_info::ParsedRequestLine;
use crate::phases::{Context, begin};
use crate::request_target::RequestTarget;

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
        target: target(request),
        version: request.version,
    };
    begin::begin_request(exchange, line, request, ctx);
    if let Some(exchange) = &ctx.exchange {
        if session.is_body_empty() {
            exchange.mark_body_complete();
        }
        apply_limits(session, exchange);
    }
}

/// The target. For one in another form, the root: `CONNECT` has no path, and `phases::validate` refuses all others.
fn target(request: &RequestHeader) -> RequestTarget {
    RequestTarget::parse(ReceivedTarget::of(request))
        .or_else(|| RequestTarget::parse(request.raw_path()))
        .unwrap_or_default()
}

fn apply_limits(session: &mut Session, exchange: &Exchange) {
    let connection = &exchange.connection;
    session.set_read_timeout(Some(connection.limits.read_timeout));
    session.set_write_timeout(Some(connection.limits.write_timeout));
    session.set_total_drain_timeout(Some(connection.limits.read_timeout));
}
