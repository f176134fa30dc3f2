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
    let mut io = DownstreamIo::new(Arc::clone(&exchange));
    let mut timer = DeadlineTimer::new();
    let version = match &exchange.connection.tls {
        Some(tls) => Ok(tls.http2),
        None if prior_knowledge => Box::pin(is_http2(&mut io, &exchange, &mut timer)).await,
        None => Ok(false),
    };
    let reason = match version {
        Ok(false) => http1::run(io, (&exchange, &mut timer), responder, app).await,
        // Boxed: its future is larger than all that a connection of HTTP/1 needs.
        Ok(true) => Box::pin(http2::run(io, &exchange, &mut timer, app)).await,
        Err(reason) => close_reason_for(&exchange, reason),
    };
    let last_bytes = if version == Ok(true) {
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

/// Whether a client without TLS begins with HTTP/2.
async fn is_http2(
    io: &mut DownstreamIo,
    exchange: &Exchange,
    timer: &mut DeadlineTimer,
) -> Result<bool, AbortReason> {
    let mut detection = pin!(preface::is_http2(io));
    let mut work = pin!(drive_connection(exchange, &mut detection));
    let detected = timer.run_until_deadline(exchange, &mut work).await?;
    // After a read error, the session's first read fails too.
    Ok(detected.unwrap_or(false))
}
