//! The phases of an exchange, their limits, and the reason and status of an abort: one table.
//!
//! | phase | must be over within | abort reason | the client gets |
//! |---|---|---|---|
//! | [`Idle`](Phase::Idle) | `keepalive`; before the first request `header_timeout` | [`IdleTimeout`](AbortReason::IdleTimeout) | nothing |
//! | [`Header`](Phase::Header) | `header_timeout` | [`HeaderTimeout`](AbortReason::HeaderTimeout) | 408 |
//! | [`Request`](Phase::Request) | no limit of its own | [`RequestTimeout`](AbortReason::RequestTimeout) | |
//! | [`AwaitResponse`](Phase::AwaitResponse) | `first_byte` | [`FirstByteTimeout`](AbortReason::FirstByteTimeout) | 504 |
//! | [`Response`](Phase::Response) | `read`, for streams `stream`; restarts with each chunk | [`PeerReadTimeout`](AbortReason::PeerReadTimeout) | a reset |
//! | [`Tunnel`](Phase::Tunnel) | `tunnel.idle`; restarts with each chunk | [`TunnelIdleTimeout`](AbortReason::TunnelIdleTimeout) | a close |
//!
//! The limits of `AwaitResponse` and `Response` are suspended while the client does not take what is sent to it, and
//! begin anew when it does.
//!
//! Limits in addition to that of the phase:
//!
//! | from … to | within | abort reason | the client gets |
//! |---|---|---|---|
//! | request header complete … end of the response | `request_timeout`, or gRPC's `grpc-timeout` | [`RequestTimeout`](AbortReason::RequestTimeout) | 408 while its body is due, 504, or a reset |
//! | upgrade … | `tunnel.total` | [`TunnelTotalTimeout`](AbortReason::TunnelTotalTimeout) | an end marker at the next boundary; after 10 s without a boundary, a close |
//! | blocked write to the client … next byte accepted | `write_timeout` | [`ClientWriteTimeout`](AbortReason::ClientWriteTimeout) | a reset |
//! | read of the request's body blocked … next byte | `min_body_rate` | [`BodyTooSlow`](AbortReason::BodyTooSlow) | 408, or a reset |
//! | blocked write to the client … next byte accepted | `min_body_rate` | [`ClientWriteTimeout`](AbortReason::ClientWriteTimeout) | a reset |
//! | in a tunnel, blocked write to the peer … next byte accepted | `write` | [`PeerWriteTimeout`](AbortReason::PeerWriteTimeout) | a close |
//! | the key moves to another peer … | `close_moved_streams` | [`KeyMoved`](AbortReason::KeyMoved) | an end marker at the next boundary |
//! | first byte of a header … its end | `max_header_size` bytes | [`HeaderTooLarge`](AbortReason::HeaderTooLarge) | 431 |
//! | HTTP/2: accept … now | the limits of [`http2`](super::http2) on frames | [`Http2Abuse`](AbortReason::Http2Abuse) | GOAWAY |
//! | HTTP/2: a reset by the client, or its connection's end | at once | [`ClientGone`](AbortReason::ClientGone) | nothing |
//! | HTTP/2: a malformed request (RFC 9113 §8.1.1) | at once | [`MalformedRequest`](AbortReason::MalformedRequest) | a reset |
//!
//! On HTTP/2 these are the phases of each stream, beginning with `Request`, and a reset resets only the stream.
//! The connection also has an exchange of its own, with the phases `Idle` and `Header` and the limit on blocked
//! writes; if one of its limits runs out, the client gets GOAWAY. A header that is late or far too large ends
//! all streams of the connection.
//!
//! A status is sent only before a final response has begun. gRPC has its status in the trailers, so for gRPC
//! trailers with a status replace the reset. While a write to the client is blocked, the limit on gaps in the
//! peer's response is suspended: the peer's bytes cannot be relayed until the client reads.

use crate::fault::Fault;

/// The phase of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Waiting for a request's first byte.
    Idle,
    /// A part of a request's header has arrived.
    Header,
    /// The request is being handled: routed, queued, or sent to a peer.
    Request,
    /// The request was sent to a peer; the response has not begun.
    AwaitResponse,
    /// The response's header has arrived; the body is relayed.
    Response,
    /// The protocol was upgraded (WebSocket): bytes are relayed both ways.
    Tunnel,
}

/// Why an exchange was aborted: a row of the tables above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum AbortReason {
    /// No request arrived in time.
    IdleTimeout,
    /// A request's header was not complete in time.
    HeaderTimeout,
    /// A request's header was larger than `max_header_size`.
    HeaderTooLarge,
    /// The peer did not begin its response in time.
    FirstByteTimeout,
    /// The peer paused too long in its response.
    PeerReadTimeout,
    /// No bytes were relayed through the tunnel, in either direction.
    TunnelIdleTimeout,
    /// The tunnel reached its total limit.
    TunnelTotalTimeout,
    /// The whole request took too long.
    RequestTimeout,
    /// The request's body was slower than `min_body_rate`.
    BodyTooSlow,
    /// The client did not read the bytes sent to it.
    ClientWriteTimeout,
    /// The peer of a tunnel did not read the bytes sent to it.
    PeerWriteTimeout,
    /// The key of a long stream has moved to another peer, and the stream is at a boundary.
    KeyMoved,
    /// The client exceeded a limit on HTTP/2 frames.
    Http2Abuse,
    /// The client has reset its stream, or closed the connection.
    ClientGone,
    /// The request of an HTTP/2 stream is malformed.
    MalformedRequest,
}

impl Phase {
    const ALL: [Self; 6] = [
        Self::Idle,
        Self::Header,
        Self::Request,
        Self::AwaitResponse,
        Self::Response,
        Self::Tunnel,
    ];

    pub(super) fn from_u8(value: u8) -> Self {
        Self::ALL
            .get(usize::from(value))
            .copied()
            .unwrap_or(Self::Idle)
    }

    /// The abort reason if the phase's own limit runs out.
    pub(super) fn phase_timeout_reason(self) -> AbortReason {
        match self {
            Self::Idle => AbortReason::IdleTimeout,
            Self::Header => AbortReason::HeaderTimeout,
            Self::Request => AbortReason::RequestTimeout,
            Self::AwaitResponse => AbortReason::FirstByteTimeout,
            Self::Response => AbortReason::PeerReadTimeout,
            Self::Tunnel => AbortReason::TunnelIdleTimeout,
        }
    }

    /// The abort reason if the total limit of the request or tunnel runs out.
    pub(super) fn total_timeout_reason(self) -> AbortReason {
        match self {
            Self::Tunnel => AbortReason::TunnelTotalTimeout,
            _ => AbortReason::RequestTimeout,
        }
    }
}

impl AbortReason {
    const ALL: [Self; 15] = [
        Self::IdleTimeout,
        Self::HeaderTimeout,
        Self::HeaderTooLarge,
        Self::FirstByteTimeout,
        Self::PeerReadTimeout,
        Self::TunnelIdleTimeout,
        Self::TunnelTotalTimeout,
        Self::RequestTimeout,
        Self::BodyTooSlow,
        Self::ClientWriteTimeout,
        Self::PeerWriteTimeout,
        Self::KeyMoved,
        Self::Http2Abuse,
        Self::ClientGone,
        Self::MalformedRequest,
    ];

    /// The row of the fault table for this reason. `body_sent`: the peer has the whole request body.
    pub(super) fn fault(self, body_sent: bool) -> Fault {
        match self {
            Self::HeaderTimeout => Fault::HeaderTimeout,
            Self::HeaderTooLarge => Fault::HeaderTooLarge,
            Self::FirstByteTimeout if body_sent => Fault::FirstByteTimeout,
            Self::FirstByteTimeout | Self::PeerWriteTimeout => Fault::SendTimeout,
            Self::PeerReadTimeout => Fault::ResponseStalled,
            Self::TunnelIdleTimeout => Fault::TunnelIdle,
            Self::TunnelTotalTimeout => Fault::TunnelTotal,
            Self::RequestTimeout => Fault::RequestTimeout,
            Self::BodyTooSlow => Fault::BodyTooSlow,
            Self::ClientWriteTimeout => Fault::ClientStalled,
            Self::KeyMoved => Fault::KeyMoved,
            Self::ClientGone => Fault::ClientGone,
            Self::MalformedRequest => Fault::BadRequest,
            // These end the whole connection; a request that is in progress on it is only affected.
            Self::IdleTimeout | Self::Http2Abuse => Fault::Aborted,
        }
    }

    /// `None` for a number without a reason.
    pub(super) fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.get(usize::from(value)).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn phase_and_abort_reason_roundtrip_through_their_number() {
        for phase in Phase::ALL {
            assert_eq!(Phase::from_u8(phase as u8), phase);
        }
        for reason in AbortReason::ALL {
            assert_eq!(AbortReason::from_u8(reason as u8), Some(reason));
        }
        assert_eq!(AbortReason::from_u8(u8::MAX), None);
    }

    #[test]
    fn abort_reason_has_a_fault_of_its_own() {
        let distinct: BTreeSet<_> = AbortReason::ALL
            .map(|reason| reason.fault(true).name())
            .into();
        // `IdleTimeout` and `Http2Abuse` share one.
        assert_eq!(distinct.len(), AbortReason::ALL.len() - 1);
        assert_eq!(
            AbortReason::FirstByteTimeout.fault(false),
            Fault::SendTimeout
        );
    }
}
