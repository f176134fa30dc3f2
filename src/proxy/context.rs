//! The state of one request, from hook to hook.

use std::sync::Arc;
use std::time::Duration;

use pingora::{Error, ErrorType};

use super::grpc_web::GrpcWebTranslation;
use super::request_info::RequestInfo;
use crate::clock;
use crate::downstream::{AbortReason, Connection, Exchange};
use crate::fault::Fault;
use crate::ring::MemberId;
use crate::snapshot::{self, Snapshot};
use crate::telemetry::Telemetry;
use crate::upstream::in_flight::PeerPermit;
use crate::upstream::{HashTarget, Peer, PeerEpoch, Tried, Upstream};

/// The state of one request. It takes one [`Snapshot`] here, and sees no other until its end.
#[derive(Debug)]
pub struct Context {
    /// The configuration for this request.
    pub(super) snapshot: Arc<Snapshot>,
    /// Where the request is counted and logged.
    pub(super) telemetry: Arc<Telemetry>,
    /// When the header was complete, since the process started.
    pub(super) started: Duration,
    /// The request's phase and deadlines, and its connection.
    pub(super) exchange: Option<Arc<Exchange>>,
    /// What the request's header says.
    pub(super) request: RequestInfo,
    /// The route, with its upstream; `None`: not found yet, or no route matches.
    pub(super) route: Option<Arc<snapshot::RouteTarget>>,
    /// The kind of the key source that was present; `None`: no key.
    pub(super) key_source: Option<&'static str>,
    /// The value of the sticky cookie that the response sets.
    pub(super) sticky_cookie: Option<String>,
    /// The key on the ring, or a turn of round-robin.
    pub(super) target: Option<HashTarget>,
    /// The peers that failed for this request.
    pub(super) tried: Tried,
    /// The attempt under way, or the last one.
    pub(super) attempt: Option<Attempt>,
    /// Attempts so far.
    pub(super) attempts: u32,
    /// The translation of this attempt's bodies; `None`: not a call of gRPC-Web.
    pub(super) grpc_web: Option<Box<GrpcWebTranslation>>,
    /// Bytes of the request's body that this attempt has sent.
    pub(super) request_body_bytes: u64,
    /// Whether that was the whole body.
    pub(super) request_body_complete: bool,
    /// Bytes of the response's body so far.
    pub(super) response_body_bytes: u64,
    /// Whether the end of the connection ends the response's body; a truncated one must not look complete.
    pub(super) response_ends_at_close: bool,
    /// When the response's header came, since the process started.
    pub(super) first_byte: Option<Duration>,
    /// The status of the peer's response; 0: none yet.
    pub(super) status: u16,
    /// The failure of the request.
    pub(super) fault: Option<Fault>,
    /// Whether the request is counted and logged.
    pub(super) recorded: bool,
}

/// One attempt on one peer.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) upstream: Arc<Upstream>,
    pub(super) member: MemberId,
    /// Whether the key's own peer was passed over: it is full, or the key is hot.
    pub(super) is_overflow: bool,
    /// The peer's epoch that the key is assigned to; `None`: a drain of the peer would not keep the key.
    pub(super) epoch: Option<PeerEpoch>,
    /// Counts the request as in flight at the peer.
    pub(super) permit: Option<PeerPermit>,
    /// When the attempt began, since the process started.
    pub(super) started: Duration,
    /// The time of the connect; `None`: not connected yet; zero: a pooled connection.
    pub(super) connect_time: Option<Duration>,
    /// Whether the connection must not come from the pool.
    pub(super) fresh_connection: bool,
    /// Whether the peer requires HTTP/1.1 for this request (RFC 9113, 7: `HTTP_1_1_REQUIRED`).
    pub(super) force_http1: bool,
}

impl Attempt {
    pub(super) fn peer(&self) -> Option<&Peer> {
        self.upstream.peer(self.member)
    }
}

impl Context {
    pub(super) fn new(snapshot: Arc<Snapshot>, telemetry: Arc<Telemetry>) -> Self {
        Self {
            snapshot,
            telemetry,
            started: clock::since_start(),
            exchange: None,
            request: RequestInfo::default(),
            route: None,
            key_source: None,
            sticky_cookie: None,
            target: None,
            tried: Tried::none(),
            attempt: None,
            attempts: 0,
            grpc_web: None,
            request_body_bytes: 0,
            request_body_complete: false,
            response_body_bytes: 0,
            response_ends_at_close: false,
            first_byte: None,
            status: 0,
            fault: None,
            recorded: false,
        }
    }

    pub(super) fn upstream(&self) -> Option<&Arc<Upstream>> {
        self.route.as_ref().map(|route| &route.upstream)
    }

    pub(super) fn peer(&self) -> Option<&Peer> {
        self.attempt.as_ref().and_then(Attempt::peer)
    }

    /// The client's connection.
    pub(super) fn connection(&self) -> Option<&Connection> {
        self.exchange.as_ref().map(|exchange| &*exchange.connection)
    }

    /// Whether the header of the final response has begun to pass.
    pub(super) fn response_begun(&self) -> bool {
        self.exchange
            .as_deref()
            .is_some_and(Exchange::response_begun)
    }

    /// The request's body was read to its end.
    pub(super) fn complete_body(&mut self) {
        self.request_body_complete = true;
        if let Some(exchange) = &self.exchange {
            exchange.mark_body_complete();
        }
    }

    /// Records a failure of the client; the error that ends the request in Pingora.
    #[expect(
        clippy::unnecessary_box_returns,
        reason = "the hooks of Pingora return boxed errors"
    )]
    pub(super) fn fail_with(&mut self, fault: Fault) -> Box<Error> {
        self.fault = Some(fault);
        Error::new_down(ErrorType::HTTPStatus(fault.status()))
    }

    /// The client gets no more of this response, and must not take it for complete. A stream that is closed
    /// because its key moved ends at a boundary, and is.
    pub(super) fn abort_response(&self) {
        if let (true, Some(exchange)) = (self.response_ends_at_close, &self.exchange)
            && exchange.abort_reason() != Some(AbortReason::KeyMoved)
        {
            exchange.reset_on_close();
        }
    }
}

#[cfg(test)]
impl Context {
    /// The context of `GET / HTTP/1.1` under a configuration with one listener and this `rest`; without a
    /// connection.
    pub(super) fn for_test(rest: &str) -> Self {
        use crate::{config, snapshot::ResolvedAddresses, telemetry::metrics::Metrics};
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("clockwise.yaml");
        let text = format!("listeners: [{{address: \"127.0.0.1:1\"}}]\naccess_log: off\n{rest}");
        std::fs::write(&file, text).unwrap();
        let config = config::load(&file).unwrap();
        let telemetry = Telemetry::open(&config).unwrap();
        let metrics = Metrics::new("1", jiff::Timestamp::UNIX_EPOCH);
        let snapshot = Snapshot::new(config, &ResolvedAddresses::new(), None, &metrics).unwrap();
        let mut ctx = Self::new(Arc::new(snapshot), Arc::new(telemetry));
        ctx.request.host = Some(http::HeaderValue::from_static("a.test"));
        ctx
    }
}
