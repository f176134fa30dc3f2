//! Serves one connection: detects the HTTP version, runs the session, closes the connection.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;

use pingora::apps::HttpServerApp;

use super::close::{CloseReason, close, close_reason_for};
use super::connection::Connection;
use super::deadline_timer::DeadlineTimer;
use super::drive::drive_connection;
use super::exchange::Exchange;
use super::http1::Http1Engine;
use super::io::DownstreamIo;
use super::partial_request::{PartialRequestResponder, reply_to_partial_request};
use super::phase::AbortReason;
use super::{http1, http2, preface};
use crate::fault::Fault;

/// Serves the requests of one connection until it ends, and closes it. With `prior_knowledge` a client without
/// TLS may begin with HTTP/2 (RFC 9113 §3.3).
pub(crate) async fn serve<A>(
    connection: Arc<Connection>,
    prior_knowledge: bool,
    responder: Option<&dyn PartialRequestResponder>,
    app: &Arc<A>,
) -> CloseReason
where
    A: HttpServerApp + Http1Engine + Send + Sync + 'static,
{
    let exchange = Exchange::for_connection(connection);
    let Ok(io) = DownstreamIo::new(Arc::clone(&exchange)) else {
        return CloseReason::Clean;
    };
    let mut timer = DeadlineTimer::new();
    let version = detect_http_version(io, &exchange, &mut timer, prior_knowledge).await;
    let (reason, is_http2) = match version {
        Ok(HttpIo::Http1(io)) => {
            let reason = http1::run(io, (&exchange, &mut timer), responder, app).await;
            (reason, false)
        }
        Ok(HttpIo::Http2(io)) => {
            let reason = http2::run(io, &exchange, &mut timer, app).await;
            (reason, true)
        }
        Err(reason) => (close_reason_for(&exchange, reason), false),
    };
    let last_bytes = if is_http2 {
        Cow::default()
    } else {
        respond_to_partial_request(&exchange, responder);
        http1::closing_bytes(&exchange)
    };
    close(&exchange, &last_bytes).await;
    reason
}

/// Stores the response if the header was not complete in time, or was too large.
fn respond_to_partial_request(
    exchange: &Arc<Exchange>,
    responder: Option<&dyn PartialRequestResponder>,
) {
    let Some(fault @ (Fault::HeaderTimeout | Fault::HeaderTooLarge)) = exchange.abort_fault(false)
    else {
        return;
    };
    if let Some(reply) = reply_to_partial_request(responder, exchange, fault) {
        exchange.set_local_reply(reply);
    }
}

/// The byte stream of a connection, with the HTTP version of its client.
enum HttpIo {
    Http1(DownstreamIo),
    Http2(DownstreamIo),
}

async fn detect_http_version(
    mut io: DownstreamIo,
    exchange: &Exchange,
    timer: &mut DeadlineTimer,
    prior_knowledge: bool,
) -> Result<HttpIo, AbortReason> {
    if let Some(tls) = &exchange.connection.tls {
        return Ok(if tls.http2 {
            HttpIo::Http2(io)
        } else {
            HttpIo::Http1(io)
        });
    }
    if !prior_knowledge {
        return Ok(HttpIo::Http1(io));
    }
    let is_http2 = {
        let mut detection = pin!(preface::is_http2(&mut io));
        let mut work = pin!(drive_connection(exchange, &mut detection));
        timer.run_until_deadline(exchange, &mut work).await?
    };
    // After a read error, the session's first read fails too.
    if is_http2.unwrap_or(false) {
        Ok(HttpIo::Http2(io))
    } else {
        Ok(HttpIo::Http1(io))
    }
}
