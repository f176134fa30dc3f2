//! The admin HTTP server: who may ask, and what there is to ask for.
//!
//! The same answers over the admin address and over the control socket. Who can open the control
//! socket (mode 0600) is trusted; over TCP a token is needed where one is configured, and a browser
//! that was lured here by another site is turned away: a request that changes something must not
//! come from another origin, and `Host` must be an address, so that no foreign name is bound to
//! this one (DNS rebinding).
//!
//! What is asked of the ring is what the `ring` commands answer, in the same JSON. All that may go over the
//! points of a ring is done away from the threads that serve: see [`desk`].

mod change_query;
mod diff;
mod json;
mod query;
mod replay;
mod request_body;
mod ring;
mod worker_pool;

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN,
};
use http::{HeaderMap, Method, Response, StatusCode};
use pingora::apps::http_app::{HttpServer, ServeHttp};
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use serde_json::{Value, json};

use self::query::{decode, segments};
use self::worker_pool::WorkerPool;
use crate::clock;
use crate::downstream::{ConnectionLimit, Exchange};
use crate::lifecycle::{ControlCommand, ControlError, ControlResult, Lifecycle, ProcessStage};
use crate::snapshot::Snapshot;
use crate::telemetry::{Telemetry, metrics};
use crate::tls::CertAction;
use crate::upstream::Upstream;

/// The page that people look at; it asks this API for all it shows.
const DASHBOARD: &str = include_str!("dashboard.html");

/// Nothing from elsewhere, nothing framed: the page can take peers off the ring.
const CSP: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the picture of a ring is.
const SVG_TYPE: &str = "image/svg+xml";

/// What the admin server reports on and acts on.
#[derive(Debug)]
pub struct AppState {
    /// The configuration in force.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// The counters.
    pub telemetry: Arc<Telemetry>,
    /// What the process is doing.
    pub lifecycle: Arc<Lifecycle>,
    /// The clients' connections.
    pub conn_limit: Arc<ConnectionLimit>,
}

/// Who is on the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// Whoever could open the control socket.
    Control,
    /// Whoever reaches the admin address; asked for the token, where there is one.
    Network {
        /// What `Authorization: Bearer …` must hold.
        token: Option<String>,
    },
}

/// The admin application; one per listener that serves it.
#[derive(Debug)]
pub struct AdminApp {
    app_state: Arc<AppState>,
    access: Access,
    workers: WorkerPool,
}

/// What is asked for, apart from a body.
struct AdminRequest {
    method: Method,
    path: String,
    query: String,
    /// A picture, where there is one.
    wants_svg: bool,
}

/// A question about one upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UpstreamQuery {
    /// Without a body.
    View(UpstreamView),
    /// What would move, with a body that says more.
    Diff,
    /// What the log in the body would do.
    Replay,
}

/// What is looked at of one upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UpstreamView {
    Peers,
    Ring,
    Owner,
    HotKeys,
    Diff,
}

/// An operator's order about one peer.
struct PeerDrainCommand {
    upstream: String,
    label: String,
    draining: bool,
}

impl AdminApp {
    /// The application, ready for [`crate::downstream::listener::Listener::run`].
    pub fn http_server(subject: Arc<AppState>, access: Access) -> Arc<HttpServer<Self>> {
        let desk = WorkerPool::default();
        Arc::new(HttpServer::new_app(Self {
            app_state: subject,
            access,
            workers: desk,
        }))
    }

    async fn respond(&self, asked: &AdminRequest, session: &mut ServerSession) -> AdminResponse {
        let path = &*asked.path;
        if let Some((name, question)) = asked.upstream_query() {
            return self.respond_to_query(&name, question, asked, session).await;
        }
        if asked.method == Method::POST
            && let Some(order) = parse_control_command(path, &asked.query)
        {
            return control_response(self.app_state.lifecycle.execute(order).await);
        }
        if asked.method == Method::POST
            && let Some((name, what)) = parse_cert_request(path)
        {
            return self.request_cert(&name, what).await;
        }
        if asked.method == Method::POST
            && let Some(order) = parse_drain_command(path)
        {
            return self.set_peer_draining(order).await;
        }
        self.respond_to_path(&asked.method, path)
    }

    /// Answers a question about an upstream.
    async fn respond_to_query(
        &self,
        name: &str,
        question: UpstreamQuery,
        asked: &AdminRequest,
        session: &mut ServerSession,
    ) -> AdminResponse {
        let upstream = match find_upstream(&self.app_state.snapshot.load(), name) {
            Ok(upstream) => upstream,
            Err(problem) => return problem,
        };
        let (query, drawn) = (asked.query.clone(), asked.wants_svg);
        let answer = match question {
            UpstreamQuery::Diff => {
                diff::respond_with_body(upstream, &query, session, &self.workers).await
            }
            UpstreamQuery::Replay => {
                replay::respond(upstream, &query, session, &self.workers).await
            }
            UpstreamQuery::View(look) => {
                let work = move || render_view(&upstream, look, &query, drawn);
                Ok(self.workers.run(work).await)
            }
        };
        answer.unwrap_or_else(|problem| problem)
    }

    async fn set_peer_draining(&self, order: PeerDrainCommand) -> AdminResponse {
        // Nobody would be the wiser: where another process serves, it is the one to ask.
        if self.app_state.lifecycle.stage() == ProcessStage::Draining {
            return AdminResponse::error(
                StatusCode::CONFLICT,
                "this process is draining; ask again, on a new connection",
            );
        }
        let done = find_upstream(&self.app_state.snapshot.load(), &order.upstream)
            .and_then(|upstream| order.apply(&upstream).map(|()| upstream));
        match done {
            Ok(upstream) => {
                let told = move || match upstream.peer_by_label(&order.label) {
                    Some(peer) => {
                        AdminResponse::json(StatusCode::OK, &json::single_peer(&upstream, peer))
                    }
                    None => order.peer_not_found(&upstream),
                };
                self.workers.run(told).await
            }
            Err(problem) => problem,
        }
    }

    /// Has a certificate ordered, and waits for it.
    async fn request_cert(&self, name: &str, what: CertAction) -> AdminResponse {
        let issued = Arc::clone(&self.app_state.snapshot.load().managed_certs);
        match issued.request(name, what).await {
            Ok(()) => {
                let snapshot = self.app_state.snapshot.load();
                AdminResponse::json(StatusCode::OK, &json::managed_cert_named(&snapshot, name))
            }
            Err(why) => AdminResponse::error(StatusCode::UNPROCESSABLE_ENTITY, &why),
        }
    }

    fn respond_to_path(&self, method: &Method, path: &str) -> AdminResponse {
        let segments = segments(path);
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let subject = &*self.app_state;
        match (method.as_str(), segments.as_slice()) {
            ("GET" | "HEAD", [""]) => AdminResponse::html(DASHBOARD),
            ("GET" | "HEAD", ["healthz"]) => AdminResponse::text(StatusCode::OK, "ok\n"),
            ("GET" | "HEAD", ["readyz"]) => readiness(subject),
            ("GET" | "HEAD", ["metrics"]) => metrics_text(subject),
            ("GET" | "HEAD", ["v1", "status"]) => {
                AdminResponse::json(StatusCode::OK, &json::status(subject))
            }
            (
                _,
                ["v1", "upstreams", _, "peers", _, "drain" | "enable"]
                | ["v1", "upstreams", _, "replay"]
                | ["v1", "certificates", _, "renew" | "revoke"]
                | ["v1", "reload" | "upgrade"],
            ) => AdminResponse::error(StatusCode::METHOD_NOT_ALLOWED, "use POST"),
            (
                _,
                ["" | "healthz" | "readyz" | "metrics"]
                | ["v1", "status"]
                | ["v1", "upstreams", ..],
            ) => AdminResponse::error(StatusCode::METHOD_NOT_ALLOWED, "use GET"),
            _ => AdminResponse::error(
                StatusCode::NOT_FOUND,
                "there is nothing here; the operator's guide (conf/README.md) has the paths",
            ),
        }
    }

    fn check_access(
        &self,
        method: &Method,
        path: &str,
        headers: &HeaderMap,
    ) -> Option<AdminResponse> {
        let Access::Network { token } = &self.access else {
            return None;
        };
        // Load balancers and supervisors ask without secrets; the page holds none, its data does.
        let open = matches!(path, "/" | "/healthz" | "/readyz");
        // What is asked for with a token cannot be asked for by a page that was lured here.
        let lured = token.is_none() && !open && !has_address_host(headers);
        if lured || is_cross_site(method, headers) {
            return Some(AdminResponse::error(
                StatusCode::FORBIDDEN,
                "asked from another site, or under a name: use the address, or configure a token",
            ));
        }
        match token {
            Some(token) if !open && !has_token(headers, token) => Some(AdminResponse::error(
                StatusCode::UNAUTHORIZED,
                "needs `Authorization: Bearer TOKEN`",
            )),
            _ => None,
        }
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
        let request = session.req_header();
        let asked = AdminRequest::from_header(request);
        let answer = match self.check_access(&asked.method, &asked.path, &request.headers) {
            Some(refusal) => refusal,
            None => self.respond(&asked, session).await,
        };
        if let Some(exchange) = exchange {
            exchange.begin_response();
        }
        answer.into_response()
    }
}

impl AdminRequest {
    fn from_header(request: &RequestHeader) -> Self {
        let query = request.uri.query().unwrap_or("");
        let accepted = request.headers.get(ACCEPT);
        let accepted = accepted.and_then(|accepted| accepted.to_str().ok());
        let kinds = accepted.unwrap_or("").split([',', ';']).map(str::trim);
        Self {
            method: request.method.clone(),
            path: request.uri.path().to_owned(),
            query: query.to_owned(),
            wants_svg: query::has_flag(query, "svg") || kinds.clone().any(|kind| kind == SVG_TYPE),
        }
    }

    /// The question about an upstream, and its name.
    fn upstream_query(&self) -> Option<(String, UpstreamQuery)> {
        let segments = segments(&self.path);
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let ["v1", "upstreams", name, what @ ..] = segments.as_slice() else {
            return None;
        };
        let question = match (self.method.as_str(), what) {
            ("GET" | "HEAD", []) => UpstreamQuery::View(UpstreamView::Peers),
            ("GET" | "HEAD", ["ring"]) => UpstreamQuery::View(UpstreamView::Ring),
            ("GET" | "HEAD", ["owner"]) => UpstreamQuery::View(UpstreamView::Owner),
            ("GET" | "HEAD", ["hot"]) => UpstreamQuery::View(UpstreamView::HotKeys),
            ("GET" | "HEAD", ["diff"]) => UpstreamQuery::View(UpstreamView::Diff),
            ("POST", ["diff"]) => UpstreamQuery::Diff,
            ("POST", ["replay"]) => UpstreamQuery::Replay,
            _ => return None,
        };
        Some(((*name).to_owned(), question))
    }
}

impl PeerDrainCommand {
    /// # Errors
    /// There is no such peer.
    fn apply(&self, upstream: &Upstream) -> Result<(), AdminResponse> {
        let (label, now) = (&self.label, clock::since_start());
        let peer = upstream.peer_by_label(label);
        let peer = peer.ok_or_else(|| self.peer_not_found(upstream))?;
        if peer.set_draining(self.draining, now) {
            let word = if self.draining { "draining" } else { "enabled" };
            let name = &upstream.name;
            log::info!("upstream {name}: peer {label} is {word} by the operator");
        }
        // Whoever enables it wants it back, whatever keeps it away but its own failures.
        if !self.draining {
            peer.lift_suppression(now);
        }
        Ok(())
    }

    fn peer_not_found(&self, upstream: &Upstream) -> AdminResponse {
        let labels = upstream.peers().iter().take(20).map(|peer| &*peer.label);
        let (name, label) = (&upstream.name, &self.label);
        let labels = labels.collect::<Vec<_>>().join(", ");
        let message = format!("upstream `{name}` has no peer `{label}`; it has: {labels}");
        AdminResponse::error(StatusCode::NOT_FOUND, &message)
    }
}

/// A status, a media type, a body.
struct AdminResponse {
    status: StatusCode,
    content_type: &'static str,
    body: Vec<u8>,
}

impl AdminResponse {
    fn text(status: StatusCode, body: &str) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }

    fn html(html: &str) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "text/html; charset=utf-8",
            body: html.into(),
        }
    }

    fn json(status: StatusCode, value: &Value) -> Self {
        Self {
            status,
            content_type: "application/json",
            body: format!("{value}\n").into(),
        }
    }

    fn svg(svg: String) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: SVG_TYPE,
            body: svg.into(),
        }
    }

    /// JSON, a value on each line.
    fn ndjson(values: String) -> Self {
        Self {
            status: StatusCode::OK,
            content_type: "application/x-ndjson",
            body: values.into(),
        }
    }

    fn error(status: StatusCode, message: &str) -> Self {
        Self::json(status, &json!({ "error": message }))
    }

    fn into_response(self) -> Response<Vec<u8>> {
        let length = self.body.len();
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            http::HeaderValue::from_static(self.content_type),
        );
        headers.insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
        headers.insert(http::header::CONTENT_LENGTH, length.into());
        headers.insert(CONTENT_SECURITY_POLICY, http::HeaderValue::from_static(CSP));
        response
    }
}

/// `POST /v1/reload`, with `?dry_run` and `?force`, and `POST /v1/upgrade`, with `?force`.
fn parse_control_command(path: &str, query: &str) -> Option<ControlCommand> {
    let asked = |word: &str| query::has_flag(query, word);
    match path {
        "/v1/reload" => Some(ControlCommand::Reload {
            dry_run: asked("dry_run"),
            force: asked("force"),
        }),
        "/v1/upgrade" => Some(ControlCommand::Upgrade {
            force: asked("force"),
        }),
        _ => None,
    }
}

/// `POST /v1/certificates/{name}/renew` and `…/revoke`.
fn parse_cert_request(path: &str) -> Option<(String, CertAction)> {
    let (name, what) = path.strip_prefix("/v1/certificates/")?.split_once('/')?;
    let deed = match what {
        "renew" => CertAction::Renew,
        "revoke" => CertAction::Revoke,
        _ => return None,
    };
    Some((decode(name), deed))
}

fn control_response(reply: ControlResult) -> AdminResponse {
    let (status, refusal) = match reply {
        Ok(done) => return AdminResponse::json(StatusCode::OK, &done),
        Err(refusal @ ControlError::Failed(_)) => (StatusCode::UNPROCESSABLE_ENTITY, refusal),
        Err(refusal @ ControlError::LimitExceeded(_)) => (StatusCode::PRECONDITION_FAILED, refusal),
        Err(refusal @ ControlError::Busy(_)) => (StatusCode::CONFLICT, refusal),
    };
    AdminResponse::error(status, &refusal.to_string())
}

fn readiness(subject: &AppState) -> AdminResponse {
    let stage = subject.lifecycle.stage();
    let status = match stage {
        ProcessStage::Serving => StatusCode::OK,
        ProcessStage::Starting | ProcessStage::Draining => StatusCode::SERVICE_UNAVAILABLE,
    };
    AdminResponse::text(status, &format!("{}\n", stage.name()))
}

fn metrics_text(subject: &AppState) -> AdminResponse {
    json::refresh_gauges(subject);
    let body = subject.telemetry.metrics.render().into_bytes();
    AdminResponse {
        status: StatusCode::OK,
        content_type: metrics::CONTENT_TYPE,
        body,
    }
}

fn find_upstream(snapshot: &Snapshot, name: &str) -> Result<Arc<Upstream>, AdminResponse> {
    let upstream = snapshot.upstreams.get(name).map(Arc::clone);
    upstream.ok_or_else(|| {
        let names: Vec<_> = snapshot.upstreams.keys().map(String::as_str).collect();
        let names = names.join(", ");
        let message = format!("there is no upstream `{name}`; there are: {names}");
        AdminResponse::error(StatusCode::NOT_FOUND, &message)
    })
}

fn render_view(upstream: &Upstream, look: UpstreamView, query: &str, drawn: bool) -> AdminResponse {
    match look {
        UpstreamView::Peers => AdminResponse::json(StatusCode::OK, &json::upstream(upstream)),
        UpstreamView::Ring => ring::ring(upstream, drawn),
        UpstreamView::Owner => ring::owner(upstream, query),
        UpstreamView::HotKeys => AdminResponse::json(StatusCode::OK, &json::hot_keys(upstream)),
        UpstreamView::Diff => diff::respond(upstream, query),
    }
}

/// `POST /v1/upstreams/{u}/peers/{label}/drain` and `…/enable`.
fn parse_drain_command(path: &str) -> Option<PeerDrainCommand> {
    let segments = segments(path);
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let ["v1", "upstreams", upstream, "peers", label, what] = segments.as_slice() else {
        return None;
    };
    let draining = match *what {
        "drain" => true,
        "enable" => false,
        _ => return None,
    };
    Some(PeerDrainCommand {
        upstream: (*upstream).to_owned(),
        label: (*label).to_owned(),
        draining,
    })
}

/// Whether a page of another origin asks for a change.
fn is_cross_site(method: &Method, headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let changes = !matches!(*method, Method::GET | Method::HEAD);
    let from = text(ORIGIN).map(|origin| origin.split_once("://").map_or("", |(_, from)| from));
    changes && from.is_some_and(|from| Some(from) != text(HOST))
}

/// Whether no name was used to come here (DNS rebinding). A request without `Host` is not a
/// browser's.
fn has_address_host(headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).map(|host| host.to_str().unwrap_or(""));
    host.is_none_or(is_address)
}

/// Whether a `Host` is an IP address or `localhost`, with or without a port.
fn is_address(host: &str) -> bool {
    let name = crate::route::host_name(host);
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

/// The token of `Bearer TOKEN`; the word is not case-sensitive (RFC 9110, 11.1).
fn bearer(credentials: &str) -> Option<&str> {
    let (scheme, token) = credentials.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

/// Compares in the same time wherever the two differ first.
fn has_token(headers: &HeaderMap, token: &str) -> bool {
    let sent = headers
        .get(AUTHORIZATION)
        .and_then(|sent| bearer(sent.to_str().ok()?));
    sent.is_some_and(|sent| {
        sent.len() == token.len()
            && sent
                .bytes()
                .zip(token.bytes())
                .fold(0, |odd, (a, b)| odd | (a ^ b))
                == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_host_check_accepts_only_ip_addresses() {
        for host in ["127.0.0.1:9900", "localhost", "[::1]:9900", "10.0.0.1"] {
            assert!(is_address(host), "{host}");
        }
        for host in ["", "evil.example", "evil.example:9900"] {
            assert!(!is_address(host), "{host}");
        }
    }

    #[test]
    fn admin_token_must_match_in_full() {
        let headers = |value: &'static str| {
            HeaderMap::from_iter([(AUTHORIZATION, http::HeaderValue::from_static(value))])
        };
        assert!(has_token(&headers("Bearer s3cret"), "s3cret"));
        assert!(!has_token(&headers("Bearer s3cre"), "s3cret"));
        assert!(!has_token(&headers("s3cret"), "s3cret"));
        assert!(!has_token(&HeaderMap::new(), "s3cret"));
    }
}
