//! One HTTP/2 connection (RFC 9113), many exchanges at once; a wrapper around the `h2` crate.
//!
//! ```text
//!  preface, SETTINGS ──► idle ◄──────────────────────────────┐
//!                         │ a header begins                  │ the last stream ends
//!                         ▼                                  │
//!                       header ── complete ──► streams: a task, an Exchange and an Http2Stream for each
//!
//!  idle timeout, drain, connection limit, last request ──► GOAWAY ──► open streams finish ──► close
//! ```
//!
//! The connection's own exchange never carries a request: its phases are *idle*, *header* and *request*; the
//! last one means here that streams are open. The resources that a client can use are limited in two places:
//! `h2` limits memory (streams, header blocks, pending resets, small DATA frames); [`frame_monitor`] and
//! [`rapid_reset`] limit work.
//!
//! Invariant: GOAWAY is sent before a connection is closed on which the client may be sending a request. It names the
//! streams that are not served, so that the client can safely retry their requests (RFC 9113 §6.8).

mod early_end;
mod frame_monitor;
mod io;
mod ping;
mod rapid_reset;
mod request_header;
mod stream;
mod streams;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;

use self::io::Http2Io;
use self::ping::Pings;
use self::stream::Http2Stream;
use self::streams::{StreamGuard, StreamRegistry};
use super::close::{CloseReason, FINAL_WRITE_TIMEOUT, close_reason_for};
use super::deadline_timer::DeadlineTimer;
use super::drive::drive_connection;
use super::exchange::Exchange;
use super::io::DownstreamIo;
use super::phase::AbortReason;
use super::pingora_digests::PingoraDigests;
use crate::telemetry::metrics::{Http2Violation, ListenerMetrics};

/// The receive window of one stream; bytes. The connection's window is this times `max_streams`, so that
/// uploads to slow peers do not block the others. It limits the memory for one client's unread request
/// bodies: 25 MiB with the default `max_streams`.
const STREAM_WINDOW: u32 = 256 << 10;

/// The largest window (RFC 9113 §6.9.1); bytes.
const MAX_WINDOW: u32 = u32::MAX >> 1;

/// The most unsent response bytes that one stream buffers in `h2`; above it, no more is read from the peer. Two frames:
/// one is sent while the next is made.
const SEND_BUFFER_SIZE: usize = 32 << 10;

/// The most streams that Clockwise resets because of a client's errors, before it closes the connection
/// (CVE-2025-8671, "MadeYouReset").
const MAX_LOCAL_RESETS: usize = 128;

/// How long a stream that Clockwise has reset is remembered, because its client may have sent more before the reset
/// arrived. `h2` answers frames of a forgotten stream with an error, which counts towards [`MAX_LOCAL_RESETS`].
const RESET_MEMORY: Duration = Duration::from_secs(10);

/// Serves the streams of one connection until it ends.
pub(super) async fn run<A>(
    io: DownstreamIo,
    exchange: &Exchange,
    timer: &mut DeadlineTimer,
    app: &Arc<A>,
) -> CloseReason
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let digests = PingoraDigests::new(&exchange.connection);
    let registry = Arc::new(StreamRegistry::default());
    let io = Http2Io::new(io, Arc::clone(&registry));
    let handshake = {
        let mut handshake = pin!(h2_builder(exchange).handshake(io));
        let mut work = pin!(drive_connection(exchange, &mut handshake));
        timer.run_until_deadline(exchange, &mut work).await
    };
    let mut connection = match handshake {
        Ok(Ok(connection)) => connection,
        Ok(Err(_)) => return CloseReason::HeaderTruncated,
        Err(reason) => return close_reason_for(exchange, reason),
    };
    metrics(exchange).http2_connections.inc();
    let mut connection = Http2Connection {
        pings: Pings::new(connection.ping_pong()),
        connection,
        exchange,
        registry,
        app,
        digests,
        shutdown: exchange.connection.shutdown.clone(),
        requests_accepted: 0,
        goaway_sent: false,
    };
    connection.run(timer).await
}

/// The limits that SETTINGS announce and `h2` enforces.
fn h2_builder(exchange: &Exchange) -> Builder {
    let limits = exchange.limits();
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(request_header::max_header_list_size(limits.max_header_size))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window(limits.max_streams))
        .max_send_buffer_size(SEND_BUFFER_SIZE)
        .max_concurrent_reset_streams(usize::try_from(limits.max_streams).unwrap_or(usize::MAX))
        .reset_stream_duration(RESET_MEMORY)
        .max_local_error_reset_streams(Some(MAX_LOCAL_RESETS));
    builder
}

/// The receive window of the connection; bytes.
fn connection_window(max_streams: u32) -> u32 {
    STREAM_WINDOW.saturating_mul(max_streams).min(MAX_WINDOW)
}

fn metrics(exchange: &Exchange) -> &ListenerMetrics {
    &exchange.connection.metrics
}

/// A connection after the handshake.
struct Http2Connection<'a, A> {
    connection: h2::server::Connection<Http2Io, Bytes>,
    pings: Pings,
    /// The connection's own exchange.
    exchange: &'a Exchange,
    registry: Arc<StreamRegistry>,
    app: &'a Arc<A>,
    digests: PingoraDigests,
    shutdown: ShutdownWatch,
    requests_accepted: u64,
    /// GOAWAY was sent: the client should open no more streams.
    goaway_sent: bool,
}

impl<A> Http2Connection<'_, A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    async fn run(&mut self, timer: &mut DeadlineTimer) -> CloseReason {
        let reason = self.serve(timer).await;
        self.registry.abort_all();
        // `h2` refuses streams by itself, as those above `max_streams`: opened, but never accepted.
        let refused = self
            .registry
            .streams_opened()
            .saturating_sub(self.requests_accepted);
        metrics(self.exchange).http2_refused.inc_by(refused);
        reason
    }

    /// Serves until the connection has ended. After the idle timeout it sends GOAWAY, and closes when
    /// the client has acknowledged that or a second has passed.
    async fn serve(&mut self, timer: &mut DeadlineTimer) -> CloseReason {
        let exchange = self.exchange;
        let mut idle_timeout_passed = false;
        loop {
            let accepted = {
                let mut accepting = pin!(self.accept_streams());
                let mut work = pin!(drive_connection(exchange, &mut accepting));
                timer.run_until_deadline(exchange, &mut work).await
            };
            match accepted {
                Ok(CloseReason::Clean) if idle_timeout_passed => return CloseReason::IdleTimeout,
                Ok(reason) => return reason,
                Err(AbortReason::IdleTimeout) if !self.goaway_sent => {
                    idle_timeout_passed = true;
                    exchange.clear_abort();
                    self.start_graceful_shutdown();
                }
                Err(AbortReason::IdleTimeout) if !idle_timeout_passed => {
                    return self
                        .abrupt_shutdown(Reason::NO_ERROR, CloseReason::Clean)
                        .await;
                }
                Err(reason) => return self.abort(reason).await,
            }
        }
    }

    /// Accepts streams until the connection has ended. Cancel-safe.
    async fn accept_streams(&mut self) -> CloseReason {
        if *self.shutdown.borrow() {
            self.start_graceful_shutdown();
        }
        loop {
            self.registry.update_phase(self.exchange);
            tokio::select! {
                biased;
                () = wait_for_shutdown(&mut self.shutdown), if !self.goaway_sent => self.start_graceful_shutdown(),
                () = self.registry.wait_all_ended() => {}
                () = self.registry.request_ended_late() => self.pings.send(),
                () = self.pings.acknowledged() => {}
                accepted = self.connection.accept() => match accepted {
                    Some(Ok((request, respond))) => self.spawn_stream(request, respond),
                    Some(Err(error)) => return self.close_reason_of_error(&error),
                    None => return CloseReason::Clean,
                },
            }
        }
    }

    /// Serves a stream in a task of its own, unless the client has reset it already.
    fn spawn_stream(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        self.requests_accepted += 1;
        metrics(self.exchange).http2_streams.inc();
        let connection = &self.exchange.connection;
        let exchange = Exchange::for_stream(Arc::clone(connection));
        if let (false, Ok(digest)) = (
            is_reset_by_client(&mut respond),
            self.digests.session_digest(&exchange),
        ) {
            let stream_id = respond.stream_id().as_u32();
            let guard = StreamRegistry::register(&self.registry, stream_id, &exchange);
            let entry = Arc::clone(guard.entry());
            let task = StreamTask {
                guard,
                session: Http2Stream::session(
                    request,
                    respond,
                    Arc::clone(&exchange),
                    entry,
                    digest,
                ),
                exchange,
                shutdown: self.shutdown.clone(),
            };
            tokio::spawn(task.serve(Arc::clone(self.app)));
        }
        let max_requests = self.exchange.limits().keepalive_requests;
        let last = max_requests.is_some_and(|max| self.requests_accepted >= u64::from(max));
        if last || connection.is_at_connection_limit() {
            self.start_graceful_shutdown();
        }
    }

    /// Sends GOAWAY: the client opens no more streams; those that it has opened before it gets GOAWAY are still
    /// served.
    fn start_graceful_shutdown(&mut self) {
        if !self.goaway_sent {
            self.goaway_sent = true;
            self.connection.graceful_shutdown();
            self.registry.on_goaway_sent(self.exchange);
        }
    }

    /// The close reason for an error of `h2`: the client has closed the connection, or violated the protocol.
    fn close_reason_of_error(&self, error: &h2::Error) -> CloseReason {
        match error.reason() {
            _ if error.is_io() || error.is_remote() => {
                if self.registry.is_in_header_block() {
                    CloseReason::HeaderTruncated
                } else {
                    CloseReason::Clean
                }
            }
            Some(Reason::ENHANCE_YOUR_CALM) => {
                self.close_for_violation(Http2Violation::EnhanceYourCalm)
            }
            _ => self.close_for_violation(Http2Violation::Protocol),
        }
    }

    fn close_for_violation(&self, violation: Http2Violation) -> CloseReason {
        self.exchange.request_lingering_close();
        CloseReason::Http2Violation(violation)
    }

    async fn abort(&mut self, reason: AbortReason) -> CloseReason {
        match reason {
            AbortReason::Http2Abuse => {
                let violation = self
                    .registry
                    .violation()
                    .unwrap_or(Http2Violation::EnhanceYourCalm);
                let close_reason = self.close_for_violation(violation);
                self.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM, close_reason)
                    .await
            }
            // The client does not read, so GOAWAY would not arrive.
            AbortReason::ClientWriteTimeout => close_reason_for(self.exchange, reason),
            _ => {
                let close_reason = close_reason_for(self.exchange, reason);
                self.abrupt_shutdown(Reason::NO_ERROR, close_reason).await
            }
        }
    }

    /// Ends all open streams and sends GOAWAY with `reason`.
    async fn abrupt_shutdown(&mut self, reason: Reason, close_reason: CloseReason) -> CloseReason {
        self.connection.abrupt_shutdown(reason);
        let closed = poll_fn(|cx| self.connection.poll_closed(cx));
        // If the client does not read GOAWAY in time, the connection is closed without it.
        let _ = tokio::time::timeout(FINAL_WRITE_TIMEOUT, closed).await;
        self.exchange.request_lingering_close();
        close_reason
    }
}

/// Serves one stream, from its request header on.
struct StreamTask {
    session: ServerSession,
    exchange: Arc<Exchange>,
    shutdown: ShutdownWatch,
    guard: StreamGuard,
}

impl StreamTask {
    /// Runs Pingora's proxy on the stream, until the response is complete. [`Http2Stream`] ends the stream when it is dropped,
    /// so the client gets an answer even after a panic.
    async fn serve<A>(self, app: Arc<A>)
    where
        A: HttpServerApp + Send + Sync + 'static,
    {
        let guard = self.guard;
        let entry = guard.entry();
        let mut timer = DeadlineTimer::new();
        let mut work = app.process_new_http(self.session, &self.shutdown);
        tokio::select! {
            biased;
            () = guard.wait_client_gone() => {}
            // The peer gets no more of the request, and is free for others.
            () = entry.wait_answered_early() => {}
            _ = timer.run_until_deadline(&self.exchange, &mut work) => {}
        }
        drop(work);
        if let Some(rest) = entry.take_rest_of_request()
            && early_end::discard_rest(rest).await
        {
            entry.end_request_late();
        }
    }
}

/// Whether the client reset the stream before it was accepted.
fn is_reset_by_client(respond: &mut SendResponse<Bytes>) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    respond.poll_reset(&mut cx).is_ready()
}

/// Waits until the listener is closing; never returns if the sender of `shutdown` was dropped.
async fn wait_for_shutdown(shutdown: &mut ShutdownWatch) {
    if shutdown.wait_for(|closing| *closing).await.is_err() {
        std::future::pending::<()>().await;
    }
}
