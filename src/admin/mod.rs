//! The admin HTTP server: one API on the admin address and on the control socket.
//!
//! ```text
//!  request ─► access ─► routing ─┬─► json, gauges                   small: on the thread that serves
//!                                ├─► ring, diff, replay             bounded work: on the worker pool
//!                                └─► peer_drain, peer_changes, commands   changes
//! ```
//!
//! The JSON about a ring is the same as that of the `clockwise ring` commands. Work that may read every point
//! of a ring runs in the [`worker_pool`], never on a thread that serves requests.

mod accept;
mod access;
mod change_query;
mod commands;
mod diff;
mod gauges;
mod json;
mod peer_changes;
mod peer_drain;
mod query;
mod replay;
mod request_body;
mod response;
mod ring;
mod routing;
mod source_status;
mod state;
mod worker_pool;

use std::sync::Arc;

use async_trait::async_trait;
use http::{Method, Response, StatusCode};
use pingora::apps::http_app::{HttpServer, ServeHttp};
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;

pub(crate) use self::access::Access;
pub(crate) use self::peer_changes::change_to_json;
pub(crate) use self::source_status::{HeldStatus, SourceStatus, SourceStatuses};
pub(crate) use self::state::AppState;

use self::peer_drain::PeerDrainCommand;
use self::response::AdminResponse;
use self::routing::{Endpoint, UpstreamView};
use self::worker_pool::WorkerPool;
use crate::downstream::{Exchange, ReceivedTarget};
use crate::lifecycle::ProcessStage;
use crate::request_target::RequestTarget;
use crate::telemetry::metrics::MetricsFormat;
use crate::tls::CertAction;
use crate::upstream::Upstream;

/// The page for a browser; it gets all its data from this API.
const DASHBOARD: &str = include_str!("dashboard.html");

/// The admin application; one per listener that serves it.
#[derive(Debug)]
pub(crate) struct AdminApp {
    state: Arc<AppState>,
    access: Access,
    workers: WorkerPool,
}

impl AdminApp {
    /// Makes the application, ready for [`crate::downstream::listener::Listener::run`].
    pub(crate) fn http_server(state: Arc<AppState>, access: Access) -> Arc<HttpServer<Self>> {
        Arc::new(HttpServer::new_app(Self {
            state,
            access,
            workers: WorkerPool::default(),
        }))
    }

    async fn respond(
        &self,
        request: &AdminRequest,
        session: &mut ServerSession,
    ) -> Result<AdminResponse, AdminResponse> {
        let state = &*self.state;
        let endpoint = Endpoint::find(&request.method, &request.path);
        let endpoint = endpoint.map_err(|error| error.response())?;
        if endpoint.is_command_without_body() {
            request_body::expect_none(session).await?;
        }
        match endpoint {
            Endpoint::Dashboard => Ok(AdminResponse::html(DASHBOARD)),
            Endpoint::Health => Ok(AdminResponse::text(StatusCode::OK, "ok\n")),
            Endpoint::Readiness => Ok(readiness(state)),
            Endpoint::Metrics => Ok(metrics_text(state, request.metrics_format)),
            Endpoint::Status => Ok(AdminResponse::json(&json::status(state))),
            Endpoint::View(upstream, view) => {
                let upstream = self.find_upstream(&upstream)?;
                let (query, wants_svg) = (request.query.clone(), request.wants_svg);
                let render = move || render_view(&upstream, view, &query, wants_svg);
                self.workers.run(render).await
            }
            Endpoint::DiffWithBody(upstream) => {
                let upstream = self.find_upstream(&upstream)?;
                diff::respond_with_body(upstream, &request.query, session, &self.workers).await
            }
            Endpoint::Replay(upstream) => {
                let upstream = self.find_upstream(&upstream)?;
                replay::respond(upstream, &request.query, session, &self.workers).await
            }
            Endpoint::PeerChange(command) => {
                self.find_upstream(command.upstream())?;
                let (lifecycle, query) = (&state.lifecycle, &request.query);
                command.execute(lifecycle, query, session).await
            }
            Endpoint::PeerDrain(command) => self.set_peer_draining(command, &request.query).await,
            Endpoint::Certificate(name, action) => {
                self.request_cert(&name, action, &request.query).await
            }
            Endpoint::AcceptPeers(upstream) => {
                let upstream = self.find_upstream(&upstream)?.name.to_string();
                commands::accept(&state.lifecycle, upstream, &request.query).await
            }
            Endpoint::Reload => commands::reload(&state.lifecycle, &request.query).await,
            Endpoint::Upgrade => commands::upgrade(&state.lifecycle, &request.query).await,
        }
    }

    fn find_upstream(&self, name: &str) -> Result<Arc<Upstream>, AdminResponse> {
        let snapshot = self.state.snapshot.load();
        let upstream = snapshot.upstreams.get(name).map(Arc::clone);
        upstream.ok_or_else(|| {
            let names: Vec<_> = snapshot.upstreams.keys().map(String::as_str).collect();
            let names = names.join(", ");
            let message = format!("there is no upstream `{name}`; there are: {names}");
            AdminResponse::error(StatusCode::NOT_FOUND, &message)
        })
    }

    async fn set_peer_draining(
        &self,
        command: PeerDrainCommand,
        query: &str,
    ) -> Result<AdminResponse, AdminResponse> {
        let force = command.parse_force(query);
        let force = force.map_err(|error| AdminResponse::bad_request(&error))?;
        // After an upgrade the new process serves: a drain that is set here would have no effect on it.
        if self.state.lifecycle.stage() == ProcessStage::Draining {
            return Err(AdminResponse::error(
                StatusCode::CONFLICT,
                "this process is draining; send the request again on a new connection",
            ));
        }
        let upstream = self.find_upstream(&command.upstream)?;
        let execute = move || command.execute(&upstream, force);
        self.workers.run(execute).await
    }

    /// Sends the action to the ACME task, and waits until it is done.
    async fn request_cert(
        &self,
        name: &str,
        action: CertAction,
        query: &str,
    ) -> Result<AdminResponse, AdminResponse> {
        let params = query::command_params(query, [], []);
        let ([], []) = params.map_err(|error| AdminResponse::bad_request(&error))?;
        let managed_certs = Arc::clone(&self.state.snapshot.load().managed_certs);
        let done = managed_certs.request(name, action).await;
        done.map_err(AdminResponse::unprocessable)?;
        // A reload may have replaced the snapshot meanwhile.
        let snapshot = self.state.snapshot.load();
        let cert = json::managed_cert_named(&snapshot, name);
        Ok(AdminResponse::json(&cert))
    }
}

#[async_trait]
impl ServeHttp for AdminApp {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let exchange = session
            .digest()
            .and_then(|digest| digest.proxy_digest.clone());
        let exchange = exchange.as_deref().and_then(Exchange::from_digest);
        if let Some(exchange) = exchange {
            exchange.begin_request();
            session.set_total_drain_timeout(Some(exchange.connection.limits.read_timeout));
        }
        let header = session.req_header();
        let request = AdminRequest::from_header(header);
        let client_uid = exchange.and_then(|exchange| exchange.connection.client_uid());
        let (method, path) = (&request.method, &request.path);
        let access = self.access.check(method, path, &header.headers, client_uid);
        let response = match access {
            Ok(()) => self.respond(&request, session).await,
            Err(denied) => Err(denied),
        };
        if let Some(exchange) = exchange {
            exchange.begin_response();
            exchange.lift_min_body_rate();
        }
        response.unwrap_or_else(|error| error).into_http()
    }
}

/// A request without its body.
struct AdminRequest {
    method: Method,
    path: String,
    query: String,
    /// The client asks for the ring as SVG: with `?svg`, or `Accept: image/svg+xml`.
    wants_svg: bool,
    /// The format of `/metrics` that the client prefers.
    metrics_format: MetricsFormat,
}

impl AdminRequest {
    fn from_header(header: &RequestHeader) -> Self {
        let target = RequestTarget::parse(ReceivedTarget::of(header)).unwrap_or_default();
        let query = target.query().unwrap_or("");
        Self {
            method: header.method.clone(),
            path: target.path().to_owned(),
            query: query.to_owned(),
            wants_svg: query::has_flag(query, "svg") || accept::accepts_svg(&header.headers),
            metrics_format: accept::metrics_format(&header.headers),
        }
    }
}

fn readiness(state: &AppState) -> AdminResponse {
    let process_stage = state.lifecycle.stage();
    let status = match process_stage {
        ProcessStage::Serving => StatusCode::OK,
        ProcessStage::Starting | ProcessStage::Draining => StatusCode::SERVICE_UNAVAILABLE,
    };
    AdminResponse::text(status, &format!("{}\n", process_stage.name()))
}

fn metrics_text(state: &AppState, format: MetricsFormat) -> AdminResponse {
    gauges::refresh_gauges(state);
    let text = state.telemetry.metrics.render_as(format);
    AdminResponse::ok(format.content_type(), text).negotiated()
}

fn render_view(
    upstream: &Upstream,
    view: UpstreamView,
    query: &str,
    wants_svg: bool,
) -> Result<AdminResponse, AdminResponse> {
    match view {
        UpstreamView::Peers => Ok(AdminResponse::json(&json::upstream(upstream))),
        UpstreamView::Ring => Ok(ring::ring(upstream, wants_svg).negotiated()),
        UpstreamView::Owner => ring::owner(upstream, query),
        UpstreamView::HotKeys => Ok(AdminResponse::json(&json::hot_keys(upstream))),
        UpstreamView::Diff => diff::respond(upstream, query),
    }
}
