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

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora_core::protocols::Stream;
use pingora_core::protocols::http::ServerSession;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::watch::Watch;
use super::{Cause, ClientStream, Connection, Phase, Socket};

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// After a response that was the last one, or by the client between two requests.
    Clean,
    /// It was idle for the whole keep-alive time, or for a moment while others waited for its place.
    IdleTimeout,
    /// The header was not complete in time; the client was sent 408, if it had sent anything.
    HeaderTimeout,
    /// The header was too large; the client was sent 431.
    HeaderTooLarge,
    /// What came was no HTTP request; the client was sent 400.
    Malformed,
    /// The client left in the middle of a header.
    HeaderCut,
    /// A request or response passed one of its limits; 408 or 504 where nothing had been sent.
    RequestTimeout,
}

/// How long, and for how many bytes, a closing connection still takes what the client is sending.
const LINGER: (Duration, usize) = (Duration::from_secs(2), 4 << 20);

/// How long the last bytes may take to be written; a client that is slower has no claim to them.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// Serves the requests of one connection until it ends, and closes it.
pub async fn serve_http1<A>(stream: ClientStream, connection: &Arc<Connection>, app: &Arc<A>) -> End
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let end = run(Box::new(stream), connection, app).await;
    close(connection).await;
    end
}

async fn run<A>(stream: Stream, connection: &Connection, app: &Arc<A>) -> End
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let mut watch = Watch::new();
    let mut next = first_session(stream, connection);
    loop {
        let sent_before = connection.bytes_out();
        let mut work = app.process_new_http(next, &connection.shutdown);
        let served = watch.guard(connection, &mut work).await;
        drop(work);
        match served {
            Ok(Some(reused)) => next = next_session(reused, connection),
            Ok(None) => return end_of(connection, sent_before),
            Err(cause) => return end_by(connection, cause),
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

/// Pingora is done. Where it never found a whole header and yet said something, that was 400; what
/// it had to judge may have come with the request before, without a further read.
fn end_of(connection: &Connection, sent_before: u64) -> End {
    match connection.phase() {
        Phase::Idle | Phase::Header if connection.bytes_out() > sent_before => End::Malformed,
        Phase::Header => End::HeaderCut,
        _ => End::Clean,
    }
}

fn end_by(connection: &Connection, cause: Cause) -> End {
    match cause {
        // A browser opens connections ahead of need; a 408 out of the blue would only confuse it.
        Cause::Idle if connection.bytes_in() == 0 => End::HeaderTimeout,
        Cause::Idle => End::IdleTimeout,
        Cause::Header => End::HeaderTimeout,
        Cause::HeaderTooLarge => End::HeaderTooLarge,
        Cause::Moved => End::Clean,
        Cause::FirstByte | Cause::Gap | Cause::Tunnel | Cause::Request | Cause::ClientStalled => {
            End::RequestTimeout
        }
    }
}

/// Closes the connection: sends what waits and the last word, and gives the client time to read
/// them (RFC 9112, 9.6); or resets it, where what it was sent is not whole.
pub(super) async fn close(connection: &Connection) {
    let (words, taken) = {
        let mut wire = connection.wire.lock();
        (wire.last_words(), wire.take())
    };
    let Some((mut socket, mut last)) = taken else {
        return;
    };
    if connection.cut_hard.load(Relaxed) || was_cut_short(connection) {
        return socket.reset_on_close();
    }
    let moved = connection.expired() == Some(Cause::Moved);
    let told = match connection.last_word() {
        _ if moved => words,
        word => word.map_or("", answer).as_bytes(),
    };
    last.extend_from_slice(told);
    let _ = tokio::time::timeout(LAST_WRITE, finish(&mut socket, &last)).await;
    if connection.linger.load(Relaxed) || !told.is_empty() || moved {
        let _ = tokio::time::timeout(LINGER.0, discard(&mut socket)).await;
    }
}

async fn finish(socket: &mut Socket, last: &[u8]) -> io::Result<()> {
    if !last.is_empty() {
        socket.write_all(last).await?;
    }
    socket.say_goodbye().await
}

/// A limit was passed in the middle of a response, or because the client takes nothing of it.
fn was_cut_short(connection: &Connection) -> bool {
    match connection.expired() {
        Some(Cause::ClientStalled | Cause::Gap) => true,
        Some(Cause::Request | Cause::FirstByte) => connection.response_begun(),
        _ => false,
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
