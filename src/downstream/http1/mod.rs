//! The keep-alive loop of one HTTP/1 connection (RFC 9112), around our codec.
//!
//! ```text
//!      ┌────────────► idle ── first byte ──► header ── complete ──► request … response ──┐
//!      │               │ keep-alive time       │ header time           │ its own limits  │
//!      │               ▼                       ▼                       ▼                 │
//!      │             close             408 or 431, close       408, 504 or reset, close   │
//!      └──────────────────────────── the response allows it ◄────────────────────────────┘
//! ```
//!
//! The codec reads every header. The engine serves the request, or leaves it to Pingora, which gets it as an
//! [`Http1Stream`]; after either, the loop goes on. During a drain, each response has `Connection: close`, and an idle
//! connection stays open until its idle timeout: the client may be sending its next request on it.

mod client;
mod client_stream;
mod keep_alive;
mod received_body;
mod request_header;
mod stream;

use std::borrow::Cow;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use pingora::apps::HttpServerApp;
use pingora::apps::http_app::HttpServer;
use tokio::io::AsyncWriteExt;

pub(crate) use self::client::Http1Client;
pub(crate) use self::client_stream::ClientStream;
pub(crate) use self::keep_alive::KeepAlive;
pub(crate) use self::received_body::ReceivedBody;
use self::stream::Http1Stream;
use super::close::{CloseReason, close_reason_for};
use super::deadline_timer::DeadlineTimer;
use super::drive::drive_connection;
use super::exchange::Exchange;
use super::io::DownstreamIo;
use super::partial_request::{PartialRequestResponder, reply_to_partial_request};
use super::phase::AbortReason;
use crate::fault::Fault;
use crate::http1::{MessageKind, Refusal};

/// Serves requests of HTTP/1 without Pingora.
pub(crate) trait Http1Engine {
    /// Serves the request after its head was read.
    fn serve_request(&self, client: &mut Http1Client) -> impl Future<Output = RequestEnd> + Send;
}

/// The next step after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RequestEnd {
    /// The next request on the same connection.
    KeepAlive,
    /// The connection is closed.
    Close(CloseReason),
    /// The request is not for the engine, which has changed nothing: Pingora serves it.
    Unsuited,
}

/// The admin API is served by Pingora alone.
impl<A: Sync> Http1Engine for HttpServer<A> {
    async fn serve_request(&self, _: &mut Http1Client) -> RequestEnd {
        RequestEnd::Unsuited
    }
}

/// Serves the requests of one connection until it ends.
pub(super) async fn run<A>(
    io: DownstreamIo,
    (exchange, timer): (&Arc<Exchange>, &mut DeadlineTimer),
    responder: Option<&dyn PartialRequestResponder>,
    app: &Arc<A>,
) -> CloseReason
where
    A: HttpServerApp + Http1Engine + Send + Sync + 'static,
{
    // Boxed: a session of Pingora takes it for the time of a request.
    let mut client = Box::new(Http1Client::new(io));
    loop {
        let served = {
            let mut request = pin!(serve_next(client, responder, app));
            let mut work = pin!(drive_connection(exchange, &mut request));
            timer.run_until_deadline(exchange, &mut work).await
        };
        match served {
            Ok(Ok(kept)) => client = kept,
            Ok(Err(reason)) => return reason,
            Err(reason) => return close_reason_for(exchange, reason),
        }
        exchange.begin_keepalive();
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

/// Serves the next request; returns the connection if another request may follow on it. The futures that serve a request are
/// boxed, so that a connection that waits for one needs no memory for them.
async fn serve_next<A>(
    mut client: Box<Http1Client>,
    responder: Option<&dyn PartialRequestResponder>,
    app: &Arc<A>,
) -> Result<Box<Http1Client>, CloseReason>
where
    A: HttpServerApp + Http1Engine + Send + Sync + 'static,
{
    match client.read_head().await {
        Ok(true) => {}
        Ok(false) => return Err(client.close_reason_at_end()),
        Err(refusal) => return Err(Box::pin(refuse(&mut client, refusal, responder)).await),
    }
    match Box::pin(app.serve_request(&mut client)).await {
        RequestEnd::KeepAlive => Ok(client),
        RequestEnd::Close(reason) => Err(reason),
        RequestEnd::Unsuited => Box::pin(serve_through_pingora(client, responder, app)).await,
    }
}

async fn serve_through_pingora<A>(
    mut client: Box<Http1Client>,
    responder: Option<&dyn PartialRequestResponder>,
    app: &Arc<A>,
) -> Result<Box<Http1Client>, CloseReason>
where
    A: HttpServerApp,
{
    let request = match request_header::to_pingora(&client.head) {
        Ok(request) => request,
        Err(refusal) => return Err(refuse(&mut client, refusal, responder).await),
    };
    let exchange = Arc::clone(client.exchange());
    let Ok((session, transfer)) = Http1Stream::session(client, request) else {
        return Err(CloseReason::Clean);
    };
    let shutdown = &exchange.connection.shutdown;
    // A custom session has no stream to return: the connection comes back through `transfer`.
    let _ = app.process_new_http(session, shutdown).await;
    match Arc::into_inner(transfer) {
        Some(transfer) => transfer.into_inner().finish().await,
        None => Err(CloseReason::Clean),
    }
}

/// Answers bytes that are not a valid request, and ends the connection.
async fn refuse(
    client: &mut Http1Client,
    refusal: Refusal,
    responder: Option<&dyn PartialRequestResponder>,
) -> CloseReason {
    let fault = refusal.fault(MessageKind::Request);
    let exchange = Arc::clone(client.exchange());
    if let Some(reply) = reply_to_partial_request(responder, &exchange, fault) {
        let bytes = reply.into_http1_bytes(Some("close")).unwrap_or_default();
        // An error means that the client is gone; the access log has the fault.
        let _ = client.io.write_all(&bytes).await;
    }
    exchange.request_lingering_close();
    match fault {
        Fault::HeaderTooLarge => CloseReason::HeaderTooLarge,
        _ => CloseReason::MalformedRequest,
    }
}
