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

mod body;
mod change;
mod desk;
mod diff;
mod query;
mod replay;
mod report;
mod ring;

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::header::{
    ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN,
};
use http::{HeaderMap, Method, Response, StatusCode};
use pingora_core::apps::http_app::{HttpServer, ServeHttp};
use pingora_core::protocols::http::ServerSession;
use pingora_http::RequestHeader;
use serde_json::{Value, json};

use self::desk::Desk;
use self::query::{decode, segments};
use crate::clock;
use crate::connection::{ConnectionLimit, Exchange};
use crate::issued::CertAction;
use crate::lifecycle::{ControlCommand, ControlError, ControlResult, Lifecycle, ProcessStage};
use crate::snapshot::Snapshot;
use crate::telemetry::{Telemetry, metrics};
use crate::upstream::Upstream;

/// The page that people look at; it asks this API for all it shows.
const DASHBOARD: &str = include_str!("dashboard.html");

/// Nothing from elsewhere, nothing framed: the page can take peers off the ring.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// What the picture of a ring is.
const PICTURE: &str = "image/svg+xml";

/// What the admin server reports on and acts on.
#[derive(Debug)]
pub struct Subject {
    /// The configuration in force.
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    /// The counters.
    pub telemetry: Arc<Telemetry>,
    /// What the process is doing.
    pub lifecycle: Arc<Lifecycle>,
    /// The clients' connections.
    pub gate: Arc<ConnectionLimit>,
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
pub struct Admin {
    subject: Arc<Subject>,
    access: Access,
    desk: Desk,
}

/// What is asked for, apart from a body.
struct Asked {
    method: Method,
    path: String,
    query: String,
    /// A picture, where there is one.
    drawn: bool,
}

/// A question about one upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    /// Without a body.
    Look(Look),
    /// What would move, with a body that says more.
    Diff,
    /// What the log in the body would do.
    Replay,
}

/// What is looked at of one upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Look {
    Peers,
    Ring,
    Owner,
    Hot,
    Diff,
}

/// An operator's order about one peer.
struct PeerOrder {
    upstream: String,
    label: String,
    draining: bool,
}

impl Admin {
    /// The application, ready for [`crate::listener::Listener::run`].
    pub fn serve(subject: Arc<Subject>, access: Access) -> Arc<HttpServer<Self>> {
        let desk = Desk::default();
        Arc::new(HttpServer::new_app(Self {
            subject,
            access,
            desk,
        }))
    }

    async fn answer(&self, asked: &Asked, session: &mut ServerSession) -> Answer {
        let path = &*asked.path;
        if let Some((name, question)) = asked.question() {
            return self.look_into(&name, question, asked, session).await;
        }
        if asked.method == Method::POST
            && let Some(order) = order(path, &asked.query)
        {
            return carried_out(self.subject.lifecycle.execute(order).await);
        }
        if asked.method == Method::POST
            && let Some((name, what)) = wish(path)
        {
            return self.fulfil(&name, what).await;
        }
        if asked.method == Method::POST
            && let Some(order) = peer_order(path)
        {
            return self.order_drain(order).await;
        }
        self.look_up(&asked.method, path)
    }

    /// Answers a question about an upstream.
    async fn look_into(
        &self,
        name: &str,
        question: Question,
        asked: &Asked,
        session: &mut ServerSession,
    ) -> Answer {
        let upstream = match upstream(&self.subject.snapshot.load(), name) {
            Ok(upstream) => upstream,
            Err(problem) => return problem,
        };
        let (query, drawn) = (asked.query.clone(), asked.drawn);
        let answer = match question {
            Question::Diff => diff::answer_with_body(upstream, &query, session, &self.desk).await,
            Question::Replay => replay::answer(upstream, &query, session, &self.desk).await,
            Question::Look(look) => {
                let work = move || look_at(&upstream, look, &query, drawn);
                Ok(self.desk.work(work).await)
            }
        };
        answer.unwrap_or_else(|problem| problem)
    }

    async fn order_drain(&self, order: PeerOrder) -> Answer {
        // Nobody would be the wiser: where another process serves, it is the one to ask.
        if self.subject.lifecycle.stage() == ProcessStage::Draining {
            return Answer::problem(
                StatusCode::CONFLICT,
                "this process is draining; ask again, on a new connection",
            );
        }
        let done = upstream(&self.subject.snapshot.load(), &order.upstream)
            .and_then(|upstream| order.carry_out(&upstream).map(|()| upstream));
        match done {
            Ok(upstream) => {
                let told = move || match upstream.peer_by_label(&order.label) {
                    Some(peer) => Answer::json(StatusCode::OK, &report::one_peer(&upstream, peer)),
                    None => order.unknown(&upstream),
                };
                self.desk.work(told).await
            }
            Err(problem) => problem,
        }
    }

    /// Has a certificate ordered, and waits for it.
    async fn fulfil(&self, name: &str, what: CertAction) -> Answer {
        let issued = Arc::clone(&self.subject.snapshot.load().issued);
        match issued.request(name, what).await {
            Ok(()) => {
                let snapshot = self.subject.snapshot.load();
                Answer::json(StatusCode::OK, &report::ordered_as(&snapshot, name))
            }
            Err(why) => Answer::problem(StatusCode::UNPROCESSABLE_ENTITY, &why),
        }
    }

    fn look_up(&self, method: &Method, path: &str) -> Answer {
        let segments = segments(path);
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let subject = &*self.subject;
        match (method.as_str(), segments.as_slice()) {
            ("GET" | "HEAD", [""]) => Answer::page(DASHBOARD),
            ("GET" | "HEAD", ["healthz"]) => Answer::text(StatusCode::OK, "ok\n"),
            ("GET" | "HEAD", ["readyz"]) => readiness(subject),
            ("GET" | "HEAD", ["metrics"]) => metrics_text(subject),
            ("GET" | "HEAD", ["v1", "status"]) => {
                Answer::json(StatusCode::OK, &report::status(subject))
            }
            (
                _,
                ["v1", "upstreams", _, "peers", _, "drain" | "enable"]
                | ["v1", "upstreams", _, "replay"]
                | ["v1", "certificates", _, "renew" | "revoke"]
                | ["v1", "reload" | "upgrade"],
            ) => Answer::problem(StatusCode::METHOD_NOT_ALLOWED, "use POST"),
            (
                _,
                ["" | "healthz" | "readyz" | "metrics"]
                | ["v1", "status"]
                | ["v1", "upstreams", ..],
            ) => Answer::problem(StatusCode::METHOD_NOT_ALLOWED, "use GET"),
            _ => Answer::problem(
                StatusCode::NOT_FOUND,
                "there is nothing here; the operator's guide (conf/README.md) has the paths",
            ),
        }
    }

    fn refusal(&self, method: &Method, path: &str, headers: &HeaderMap) -> Option<Answer> {
        let Access::Network { token } = &self.access else {
            return None;
        };
        // Load balancers and supervisors ask without secrets; the page holds none, its data does.
        let open = matches!(path, "/" | "/healthz" | "/readyz");
        // What is asked for with a token cannot be asked for by a page that was lured here.
        let lured = token.is_none() && !open && !asked_by_address(headers);
        if lured || is_cross_site(method, headers) {
            return Some(Answer::problem(
                StatusCode::FORBIDDEN,
                "asked from another site, or under a name: use the address, or configure a token",
            ));
        }
        match token {
            Some(token) if !open && !presents(headers, token) => Some(Answer::problem(
                StatusCode::UNAUTHORIZED,
                "needs `Authorization: Bearer TOKEN`",
            )),
            _ => None,
        }
    }
}

#[async_trait]
impl ServeHttp for Admin {
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
        let asked = Asked::of(request);
        let answer = match self.refusal(&asked.method, &asked.path, &request.headers) {
            Some(refusal) => refusal,
            None => self.answer(&asked, session).await,
        };
        if let Some(exchange) = exchange {
            exchange.begin_response();
        }
        answer.into_response()
    }
}

impl Asked {
    fn of(request: &RequestHeader) -> Self {
        let query = request.uri.query().unwrap_or("");
        let accepted = request.headers.get(ACCEPT);
        let accepted = accepted.and_then(|accepted| accepted.to_str().ok());
        let kinds = accepted.unwrap_or("").split([',', ';']).map(str::trim);
        Self {
            method: request.method.clone(),
            path: request.uri.path().to_owned(),
            query: query.to_owned(),
            drawn: query::has(query, "svg") || kinds.clone().any(|kind| kind == PICTURE),
        }
    }

    /// The question about an upstream, and its name.
    fn question(&self) -> Option<(String, Question)> {
        let segments = segments(&self.path);
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let ["v1", "upstreams", name, what @ ..] = segments.as_slice() else {
            return None;
        };
        let question = match (self.method.as_str(), what) {
            ("GET" | "HEAD", []) => Question::Look(Look::Peers),
            ("GET" | "HEAD", ["ring"]) => Question::Look(Look::Ring),
            ("GET" | "HEAD", ["owner"]) => Question::Look(Look::Owner),
            ("GET" | "HEAD", ["hot"]) => Question::Look(Look::Hot),
            ("GET" | "HEAD", ["diff"]) => Question::Look(Look::Diff),
            ("POST", ["diff"]) => Question::Diff,
            ("POST", ["replay"]) => Question::Replay,
            _ => return None,
        };
        Some(((*name).to_owned(), question))
    }
}

impl PeerOrder {
    /// # Errors
    /// There is no such peer.
    fn carry_out(&self, upstream: &Upstream) -> Result<(), Answer> {
        let (label, now) = (&self.label, clock::since_start());
        let peer = upstream.peer_by_label(label);
        let peer = peer.ok_or_else(|| self.unknown(upstream))?;
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

    fn unknown(&self, upstream: &Upstream) -> Answer {
        let labels = upstream.peers().iter().take(20).map(|peer| &*peer.label);
        let (name, label) = (&upstream.name, &self.label);
        let labels = labels.collect::<Vec<_>>().join(", ");
        let message = format!("upstream `{name}` has no peer `{label}`; it has: {labels}");
        Answer::problem(StatusCode::NOT_FOUND, &message)
    }
}

/// A status, a media type, a body.
struct Answer {
    status: StatusCode,
    kind: &'static str,
    body: Vec<u8>,
}

impl Answer {
    fn text(status: StatusCode, body: &str) -> Self {
        Self {
            status,
            kind: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }

    fn page(html: &str) -> Self {
        Self {
            status: StatusCode::OK,
            kind: "text/html; charset=utf-8",
            body: html.into(),
        }
    }

    fn json(status: StatusCode, value: &Value) -> Self {
        Self {
            status,
            kind: "application/json",
            body: format!("{value}\n").into(),
        }
    }

    fn picture(svg: String) -> Self {
        Self {
            status: StatusCode::OK,
            kind: PICTURE,
            body: svg.into(),
        }
    }

    /// JSON, a value on each line.
    fn lines(values: String) -> Self {
        Self {
            status: StatusCode::OK,
            kind: "application/x-ndjson",
            body: values.into(),
        }
    }

    fn problem(status: StatusCode, message: &str) -> Self {
        Self::json(status, &json!({ "error": message }))
    }

    fn into_response(self) -> Response<Vec<u8>> {
        let length = self.body.len();
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(self.kind));
        headers.insert(CACHE_CONTROL, http::HeaderValue::from_static("no-store"));
        headers.insert(http::header::CONTENT_LENGTH, length.into());
        headers.insert(
            CONTENT_SECURITY_POLICY,
            http::HeaderValue::from_static(POLICY),
        );
        response
    }
}

/// `POST /v1/reload`, with `?dry_run` and `?force`, and `POST /v1/upgrade`, with `?force`.
fn order(path: &str, query: &str) -> Option<ControlCommand> {
    let asked = |word: &str| query::has(query, word);
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
fn wish(path: &str) -> Option<(String, CertAction)> {
    let (name, what) = path.strip_prefix("/v1/certificates/")?.split_once('/')?;
    let deed = match what {
        "renew" => CertAction::Renew,
        "revoke" => CertAction::Revoke,
        _ => return None,
    };
    Some((decode(name), deed))
}

fn carried_out(reply: ControlResult) -> Answer {
    let (status, refusal) = match reply {
        Ok(done) => return Answer::json(StatusCode::OK, &done),
        Err(refusal @ ControlError::Failed(_)) => (StatusCode::UNPROCESSABLE_ENTITY, refusal),
        Err(refusal @ ControlError::LimitExceeded(_)) => (StatusCode::PRECONDITION_FAILED, refusal),
        Err(refusal @ ControlError::Busy(_)) => (StatusCode::CONFLICT, refusal),
    };
    Answer::problem(status, &refusal.to_string())
}

fn readiness(subject: &Subject) -> Answer {
    let stage = subject.lifecycle.stage();
    let status = match stage {
        ProcessStage::Serving => StatusCode::OK,
        ProcessStage::Starting | ProcessStage::Draining => StatusCode::SERVICE_UNAVAILABLE,
    };
    Answer::text(status, &format!("{}\n", stage.name()))
}

fn metrics_text(subject: &Subject) -> Answer {
    report::refresh_gauges(subject);
    let body = subject.telemetry.metrics.render().into_bytes();
    Answer {
        status: StatusCode::OK,
        kind: metrics::CONTENT_TYPE,
        body,
    }
}

fn upstream(snapshot: &Snapshot, name: &str) -> Result<Arc<Upstream>, Answer> {
    let upstream = snapshot.upstreams.get(name).map(Arc::clone);
    upstream.ok_or_else(|| {
        let names: Vec<_> = snapshot.upstreams.keys().map(String::as_str).collect();
        let names = names.join(", ");
        let message = format!("there is no upstream `{name}`; there are: {names}");
        Answer::problem(StatusCode::NOT_FOUND, &message)
    })
}

fn look_at(upstream: &Upstream, look: Look, query: &str, drawn: bool) -> Answer {
    match look {
        Look::Peers => Answer::json(StatusCode::OK, &report::upstream(upstream)),
        Look::Ring => ring::ring(upstream, drawn),
        Look::Owner => ring::owner(upstream, query),
        Look::Hot => Answer::json(StatusCode::OK, &report::hot(upstream)),
        Look::Diff => diff::answer(upstream, query),
    }
}

/// `POST /v1/upstreams/{u}/peers/{label}/drain` and `…/enable`.
fn peer_order(path: &str) -> Option<PeerOrder> {
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
    Some(PeerOrder {
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
fn asked_by_address(headers: &HeaderMap) -> bool {
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
fn presents(headers: &HeaderMap, token: &str) -> bool {
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
    fn only_addresses_are_hosts() {
        for host in ["127.0.0.1:9900", "localhost", "[::1]:9900", "10.0.0.1"] {
            assert!(is_address(host), "{host}");
        }
        for host in ["", "evil.example", "evil.example:9900"] {
            assert!(!is_address(host), "{host}");
        }
    }

    #[test]
    fn a_token_is_compared_whole() {
        let headers = |value: &'static str| {
            HeaderMap::from_iter([(AUTHORIZATION, http::HeaderValue::from_static(value))])
        };
        assert!(presents(&headers("Bearer s3cret"), "s3cret"));
        assert!(!presents(&headers("Bearer s3cre"), "s3cret"));
        assert!(!presents(&headers("s3cret"), "s3cret"));
        assert!(!presents(&HeaderMap::new(), "s3cret"));
    }
}
