//! One request through Pingora, in phase order. Each hook is one call into the file of its phase.
//!
//! | hook | file | what |
//! |---|---|---|
//! | `early_request_filter` | [`admit`] | joins request and connection, sets its timeouts and its id |
//! | `request_filter` | [`challenge`], [`admit`], [`redirect`], [`pick`] | ACME, limits, HTTPS, route, key, the first choice of a peer |
//! | `request_body_filter` | [`admit`], [`web`], [`duplex`] | the body's size, upload progress |
//! | `upstream_peer` | [`pick`], [`kept`], [`connect`], [`introduction`], [`tunnel`], [`duplex`] | the next peer of the walk, its drain, and how to talk to it |
//! | `connected_to_upstream`, `upstream_request_filter` | [`connect`], [`forward`], [`web`] | the request to the peer |
//! | `response_filter`, `response_body_filter` | [`forward`], [`web`], [`stick`], [`stay`], [`moved`] | the response to the client, its cookie; whether a long stream may stay |
//! | `response_trailer_filter` | [`web`] | trailers as the end of a body |
//! | `fail_to_connect`, `error_while_proxy` | [`retry`] | blame, the next attempt |
//! | `fail_to_proxy` | [`fault`], [`respond`] | what went wrong, and what the client is told |
//! | `logging` | [`record`] | counters and one access-log line |

mod acme_http01;
mod affinity_refresh;
mod connect;
mod context;
mod fault;
mod finish;
mod forward;
mod grpc_web;
mod local_reply;
mod proxy_header;
mod redirect;
mod retry;
mod select;
mod sticky_cookie;
mod stream_limits;
mod tunnel;
mod upstream_h2;
mod validate;

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

pub use self::context::Context;
pub use self::upstream_h2::UpstreamH2Connector;

use crate::snapshot::Snapshot;
use crate::telemetry::Telemetry;

/// The proxy: Pingora's hooks over the configuration in force.
pub struct EdgeProxy {
    snapshot: Arc<ArcSwap<Snapshot>>,
    telemetry: Arc<Telemetry>,
    /// Makes the connections that are tunnels.
    tunnel_connector: Arc<TransportConnector>,
}

impl EdgeProxy {
    /// A proxy that serves whatever configuration `snapshot` holds at a request's start.
    pub fn new(snapshot: Arc<ArcSwap<Snapshot>>, telemetry: Arc<Telemetry>) -> Self {
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
        // None: compression is the peers' business, and each module costs every request.
    }

    async fn early_request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<()> {
        validate::begin_request(session, ctx);
        Ok(())
    }

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        if let Some(answer) = acme_http01::key_authorization(ctx).await {
            return acme_http01::respond(session, ctx, answer)
                .await
                .map(|()| true);
        }
        let checked =
            validate::validate(session, ctx).and_then(|()| redirect::redirect_location(ctx));
        let admitted = match checked {
            Ok(Some(location)) => {
                return redirect::respond(session, ctx, location)
                    .await
                    .map(|()| true);
            }
            Ok(None) => validate::resolve_route(session, ctx)
                .and_then(|()| select::compute_key(session, ctx)),
            Err(refusal) => Err(refusal),
        };
        let chosen = match admitted {
            Ok(()) => select::select_initial(ctx).await,
            Err(refusal) => Err(refusal),
        };
        match chosen {
            Ok(()) => Ok(false),
            Err(refusal) => local_reply::reply_without_upstream(session, ctx, refusal)
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
        let passed = validate::on_request_body(body.as_ref(), end_of_stream, ctx)
            .and_then(|()| grpc_web::decode_request_body(body, end_of_stream, ctx));
        if passed.is_err() {
            upstream_h2::abandon_body(ctx);
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
        forward::set_te_trailers(session.req_header(), request)?;
        grpc_web::translate_request(request, ctx)?;
        upstream_h2::attach_exchange(session.req_header(), request, ctx);
        forward::set_request_headers(request, ctx)
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        grpc_web::translate_response(response, ctx)?;
        forward::prepare_response(session, response, ctx)?;
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
        grpc_web::encode_response_body(body, end_of_stream, ctx)?;
        forward::on_response_body(body.as_ref(), ctx);
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut HeaderMap,
        ctx: &mut Context,
    ) -> Result<Option<Bytes>> {
        let end = grpc_web::encode_trailers(trailers, ctx);
        forward::on_response_body(end.as_ref(), ctx);
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

    // A client must not be able to fill the error log: the access log and the counters have it all.
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
