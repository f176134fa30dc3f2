//! Closes long streams: those with a key that has moved to another peer, and tunnels that reached `tunnel.total`.
//!
//! Only a stream that can end between two messages is closed: a WebSocket, an event stream, a gRPC stream. A
//! scheduled task of its exchange checks it from time to time against the configuration in force then. When a
//! key has belonged to another peer for `close_moved_streams.after`, its stream is closed, at most `per_second`
//! streams of an upstream; the client reconnects and reaches the right peer. A key that a draining peer keeps
//! still belongs to that peer. A stream that was sent to another peer on purpose (its owner was full, its
//! key hot) is not closed.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use http::{HeaderName, Method, StatusCode, Version};

use super::context::Context;
use crate::clock;
use crate::config::MovedStreamsConfig;
use crate::downstream::{AbortReason, ScheduledTask, StreamKind, TaskOutcome};
use crate::grpc;
use crate::header::HeaderRead;
use crate::http1;
use crate::snapshot::Snapshot;
use crate::upstream::{Address, HashTarget, Tried, Upstream};

/// Bounds of the time between two checks of a key.
const MIN_CHECK_INTERVAL: Duration = Duration::from_millis(20);
const MAX_CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The longest time until a moved stream that `per_second` did not let close is checked again.
const MAX_TURN_WAIT: Duration = Duration::from_millis(500);

/// The response's header is complete: a stream with limits is checked from here on.
pub(crate) fn enforce_stream_limits(
    current: &Arc<ArcSwap<Snapshot>>,
    request: &impl HeaderRead,
    (status, response): (StatusCode, &impl HeaderRead),
    ctx: &Context,
) {
    let (true, Some(exchange)) = (has_stream_limits(ctx), &ctx.exchange) else {
        return;
    };
    let Some(kind) = stream_kind(status, response, ctx) else {
        return;
    };
    let (key_check, check_interval) = KeyCheck::for_stream(current, request, ctx).unzip();
    let total = max_duration(kind, ctx);
    if let Some(first_run) = check_interval.into_iter().chain(total).min() {
        let now = clock::since_start();
        let task = StreamLimits {
            key_check,
            deadline: now.saturating_add(total.unwrap_or(Duration::MAX)),
        };
        exchange.close_stream_by(kind, Box::new(task), now.saturating_add(first_run));
    }
}

/// Whether this upstream limits any stream. False for most requests, so it is checked first.
fn has_stream_limits(ctx: &Context) -> bool {
    ctx.upstream().is_some_and(|upstream| {
        let config = &upstream.config;
        config.close_moved_streams.is_some() || config.timeouts.tunnel.total.is_some()
    })
}

/// How long a stream of this kind may last; `None`: unlimited.
fn max_duration(kind: StreamKind, ctx: &Context) -> Option<Duration> {
    match kind {
        StreamKind::WebSocket => ctx.upstream()?.config.timeouts.tunnel.total,
        StreamKind::ServerSentEvents { .. } | StreamKind::GrpcMessages => None,
    }
}

/// The kind of stream that begins, if it is one that can end between two messages.
fn stream_kind(status: StatusCode, headers: &impl HeaderRead, ctx: &Context) -> Option<StreamKind> {
    match status.as_u16() {
        101 if http1::names_websocket(headers) => Some(StreamKind::WebSocket),
        200 if is_event_stream(headers) => {
            // The events of a compressed stream cannot be seen, and a length that was sent cannot be changed.
            let plain = !headers.contains(&CONTENT_ENCODING) && !headers.contains(&CONTENT_LENGTH);
            let chunked = headers.contains(&TRANSFER_ENCODING);
            (plain && ctx.request.method != Method::HEAD)
                .then_some(StreamKind::ServerSentEvents { chunked })
        }
        // gRPC needs trailers, and with them HTTP/2.
        200 if grpc::has_grpc_trailers(headers) && ctx.request.version >= Version::HTTP_2 => {
            Some(StreamKind::GrpcMessages)
        }
        _ => None,
    }
}

/// Whether a response with this header may pause for long between its events.
pub(crate) fn is_event_stream(headers: &impl HeaderRead) -> bool {
    value_starts_with(headers, &CONTENT_TYPE, b"text/event-stream")
}

fn value_starts_with(headers: &impl HeaderRead, name: &HeaderName, prefix: &[u8]) -> bool {
    let start = headers
        .get(name)
        .and_then(|value| value.get(..prefix.len()));
    start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// The limits of one stream.
#[derive(Debug)]
struct StreamLimits {
    /// `None`: the stream may stay when its key moves.
    key_check: Option<KeyCheck>,
    /// On the clock of [`clock::since_start`].
    deadline: Duration,
}

impl ScheduledTask for StreamLimits {
    fn run(&mut self, now: Duration) -> TaskOutcome {
        let left = self.deadline.saturating_sub(now);
        if left.is_zero() {
            return TaskOutcome::CloseStream(AbortReason::TunnelTotalTimeout);
        }
        match self.key_check.as_mut().map(|check| check.run(now)) {
            None => TaskOutcome::RunAgain(left),
            Some(TaskOutcome::RunAgain(wait)) => TaskOutcome::RunAgain(wait.min(left)),
            Some(outcome) => outcome,
        }
    }
}

/// Checks whether a stream's key still belongs to its peer.
struct KeyCheck {
    current: Arc<ArcSwap<Snapshot>>,
    upstream: Arc<str>,
    key: Box<[u8]>,
    label: Arc<str>,
    address: Address,
    /// When the key was first found at another peer.
    moved_since: Option<Duration>,
}

impl KeyCheck {
    /// The check, and the time to the first one. `None`: the upstream lets moved streams stay, or the stream was sent
    /// to another peer than its key's owner on purpose.
    fn for_stream(
        current: &Arc<ArcSwap<Snapshot>>,
        request: &impl HeaderRead,
        ctx: &Context,
    ) -> Option<(Self, Duration)> {
        let config = ctx.upstream()?.config.close_moved_streams?;
        let attempt = ctx
            .attempt
            .as_ref()
            .filter(|attempt| !attempt.bypasses_owner)?;
        let peer = attempt.peer()?;
        let check = Self {
            current: Arc::clone(current),
            upstream: Arc::clone(&attempt.upstream.name),
            key: super::request_key::key_bytes(request, ctx)?,
            label: Arc::clone(&peer.label),
            address: peer.address.clone(),
            moved_since: None,
        };
        Some((check, check_interval(config)))
    }

    /// A stream stays with its peer if a reload has removed its upstream or `close_moved_streams`.
    fn run(&mut self, now: Duration) -> TaskOutcome {
        let snapshot = self.current.load_full();
        let upstream = snapshot.upstreams.get(&*self.upstream);
        if let Some(upstream) = upstream
            && let Some(config) = upstream.config.close_moved_streams
        {
            return self.check(upstream, config, now);
        }
        self.moved_since = None;
        TaskOutcome::RunAgain(MAX_CHECK_INTERVAL)
    }

    fn check(
        &mut self,
        upstream: &Upstream,
        config: MovedStreamsConfig,
        now: Duration,
    ) -> TaskOutcome {
        let interval = check_interval(config);
        if self.is_at_owner(upstream, now) {
            self.moved_since = None;
            return TaskOutcome::RunAgain(interval);
        }
        let since = *self.moved_since.get_or_insert(now);
        let grace = since.saturating_add(config.after).saturating_sub(now);
        if !grace.is_zero() {
            TaskOutcome::RunAgain(grace.min(interval))
        } else if upstream.try_end_stream(now) {
            TaskOutcome::CloseStream(AbortReason::KeyMoved)
        } else {
            TaskOutcome::RunAgain(interval.min(MAX_TURN_WAIT))
        }
    }

    /// Whether the stream's peer is the one that the key selects now. True too if that one, or every peer, is
    /// unavailable.
    fn is_at_owner(&self, upstream: &Upstream, now: Duration) -> bool {
        let target = HashTarget::Key(upstream.key(&self.key));
        upstream
            .select(&target, &Tried::none(), now)
            .is_none_or(|owner| {
                let peer = &owner.peer;
                let is_same = peer.label == self.label && peer.address == self.address;
                is_same || !peer.state.is_available(now)
            })
    }
}

impl std::fmt::Debug for KeyCheck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyCheck")
            .field("upstream", &self.upstream)
            .field("label", &self.label)
            .field("moved_since", &self.moved_since)
            .finish_non_exhaustive()
    }
}

/// The time to the next check: an eighth of `after`, and at random up to half as much more, so that
/// streams that began together are not all checked at once.
fn check_interval(config: MovedStreamsConfig) -> Duration {
    let interval = (config.after / 8).clamp(MIN_CHECK_INTERVAL, MAX_CHECK_INTERVAL);
    interval.mul_f64(1.0 + 0.5 * rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::super::{request_key, route, select};
    use super::*;

    const AFTER: Duration = Duration::from_secs(8);
    const MOVED: &str = "health: off, close_moved_streams: {after: 8s, per_second: 1}";

    fn context(upstreams: &str) -> Context {
        Context::for_test(&format!(
            "routes: [{{upstream: app}}]\nupstreams: {{{upstreams}}}"
        ))
    }

    /// The check of a stream at its key's owner, and the configuration in force.
    async fn checked_stream() -> (KeyCheck, Arc<ArcSwap<Snapshot>>) {
        let app = format!("app: {{key: path, peers: [\"127.0.0.1:2\"], {MOVED}}}");
        let mut ctx = context(&app);
        route::resolve_route(&HeaderMap::new(), &mut ctx).unwrap();
        request_key::compute_key(&HeaderMap::new(), &mut ctx).unwrap();
        select::select_initial(&mut ctx).await.unwrap();
        let current = Arc::new(ArcSwap::new(Arc::clone(&ctx.snapshot)));
        let (check, first) = KeyCheck::for_stream(&current, &HeaderMap::new(), &ctx).unwrap();
        assert!((AFTER / 8..=AFTER * 3 / 16).contains(&first), "{first:?}");
        (check, current)
    }

    /// The same upstream, with another peer.
    fn moved() -> Arc<Snapshot> {
        let app = format!("app: {{key: path, peers: [\"127.0.0.1:3\"], {MOVED}}}");
        Arc::clone(&context(&app).snapshot)
    }

    fn is_due_within(outcome: TaskOutcome, most: Duration) -> bool {
        matches!(outcome, TaskOutcome::RunAgain(wait) if wait <= most)
    }

    #[tokio::test]
    async fn stream_whose_key_moved_is_closed_after_the_grace_period() {
        let (mut check, current) = checked_stream().await;
        let start = clock::since_start();
        assert!(is_due_within(check.run(start), AFTER * 3 / 16));
        assert_eq!(check.moved_since, None);
        current.store(moved());
        assert!(is_due_within(check.run(start), AFTER * 3 / 16));
        assert_eq!(check.moved_since, Some(start));
        // The last check before the end is at the end.
        let left = Duration::from_millis(10);
        let outcome = check.run(start + AFTER.saturating_sub(left));
        assert_eq!(outcome, TaskOutcome::RunAgain(left));
        let outcome = check.run(start + AFTER);
        assert_eq!(outcome, TaskOutcome::CloseStream(AbortReason::KeyMoved));
    }

    #[tokio::test]
    async fn stream_whose_key_came_back_stays() {
        let (mut check, current) = checked_stream().await;
        let start = clock::since_start();
        let before = current.swap(moved());
        check.run(start);
        current.store(before);
        assert!(is_due_within(check.run(start + AFTER), AFTER * 3 / 16));
        assert_eq!(check.moved_since, None);
    }

    #[tokio::test]
    async fn moved_stream_over_the_rate_is_checked_again() {
        let (mut check, current) = checked_stream().await;
        let start = clock::since_start();
        current.store(moved());
        check.run(start);
        let end = start + AFTER;
        let upstream = Arc::clone(&current.load().upstreams["app"]);
        while upstream.try_end_stream(end) {}
        assert!(is_due_within(check.run(end), MAX_TURN_WAIT));
    }

    #[tokio::test]
    async fn stream_stays_when_a_reload_removes_its_upstream() {
        let (mut check, current) = checked_stream().await;
        let start = clock::since_start();
        current.store(moved());
        check.run(start);
        let other = "routes: [{upstream: other}]\nupstreams: {other: {peers: [\"127.0.0.1:3\"]}}";
        current.store(Arc::clone(&Context::for_test(other).snapshot));
        let outcome = check.run(start + AFTER);
        assert_eq!(outcome, TaskOutcome::RunAgain(MAX_CHECK_INTERVAL));
        assert_eq!(check.moved_since, None);
    }

    #[test]
    fn tunnel_is_closed_at_its_total_limit() {
        let deadline = Duration::from_secs(100);
        let mut limits = StreamLimits {
            key_check: None,
            deadline,
        };
        let left = Duration::from_secs(1);
        let outcome = limits.run(deadline.saturating_sub(left));
        assert_eq!(outcome, TaskOutcome::RunAgain(left));
        let outcome = limits.run(deadline);
        let expected = TaskOutcome::CloseStream(AbortReason::TunnelTotalTimeout);
        assert_eq!(outcome, expected);
    }

    #[test]
    fn only_streams_with_visible_boundaries_are_closed() {
        const EVENTS: (&str, &str) = ("content-type", "text/event-stream; charset=utf-8");
        const GRPC: (&str, &str) = ("content-type", "application/grpc");
        let mut ctx = context("app: {peers: [\"127.0.0.1:2\"]}");
        let mut kind = |method, version, status, fields: &[(&'static str, &'static str)]| {
            (ctx.request.method, ctx.request.version) = (method, version);
            let field = |(name, value): &(&'static str, &'static str)| {
                (HeaderName::from_static(name), value.parse().unwrap())
            };
            let headers = fields.iter().map(field).collect::<HeaderMap>();
            stream_kind(StatusCode::from_u16(status).unwrap(), &headers, &ctx)
        };
        let (get, h1, h2) = (|| Method::GET, Version::HTTP_11, Version::HTTP_2);
        let events = |chunked| Some(StreamKind::ServerSentEvents { chunked });
        let websocket = ("upgrade", "WebSocket");
        assert_eq!(
            kind(get(), h1, 101, &[websocket]),
            Some(StreamKind::WebSocket)
        );
        assert_eq!(kind(get(), h1, 101, &[("upgrade", "h2c")]), None);
        assert_eq!(kind(get(), h1, 200, &[websocket]), None);
        assert_eq!(kind(get(), h1, 200, &[EVENTS]), events(false));
        let chunked = ("transfer-encoding", "chunked");
        assert_eq!(kind(get(), h1, 200, &[EVENTS, chunked]), events(true));
        assert_eq!(kind(Method::HEAD, h1, 200, &[EVENTS]), None);
        assert_eq!(kind(get(), h1, 404, &[EVENTS]), None);
        for field in [("content-encoding", "gzip"), ("content-length", "5")] {
            assert_eq!(kind(get(), h1, 200, &[EVENTS, field]), None, "{field:?}");
        }
        let grpc = Some(StreamKind::GrpcMessages);
        assert_eq!(kind(Method::POST, h2, 200, &[GRPC]), grpc);
        assert_eq!(kind(Method::POST, h1, 200, &[GRPC]), None);
    }
}
