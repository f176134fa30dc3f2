//! `timeouts` of an upstream: the deadlines of each step of an exchange with a peer.

use std::time::Duration;

use crate::config::fields::Fields;
use crate::config::schema::SectionSchema;
use crate::config::values::{self, DURATION_BOUNDS};

/// Deadlines of each step of an exchange with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutsConfig {
    /// The time limit for a connect to a peer.
    pub connect: Duration,
    /// The time limit from the last byte of the request to the header of the response.
    pub first_byte: Duration,
    /// The time limit between two reads of a response body.
    pub read: Duration,
    /// As `read`, for bodies that may pause for long: gRPC in both directions, event streams.
    pub stream: Duration,
    /// The time limit for one write of the request.
    pub write: Duration,
    /// How long an unused connection is kept; should be below the peer's own keep-alive timeout.
    pub idle: Duration,
    /// Deadlines after a protocol upgrade (WebSocket).
    pub tunnel: TunnelTimeoutsConfig,
}

/// Deadlines of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelTimeoutsConfig {
    /// The time limit without a byte in either direction.
    pub idle: Duration,
    /// The time limit from its start to its end; `None`: no limit.
    pub total: Option<Duration>,
}

pub(super) static TIMEOUTS: SectionSchema = SectionSchema {
    title: "`timeouts`",
    path: "upstreams.NAME.timeouts",
    example: "{connect: 1s, read: 60s}",
    keys: &[
        "connect",
        "first_byte",
        "read",
        "stream",
        "write",
        "idle",
        "tunnel",
    ],
    nested: &[&TUNNEL],
    ..SectionSchema::EMPTY
};

pub(super) fn read(upstream: &Fields<'_>) -> TimeoutsConfig {
    let fields = upstream.section("timeouts", &TIMEOUTS);
    let timeout = |key, seconds| {
        let default = Duration::from_secs(seconds);
        fields.as_ref().map_or(default, |fields| {
            fields.duration(key, default, DURATION_BOUNDS)
        })
    };
    TimeoutsConfig {
        connect: timeout("connect", 1),
        first_byte: timeout("first_byte", 60),
        read: timeout("read", 60),
        stream: timeout("stream", 3600),
        write: timeout("write", 60),
        idle: timeout("idle", 50),
        tunnel: tunnel_timeouts(fields.as_ref()),
    }
}

static TUNNEL: SectionSchema = SectionSchema {
    title: "`tunnel`",
    path: "upstreams.NAME.timeouts.tunnel",
    example: "{idle: 1h, total: 8h}",
    keys: &["idle", "total"],
    ..SectionSchema::EMPTY
};

/// A map, or in short form the idle time: `tunnel: 1h`.
fn tunnel_timeouts(timeouts: Option<&Fields<'_>>) -> TunnelTimeoutsConfig {
    let default = TunnelTimeoutsConfig {
        idle: Duration::from_secs(3600),
        total: None,
    };
    let Some(timeouts) = timeouts else {
        return default;
    };
    let node = timeouts.get("tunnel");
    if node.is_some_and(|node| node.text().is_some()) {
        let idle = timeouts.duration("tunnel", default.idle, DURATION_BOUNDS);
        return TunnelTimeoutsConfig { idle, ..default };
    }
    let fields = timeouts.section("tunnel", &TUNNEL);
    fields.map_or(default, |fields| TunnelTimeoutsConfig {
        idle: fields.duration("idle", default.idle, DURATION_BOUNDS),
        total: fields.or_off("total", None, |node| {
            values::duration(node, &DURATION_BOUNDS)
        }),
    })
}
