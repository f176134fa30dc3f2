//! Requests of HTTP/1 that need no session of Pingora: the loop of one connection around an engine.
//!
//! An engine serves request after request until it meets one that is not for it. That one and those that follow
//! it on the connection go through Pingora ([`http1`](super::http1)), from their first byte on.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use pingora::apps::http_app::HttpServer;

use super::close::{CloseReason, close_reason_for};
use super::deadline_timer::DeadlineTimer;
use super::drive::drive_connection;
use super::exchange::Exchange;
use super::io::DownstreamIo;

/// Serves requests of HTTP/1.
pub(crate) trait Http1Engine {
    /// The state of a connection that is kept from one request to the next.
    type Connection: Default + Send;

    /// Serves the next request of a connection.
    fn serve_request(
        &self,
        io: &mut DownstreamIo,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = RequestEnd> + Send;
}

/// The next step after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestEnd {
    /// The next request on the same connection.
    KeepAlive,
    /// The connection is closed.
    Close(CloseReason),
    /// The request is not for the engine, which has put back all of its bytes.
    Unsuited,
}

/// The end of the engine's work on a connection.
pub(super) enum EngineEnd {
    /// The connection is over.
    Closed(CloseReason),
    /// A request is left to Pingora, after this many on the connection.
    Unsuited(u32),
}

/// Serves the requests of one connection until it ends, or until one is not for the engine.
pub(super) async fn run<A: Http1Engine>(
    io: &mut DownstreamIo,
    exchange: &Arc<Exchange>,
    timer: &mut DeadlineTimer,
    engine: &A,
) -> EngineEnd {
    let mut connection = A::Connection::default();
    let mut requests = 0;
    loop {
        let served = {
            let mut request = pin!(engine.serve_request(io, &mut connection));
            let mut work = pin!(drive_connection(exchange, &mut request));
            timer.run_until_deadline(exchange, &mut work).await
        };
        match served {
            Ok(RequestEnd::KeepAlive) => exchange.begin_keepalive(),
            Ok(RequestEnd::Close(reason)) => return EngineEnd::Closed(reason),
            Ok(RequestEnd::Unsuited) => return EngineEnd::Unsuited(requests),
            Err(reason) => return EngineEnd::Closed(close_reason_for(exchange, reason)),
        }
        requests += 1;
    }
}

/// The admin API is served by Pingora alone.
impl<A: Sync> Http1Engine for HttpServer<A> {
    type Connection = ();

    async fn serve_request(&self, _: &mut DownstreamIo, (): &mut ()) -> RequestEnd {
        RequestEnd::Unsuited
    }
}
