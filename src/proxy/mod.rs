//! Carries requests through Pingora: each hook is one call, or a few, into the files of its phase.
//!
//! | hook | files |
//! |---|---|
//! | `early_request_filter` | [`begin`], [`request_info`]: joins request and connection, sets timeouts and id |
//! | `request_filter` | [`acme_http01`], [`validate`], [`redirect`], [`route`], [`request_key`], [`select`]: limits, route, key, first peer |
//! | `request_body_filter` | [`request_body`], [`grpc_web`]: the body's size, upload progress |
//! | `upstream_peer` | [`select`], [`affinity_refresh`], [`connect`], [`proxy_header`]: the attempt's peer and connection |
//! | `connected_to_upstream`, `upstream_request_filter` | [`connect`], [`forward_request`], [`grpc_web`]: the request to the peer |
//! | `response_filter` … `response_trailer_filter` | [`forward_response`], [`grpc_web`], [`sticky_cookie`], [`stream_limits`]: the response |
//! | `fail_to_connect`, `error_while_proxy` | [`classify`], [`outlier_detection`], [`retry`]: blame, ejection, the next attempt |
//! | `fail_to_proxy` | [`local_reply`], [`classify`]: the response to a failure |
//! | `logging` | [`finish`]: counters and the access-log line |
//!
//! [`partial_request`] stands in for all of them where a header never was complete.

pub(crate) mod classify;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use pingora::connectors::TransportConnector;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::protocols::Digest;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, Result};

use crate::fault::Fault;
use crate::phases::grpc_web::GrpcWebTranslation;
use crate::phases::{
    Context, acme_http01, affinity_refresh, begin, connect, finish, forward_request,
    forward_response, local_reply, redirect, request_body, request_key, retry, route, select,
    stream_limits, validate,
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
    /// A proxy that serves each request with the configuration that `snapshot` holds at its start.
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
        // No modules: compression is left to the peers, and each module costs every request.
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        begin::begin_request(session, ctx);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        if let Some(token) = acme_http01::key_authorization(ctx).await {
            let reply = acme_http01::reply(token)?;
            return local_reply::send(session, ctx, reply).await.map(|()| true);
        }
        let routed = match route_request(session, ctx) {
            Ok(RoutingDecision::Redirect(location)) => {
                let reply = redirect::reply(location)?;
                return local_reply::send(session, ctx, reply).await.map(|()| true);
            }
            Ok(RoutingDecision::Upstream) => select::select_initial(ctx).await,
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
        let passed = request_body::on_request_body(body.as_ref(), end_of_stream, ctx)
            .and_then(|()| decode_grpc_web(body, end_of_stream, ctx));
        if passed.is_err() {
            request_body::abort(ctx);
        }
        passed
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        ctx: &mut Context,
    ) -> Result<Box<HttpPeer>> {
        select::start_attempt(ctx)?;
        affinity_refresh::start(&self.snapshot, ctx);
        connect::http_peer(session, ctx, &self.tunnel_connector)
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
        connect::on_connected(session, ctx, reused);
        Ok(())
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        connect::check_http_version(session, request, ctx)?;
        forward_request::set_te_trailers(session.req_header(), request)?;
        ctx.grpc_web = match ctx.upstream() {
            Some(upstream) if upstream.config.grpc_web => GrpcWebTranslation::of_request(request)?,
            _ => None,
        };
        connect::attach_body(session, request, ctx);
        forward_request::set_request_headers(request, ctx)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        if let Some(translation) = &mut ctx.grpc_web {
            translation.translate_response(response)?;
        }
        forward_response::prepare_response(session, response, ctx)?;
        stream_limits::enforce_stream_limits(&self.snapshot, session, response, ctx);
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
            translation.encode_response_body(body, end_of_stream)?;
        }
        forward_response::on_response_body(body.as_ref(), ctx);
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut HeaderMap,
        ctx: &mut Context,
    ) -> Result<Option<Bytes>> {
        let translation = ctx.grpc_web.as_ref();
        let end = translation.and_then(|translation| translation.encode_trailers(trailers));
        forward_response::on_response_body(end.as_ref(), ctx);
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
        finish::finish(session, ctx);
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

/// What becomes of a request before a peer is chosen.
enum RoutingDecision {
    /// It has a route and a key.
    Upstream,
    /// Its client is sent to this location.
    Redirect(String),
}

/// The checks before a peer is chosen, in their order. A check of its own, such as an access rule or a rate limit,
/// is a file and a call here; its settings are in the [`RouteTarget`](crate::snapshot::RouteTarget).
fn route_request(session: &Session, ctx: &mut Context) -> Result<RoutingDecision, Fault> {
    let request = session.req_header();
    let raw_header = session
        .as_http1()
        .map(|http1| http1.get_headers_raw_bytes().len());
    validate::validate(request, raw_header, ctx)?;
    if let Some(location) = redirect::redirect_location(ctx)? {
        return Ok(RoutingDecision::Redirect(location));
    }
    route::resolve_route(request, ctx)?;
    request_key::compute_key(request, ctx)?;
    Ok(RoutingDecision::Upstream)
}

fn decode_grpc_web(body: &mut Option<Bytes>, end: bool, ctx: &mut Context) -> Result<()> {
    let Some(translation) = &mut ctx.grpc_web else {
        return Ok(());
    };
    let decoded = translation.decode_request_body(body, end);
    decoded.map_err(|_| ctx.fail_with(Fault::BadRequest))
}
