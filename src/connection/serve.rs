//! One connection from its first byte to its close, whichever HTTP it speaks.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::apps::HttpServerApp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::exchange::Exchange;
use super::phase::Cause;
use super::stream::ClientStream;
use super::watch::{Watch, tend};
use super::{Connection, Socket, http1, http2, preface};
use crate::telemetry::metrics::Violation;

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
    /// The client broke the rules of HTTP/2; it was sent GOAWAY, with the reason.
    Violation(Violation),
}

/// How long, and for how many bytes, a closing connection still takes what the client is sending.
pub(super) const LINGER: (Duration, usize) = (Duration::from_secs(2), 4 << 20);

/// How long the last bytes may take to be written; a client that is slower has no claim to them.
pub(super) const LAST_WRITE: Duration = Duration::from_secs(1);

/// Serves the requests of one connection until it ends, and closes it. Where `prior_knowledge` is told,
/// a client without TLS may begin with HTTP/2.
pub async fn serve<A>(connection: Arc<Connection>, prior_knowledge: bool, app: &Arc<A>) -> End
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let exchange = Exchange::first(connection);
    let Ok(stream) = ClientStream::new(Arc::clone(&exchange)) else {
        return End::Clean;
    };
    let mut watch = Watch::new();
    let (end, words) = match begin(stream, &exchange, &mut watch, prior_knowledge).await {
        Ok(Spoken::Http1(stream)) => {
            let end = http1::run(stream, &exchange, &mut watch, app).await;
            (end, http1::last_words(&exchange))
        }
        Ok(Spoken::Http2(stream)) => {
            let end = http2::run(stream, &exchange, &mut watch, app).await;
            (end, &b""[..])
        }
        Err(cause) => (end_by(&exchange, cause), http1::last_words(&exchange)),
    };
    close(&exchange, words).await;
    end
}

enum Spoken {
    Http1(ClientStream),
    Http2(ClientStream),
}

async fn begin(
    mut stream: ClientStream,
    exchange: &Exchange,
    watch: &mut Watch,
    prior_knowledge: bool,
) -> Result<Spoken, Cause> {
    if let Some(secured) = &exchange.connection.secured {
        let spoken = if secured.http2 {
            Spoken::Http2
        } else {
            Spoken::Http1
        };
        return Ok(spoken(stream));
    }
    if !prior_knowledge {
        return Ok(Spoken::Http1(stream));
    }
    let is_http2 = {
        let mut told = pin!(preface::is_http2(&mut stream));
        let mut work = pin!(tend(exchange, &mut told));
        watch.guard(exchange, &mut work).await?
    };
    // An error shows again in the next read.
    if is_http2.unwrap_or(false) {
        Ok(Spoken::Http2(stream))
    } else {
        Ok(Spoken::Http1(stream))
    }
}

pub(super) fn end_by(exchange: &Exchange, cause: Cause) -> End {
    match cause {
        // A browser opens connections ahead of need; a 408 out of the blue would only confuse it.
        Cause::Idle if exchange.connection.bytes_in() == 0 => End::HeaderTimeout,
        Cause::Idle => End::IdleTimeout,
        Cause::Header => End::HeaderTimeout,
        Cause::HeaderTooLarge => End::HeaderTooLarge,
        Cause::Moved | Cause::ClientGone => End::Clean,
        Cause::Abuse => End::Malformed,
        Cause::FirstByte
        | Cause::Gap
        | Cause::Tunnel
        | Cause::TunnelTotal
        | Cause::Request
        | Cause::PeerStalled
        | Cause::ClientStalled => End::RequestTimeout,
    }
}

/// Closes the connection: sends what waits and the last words, and gives the client time to read
/// them (RFC 9112, 9.6); or resets it, where what it was sent is not whole.
pub(super) async fn close(exchange: &Exchange, words: &[u8]) {
    let taken = exchange.connection.wire.lock().take();
    let Some((mut socket, mut last)) = taken else {
        return;
    };
    if exchange.is_cut_short() {
        return socket.reset_on_close();
    }
    let moved = exchange.expired() == Some(Cause::Moved);
    last.extend_from_slice(words);
    let _ = tokio::time::timeout(LAST_WRITE, finish(&mut socket, &last)).await;
    if exchange.is_to_linger() || !words.is_empty() || moved {
        let _ = tokio::time::timeout(LINGER.0, discard(&mut socket)).await;
    }
}

async fn finish(socket: &mut Socket, last: &[u8]) -> io::Result<()> {
    if !last.is_empty() {
        socket.write_all(last).await?;
    }
    socket.say_goodbye().await
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
