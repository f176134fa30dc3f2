//! `downstream` and `trusted_proxies`: settings of the client's side.

use std::ops::RangeInclusive;
use std::time::Duration;

use ipnet::IpNet;

use super::networks::networks;
use super::routes;
use crate::config::fields::Fields;
use crate::config::schema::SectionSchema;
use crate::config::values::{DURATION_BOUNDS, duration, number};
use crate::policy::min_rate::MinRate;

/// Limits and deadlines of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DownstreamConfig {
    /// The time limit from a request's first byte (or the accept) to the end of its header.
    pub header_timeout: Duration,
    /// The longest idle time of a connection between two requests.
    pub keepalive: Duration,
    /// The most requests on one connection; `None`: no limit.
    pub keepalive_requests: Option<u32>,
    /// The most concurrent requests on one HTTP/2 connection.
    pub max_streams: u32,
    /// The time limit between two reads of a request body.
    pub read_timeout: Duration,
    /// The time limit for one write of the response.
    pub write_timeout: Duration,
    /// The least rate of request bodies, and of responses that a client takes; `None`: no limit.
    pub min_body_rate: Option<MinRate>,
    /// The time limit of an exchange, from the end of the request's header to the end of the response; `None`: no
    /// limit.
    pub request_timeout: Option<Duration>,
    /// The most concurrent connections of all listeners together; `None`: no limit.
    pub max_connections: Option<usize>,
    /// The most concurrent connections of one client at all listeners together; `None`: no limit.
    pub per_client: Option<PerClientLimitConfig>,
    /// The most bytes of request line and header fields; a longer header is answered 431.
    pub max_header_size: usize,
    /// The most bytes of the request target; a longer one is answered 414.
    pub max_uri_length: usize,
    /// Bytes of a request body; more is answered 413. `None`: no limit.
    pub max_body_size: Option<u64>,
}

impl DownstreamConfig {
    /// The default values.
    pub const DEFAULT: Self = Self {
        header_timeout: Duration::from_secs(10),
        keepalive: Duration::from_secs(60),
        keepalive_requests: None,
        max_streams: 100,
        read_timeout: Duration::from_secs(60),
        write_timeout: Duration::from_secs(60),
        min_body_rate: Some(MinRate::DEFAULT),
        request_timeout: None,
        max_connections: None,
        per_client: None,
        max_header_size: 32 * 1024,
        max_uri_length: 8 * 1024,
        max_body_size: None,
    };
}

/// Limit on the concurrent connections of one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerClientLimitConfig {
    /// Connections; at least 1.
    pub limit: u32,
    /// Bits of an IPv4 address that identify a client; at most 32.
    pub v4_prefix: u8,
    /// Bits of an IPv6 address that identify a client; at most 128. The default is 64: one customer
    /// usually has a whole /64.
    pub v6_prefix: u8,
}

impl PerClientLimitConfig {
    /// The default prefix lengths, and no limit.
    pub const DEFAULT: Self = Self {
        limit: u32::MAX,
        v4_prefix: 32,
        v6_prefix: 64,
    };
}

const LIMIT_BOUNDS: RangeInclusive<u64> = 1..=1_000_000_000;

pub(super) static DOWNSTREAM: SectionSchema = SectionSchema {
    title: "`downstream`",
    path: "downstream",
    example: "{keepalive: 60s, max_body_size: 1MiB}",
    keys: &[
        "header_timeout",
        "keepalive",
        "keepalive_requests",
        "read_timeout",
        "write_timeout",
        "min_body_rate",
        "request_timeout",
        "max_streams",
        "max_connections",
        "max_connections_per_client",
        "max_header_size",
        "max_uri_length",
        "max_body_size",
    ],
    nested: &[&MIN_BODY_RATE, &PER_CLIENT],
    ..SectionSchema::EMPTY
};

pub(super) fn downstream(root: &Fields<'_>) -> DownstreamConfig {
    let fields = root.section("downstream", &DOWNSTREAM);
    fields
        .as_ref()
        .map_or(DownstreamConfig::DEFAULT, read_downstream)
}

fn read_downstream(fields: &Fields<'_>) -> DownstreamConfig {
    const DEFAULT: DownstreamConfig = DownstreamConfig::DEFAULT;
    let (max_header_size, max_uri_length) = header_limits(fields);
    DownstreamConfig {
        header_timeout: fields.duration("header_timeout", DEFAULT.header_timeout, DURATION_BOUNDS),
        keepalive: fields.duration("keepalive", DEFAULT.keepalive, DURATION_BOUNDS),
        keepalive_requests: limit_or_off(fields, "keepalive_requests"),
        max_streams: fields.number("max_streams", DEFAULT.max_streams, 1..=10_000),
        read_timeout: fields.duration("read_timeout", DEFAULT.read_timeout, DURATION_BOUNDS),
        write_timeout: fields.duration("write_timeout", DEFAULT.write_timeout, DURATION_BOUNDS),
        min_body_rate: min_body_rate(fields),
        request_timeout: fields.or_off("request_timeout", None, |node| {
            duration(node, &DURATION_BOUNDS)
        }),
        max_connections: limit_or_off(fields, "max_connections"),
        per_client: per_client(fields),
        max_header_size,
        max_uri_length,
        max_body_size: routes::max_body_size(fields, None),
    }
}

static MIN_BODY_RATE: SectionSchema = SectionSchema {
    title: "`min_body_rate`",
    path: "downstream.min_body_rate",
    example: "{rate: 240, grace: 5s}",
    keys: &["rate", "grace"],
    ..SectionSchema::EMPTY
};

fn min_body_rate(downstream: &Fields<'_>) -> Option<MinRate> {
    const DEFAULT: MinRate = MinRate::DEFAULT;
    let Ok(section) = downstream.section_or_off("min_body_rate", &MIN_BODY_RATE) else {
        return None;
    };
    Some(section.map_or(DEFAULT, |fields| MinRate {
        rate: fields.number("rate", DEFAULT.rate, LIMIT_BOUNDS),
        grace: fields.duration("grace", DEFAULT.grace, DURATION_BOUNDS),
    }))
}

static PER_CLIENT: SectionSchema = SectionSchema {
    title: "`max_connections_per_client`",
    path: "downstream.max_connections_per_client",
    example: "{limit: 100, v6: 64}",
    keys: &["limit", "v4", "v6"],
    ..SectionSchema::EMPTY
};

/// A number, or a map with the prefix lengths that identify a client.
fn per_client(fields: &Fields<'_>) -> Option<PerClientLimitConfig> {
    const KEY: &str = "max_connections_per_client";
    let limit = |limit| PerClientLimitConfig {
        limit,
        ..PerClientLimitConfig::DEFAULT
    };
    if fields.get(KEY).is_none_or(|node| node.scalar().is_some()) {
        return limit_or_off(fields, KEY).map(limit);
    }
    let fields = fields.section(KEY, &PER_CLIENT)?;
    fields.require("limit", "write `{limit: 100}`")?;
    Some(PerClientLimitConfig {
        limit: fields.number("limit", 1, LIMIT_BOUNDS),
        v4_prefix: fields.number("v4", PerClientLimitConfig::DEFAULT.v4_prefix, 0..=32),
        v6_prefix: fields.number("v6", PerClientLimitConfig::DEFAULT.v6_prefix, 0..=128),
    })
}

/// A limit, or `off`.
fn limit_or_off<T: TryFrom<u64>>(fields: &Fields<'_>, key: &'static str) -> Option<T> {
    let count = fields.or_off(key, None, |node| number(key, node, &LIMIT_BOUNDS));
    count.and_then(|count| T::try_from(count).ok())
}

fn header_limits(fields: &Fields<'_>) -> (usize, usize) {
    const DEFAULT: DownstreamConfig = DownstreamConfig::DEFAULT;
    let header = DEFAULT.max_header_size as u64;
    let header = fields.size("max_header_size", header, 1024..=1024 * 1024);
    // The default is no larger than the header, of which the request target is a part.
    let uri = header.min(DEFAULT.max_uri_length as u64);
    let uri = fields.size("max_uri_length", uri, 64..=1024 * 1024);
    if let Some(node) = fields.get("max_uri_length").filter(|_| uri > header) {
        let help =
            "the request target is part of the header; raise `max_header_size`, or lower this";
        fields.error(node, "`max_uri_length` is above `max_header_size`", help);
    }
    (to_usize(header), to_usize(uri))
}

/// Lossless: the bounds of these sizes fit.
fn to_usize(size: u64) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

pub(super) fn trusted_proxies(root: &Fields<'_>) -> Vec<IpNet> {
    let Some(node) = root.get("trusted_proxies") else {
        return Vec::new();
    };
    if node.is_null() {
        root.error(
            node,
            "`trusted_proxies` is empty",
            "write `[]` to trust no proxy, or remove the line",
        );
        return Vec::new();
    }
    networks(node, root.problems)
}
