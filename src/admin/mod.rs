//! The admin HTTP server: who may ask, and what there is to ask for.
//!
//! The same answers over the admin address and over the control socket. Who can open the control
//! socket (mode 0600) is trusted; over TCP a token is needed where one is configured, and a browser
//! that was lured here by another site is turned away: a request that changes something must not
//! come from another origin, and `Host` must be an address, so that no foreign name is bound to
//! this one (DNS rebinding).

mod diff;
mod report;

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, ORIGIN,
};
use http::{HeaderMap, Method, Response, StatusCode};
use pingora_core::apps::http_app::{HttpServer, ServeHttp};
use pingora_core::protocols::http::ServerSession;
use serde_json::{Value, json};

use crate::clock;
use crate::connection::{Exchange, Gate};
use crate::issued::Deed;
use crate::lifecycle::{Lifecycle, Order, Refusal, Reply, Stage};
use crate::snapshot::Snapshot;
use crate::telemetry::{Telemetry, metrics};
use crate::upstream::Upstream;

/// The page that people look at; it asks this API for all it shows.
const DASHBOARD: &str = include_str!("dashboard.html");

/// Nothing from elsewhere, nothing framed: the page can take peers off the ring.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

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
    pub gate: Arc<Gate>,
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
}

impl Admin {
    /// The application, ready for [`crate::listener::Listener::run`].
    pub fn serve(subject: Arc<Subject>, access: Access) -> Arc<HttpServer<Self>> {
        Arc::new(HttpServer::new_app(Self { subject, access }))
    }

    async fn answer(&self, method: &Method, path: &str, query: &str) -> Answer {
        if *method == Method::POST
            && let Some(order) = order(path, query)
        {
            return carried_out(self.subject.lifecycle.order(order).await);
        }
        if *method == Method::POST
            && let Some((name, what)) = wish(path)
        {
            return self.fulfil(&name, what).await;
        }
        if let ("GET" | "HEAD", Some(name)) = (method.as_str(), diff::upstream(path)) {
            return diff::answer(&self.subject, name, query).await;
        }
        self.look_up(method, path, query)
    }

    /// Has a certificate ordered, and waits for it.
    async fn fulfil(&self, name: &str, what: Deed) -> Answer {
        let issued = Arc::clone(&self.subject.snapshot.load().issued);
        match issued.wish(name, what).await {
            Ok(()) => {
                let snapshot = self.subject.snapshot.load();
                Answer::json(StatusCode::OK, &report::ordered_as(&snapshot, name))
            }
            Err(why) => Answer::problem(StatusCode::UNPROCESSABLE_ENTITY, &why),
        }
    }

    fn look_up(&self, method: &Method, path: &str, query: &str) -> Answer {
        let segments: Vec<String> = path.split('/').skip(1).map(decode).collect();
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
            ("GET" | "HEAD", ["v1", "upstreams", name, what @ ("owner" | "hot")]) => {
                look_at(subject, name, what, query)
            }
            ("GET" | "HEAD", ["v1", "upstreams", name]) => look_at(subject, name, "", query),
            (
                "POST",
                [
                    "v1",
                    "upstreams",
                    name,
                    "peers",
                    label,
                    action @ ("drain" | "enable"),
                ],
            ) => order_drain(subject, name, label, *action == "drain"),
            (
                _,
                ["v1", "upstreams", _, "peers", _, "drain" | "enable"]
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
                "there is nothing here; see the README for the paths",
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
        let exchange = exchange.as_deref().and_then(Exchange::of);
        if let Some(exchange) = exchange {
            exchange.begin_request();
            session.set_total_drain_timeout(Some(exchange.connection.limits.read_timeout));
        }
        let request = session.req_header();
        let (method, uri) = (request.method.clone(), request.uri.clone());
        let (path, query) = (uri.path(), uri.query().unwrap_or(""));
        let answer = match self.refusal(&method, path, &request.headers) {
            Some(refusal) => refusal,
            None => self.answer(&method, path, query).await,
        };
        if let Some(exchange) = exchange {
            exchange.begin_response();
        }
        answer.into_response()
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
fn order(path: &str, query: &str) -> Option<Order> {
    let asked = |word: &str| {
        query
            .split('&')
            .any(|pair| pair == word || pair == format!("{word}=true"))
    };
    match path {
        "/v1/reload" => Some(Order::Reload {
            dry_run: asked("dry_run"),
            force: asked("force"),
        }),
        "/v1/upgrade" => Some(Order::Upgrade {
            force: asked("force"),
        }),
        _ => None,
    }
}

/// `POST /v1/certificates/{name}/renew` and `…/revoke`.
fn wish(path: &str) -> Option<(String, Deed)> {
    let (name, what) = path.strip_prefix("/v1/certificates/")?.split_once('/')?;
    let deed = match what {
        "renew" => Deed::Renew,
        "revoke" => Deed::Revoke,
        _ => return None,
    };
    Some((decode(name), deed))
}

fn carried_out(reply: Reply) -> Answer {
    let (status, refusal) = match reply {
        Ok(done) => return Answer::json(StatusCode::OK, &done),
        Err(refusal @ Refusal::Failed(_)) => (StatusCode::UNPROCESSABLE_ENTITY, refusal),
        Err(refusal @ Refusal::Limit(_)) => (StatusCode::PRECONDITION_FAILED, refusal),
        Err(refusal @ Refusal::Busy(_)) => (StatusCode::CONFLICT, refusal),
    };
    Answer::problem(status, &refusal.to_string())
}

fn readiness(subject: &Subject) -> Answer {
    let stage = subject.lifecycle.stage();
    let status = match stage {
        Stage::Serving => StatusCode::OK,
        Stage::Starting | Stage::Draining => StatusCode::SERVICE_UNAVAILABLE,
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

fn with_upstream(
    snapshot: &Snapshot,
    name: &str,
    then: impl FnOnce(&Upstream) -> Answer,
) -> Answer {
    if let Some(upstream) = snapshot.upstreams.get(name) {
        return then(upstream);
    }
    let names: Vec<_> = snapshot.upstreams.keys().map(String::as_str).collect();
    let message = format!(
        "there is no upstream `{name}`; there are: {}",
        names.join(", ")
    );
    Answer::problem(StatusCode::NOT_FOUND, &message)
}

fn owner(upstream: &Upstream, query: &str) -> Answer {
    let key = query.split('&').find_map(|pair| pair.strip_prefix("key="));
    match key {
        Some("") => Answer::problem(StatusCode::BAD_REQUEST, "an empty key is none"),
        Some(key) => Answer::json(StatusCode::OK, &report::owner(upstream, &decode_form(key))),
        None => Answer::problem(StatusCode::BAD_REQUEST, "needs `?key=KEY`"),
    }
}

/// What is asked of one upstream.
fn look_at(subject: &Subject, name: &str, what: &str, query: &str) -> Answer {
    with_upstream(&subject.snapshot.load(), name, |upstream| match what {
        "owner" => owner(upstream, query),
        "hot" => Answer::json(StatusCode::OK, &report::hot(upstream)),
        _ => Answer::json(StatusCode::OK, &report::upstream(upstream)),
    })
}

fn order_drain(subject: &Subject, name: &str, label: &str, draining: bool) -> Answer {
    match subject.lifecycle.stage() {
        // Nobody would be the wiser: where another process serves, it is the one to ask.
        Stage::Draining => Answer::problem(
            StatusCode::CONFLICT,
            "this process is draining; ask again, on a new connection",
        ),
        Stage::Starting | Stage::Serving => {
            with_upstream(&subject.snapshot.load(), name, |upstream| {
                set_draining(upstream, label, draining)
            })
        }
    }
}

fn set_draining(upstream: &Upstream, label: &str, draining: bool) -> Answer {
    let Some(peer) = upstream.peer_named(label) else {
        let labels: Vec<_> = upstream
            .peers()
            .iter()
            .take(20)
            .map(|peer| &*peer.label)
            .collect();
        let message = format!(
            "upstream `{}` has no peer `{label}`; it has: {}",
            upstream.name,
            labels.join(", ")
        );
        return Answer::problem(StatusCode::NOT_FOUND, &message);
    };
    if peer.set_draining(draining, clock::since_start()) {
        let word = if draining { "draining" } else { "enabled" };
        log::info!(
            "upstream {}: peer {label} is {word} by the operator",
            upstream.name
        );
    }
    // Whoever enables it wants it back, whatever keeps it away but its own failures.
    if !draining {
        peer.lift_suppression(clock::since_start());
    }
    Answer::json(StatusCode::OK, &report::one_peer(upstream, peer))
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

/// `%41` is `A`; what is no such escape stays as it is.
fn decode(text: &str) -> String {
    String::from_utf8_lossy(&decode_bytes(text)).into_owned()
}

/// As [`decode_bytes`], and `+` is a space (HTML forms, URL standard).
fn decode_form(text: &str) -> Vec<u8> {
    decode_bytes(&text.replace('+', " "))
}

fn decode_bytes(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escape = if first == b'%' { escaped(after) } else { None };
        let (byte, after) = escape.unwrap_or((first, after));
        decoded.push(byte);
        rest = after;
    }
    decoded
}

fn escaped(after: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, rest) = after.split_at_checked(2)?;
    if !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    Some((byte, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_and_stray_percents_kept() {
        assert_eq!(decode("a%2Fb%3a1"), "a/b:1");
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%+1%zz"), "%+1%zz");
        assert_eq!(decode_form("a+b%2B"), b"a b+");
    }

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
