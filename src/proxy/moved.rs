//! Beside a long stream: is its peer still the one that its key is at home with?
//!
//! Streams that can be ended politely (a WebSocket, an event stream, one of gRPC) are looked at from time to time,
//! against the configuration that is in force then. One whose key has been at home with another peer
//! for the chosen time is ended, at the chosen rate; its client comes back, to the right peer. A key
//! that a draining peer keeps is at home there, and a stream that was sent elsewhere by intention
//! (its home was full, its key hot) is left alone.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::context::Context;
use crate::clock;
use crate::config::MovedStreams;
use crate::connection::{Kind, Look, Tenure};
use crate::grpc;
use crate::snapshot::Snapshot;
use crate::upstream::{Address, Target, Tried, Upstream};

/// The longest time between two looks.
const SELDOM: Duration = Duration::from_secs(5);
/// The shortest.
const OFTEN: Duration = Duration::from_millis(20);

/// The response's header is complete: a stream that may have to move is looked at from here on.
pub(super) fn follow(
    current: &Arc<ArcSwap<Snapshot>>,
    session: &Session,
    response: &ResponseHeader,
    ctx: &Context,
) {
    let rules = ctx
        .upstream()
        .and_then(|upstream| upstream.config.close_moved_streams);
    let (Some(rules), Some(exchange)) = (rules, &ctx.exchange) else {
        return;
    };
    if let Some(kind) = kind(response, ctx)
        && let Some(tenant) = Tenant::of(current, session, ctx)
    {
        exchange.begin_stay(kind, Box::new(tenant), between(rules));
    }
}

/// The kind of stream that begins, if it is one that can be ended.
fn kind(response: &ResponseHeader, ctx: &Context) -> Option<Kind> {
    let headers = &response.headers;
    match response.status.as_u16() {
        101 if begins(headers, &UPGRADE, b"websocket") => Some(Kind::WebSocket),
        200 if is_event_stream(headers) => {
            // Of a compressed one the events cannot be seen, and a length cannot be taken back.
            let plain =
                !headers.contains_key(CONTENT_ENCODING) && !headers.contains_key(CONTENT_LENGTH);
            let chunked = headers.contains_key(TRANSFER_ENCODING);
            (plain && ctx.ask.method != Method::HEAD).then_some(Kind::Events { chunked })
        }
        // Without HTTP/2 there are no trailers, and no gRPC but by mistake.
        200 if grpc::has_trailers(headers) && ctx.ask.version == Version::HTTP_2 => {
            Some(Kind::Messages)
        }
        _ => None,
    }
}

/// Whether a response with this header is silent by nature, and may be so for long.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    begins(headers, &CONTENT_TYPE, b"text/event-stream")
}

fn begins(headers: &HeaderMap, name: &HeaderName, prefix: &[u8]) -> bool {
    let value = headers.get(name).map(HeaderValue::as_bytes);
    let start = value.and_then(|value| value.get(..prefix.len()));
    start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// A stream at its peer.
struct Tenant {
    current: Arc<ArcSwap<Snapshot>>,
    upstream: Arc<str>,
    key: Box<[u8]>,
    label: Arc<str>,
    address: Address,
    /// Since when its key is at home with another.
    moved: Option<Duration>,
}

impl Tenant {
    fn of(current: &Arc<ArcSwap<Snapshot>>, session: &Session, ctx: &Context) -> Option<Self> {
        let attempt = ctx.attempt.as_ref().filter(|attempt| !attempt.guest)?;
        let peer = attempt.peer()?;
        Some(Self {
            current: Arc::clone(current),
            upstream: Arc::clone(&attempt.upstream.name),
            key: super::pick::key_of(session, ctx)?,
            label: Arc::clone(&peer.label),
            address: peer.address.clone(),
            moved: None,
        })
    }

    /// Where nobody could serve the key, its peer is as good as any.
    fn is_home(&self, upstream: &Upstream, now: Duration) -> bool {
        let target = Target::Key(upstream.key(&self.key));
        upstream
            .select(&target, &Tried::none(), now)
            .is_none_or(|home| {
                let same = home.peer.label == self.label && home.peer.address == self.address;
                same || !home.peer.state.is_available(now)
            })
    }

    fn look_at(&mut self, upstream: &Upstream, rules: MovedStreams) -> Look {
        let now = clock::since_start();
        if self.is_home(upstream, now) {
            self.moved = None;
            return Look::Again(between(rules));
        }
        let since = *self.moved.get_or_insert(now);
        match since.saturating_add(rules.after).checked_sub(now) {
            Some(left) if !left.is_zero() => Look::Again(left.min(between(rules))),
            _ if upstream.may_end_stream(now) => Look::End,
            _ => Look::Again(between(rules).min(Duration::from_millis(500))),
        }
    }
}

impl Tenure for Tenant {
    /// Where the upstream, or the wish, is gone, the stream stays.
    fn look(&mut self) -> Look {
        let snapshot = self.current.load_full();
        let upstream = snapshot.upstreams.get(&*self.upstream);
        let rules = upstream.and_then(|upstream| upstream.config.close_moved_streams);
        if let (Some(upstream), Some(rules)) = (upstream, rules) {
            return self.look_at(upstream, rules);
        }
        self.moved = None;
        Look::Again(SELDOM)
    }
}

impl std::fmt::Debug for Tenant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tenant")
            .field("upstream", &self.upstream)
            .field("label", &self.label)
            .field("moved", &self.moved)
            .finish_non_exhaustive()
    }
}

/// The time to the next look: an eighth of what a stream may stay, and by chance up to half as much
/// more, so that streams that began together do not all look at once.
fn between(rules: MovedStreams) -> Duration {
    let time = (rules.after / 8).clamp(OFTEN, SELDOM);
    time.mul_f64(1.0 + 0.5 * rand::random::<f64>())
}
