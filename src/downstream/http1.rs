//! The keep-alive loop of one HTTP/1 connection, around Pingora's session.
//!
//! ```text
//!      ┌────────────► idle ── first byte ──► header ── complete ──► request … response ──┐
//!      │               │ keep-alive time       │ header time           │ its own limits  │
//!      │               ▼                       ▼                       ▼                 │
//!      │             close             408 or 431, close       408, 504 or reset, close   │
//!      └──────────────────────────── the response allows it ◄────────────────────────────┘
//! ```
//!
//! Pingora 0.9.1's own loop has no time limit for a header, and none for an idle connection after the first
//! request. During a drain, each response has `Connection: close`, and an idle connection stays open until its idle
//! timeout: the client may be sending its next request on it.

use std::borrow::Cow;
use std::pin::pin;
use std::sync::Arc;

use pingora::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;

use super::close::{CloseReason, close_reason_for};
use super::deadline_timer::DeadlineTimer;
use super::drive::drive_connection;
use super::exchange::Exchange;
use super::http1_engine::{self, EngineEnd, Http1Engine};
use super::io::DownstreamIo;
use super::phase::{AbortReason, Phase};

/// Pingora's value for a keep-alive without a time limit; [`DeadlineTimer`] has the limits.
const NO_KEEPALIVE_TIMEOUT: u64 = 0;

/// Serves the requests of one connection until it ends.
pub(super) async fn run<A>(
    mut io: DownstreamIo,
    exchange: &Arc<Exchange>,
    timer: &mut DeadlineTimer,
    app: &Arc<A>,
) -> CloseReason
where
    A: HttpServerApp + Http1Engine + Send + Sync + 'static,
{
    let served = match http1_engine::run(&mut io, exchange, timer, &**app).await {
        EngineEnd::Closed(reason) => return reason,
        EngineEnd::Unsuited(served) => served,
    };
    let connection = &exchange.connection;
    let mut next = first_session(Box::new(io), exchange, served);
    loop {
        let sent_before = connection.bytes_out();
        let served = {
            let mut session = app.process_new_http(next, &connection.shutdown);
            let mut work = pin!(drive_connection(exchange, &mut session));
            timer.run_until_deadline(exchange, &mut work).await
        };
        match served {
            Ok(Some(reused)) => next = next_session(reused, exchange),
            Ok(None) => return close_reason_after_session(exchange, sent_before),
            Err(reason) => return close_reason_for(exchange, reason),
        }
    }
}

/// The bytes that end an aborted exchange: an end marker, an error response, or none.
pub(super) fn closing_bytes(exchange: &Exchange) -> Cow<'static, [u8]> {
    if let Some(AbortReason::KeyMoved | AbortReason::TunnelTotalTimeout) = exchange.abort_reason() {
        Cow::Borrowed(exchange.stream_end_marker())
    } else {
        let reply = exchange.local_reply();
        let bytes = reply.and_then(|reply| reply.into_http1_bytes(Some("close")).ok());
        bytes.unwrap_or_default().into()
    }
}

/// The session of a connection on which the engine has `served` requests.
fn first_session(stream: Stream, exchange: &Exchange, served: u32) -> ServerSession {
    let mut session = ServerSession::new_http1(stream);
    session.set_keepalive(Some(NO_KEEPALIVE_TIMEOUT));
    // Pingora counts the requests after the first.
    let reuses = exchange
        .limits()
        .keepalive_requests
        .map(|requests| requests.saturating_sub(1).saturating_sub(served));
    session.set_keepalive_reuses_remaining(reuses);
    session.set_pipelining_enabled(true);
    session
}

fn next_session(reused: ReusedHttpStream, exchange: &Exchange) -> ServerSession {
    exchange.begin_keepalive();
    let (stream, settings): (Stream, Option<HttpPersistentSettings>) = reused.consume();
    let mut session = ServerSession::new_http1(stream);
    if let Some(settings) = settings {
        settings.apply_to_session(&mut session);
    }
    session
}

/// Why Pingora's session ended. If it wrote something although no header was complete, that was a 400. Even in
/// `Idle`: the rejected bytes may have been read together with the previous request.
fn close_reason_after_session(exchange: &Exchange, sent_before: u64) -> CloseReason {
    match exchange.phase() {
        Phase::Idle | Phase::Header if exchange.connection.bytes_out() > sent_before => {
            CloseReason::MalformedRequest
        }
        Phase::Header => CloseReason::HeaderTruncated,
        _ => CloseReason::Clean,
    }
}
