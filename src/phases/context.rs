//! The state of one request, which its phases share.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::attempt::{Attempt, FaultStage};
use super::grpc_web::GrpcWebTranslation;
use super::request_info::RequestInfo;
use crate::clock;
use crate::downstream::{AbortReason, Connection, Exchange};
use crate::fault::Fault;
use crate::route::RouteError;
use crate::snapshot::{self, Snapshot};
use crate::telemetry::Telemetry;
use crate::upstream::{HashTarget, Peer, Tried, Upstream};

/// The state of one request. It keeps the same [`Snapshot`] from start to end, even if a reload happens
/// meanwhile.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is set by another phase, and none excludes another"
)]
pub(crate) struct Context {
    /// The configuration for this request.
    pub(crate) snapshot: Arc<Snapshot>,
    /// Where the request is counted and logged.
    pub(crate) telemetry: Arc<Telemetry>,
    /// When the header was complete, on the clock of [`since_start`](crate::clock::since_start).
    pub(crate) started: Duration,
    /// The request's phase and deadlines, and its connection.
    pub(crate) exchange: Option<Arc<Exchange>>,
    /// The values that were parsed from the request's header.
    pub(crate) request: RequestInfo,
    /// The result of [`route::look_up`](super::route::look_up), until the route is resolved.
    pub(super) route_lookup: Option<Result<Arc<snapshot::RouteTarget>, RouteError>>,
    /// The route, with its upstream; `None`: not found yet, or no route matches.
    pub(crate) route: Option<Arc<snapshot::RouteTarget>>,
    /// The `Upgrade` that peers get; `None`: the request asks for no protocol that its route allows.
    pub(crate) upgrade: Option<HeaderValue>,
    /// The kind of the key source that gave the key; `None`: the request has no key.
    pub(crate) key_source: Option<&'static str>,
    /// The value of the sticky cookie that the response sets.
    pub(crate) sticky_cookie: Option<String>,
    /// The hash of the key, or the number of the request in round-robin.
    pub(crate) hash_target: Option<HashTarget>,
    /// The peers that failed for this request.
    pub(crate) tried: Tried,
    /// The current attempt, or the last one; `None`: no peer was selected yet.
    pub(crate) attempt: Option<Attempt>,
    /// The number of attempts so far.
    pub(crate) attempts: u32,
    /// The translation of this attempt's bodies; `None`: not a call of gRPC-Web.
    pub(crate) grpc_web: Option<Box<GrpcWebTranslation>>,
    /// Bytes of the request's body that the current attempt has sent.
    pub(crate) request_body_bytes: u64,
    /// Whether the current attempt has read the request's body to its end.
    pub(crate) request_body_complete: bool,
    /// Whether all that was read of the request's body can be sent again; `true` if nothing was read. Set by the carrier.
    pub(crate) body_replayable: bool,
    /// Interim responses (1xx) so far, of all attempts.
    pub(crate) interim_responses: u32,
    /// Bytes of the response's body that were passed on so far.
    pub(crate) response_body_bytes: u64,
    /// Whether only the close of the connection marks the end of the response's body. If such a body is
    /// truncated, the connection is reset, so that the client does not take it for complete.
    pub(crate) response_ends_at_close: bool,
    /// When the header of the final response arrived, on the clock of [`since_start`](crate::clock::since_start).
    pub(crate) first_byte: Option<Duration>,
    /// The status of the peer's final response; 0: none yet.
    pub(crate) peer_status: u16,
    /// The failure of the request.
    pub(crate) fault: Option<Fault>,
    /// Whether the request has already been counted and logged, so that `drop` does not do it again.
    pub(crate) is_recorded: bool,
}

impl Context {
    pub(crate) fn new(snapshot: Arc<Snapshot>, telemetry: Arc<Telemetry>) -> Self {
        Self {
            snapshot,
            telemetry,
            started: clock::since_start(),
            exchange: None,
            request: RequestInfo::default(),
            route_lookup: None,
            route: None,
            upgrade: None,
            key_source: None,
            sticky_cookie: None,
            hash_target: None,
            tried: Tried::none(),
            attempt: None,
            attempts: 0,
            grpc_web: None,
            request_body_bytes: 0,
            request_body_complete: false,
            body_replayable: true,
            interim_responses: 0,
            response_body_bytes: 0,
            response_ends_at_close: false,
            first_byte: None,
            peer_status: 0,
            fault: None,
            is_recorded: false,
        }
    }

    pub(crate) fn upstream(&self) -> Option<&Arc<Upstream>> {
        self.route.as_ref().map(|route| &route.upstream)
    }

    pub(crate) fn peer(&self) -> Option<&Peer> {
        self.attempt.as_ref().and_then(Attempt::peer)
    }

    /// The client's connection.
    pub(crate) fn connection(&self) -> Option<&Connection> {
        self.exchange.as_ref().map(|exchange| &*exchange.connection)
    }

    /// Whether the final response to the client has begun.
    pub(crate) fn response_begun(&self) -> bool {
        self.exchange
            .as_deref()
            .is_some_and(Exchange::response_begun)
    }

    /// Whether the client was sent the whole final response.
    pub(crate) fn response_complete(&self) -> bool {
        self.exchange
            .as_deref()
            .is_some_and(Exchange::response_complete)
    }

    /// Whether the request of an HTTP/2 stream is malformed: the stream is reset, and gets no response of our own.
    pub(crate) fn is_malformed(&self) -> bool {
        self.exchange.as_deref().is_some_and(Exchange::is_malformed)
    }

    /// Makes the client's connection of HTTP/1 close after the response.
    pub(crate) fn forbid_keepalive(&self) {
        if let Some(exchange) = &self.exchange {
            exchange.forbid_keepalive();
        }
    }

    /// Notes that the request's body was read to its end.
    pub(crate) fn complete_body(&mut self) {
        self.request_body_complete = true;
        if let Some(exchange) = &self.exchange {
            exchange.mark_body_complete();
        }
    }

    /// The stage of the request if it fails now.
    pub(crate) fn stage(&self) -> FaultStage {
        let is_connecting = |attempt: &Attempt| attempt.connect_time.is_none();
        if self.response_begun() {
            FaultStage::Responding
        } else if self.attempt.as_ref().is_some_and(is_connecting) {
            FaultStage::Connecting
        } else {
            FaultStage::AwaitingResponse
        }
    }

    /// Turns the close of the connection into a reset if only the close would mark the end of this truncated
    /// response: the client must not take it for complete. Not for a stream that was closed because its key
    /// moved: it ends between two messages, so it is complete.
    pub(crate) fn reset_if_close_ends_body(&self) {
        if let (true, Some(exchange)) = (self.response_ends_at_close, &self.exchange)
            && exchange.abort_reason() != Some(AbortReason::KeyMoved)
        {
            exchange.reset_on_close();
        }
    }
}

#[cfg(test)]
impl Context {
    /// The context of `GET / HTTP/1.1` under a configuration with one listener and the other sections
    /// in `yaml`; without a connection.
    pub(crate) fn for_test(yaml: &str) -> Self {
        use crate::{config, snapshot::ResolvedAddresses, telemetry::metrics::Metrics};
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("clockwise.yaml");
        let text = format!("listeners: [{{address: \"127.0.0.1:1\"}}]\naccess_log: off\n{yaml}");
        std::fs::write(&file, text).unwrap();
        let config = config::load(&file).unwrap();
        let telemetry = Telemetry::open(&config).unwrap();
        let metrics = Metrics::new("1", jiff::Timestamp::UNIX_EPOCH);
        let snapshot = Snapshot::new(config, &ResolvedAddresses::new(), None, &metrics).unwrap();
        let mut ctx = Self::new(Arc::new(snapshot), Arc::new(telemetry));
        ctx.request.host = Some(HeaderValue::from_static("a.test"));
        ctx
    }

    /// The context of a request with a key, for an upstream with `peers`.
    pub(crate) fn for_test_with_key(peers: &str) -> Self {
        let mut ctx = Self::for_test(&format!(
            "routes: [{{upstream: app}}]\nupstreams: {{app: {{key: path, peers: [{peers}]}}}}"
        ));
        let route = ctx.snapshot.routes.find("a.test", "/", &ctx.request.method);
        ctx.route = Some(Arc::clone(route.unwrap()));
        let key = ctx.upstream().unwrap().key(b"/");
        ctx.hash_target = Some(HashTarget::Key(key));
        ctx
    }
}
