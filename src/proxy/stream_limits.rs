//! Beside a long stream: may it stay? Those that can be ended politely (a WebSocket, an event stream, one of gRPC) are:
//! when their key has moved ([`moved`](super::moved)), and when a tunnel was open for as long as it may be.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::context::Context;
use super::rebalance::RebalanceCheck;
use crate::clock;
use crate::downstream::{AbortReason, StreamKind, StreamPolicy, StreamVerdict};
use crate::grpc;
use crate::snapshot::Snapshot;

/// The response's header is complete: a stream that may have to end is looked at from here on.
pub(super) fn enforce_stream_limits(
    current: &Arc<ArcSwap<Snapshot>>,
    session: &Session,
    response: &ResponseHeader,
    ctx: &Context,
) {
    let (true, Some(exchange)) = (has_stream_limits(ctx), &ctx.exchange) else {
        return;
    };
    let Some(kind) = stream_kind(response, ctx) else {
        return;
    };
    let (tenant, look) = RebalanceCheck::for_stream(current, session, ctx).unzip();
    let total = max_duration(kind, ctx);
    if let Some(first) = look.into_iter().chain(total).min() {
        let until = clock::since_start().saturating_add(total.unwrap_or(Duration::MAX));
        exchange.begin_stream_policy(
            kind,
            Box::new(StreamLimits {
                rebalance: tenant,
                deadline: until,
            }),
            first,
        );
    }
}

/// Whether there is any stream of this upstream that may not stay: most requests are done with here.
fn has_stream_limits(ctx: &Context) -> bool {
    ctx.upstream().is_some_and(|upstream| {
        let config = &upstream.config;
        config.close_moved_streams.is_some() || config.timeouts.tunnel.total.is_some()
    })
}

/// How long a stream of this kind may take.
fn max_duration(kind: StreamKind, ctx: &Context) -> Option<Duration> {
    match kind {
        StreamKind::WebSocket => ctx.upstream()?.config.timeouts.tunnel.total,
        StreamKind::ServerSentEvents { .. } | StreamKind::GrpcMessages => None,
    }
}

/// The kind of stream that begins, if it is one that can be ended.
fn stream_kind(response: &ResponseHeader, ctx: &Context) -> Option<StreamKind> {
    let headers = &response.headers;
    match response.status.as_u16() {
        101 if value_starts_with(headers, &UPGRADE, b"websocket") => Some(StreamKind::WebSocket),
        200 if is_event_stream(headers) => {
            // Of a compressed one the events cannot be seen, and a length cannot be taken back.
            let plain =
                !headers.contains_key(CONTENT_ENCODING) && !headers.contains_key(CONTENT_LENGTH);
            let chunked = headers.contains_key(TRANSFER_ENCODING);
            (plain && ctx.request.method != Method::HEAD)
                .then_some(StreamKind::ServerSentEvents { chunked })
        }
        // Without HTTP/2 there are no trailers, and no gRPC but by mistake.
        200 if grpc::has_grpc_trailers(headers) && ctx.request.version == Version::HTTP_2 => {
            Some(StreamKind::GrpcMessages)
        }
        _ => None,
    }
}

/// Whether a response with this header is silent by nature, and may be so for long.
pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    value_starts_with(headers, &CONTENT_TYPE, b"text/event-stream")
}

fn value_starts_with(headers: &HeaderMap, name: &HeaderName, prefix: &[u8]) -> bool {
    let value = headers.get(name).map(HeaderValue::as_bytes);
    let start = value.and_then(|value| value.get(..prefix.len()));
    start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

/// What a stream may not outlast.
#[derive(Debug)]
struct StreamLimits {
    /// That its key is at home with its peer, where that counts.
    rebalance: Option<RebalanceCheck>,
    /// Its time, since the process started.
    deadline: Duration,
}

impl StreamPolicy for StreamLimits {
    fn check(&mut self) -> StreamVerdict {
        let left = self.deadline.saturating_sub(clock::since_start());
        if left.is_zero() {
            return StreamVerdict::Close(AbortReason::TunnelTotalTimeout);
        }
        match self
            .rebalance
            .as_mut()
            .map_or(StreamVerdict::RecheckAfter(left), RebalanceCheck::check)
        {
            StreamVerdict::RecheckAfter(wait) => StreamVerdict::RecheckAfter(wait.min(left)),
            end @ StreamVerdict::Close(_) => end,
        }
    }
}
