//! How far a request has come, and what it means when its time is over: one table.
//!
//! | phase | must be over within | cause | the client is told |
//! |---|---|---|---|
//! | [`Idle`](Phase::Idle) | `keepalive`; before the first request `header_timeout` | [`Idle`](Cause::Idle) | nothing |
//! | [`Header`](Phase::Header) | `header_timeout` | [`Header`](Cause::Header) | 408 |
//! | [`Request`](Phase::Request) | no limit of its own | [`Request`](Cause::Request) | |
//! | [`AwaitResponse`](Phase::AwaitResponse) | `first_byte` | [`FirstByte`](Cause::FirstByte) | 504 |
//! | [`Response`](Phase::Response) | `read`, or of a stream `stream`, anew with each piece | [`Gap`](Cause::Gap) | a reset |
//! | [`Tunnel`](Phase::Tunnel) | `tunnel.idle`, anew with each piece | [`Tunnel`](Cause::Tunnel) | the end |
//!
//! Beside the phase's own limit:
//!
//! | from … to | within | cause | the client is told |
//! |---|---|---|---|
//! | a header's end … the response's end | `request_timeout`, or gRPC's `grpc-timeout` | [`Request`](Cause::Request) | 408 while its body is due, 504, or a reset |
//! | an upgrade … | `tunnel.total` | [`TunnelTotal`](Cause::TunnelTotal) | the stream's end, in its own words; the end, 10 s later |
//! | a write that blocks … its next byte | `write_timeout` | [`ClientStalled`](Cause::ClientStalled) | a reset |
//! | in a tunnel, a write that the peer does not take … its next byte | `write` | [`PeerStalled`](Cause::PeerStalled) | the end |
//! | its key's move … | [`Tenure`](super::Tenure) says | [`Moved`](Cause::Moved) | the stream's end, in its own words |
//! | a header's first byte … its end | `max_header_size` bytes | [`HeaderTooLarge`](Cause::HeaderTooLarge) | 431 |
//! | HTTP/2: the accept … now | what [`Frames`](super::http2) allow | [`Abuse`](Cause::Abuse) | GOAWAY |
//! | HTTP/2: a reset by the client, or its connection's end | at once | [`ClientGone`](Cause::ClientGone) | nothing |
//!
//! On HTTP/2 these are the phases of each stream, from its header's end on, and a reset is one of the
//! stream. The first two are those of the connection, as is a write that blocks: there, what the client is
//! told is GOAWAY, and a header that is late, or too large by far, ends them all.
//!
//! A status is sent only where no final response has begun; but for gRPC, whose trailers tell of it then,
//! in place of the reset. While a write blocks, the peer's gap is
//! not counted: what is missing then is the client's to take.

use crate::fault::Fault;

/// How far the request of an exchange has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Waiting for a request's first byte.
    Idle,
    /// Some of a request's header is there.
    Header,
    /// The request is being handled; a peer may be at work on it.
    Request,
    /// The request is with a peer, whose response has not begun.
    AwaitResponse,
    /// The response's header is there; its body flows.
    Response,
    /// The protocol was upgraded (WebSocket); bytes pass both ways.
    Tunnel,
}

/// Why an exchange was cut: the row of the table above whose limit was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum AbortReason {
    /// No request came.
    IdleTimeout,
    /// A request's header was not complete in time.
    HeaderTimeout,
    /// A request's header had no end within the bytes it may have.
    HeaderTooLarge,
    /// The peer did not begin to answer in time.
    FirstByteTimeout,
    /// The peer paused for too long in its response.
    PeerReadTimeout,
    /// Nothing passed through the tunnel, either way.
    TunnelIdleTimeout,
    /// The tunnel has been open for as long as it may.
    TunnelTotalTimeout,
    /// The whole request took longer than it may.
    RequestTimeout,
    /// The client took nothing of what it was sent.
    ClientWriteTimeout,
    /// The peer took nothing of what came through the tunnel.
    PeerWriteTimeout,
    /// The key of a long stream has moved to another peer; the stream could be ended politely.
    KeyMoved,
    /// The client makes work, and no requests.
    Http2Abuse,
    /// The client has taken its request back, or left.
    ClientGone,
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

    /// What it means when the phase's own limit is passed.
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

    /// What it means when the limit of the whole is passed.
    pub(super) fn total_timeout_reason(self) -> AbortReason {
        match self {
            Self::Tunnel => AbortReason::TunnelTotalTimeout,
            _ => AbortReason::RequestTimeout,
        }
    }
}

impl AbortReason {
    const ALL: [Self; 13] = [
        Self::IdleTimeout,
        Self::HeaderTimeout,
        Self::HeaderTooLarge,
        Self::FirstByteTimeout,
        Self::PeerReadTimeout,
        Self::TunnelIdleTimeout,
        Self::TunnelTotalTimeout,
        Self::RequestTimeout,
        Self::ClientWriteTimeout,
        Self::PeerWriteTimeout,
        Self::KeyMoved,
        Self::Http2Abuse,
        Self::ClientGone,
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
            Self::ClientWriteTimeout => Fault::ClientStalled,
            Self::KeyMoved => Fault::KeyMoved,
            Self::ClientGone => Fault::ClientGone,
            // These end the connection; a request on it is no more than a victim.
            Self::IdleTimeout | Self::Http2Abuse => Fault::Aborted,
        }
    }

    /// `None` for any number that is no cause's.
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
        for cause in AbortReason::ALL {
            assert_eq!(AbortReason::from_u8(cause as u8), Some(cause));
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
