//! The keep-alive loop of one HTTP/1 connection, around Pingora's session.
//!
//! ```text
//!      ┌────────────► idle ── first byte ──► header ── complete ──► request … response ──┐
//!      │               │ keep-alive time       │ header time           │ its own limits  │
//!      │               ▼                       ▼                       ▼                 │
//!      │             close             408 or 431, close       408, 504 or cut, close     │
//!      └──────────────────────────── the response allows it ◄────────────────────────────┘
//! ```
//!
//! Pingora's own loop has no limit on a header's arrival and none on an idle connection after its
//! first request. Draining needs nothing more than this loop: a response that is sent while
//! `shutdown` is set carries `Connection: close`, and an idle connection keeps its idle time, so no
//! client finds a connection closed that it was told it could use.

use std::pin::pin;
use std::sync::Arc;

use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;

use super::exchange::Exchange;
use super::phase::{Cause, Phase};
use super::serve::{End, end_by};
use super::stream::ClientStream;
use super::watch::{Watch, tend};

/// Pingora's word for a keep-alive without a time limit: the [`Watch`] has the limits.
const UNTIMED: u64 = 0;

/// Serves the requests of one connection until it ends.
pub(super) async fn run<A>(
    stream: ClientStream,
    exchange: &Exchange,
    watch: &mut Watch,
    app: &Arc<A>,
) -> End
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let connection = &exchange.connection;
    let mut next = first_session(Box::new(stream), exchange);
    loop {
        let sent_before = connection.bytes_out();
        let served = {
            let mut session = app.process_new_http(next, &connection.shutdown);
            let mut work = pin!(tend(exchange, &mut session));
            watch.guard(exchange, &mut work).await
        };
        match served {
            Ok(Some(reused)) => next = next_session(reused, exchange),
            Ok(None) => return end_of(exchange, sent_before),
            Err(cause) => return end_by(exchange, cause),
        }
    }
}

/// What the client of an exchange that was cut is told.
pub(super) fn last_words(exchange: &Exchange) -> &'static [u8] {
    match exchange.expired() {
        Some(Cause::Moved | Cause::TunnelTotal) => exchange.last_words(),
        _ => exchange.last_word().map_or("", answer).as_bytes(),
    }
}

fn first_session(stream: Stream, exchange: &Exchange) -> ServerSession {
    let mut session = ServerSession::new_http1(stream);
    session.set_keepalive(Some(UNTIMED));
    // Pingora counts the requests after the first.
    let reuses = exchange
        .limits()
        .keepalive_requests
        .map(|requests| requests.saturating_sub(1));
    session.set_keepalive_reuses_remaining(reuses);
    session.set_pipelining_enabled(true);
    session
}

fn next_session(reused: ReusedHttpStream, exchange: &Exchange) -> ServerSession {
    exchange.rest();
    let (stream, settings): (Stream, Option<HttpPersistentSettings>) = reused.consume();
    let mut session = ServerSession::new_http1(stream);
    if let Some(settings) = settings {
        settings.apply_to_session(&mut session);
    }
    session
}

/// Pingora is done. Where it never found a whole header and yet said something, that was 400; what
/// it had to judge may have come with the request before, without a further read.
fn end_of(exchange: &Exchange, sent_before: u64) -> End {
    match exchange.phase() {
        Phase::Idle | Phase::Header if exchange.connection.bytes_out() > sent_before => {
            End::Malformed
        }
        Phase::Header => End::HeaderCut,
        _ => End::Clean,
    }
}

fn answer(status: u16) -> &'static str {
    match status {
        408 => "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        431 => {
            "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        }
        _ => "HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    }
}
