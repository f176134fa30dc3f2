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

mod carrier;
mod frames;
mod haste;
mod request;
mod stream;
mod traffic;

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;
use pingora_core::apps::HttpServerApp;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;

use self::carrier::Carrier;
use self::stream::Stream;
use self::traffic::{Guard, Traffic};
use super::exchange::Exchange;
use super::phase::Cause;
use super::serve::{End, LAST_WRITE, end_by};
use super::stream::{ClientStream, Papers};
use super::watch::{Watch, tend};
use crate::telemetry::metrics::{ListenerMetrics, Violation};

/// What a client may send ahead of being read on one stream; bytes. The connection's window is that of
/// all streams that there may be, so that uploads whose peers do not take them hold up no other. It
/// bounds what is held for one client: 25 MiB with the default `max_streams`, of bytes that it has sent.
const WINDOW: u32 = 256 << 10;

/// The largest window that there is (RFC 9113, 6.9.1); bytes.
const LARGEST_WINDOW: u32 = u32::MAX >> 1;

/// What waits for the client on one stream; bytes. Above it the peer waits, too.
const SEND_BUFFER: usize = 64 << 10;

/// Streams that a client may make us reset by what it sends (CVE-2025-8671).
const PROVOKED_RESETS: usize = 128;

/// How long a client that was asked to leave may take to say that it knows: a round trip.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves the streams of one connection until it ends.
pub(super) async fn run<A>(
    stream: ClientStream,
    exchange: &Exchange,
    watch: &mut Watch,
    app: &Arc<A>,
) -> End
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let papers = stream.papers();
    let traffic = Arc::new(Traffic::default());
    let carrier = Carrier::new(stream, Arc::clone(&traffic));
    let greeting = {
        let mut handshake = pin!(terms(exchange).handshake(carrier));
        let mut work = pin!(tend(exchange, &mut handshake));
        watch.guard(exchange, &mut work).await
    };
    let connection = match greeting {
        Ok(Ok(connection)) => connection,
        Ok(Err(_)) => return End::HeaderCut,
        Err(cause) => return end_by(exchange, cause),
    };
    metrics(exchange).http2_connections.inc();
    let served = Served {
        connection,
        exchange,
        traffic,
        app,
        papers,
        shutdown: exchange.connection.shutdown.clone(),
        requests: 0,
        leaving: false,
    };
    served.run(watch).await
}

/// What clients are told of our limits, and what `h2` holds them to.
fn terms(exchange: &Exchange) -> Builder {
    let limits = exchange.limits();
    let mut terms = Builder::new();
    terms
        .max_concurrent_streams(limits.max_streams)
        .max_header_list_size(request::list_size(limits.max_header_size))
        .initial_window_size(WINDOW)
        .initial_connection_window_size(connection_window(limits.max_streams))
        .max_send_buffer_size(SEND_BUFFER)
        .max_local_error_reset_streams(Some(PROVOKED_RESETS));
    terms
}

/// What may be on its way in all streams together; bytes.
fn connection_window(streams: u32) -> u32 {
    WINDOW.saturating_mul(streams).min(LARGEST_WINDOW)
}

fn metrics(exchange: &Exchange) -> &ListenerMetrics {
    &exchange.connection.metrics
}

/// A connection whose streams are being served.
struct Served<'a, A> {
    connection: h2::server::Connection<Carrier, Bytes>,
    /// The connection's own.
    exchange: &'a Exchange,
    traffic: Arc<Traffic>,
    app: &'a Arc<A>,
    papers: Papers,
    shutdown: ShutdownWatch,
    /// Requests so far.
    requests: u64,
    /// The client was asked to open no more streams.
    leaving: bool,
}

impl<A> Served<'_, A>
where
    A: HttpServerApp + Send + Sync + 'static,
{
    async fn run(mut self, watch: &mut Watch) -> End {
        let end = self.serve(watch).await;
        self.traffic.abandon();
        let refused = self.traffic.opened().saturating_sub(self.requests);
        metrics(self.exchange).http2_refused.inc_by(refused);
        end
    }

    async fn serve(&mut self, watch: &mut Watch) -> End {
        let exchange = self.exchange;
        let mut was_idle = false;
        loop {
            let accepted = {
                let mut accepting = pin!(self.accept_all());
                let mut work = pin!(tend(exchange, &mut accepting));
                watch.guard(exchange, &mut work).await
            };
            match accepted {
                Ok(End::Clean) if was_idle => return End::IdleTimeout,
                Ok(end) => return end,
                Err(Cause::Idle) if !self.leaving => {
                    was_idle = true;
                    exchange.go_on();
                    self.leave();
                }
                Err(Cause::Idle) if !was_idle => {
                    return self.cut(Reason::NO_ERROR, End::Clean).await;
                }
                Err(cause) => return self.cut_by(cause).await,
            }
        }
    }

    /// Takes streams until the connection has ended. May be called again when it was cancelled.
    async fn accept_all(&mut self) -> End {
        if *self.shutdown.borrow() {
            self.leave();
        }
        loop {
            self.traffic.settle(self.exchange);
            tokio::select! {
                biased;
                () = told_to_close(&mut self.shutdown), if !self.leaving => self.leave(),
                () = self.traffic.all_ended() => {}
                accepted = self.connection.accept() => match accepted {
                    Some(Ok((request, respond))) => self.open(request, respond),
                    Some(Err(error)) => return self.end_of(&error),
                    None => return End::Clean,
                },
            }
        }
    }

    /// Serves a stream, in a task of its own; unless the client has taken it back already.
    fn open(&mut self, request: Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        self.requests += 1;
        metrics(self.exchange).http2_streams.inc();
        let connection = &self.exchange.connection;
        let exchange = Exchange::of_stream(Arc::clone(connection));
        if let (false, Ok(digest)) = (is_taken_back(&mut respond), self.papers.digest(&exchange)) {
            let stream = respond.stream_id().as_u32();
            let guard = Traffic::enter(&self.traffic, stream, &exchange);
            let place = Arc::clone(guard.place());
            let stream = Stream::new(request, respond, Arc::clone(&exchange), place, digest);
            let visit = Visit {
                guard,
                session: ServerSession::new_custom(Box::new(stream)),
                exchange,
                shutdown: self.shutdown.clone(),
            };
            tokio::spawn(visit.serve(Arc::clone(self.app)));
        }
        let allowed = self.exchange.limits().keepalive_requests;
        let last = allowed.is_some_and(|allowed| self.requests >= u64::from(allowed));
        if last || connection.is_crowded() {
            self.leave();
        }
    }

    /// Asks the client to open no more streams. Those that are on their way are served.
    fn leave(&mut self) {
        if !self.leaving {
            self.leaving = true;
            self.connection.graceful_shutdown();
            self.traffic.leave(self.exchange);
        }
    }

    /// Nobody is there any more, or nobody who keeps to the rules.
    fn end_of(&self, error: &h2::Error) -> End {
        match error.reason() {
            _ if error.is_io() || error.is_remote() => {
                if self.traffic.is_in_header() {
                    End::HeaderCut
                } else {
                    End::Clean
                }
            }
            Some(Reason::ENHANCE_YOUR_CALM) => self.violated(Violation::Excess),
            _ => self.violated(Violation::Protocol),
        }
    }

    fn violated(&self, violation: Violation) -> End {
        self.exchange.linger();
        End::Violation(violation)
    }

    async fn cut_by(&mut self, cause: Cause) -> End {
        match cause {
            Cause::Abuse => {
                let violation = self.traffic.abuse().unwrap_or(Violation::Excess);
                let end = self.violated(violation);
                self.cut(Reason::ENHANCE_YOUR_CALM, end).await
            }
            // It takes nothing: there is no way to tell it anything.
            Cause::ClientStalled => end_by(self.exchange, cause),
            _ => {
                self.cut(Reason::NO_ERROR, end_by(self.exchange, cause))
                    .await
            }
        }
    }

    /// Ends all streams that there are, and says so.
    async fn cut(&mut self, reason: Reason, end: End) -> End {
        self.connection.abrupt_shutdown(reason);
        let closed = poll_fn(|cx| self.connection.poll_closed(cx));
        // Who does not take that either has no claim to it.
        let _ = tokio::time::timeout(LAST_WRITE, closed).await;
        self.exchange.linger();
        end
    }
}

/// One stream, from its header on.
struct Visit {
    session: ServerSession,
    exchange: Arc<Exchange>,
    shutdown: ShutdownWatch,
    guard: Guard,
}

impl Visit {
    /// What the client is told at the end, [`Stream`] says when it is dropped: also where this panics.
    async fn serve<A>(self, app: Arc<A>)
    where
        A: HttpServerApp + Send + Sync + 'static,
    {
        let guard = self.guard;
        let mut watch = Watch::new();
        let mut work = app.process_new_http(self.session, &self.shutdown);
        tokio::select! {
            biased;
            () = guard.client_left() => {}
            _ = watch.guard(&self.exchange, &mut work) => {}
        }
    }
}

/// A stream may be reset before it is accepted.
fn is_taken_back(respond: &mut SendResponse<Bytes>) -> bool {
    let mut nobody = Context::from_waker(Waker::noop());
    respond.poll_reset(&mut nobody).is_ready()
}

/// Its listener closes. Never, where nobody is left who could say so.
async fn told_to_close(shutdown: &mut ShutdownWatch) {
    if shutdown.wait_for(|told| *told).await.is_err() {
        std::future::pending::<()>().await;
    }
}
