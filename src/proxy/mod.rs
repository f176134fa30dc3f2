//! Carries requests through Pingora: each hook calls one or a few of the [phases] of a request, and converts to and
//! from Pingora's types.
//!
//! | hook | files here |
//! |---|---|
//! | `early_request_filter` | [`begin`]: links the request to its connection, sets timeouts |
//! | `request_filter` | [`header`]: reads the request |
//! | `request_body_filter` | [`request_body`] |
//! | `upstream_peer` … `upstream_request_filter` | [`connect`]: the attempt's peer and connection |
//! | `fail_to_connect`, `error_while_proxy` | [`retry`], [`classify`]: blame, the next attempt |
//! | `fail_to_proxy` | [`local_reply`], [`classify`]: the response to a failure |

mod begin;
pub(crate) mod classify;
pub(crate) mod connect;
mod header;
mod local_reply;
mod request_body;
pub(crate) mod retry;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Version};
use pingora::connectors::TransportConnector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};

use crate::fault::{Blame, Fault};
use crate::header::{names_with_outer_blanks, trim_values};
use crate::phases::grpc_web::GrpcWebTranslation;
use crate::phases::{
    self, Context, RoutingDecision, acme_http01, affinity_refresh, attempt_events, finish,
    forward_request, forward_response, select, stream_limits,
};
use crate::snapshot::Snapshot;
use crate::telemetry::Telemetry;

/// The proxy: Pingora's hooks, over the configuration in force.
pub(crate) struct EdgeProxy {
    snapshot: Arc<ArcSwap<Snapshot>>,
    telemetry: Arc<Telemetry>,
    /// Opens the connections of tunnels.
    tunnel_connector: Arc<TransportConnector>,
}

impl EdgeProxy {
    /// A proxy; each request uses the configuration that `snapshot` holds when the request begins.
    pub(crate) fn new(snapshot: Arc<ArcSwap<Snapshot>>, telemetry: Arc<Telemetry>) -> Self {
        Self {
            snapshot,
            telemetry,
            tunnel_connector: Arc::new(TransportConnector::new(None)),
        }
    }
}

#[async_trait]
impl ProxyHttp for EdgeProxy {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(self.snapshot.load_full(), Arc::clone(&self.telemetry))
    }

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {
        // No modules: the peers compress, and each module would cost time on every request.
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        begin::begin_request(session, ctx);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        if let Some(reply) = acme_http01::respond(ctx).await {
            return local_reply::send(session, ctx, reply).await.map(|()| true);
        }
        let raw = header::raw_header(session);
        let routed = match phases::route_request(raw, session.req_header(), ctx) {
            Ok(RoutingDecision::Reply(reply)) => {
                return local_reply::send(session, ctx, reply).await.map(|()| true);
            }
            Ok(RoutingDecision::Forward) => select::select_initial(ctx).await,
            Err(fault) => Err(fault),
        };
        match routed {
            Ok(()) => Ok(false),
            Err(fault) => local_reply::reply_without_upstream(session, ctx, fault)
                .await
                .map(|()| true),
        }
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        request_body::on_request_body(body, end_of_stream, ctx).map_err(|fault| fail(ctx, fault))
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<Box<HttpPeer>> {
        let peer = attempt_events::start(ctx).and_then(|()| {
            affinity_refresh::start(&self.snapshot, ctx);
            connect::peer_for_session(session, ctx, &self.tunnel_connector)
        });
        peer.map(Box::new).map_err(|fault| fail(ctx, fault))
    }

    async fn connected_to_upstream(
        &self,
        session: &mut Session,
        reused: bool,
        _peer: &HttpPeer,
        _fd: std::os::fd::RawFd,
        digest: Option<&Digest>,
        ctx: &mut Context,
    ) -> Result<()> {
        connect::check_tls_version(digest, ctx)?;
        connect::on_connected(session, digest, ctx, reused);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        connect::attach_body(session, request, ctx);
        let client = session.req_header();
        connect::offer_upgrade(request, ctx);
        let version = request.version;
        forward_request::set_te_trailers((client, client.version), (request, version));
        ctx.grpc_web = match ctx.upstream() {
            Some(upstream) if upstream.config.grpc_web => {
                GrpcWebTranslation::of_request(request, version)
            }
            _ => None,
        };
        let set = connect::set_target(request, ctx)
            .and_then(|()| forward_request::set_request_headers(request, ctx))
            .and_then(|()| request_body::on_body_before_attempt(session, ctx));
        set.map_err(|fault| fail(ctx, fault))
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let (status, version) = (response.status, response.version);
        // Blanks in a value of HTTP/2 are around it in HTTP/1 (RFC 9113 §8.2.1). gRPC messages have them.
        let padded = names_with_outer_blanks(&response.headers);
        trim_values(response, &padded);
        let framed = forward_response::normalize_framing(status, version, response, ctx);
        framed.map_err(|fault| fail(ctx, fault))?;
        // The version belongs to one connection, and clients are sent this one (RFC 9110 §2.5).
        response.set_version(Version::HTTP_11);
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        if let Some(translation) = &mut ctx.grpc_web {
            translation.translate_response(response);
        }
        ctx.body_replayable = retry::is_body_replayable(session);
        let (request, status) = (session.req_header(), response.status);
        let effects = forward_response::prepare_response(request, status, response, ctx)
            .map_err(|fault| fail(ctx, fault))?;
        stream_limits::enforce_stream_limits(&self.snapshot, request, (status, response), ctx);
        if effects.ends_read_timeout {
            session.set_read_timeout(None);
        }
        if effects.closes_connection {
            ctx.forbid_keepalive();
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        if let Some(translation) = &ctx.grpc_web {
            let encoded = translation.encode_response_body(body, end_of_stream);
            encoded.map_err(|_| Error::new_up(ErrorType::ConnectionClosed))?;
        }
        if let Some(piece) = body {
            forward_response::on_piece(piece.len(), ctx);
        }
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut HeaderMap,
        ctx: &mut Context,
    ) -> Result<Option<Bytes>> {
        let padded = names_with_outer_blanks(trailers);
        trim_values(trailers, &padded);
        let translation = ctx.grpc_web.as_ref();
        let end = translation.and_then(|translation| translation.encode_trailers(trailers));
        if let Some(end) = &end {
            forward_response::on_piece(end.len(), ctx);
        }
        Ok(end)
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        retry::on_connect_failed(session, ctx, &mut error);
        error
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        mut error: Box<Error>,
        ctx: &mut Context,
        reused: bool,
    ) -> Box<Error> {
        retry::on_exchange_failed(session, ctx, &mut error, reused);
        error
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        ctx: &mut Context,
    ) -> FailToProxy {
        local_reply::reply_after_failure(session, ctx, error).await
    }

    async fn logging(&self, session: &mut Session, _error: Option<&Error>, ctx: &mut Context) {
        let written = session.response_written();
        let status = written.map_or(0, |response| response.status.as_u16());
        finish::finish(ctx, status, session.body_bytes_sent() as u64);
    }

    // A client must not be able to fill the error log; the access log and the counters have every failure.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Context, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Context,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

/// Records the fault, and returns the error that makes Pingora end the attempt. Another attempt may follow if the fault
/// blames the peer.
#[expect(
    clippy::unnecessary_box_returns,
    reason = "the hooks of Pingora return boxed errors"
)]
fn fail(ctx: &mut Context, fault: Fault) -> Box<Error> {
    ctx.fault = Some(fault);
    let kind = ErrorType::HTTPStatus(fault.status());
    match fault.blame() {
        Blame::Peer => Error::new_up(kind),
        Blame::Client | Blame::Proxy => Error::new_down(kind),
    }
}
