//! One HTTP/2 connection: many exchanges at once (RFC 9113), around the `h2` crate.
//!
//! ```text
//!  preface, SETTINGS ──► idle ◄──────────────────────────────┐
//!                         │ a header begins                  │ the last stream ends
//!                         ▼                                  │
//!                       header ── complete ──► streams: a task, an Exchange and a Stream for each
//!
//!  idle time, drain, crowd, last request ──► GOAWAY ──► those on their way are served ──► close
//! ```
//!
//! The connection's own exchange never carries a request: its phases are *idle*, *header* and
//! *request*, which here means that streams are open. What a client may cost is bounded in two
//! places: `h2` bounds what it must remember (streams, header blocks, resets that were not seen yet,
//! small DATA), [`frames`] and [`haste`] what it must do.
//!
//! What must hold: a client that may be sending a request learns by GOAWAY that it is not answered
//! before the connection is closed, so it can send it again elsewhere (RFC 9113, 6.8).

mod frame_monitor;
mod io;
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
use self::stream::Http2Stream;
use self::streams::{StreamGuard, StreamRegistry};
use super::deadline_timer::{DeadlineTimer, drive_connection};
use super::exchange::Exchange;
use super::io::{DownstreamIo, PingoraDigests};
use super::phase::AbortReason;
use super::serve::{CloseReason, FINAL_WRITE_TIMEOUT, close_reason_for};
use crate::telemetry::metrics::{Http2Violation, ListenerMetrics};

/// What a client may send ahead of being read on one stream; bytes. The connection's window is that of
/// all streams that there may be, so that uploads whose peers do not take them hold up no other. It
/// bounds what is held for one client: 25 MiB with the default `max_streams`, of bytes that it has sent.
const STREAM_WINDOW: u32 = 256 << 10;

/// The largest window that there is (RFC 9113, 6.9.1); bytes.
const MAX_WINDOW: u32 = u32::MAX >> 1;

/// What waits for the client on one stream; bytes. Above it the peer waits, too.
const SEND_BUFFER_SIZE: usize = 64 << 10;

/// Streams that a client may make us reset by what it sends (CVE-2025-8671).
const MAX_LOCAL_RESETS: usize = 128;

/// How long a client that was asked to leave may take to say that it knows: a round trip.
const GOAWAY_ACK_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves the streams of one connection until it ends.
pub(super) async fn run<A>(
    stream: DownstreamIo,
    exchange: &Exchange,
    watch: &mut DeadlineTimer,
    app: &Arc<A>,
) -> CloseReason
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let papers = stream.digests();
    let traffic = Arc::new(StreamRegistry::default());
    let carrier = Http2Io::new(stream, Arc::clone(&traffic));
    let greeting = {
        let mut handshake = pin!(h2_builder(exchange).handshake(carrier));
        let mut work = pin!(drive_connection(exchange, &mut handshake));
        watch.run_until_deadline(exchange, &mut work).await
    };
    let connection = match greeting {
        Ok(Ok(connection)) => connection,
        Ok(Err(_)) => return CloseReason::HeaderTruncated,
        Err(cause) => return close_reason_for(exchange, cause),
    };
    metrics(exchange).http2_connections.inc();
    let served = Http2Connection {
        connection,
        exchange,
        registry: traffic,
        app,
        digests: papers,
        shutdown: exchange.connection.shutdown.clone(),
        requests_accepted: 0,
        goaway_sent: false,
    };
    served.run(watch).await
}

/// What clients are told of our limits, and what `h2` holds them to.
fn h2_builder(exchange: &Exchange) -> Builder {
    let limits = exchange.limits();
    let mut terms = Builder::new();
    terms
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(request_header::max_header_list_size(limits.max_header_size))
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(connection_window(limits.max_streams))
        .max_send_buffer_size(SEND_BUFFER_SIZE)
        .max_local_error_reset_streams(Some(MAX_LOCAL_RESETS));
    terms
}

/// What may be on its way in all streams together; bytes.
fn connection_window(streams: u32) -> u32 {
    STREAM_WINDOW.saturating_mul(streams).min(MAX_WINDOW)
}

fn metrics(exchange: &Exchange) -> &ListenerMetrics {
    &exchange.connection.metrics
}

/// A connection whose streams are being served.
struct Http2Connection<'a, A> {
    connection: h2::server::Connection<Http2Io, Bytes>,
    /// The connection's own.
    exchange: &'a Exchange,
    registry: Arc<StreamRegistry>,
    app: &'a Arc<A>,
    digests: PingoraDigests,
    shutdown: ShutdownWatch,
    /// Requests so far.
    requests_accepted: u64,
    /// The client was asked to open no more streams.
    goaway_sent: bool,
}

impl<A> Http2Connection<'_, A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    async fn run(mut self, watch: &mut DeadlineTimer) -> CloseReason {
        let end = self.serve(watch).await;
        self.registry.abort_all();
        let refused = self
            .registry
            .streams_opened()
            .saturating_sub(self.requests_accepted);
        metrics(self.exchange).http2_refused.inc_by(refused);
        end
    }

    async fn serve(&mut self, watch: &mut DeadlineTimer) -> CloseReason {
        let exchange = self.exchange;
        let mut was_idle = false;
        loop {
            let accepted = {
                let mut accepting = pin!(self.accept_streams());
                let mut work = pin!(drive_connection(exchange, &mut accepting));
                watch.run_until_deadline(exchange, &mut work).await
            };
            match accepted {
                Ok(CloseReason::Clean) if was_idle => return CloseReason::IdleTimeout,
                Ok(end) => return end,
                Err(AbortReason::IdleTimeout) if !self.goaway_sent => {
                    was_idle = true;
                    exchange.clear_abort();
                    self.start_graceful_shutdown();
                }
                Err(AbortReason::IdleTimeout) if !was_idle => {
                    return self
                        .abrupt_shutdown(Reason::NO_ERROR, CloseReason::Clean)
                        .await;
                }
                Err(cause) => return self.abort(cause).await,
            }
        }
    }

    /// Takes streams until the connection has ended. May be called again when it was cancelled.
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
                accepted = self.connection.accept() => match accepted {
                    Some(Ok((request, respond))) => self.spawn_stream(request, respond),
                    Some(Err(error)) => return self.close_reason_of_error(&error),
                    None => return CloseReason::Clean,
                },
            }
        }
    }

    /// Serves a stream, in a task of its own; unless the client has taken it back already.
    fn spawn_stream(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        self.requests_accepted += 1;
        metrics(self.exchange).http2_streams.inc();
        let connection = &self.exchange.connection;
        let exchange = Exchange::for_stream(Arc::clone(connection));
        if let (false, Ok(digest)) = (
            is_reset_by_client(&mut respond),
            self.digests.session_digest(&exchange),
        ) {
            let stream = respond.stream_id().as_u32();
            let guard = StreamRegistry::register(&self.registry, stream, &exchange);
            let place = Arc::clone(guard.entry());
            let stream = Http2Stream::new(request, respond, Arc::clone(&exchange), place, digest);
            let visit = StreamTask {
                guard,
                session: ServerSession::new_custom(Box::new(stream)),
                exchange,
                shutdown: self.shutdown.clone(),
            };
            tokio::spawn(visit.serve(Arc::clone(self.app)));
        }
        let allowed = self.exchange.limits().keepalive_requests;
        let last = allowed.is_some_and(|allowed| self.requests_accepted >= u64::from(allowed));
        if last || connection.is_at_connection_limit() {
            self.start_graceful_shutdown();
        }
    }

    /// Asks the client to open no more streams. Those that are on their way are served.
    fn start_graceful_shutdown(&mut self) {
        if !self.goaway_sent {
            self.goaway_sent = true;
            self.connection.graceful_shutdown();
            self.registry.on_goaway_sent(self.exchange);
        }
    }

    /// Nobody is there any more, or nobody who keeps to the rules.
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

    async fn abort(&mut self, cause: AbortReason) -> CloseReason {
        match cause {
            AbortReason::Http2Abuse => {
                let violation = self
                    .registry
                    .violation()
                    .unwrap_or(Http2Violation::EnhanceYourCalm);
                let end = self.close_for_violation(violation);
                self.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM, end).await
            }
            // It takes nothing: there is no way to tell it anything.
            AbortReason::ClientWriteTimeout => close_reason_for(self.exchange, cause),
            _ => {
                self.abrupt_shutdown(Reason::NO_ERROR, close_reason_for(self.exchange, cause))
                    .await
            }
        }
    }

    /// Ends all streams that there are, and says so.
    async fn abrupt_shutdown(&mut self, reason: Reason, end: CloseReason) -> CloseReason {
        self.connection.abrupt_shutdown(reason);
        let closed = poll_fn(|cx| self.connection.poll_closed(cx));
        // Who does not take that either has no claim to it.
        let _ = tokio::time::timeout(FINAL_WRITE_TIMEOUT, closed).await;
        self.exchange.request_lingering_close();
        end
    }
}

/// One stream, from its header on.
struct StreamTask {
    session: ServerSession,
    exchange: Arc<Exchange>,
    shutdown: ShutdownWatch,
    guard: StreamGuard,
}

impl StreamTask {
    /// What the client is told at the end, [`Stream`] says when it is dropped: also where this panics.
    async fn serve<A>(self, app: Arc<A>)
    where
        A: HttpServerApp + Send + Sync + 'static,
    {
        let guard = self.guard;
        let mut watch = DeadlineTimer::new();
        let mut work = app.process_new_http(self.session, &self.shutdown);
        tokio::select! {
            biased;
            () = guard.wait_client_gone() => {}
            _ = watch.run_until_deadline(&self.exchange, &mut work) => {}
        }
    }
}

/// A stream may be reset before it is accepted.
fn is_reset_by_client(respond: &mut SendResponse<Bytes>) -> bool {
    let mut nobody = Context::from_waker(Waker::noop());
    respond.poll_reset(&mut nobody).is_ready()
}

/// Its listener closes. Never, where nobody is left who could say so.
async fn wait_for_shutdown(shutdown: &mut ShutdownWatch) {
    if shutdown.wait_for(|told| *told).await.is_err() {
        std::future::pending::<()>().await;
    }
}
