//! One connection from its first byte to its close, whichever HTTP it speaks.

use std::pin::pin;
use std::sync::Arc;

use pingora::apps::HttpServerApp;

use super::close::{CloseReason, close, close_reason_for};
use super::connection::Connection;
use super::deadline_timer::DeadlineTimer;
use super::drive::drive_connection;
use super::exchange::Exchange;
use super::io::DownstreamIo;
use super::phase::AbortReason;
use super::{http1, http2, preface};

/// Serves the requests of one connection until it ends, and closes it. Where `prior_knowledge` is told,
/// a client without TLS may begin with HTTP/2.
pub async fn serve<A>(
    connection: Arc<Connection>,
    prior_knowledge: bool,
    app: &Arc<A>,
) -> CloseReason
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let exchange = Exchange::for_connection(connection);
    let Ok(stream) = DownstreamIo::new(Arc::clone(&exchange)) else {
        return CloseReason::Clean;
    };
    let mut watch = DeadlineTimer::new();
    let (end, words) =
        match detect_http_version(stream, &exchange, &mut watch, prior_knowledge).await {
            Ok(HttpIo::Http1(stream)) => {
                let end = http1::run(stream, &exchange, &mut watch, app).await;
                (end, http1::closing_bytes(&exchange))
            }
            Ok(HttpIo::Http2(stream)) => {
                let end = http2::run(stream, &exchange, &mut watch, app).await;
                (end, &b""[..])
            }
            Err(cause) => (
                close_reason_for(&exchange, cause),
                http1::closing_bytes(&exchange),
            ),
        };
    close(&exchange, words).await;
    end
}

enum HttpIo {
    Http1(DownstreamIo),
    Http2(DownstreamIo),
}

async fn detect_http_version(
    mut stream: DownstreamIo,
    exchange: &Exchange,
    watch: &mut DeadlineTimer,
    prior_knowledge: bool,
) -> Result<HttpIo, AbortReason> {
    if let Some(secured) = &exchange.connection.tls {
        let spoken = if secured.http2 {
            HttpIo::Http2
        } else {
            HttpIo::Http1
        };
        return Ok(spoken(stream));
    }
    if !prior_knowledge {
        return Ok(HttpIo::Http1(stream));
    }
    let is_http2 = {
        let mut told = pin!(preface::is_http2(&mut stream));
        let mut work = pin!(drive_connection(exchange, &mut told));
        watch.run_until_deadline(exchange, &mut work).await?
    };
    // An error shows again in the next read.
    if is_http2.unwrap_or(false) {
        Ok(HttpIo::Http2(stream))
    } else {
        Ok(HttpIo::Http1(stream))
    }
}
