//! What one request remembers from hook to hook.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, Uri, Version};

use super::fault::Fault;
use super::finish;
use super::grpc_web::GrpcWebTranslation;
use crate::clock;
use crate::downstream::{AbortReason, Connection, Exchange};
use crate::ring::MemberId;
use crate::snapshot::{self, Snapshot};
use crate::telemetry::Telemetry;
use crate::upstream::in_flight::PeerPermit;
use crate::upstream::{HashTarget, Peer, PeerEpoch, Tried, Upstream};

/// What one request remembers. One request takes one [`Snapshot`], here, and keeps it to its end.
#[derive(Debug)]
pub struct Context {
    /// The configuration this request sees.
    pub(super) snapshot: Arc<Snapshot>,
    /// Where it is counted and logged.
    pub(super) telemetry: Arc<Telemetry>,
    /// When its header was complete, since the process started.
    pub(super) started: Duration,
    /// How far it has come, and the connection it came on.
    pub(super) exchange: Option<Arc<Exchange>>,
    /// What it asked for.
    pub(super) request: RequestInfo,
    /// Where its route leads.
    pub(super) route: Option<Arc<snapshot::RouteTarget>>,
    /// What kind of key it had; `None`: none.
    pub(super) key_source: Option<&'static str>,
    /// The value of the sticky cookie that its response is to set.
    pub(super) sticky_cookie: Option<String>,
    /// Its place on the ring, or its turn.
    pub(super) target: Option<HashTarget>,
    /// The peers that failed it.
    pub(super) tried: Tried,
    /// The try under way, or the last one.
    pub(super) attempt: Option<Attempt>,
    /// Tries so far.
    pub(super) attempts: u32,
    /// What becomes of both bodies on this attempt, where it is a call by gRPC-Web; `None`: nothing.
    pub(super) grpc_web: Option<Box<GrpcWebTranslation>>,
    /// Bytes of its body that this attempt has passed on so far.
    pub(super) request_body_bytes: u64,
    /// That was all of the body.
    pub(super) request_body_complete: bool,
    /// Bytes of the response's body so far.
    pub(super) response_body_bytes: u64,
    /// The response's body ends with the connection; one that is cut must not look whole.
    pub(super) response_ends_at_close: bool,
    /// When the response's header came, since the process started.
    pub(super) first_byte: Option<Duration>,
    /// The status of the response that is being relayed; 0: none yet.
    pub(super) status: u16,
    /// What went wrong with it.
    pub(super) fault: Option<Fault>,
    /// Its record is written.
    pub(super) recorded: bool,
}

/// What a request asked for, kept beside Pingora's session: a request that is cut loses that.
#[derive(Debug)]
pub(super) struct RequestInfo {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) version: Version,
    pub(super) host: Option<HeaderValue>,
    /// Whose request it is, after the trusted proxies.
    pub(super) client_ip: IpAddr,
    /// The address on the other end of the connection is a trusted proxy's.
    pub(super) from_trusted: bool,
    pub(super) id: Option<HeaderValue>,
    pub(super) user_agent: Option<HeaderValue>,
}

/// One try on one peer.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) upstream: Arc<Upstream>,
    pub(super) member: MemberId,
    /// Its key is at home elsewhere, by intention: that one is full, or the key is hot.
    pub(super) is_overflow: bool,
    /// Its key is at home with the peer, in this tenure; `None`: a drain of it would not keep the key.
    pub(super) epoch: Option<PeerEpoch>,
    /// Counts the request at the peer while it is there.
    pub(super) permit: Option<PeerPermit>,
    /// When it began, since the process started.
    pub(super) started: Duration,
    /// How long the connect took; `None`: not connected, zero: a pooled connection.
    pub(super) connect_time: Option<Duration>,
    /// Whether the connection must be a new one, not a pooled one.
    pub(super) fresh_connection: bool,
    /// The peer wants this request by HTTP/1.1 (RFC 9113, 7: `HTTP_1_1_REQUIRED`).
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

    /// The connection it came on.
    pub(super) fn connection(&self) -> Option<&Connection> {
        self.exchange.as_ref().map(|exchange| &*exchange.connection)
    }

    /// Whether the header of the final response has begun to pass.
    pub(super) fn response_begun(&self) -> bool {
        self.exchange
            .as_deref()
            .is_some_and(Exchange::response_begun)
    }

    /// The request's body is read to its end.
    pub(super) fn complete_body(&mut self) {
        self.request_body_complete = true;
        if let Some(exchange) = &self.exchange {
            exchange.mark_body_complete();
        }
    }

    /// The client gets no more of this response: it must not take what it has for all of it.
    pub(super) fn abort_response(&self) {
        let whole = |exchange: &Exchange| exchange.abort_reason() == Some(AbortReason::KeyMoved);
        if let (true, Some(exchange)) = (self.response_ends_at_close, &self.exchange)
            && !whole(exchange)
        {
            exchange.reset_on_close();
        }
    }
}

impl Drop for Context {
    /// A request that was cut by a deadline, or whose task panicked, never reaches the `logging`
    /// hook; it is still counted and logged.
    fn drop(&mut self) {
        if !self.recorded && self.exchange.is_some() {
            finish::finish_aborted(self);
        }
    }
}

impl Default for RequestInfo {
    fn default() -> Self {
        Self {
            method: Method::GET,
            uri: Uri::default(),
            version: Version::HTTP_11,
            host: None,
            client_ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            from_trusted: false,
            id: None,
            user_agent: None,
        }
    }
}
