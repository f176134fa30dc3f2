//! The keep-alive loop of one HTTP/1 connection, around Pingora's session.
//!
//! ```text
//!      ┌────────────► idle ── first byte ──► header ── complete ──► request … response ──┐
//!      │               │ keep-alive time       │ header time           │ its own limits  │
//!      │               ▼                       ▼                       ▼                 │
//!      │             close                 408, close            504 or cut, close       │
//!      └──────────────────────────── the response allows it ◄────────────────────────────┘
//! ```
//!
//! Pingora's own loop has no limit on a header's arrival and none on an idle connection after its
//! first request. Draining needs nothing more than this loop: a response that is sent while
//! `shutdown` is set carries `Connection: close`, and an idle connection keeps its idle time, so no
//! client finds a connection closed that it was told it could use.

use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::watch::{Expired, Watch};
use super::{Connection, Downstream, Phase, Socket};

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// After a response that was the last one, or by the client between two requests.
    Clean,
    /// It was idle for the whole keep-alive time.
    IdleTimeout,
    /// The header was not complete in time; the client was sent 408, if it had sent anything.
    HeaderTimeout,
    /// What came was no HTTP request; the client was sent 400.
    Malformed,
    /// The client left in the middle of a header.
    HeaderCut,
    /// A request or response took longer than its limit; 504 where nothing had been sent.
    RequestTimeout,
}

/// How long, and for how many bytes, a closing connection still takes what the client is sending.
const LINGER: (Duration, usize) = (Duration::from_secs(2), 4 << 20);

const TIMEOUT_408: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const TIMEOUT_504: &[u8] =
    b"HTTP/1.1 504 Gateway Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Serves the requests of one connection until it ends; `shutdown` makes each response the last.
pub async fn serve_http1<A>(
    stream: Downstream,
    connection: &Arc<Connection>,
    app: &Arc<A>,
    shutdown: &ShutdownWatch,
) -> End
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let end = run(Box::new(stream), connection, app, shutdown).await;
    let returned = connection.returned.lock().take();
    if let Some(socket) = returned {
        close(socket, connection).await;
    }
    end
}

async fn run<A>(
    stream: Stream,
    connection: &Connection,
    app: &Arc<A>,
    shutdown: &ShutdownWatch,
) -> End
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let mut watch = Watch::new();
    let mut next = first_session(stream, connection);
    loop {
        let sent_before = connection.bytes_out();
        let mut work = app.process_new_http(next, shutdown);
        let served = watch.guard(connection, &mut work).await;
        drop(work); // gives the socket back, if the request was cut
        match served {
            Ok(Some(reused)) => next = next_session(reused, connection),
            Ok(None) => return end_of(connection, sent_before),
            Err(Expired(phase)) => return expire(connection, phase, sent_before).await,
        }
    }
}

fn first_session(stream: Stream, connection: &Connection) -> ServerSession {
    let mut session = ServerSession::new_http1(stream);
    session.set_keepalive(Some(UNTIMED));
    // Pingora counts the requests after the first.
    let reuses = connection
        .limits
        .keepalive_requests
        .map(|requests| requests.saturating_sub(1));
    session.set_keepalive_reuses_remaining(reuses);
    session.set_pipelining_enabled(true);
    session
}

fn next_session(reused: ReusedHttpStream, connection: &Connection) -> ServerSession {
    connection.rest();
    let (stream, settings): (Stream, Option<HttpPersistentSettings>) = reused.consume();
    let mut session = ServerSession::new_http1(stream);
    if let Some(settings) = settings {
        settings.apply_to_session(&mut session);
    }
    session
}

/// Pingora's word for a keep-alive without a time limit: the [`Watch`] has the limits.
const UNTIMED: u64 = 0;

fn end_of(connection: &Connection, sent_before: u64) -> End {
    match connection.phase() {
        Phase::Header if connection.bytes_out() > sent_before => End::Malformed,
        Phase::Header => End::HeaderCut,
        _ => End::Clean,
    }
}

async fn expire(connection: &Connection, phase: Phase, sent_before: u64) -> End {
    let silent = connection.bytes_out() == sent_before;
    match phase {
        // A browser opens connections ahead of need; a 408 out of the blue would only confuse it.
        Phase::Idle if connection.bytes_in() == 0 => End::HeaderTimeout,
        Phase::Idle => End::IdleTimeout,
        Phase::Header => {
            tell(connection, TIMEOUT_408).await;
            End::HeaderTimeout
        }
        _ => {
            if silent {
                tell(connection, TIMEOUT_504).await;
            }
            End::RequestTimeout
        }
    }
}

/// Sends a last word; a client that does not take it at once has no claim to it.
async fn tell(connection: &Connection, message: &[u8]) {
    let socket = connection.returned.lock().take();
    if let Some(mut socket) = socket {
        let _ = tokio::time::timeout(Duration::from_secs(1), socket.write_all(message)).await;
        connection.sent(message.len());
        connection.linger();
        *connection.returned.lock() = Some(socket);
    }
}

/// Closes, after the client has had time to read the last response (RFC 9112, 9.6).
async fn close(mut socket: Socket, connection: &Connection) {
    if connection.linger.load(std::sync::atomic::Ordering::Relaxed) {
        let _ = tokio::time::timeout(LINGER.0, discard(&mut socket)).await;
    }
}

async fn discard(socket: &mut Socket) {
    let _ = socket.shutdown().await;
    let mut sink = vec![0; 16 * 1024];
    let mut left = LINGER.1;
    while let Ok(count @ 1..) = socket.read(&mut sink).await {
        left = left.saturating_sub(count);
        if left == 0 {
            return;
        }
    }
}
