//! The metrics of the process, in the Prometheus text format.
//!
//! Every name begins with `clockwise_`, units are seconds and bytes, and labels are bounded: their
//! values are names of the configuration (upstream, peer, route, listener, certificate) or the enums of
//! this file; never a path, a key or a client. Every decision that is worse than an answer of the owner
//! at the first attempt has a counter.
//!
//! [`Metrics`] is a value, not a global. Handles are resolved when a snapshot is built; a request only
//! adds to atomics. A handle with a removed series still works, but its counts are not exported.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub(crate) use prometheus_client::metrics::counter::Counter;
pub(crate) use prometheus_client::metrics::gauge::Gauge;

use super::counter_carryover::{self, CounterCarryover};
pub(crate) use super::histogram::Histogram;
pub(crate) use super::metric_group::{Bounded, Each, GaugeGuard};
use super::metric_group::{Labels, Series, bounded, help, metrics};
use super::prometheus_text;
use super::source_metrics::{SourceFamilies, SourceMetrics};

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricsFormat {
    /// The text format of Prometheus, version 0.0.4.
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl MetricsFormat {
    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Metrics of the whole process.
    pub process: ProcessMetrics,
    faults: Family<Labels, Counter>,
    listeners: ListenerFamilies,
    certificates: CertificateFamilies,
    orders: OrderFamilies,
    routes: RouteFamilies,
    upstreams: UpstreamFamilies,
    peers: PeerFamilies,
    sources: SourceFamilies,
    carryover: ArcSwap<CounterCarryover>,
}

impl Metrics {
    /// All metrics of a process that starts; all counts are zero.
    pub fn new(version: &'static str, started: Timestamp) -> Self {
        let mut registry = Registry::default();
        registry.register(
            "clockwise_build",
            "The version that runs",
            Info::new(vec![("version", version)]),
        );
        let process = ProcessMetrics::register(&mut registry);
        process.start_time.set(started.as_duration().as_secs_f64());
        Self {
            process,
            faults: Counter::register(
                &mut registry,
                "clockwise_faults",
                "Requests that failed, by fault",
            ),
            listeners: ListenerFamilies::register(&mut registry),
            certificates: CertificateFamilies::register(&mut registry),
            orders: OrderFamilies::register(&mut registry),
            routes: RouteFamilies::register(&mut registry),
            upstreams: UpstreamFamilies::register(&mut registry),
            peers: PeerFamilies::register(&mut registry),
            sources: SourceFamilies::add_to(&mut registry),
            registry,
            carryover: ArcSwap::default(),
        }
    }

    /// The handles of one listener, by its configured address.
    pub fn listener(&self, address: &str) -> ListenerMetrics {
        self.listeners.resolve(&listener_labels(address))
    }

    /// The handles of one certificate, by its file; of an ACME certificate, by its first name.
    pub fn certificate(&self, file: &str) -> CertificateMetrics {
        self.certificates.resolve(&certificate_labels(file))
    }

    /// The handles of the orders of one ACME certificate, by its first name.
    pub fn orders(&self, name: &str) -> OrderMetrics {
        self.orders.resolve(&certificate_labels(name))
    }

    /// The handles of one route, by its name.
    pub fn route(&self, name: &str) -> RouteMetrics {
        self.routes.resolve(&route_labels(name))
    }

    /// The handles of one upstream.
    pub fn upstream(&self, name: &str) -> UpstreamMetrics {
        self.upstreams.resolve(&upstream_labels(name))
    }

    /// The handles of one peer of an upstream.
    pub fn peer(&self, upstream: &str, label: &str) -> PeerMetrics {
        self.peers.resolve(&peer_labels(upstream, label))
    }

    /// The handles of one source of peers of an upstream.
    pub fn source(&self, upstream: &str, source: &str) -> SourceMetrics {
        self.sources.of(upstream, source)
    }

    /// Counts one fault. It takes a shared lock to find the series, so it is for failures only.
    pub fn fault(&self, kind: &'static str) {
        Counter::resolve(&self.faults, &vec![("fault", kind.to_owned())]).inc();
    }

    /// Removes the series of a listener.
    pub fn remove_listener(&self, address: &str) {
        self.listeners.remove(&listener_labels(address));
    }

    /// Removes the series of a certificate.
    pub fn remove_certificate(&self, file: &str) {
        self.certificates.remove(&certificate_labels(file));
        self.orders.remove(&certificate_labels(file));
    }

    /// Removes the series of a route.
    pub fn remove_route(&self, name: &str) {
        self.routes.remove(&route_labels(name));
    }

    /// Removes the series of an upstream; those of its peers are removed by [`Self::remove_peer`].
    pub fn remove_upstream(&self, name: &str) {
        self.upstreams.remove(&upstream_labels(name));
    }

    /// Removes the series of a peer.
    pub fn remove_peer(&self, upstream: &str, label: &str) {
        self.peers.remove(&peer_labels(upstream, label));
    }

    /// Removes the series of a source of peers.
    pub fn remove_source(&self, upstream: &str, source: &str) {
        self.sources.remove_source(upstream, source);
    }

    /// All metrics in this format.
    pub fn render_as(&self, format: MetricsFormat) -> String {
        let text = self.render();
        match format {
            MetricsFormat::Text => prometheus_text::from_openmetrics(&text),
            MetricsFormat::OpenMetrics => text,
        }
    }

    /// All metrics in the format of OpenMetrics.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a `String` never fails.
        let _ = encode(&mut text, &self.registry);
        self.carryover.load().add_previous(text)
    }

    /// The counters for the next process: for its [`Metrics::carry_over`].
    pub fn export_counters(&self) -> String {
        counter_carryover::counter_lines(&self.render())
    }

    /// Adds the counters of the previous process to those of this one from now on; replaces counters of an
    /// earlier call.
    pub fn carry_over(&self, counters: &str) {
        self.carryover
            .store(Arc::new(CounterCarryover::parse(counters)));
    }
}

fn listener_labels(address: &str) -> Labels {
    vec![("listener", address.to_owned())]
}

fn certificate_labels(file: &str) -> Labels {
    vec![("certificate", file.to_owned())]
}

fn route_labels(name: &str) -> Labels {
    vec![("route", name.to_owned())]
}

fn upstream_labels(name: &str) -> Labels {
    vec![("upstream", name.to_owned())]
}

fn peer_labels(upstream: &str, label: &str) -> Labels {
    vec![
        ("upstream", upstream.to_owned()),
        ("peer", label.to_owned()),
    ]
}

metrics! {
    /// Metrics of the whole process.
    pub struct ProcessMetrics alone {
        /// When the process started, in seconds since 1970.
        start_time: Gauge<f64, AtomicU64> = "clockwise_start_time_seconds",
        /// The number of the configuration in force.
        generation: Gauge = "clockwise_generation",
        /// Reloads of the configuration.
        reloads: Each<OperationResult> = "clockwise_reloads",
        /// Open connections of the previous process after a hot restart.
        predecessor_connections: Gauge = "clockwise_predecessor_connections",
        /// 1 while the process drains: it accepts no more connections.
        draining: Gauge = "clockwise_draining",
        /// Connections closed because a drain reached its time limit.
        drain_cut: Counter = "clockwise_drain_cut_connections",
        /// Requests that matched no route.
        no_route: Counter = "clockwise_no_route_requests",
        /// Requests aborted by the client before the response was complete.
        client_aborts: Counter = "clockwise_client_aborts",
        /// Responses that no peer made: error pages, redirects to HTTPS, answers to ACME challenges.
        local_replies: Counter = "clockwise_local_replies",
        /// Access-log lines that could not be written.
        log_dropped: Counter = "clockwise_access_log_dropped_lines",
        /// Panics caught; each is a defect of the program.
        panics: Counter = "clockwise_panics",
    }
}

metrics! {
    /// Metrics of one listener.
    pub struct ListenerMetrics from ListenerFamilies {
        /// Connections accepted.
        accepted: Counter = "clockwise_listener_accepted_connections",
        /// Open connections.
        active: Gauge = "clockwise_listener_active_connections",
        /// Times that accepting paused because the connection limit was reached.
        full: Counter = "clockwise_listener_full",
        /// Failed calls of accept, for example without free file descriptors.
        accept_errors: Counter = "clockwise_listener_accept_errors",
        /// Connections closed before their first request, by reason.
        refused: Each<ConnectionRefusal> = "clockwise_listener_refused_connections",
        /// Completed TLS handshakes, by kind.
        handshakes: Each<HandshakeKind> = "clockwise_listener_handshakes",
        /// Failed TLS handshakes, by reason.
        handshake_failures: Each<HandshakeFailure> = "clockwise_listener_handshake_failures",
        /// Requests rejected as malformed or too large, by reason.
        bad_requests: Each<BadRequest> = "clockwise_listener_bad_requests",
        /// Connections closed because a request header did not arrive in time.
        header_timeouts: Counter = "clockwise_listener_header_timeouts",
        /// Connections closed because they were idle.
        idle_closed: Counter = "clockwise_listener_idle_closed_connections",
        /// HTTP/2 connections.
        http2_connections: Counter = "clockwise_listener_http2_connections",
        /// Requests on HTTP/2 connections; each is a stream.
        http2_streams: Counter = "clockwise_listener_http2_streams",
        /// HTTP/2 streams reset by the client.
        http2_resets: Counter = "clockwise_listener_http2_resets",
        /// HTTP/2 streams refused before they became requests: malformed, over a limit, or too many at the same time.
        http2_refused: Counter = "clockwise_listener_http2_refused_streams",
        /// HTTP/2 connections closed because the client broke a rule, by reason.
        http2_violations: Each<Http2Violation> = "clockwise_listener_http2_violations",
    }
}

metrics! {
    /// Metrics of one server certificate.
    pub struct CertificateMetrics from CertificateFamilies {
        /// The end of the validity of the certificate, in seconds since 1970.
        expiry: Gauge = "clockwise_certificate_expiry_time_seconds",
        /// 1 if an OCSP response is stapled to the certificate.
        stapled: Gauge = "clockwise_certificate_stapled",
    }
}

metrics! {
    /// Metrics of the orders of one certificate (ACME).
    pub struct OrderMetrics from OrderFamilies {
        /// Finished orders of the certificate, by result.
        orders: Each<OperationResult> = "clockwise_acme_orders",
        /// Orders, and reads of its stored files, that failed since the last success.
        failures: Gauge = "clockwise_acme_failures",
        /// The time of the next order of the certificate, in seconds since 1970.
        next_order: Gauge = "clockwise_acme_next_order_time_seconds",
    }
}

metrics! {
    /// Metrics of one route.
    pub struct RouteMetrics from RouteFamilies {
        /// Requests, by the class of the response status.
        requests: Each<StatusClass> = "clockwise_route_requests",
        /// Time from the end of the request header to the end of the response.
        duration: Histogram = "clockwise_route_duration_seconds",
        /// Bytes of request bodies received.
        received: Counter = "clockwise_route_request_body_bytes",
        /// Bytes of response bodies sent.
        sent: Counter = "clockwise_route_response_body_bytes",
    }
}

impl RouteMetrics {
    /// Counts one finished request: its status (0: no response was sent), its duration, and the bytes of
    /// body received and sent.
    pub fn record(&self, status: u16, duration: Duration, received: u64, sent: u64) {
        self.requests.inc(StatusClass::of(status));
        self.duration.observe(duration);
        self.received.inc_by(received);
        self.sent.inc_by(sent);
    }
}

metrics! {
    /// Metrics of one upstream.
    pub struct UpstreamMetrics from UpstreamFamilies {
        /// Requests, by the class of the response status.
        requests: Each<StatusClass> = "clockwise_upstream_requests",
        /// Requests without any of the key sources of the upstream.
        missing_key: Counter = "clockwise_upstream_missing_key",
        /// Sticky cookies set for clients without one.
        cookies_made: Counter = "clockwise_upstream_cookies_made",
        /// Requests answered by a peer other than the owner of their key.
        off_owner: Counter = "clockwise_upstream_requests_off_owner",
        /// Attempts after the first.
        retries: Counter = "clockwise_upstream_retries",
        /// Requests that failed because a limit on retries forbade another attempt.
        retries_exhausted: Counter = "clockwise_upstream_retries_exhausted",
        /// Ejections that `outlier_detection.max_ejected` prevented, or that would have left no available peer.
        ejections_prevented: Counter = "clockwise_upstream_ejections_prevented",
        /// Requests without an available peer.
        no_available_peer: Counter = "clockwise_upstream_no_available_peer",
        /// Time that requests waited for a slot at the owner of their key, with and without success.
        waits: Histogram = "clockwise_upstream_wait_seconds",
        /// Requests that took a peer above its load bound, because no peer below its bound was found.
        bounded_load_exceeded: Counter = "clockwise_upstream_bounded_load_exceeded",
        /// Keys that a draining peer could not keep, because `drain.keys` is too small.
        affinity_evictions: Counter = "clockwise_upstream_affinity_evictions",
        /// Hot keys: their share of the requests is so large that they are spread over several peers.
        hot_keys: Gauge = "clockwise_upstream_hot_keys",
        /// Peers that operators have changed: set, removed or given another weight, with and without effect.
        changed_peers: Gauge = "clockwise_upstream_changed_peers",
        /// Long streams closed because their key had moved to another peer.
        moved_streams: Counter = "clockwise_upstream_moved_streams",
        /// Connections to peers that failed in TLS, by reason.
        tls_failures: Each<PeerTlsFailure> = "clockwise_upstream_tls_failures",
        /// Time to establish a new connection to a peer.
        connect: Histogram = "clockwise_upstream_connect_seconds",
        /// Time from the start of an attempt to the header of its response.
        first_byte: Histogram = "clockwise_upstream_first_byte_seconds",
    }
}

metrics! {
    /// Metrics of one peer.
    pub struct PeerMetrics from PeerFamilies {
        /// Attempts on the peer.
        attempts: Counter = "clockwise_peer_attempts",
        /// Failed connections to the peer.
        connect_failures: Counter = "clockwise_peer_connect_failures",
        /// Failed attempts on the peer that were retried on another peer.
        retries: Counter = "clockwise_peer_retries",
        /// Times that the peer was ejected from the ring because of failures in traffic.
        ejections: Counter = "clockwise_peer_ejections",
        /// Times that flap damping took the peer off the ring, or kept it off for longer.
        suppressions: Counter = "clockwise_peer_suppressions",
        /// The share of its keys that the peer gets in a slow start, 0 to 1; 1 outside a slow start.
        slow_start: Gauge<f64, AtomicU64> = "clockwise_peer_slow_start_share",
        /// Keys that the peer still serves while it drains; 0 outside a drain.
        drain_keys: Gauge = "clockwise_peer_drain_keys",
        /// Requests with a key of the peer that went to another peer, because the peer was at its load bound.
        overflow: Counter = "clockwise_peer_overflow",
        /// Requests that waited for a slot at the full peer, by outcome.
        waits: Each<PeerWaitOutcome> = "clockwise_peer_waits",
        /// Failed probes of the peer.
        probe_failures: Counter = "clockwise_peer_probe_failures",
        /// Failed lookups of the name of the peer.
        lookup_failures: Counter = "clockwise_peer_lookup_failures",
        /// Attempts in progress on the peer.
        in_flight: Gauge = "clockwise_peer_in_flight",
        /// 1 while the peer gets requests.
        up: Gauge = "clockwise_peer_up",
        /// 1 for the present state of the peer, 0 for the others.
        state: Each<PeerStateLabel, Gauge> = "clockwise_peer_state",
    }
}

impl PeerMetrics {
    /// Sets the state of the peer, and whether it gets requests.
    pub fn set_state(&self, state: PeerStateLabel, available: bool) {
        self.state.set_only(state);
        self.up.set(i64::from(available));
    }
}

bounded! {
    /// The class of a response status.
    pub enum StatusClass as "class" {
        /// No status was sent.
        None = "none",
        /// 100 … 199; as a final status only 101.
        Informational = "1xx",
        /// 200 … 299.
        Success = "2xx",
        /// 300 … 399.
        Redirection = "3xx",
        /// 400 … 499.
        ClientError = "4xx",
        /// 500 … 599.
        ServerError = "5xx",
    }
}

impl StatusClass {
    /// The class of a status; [`StatusClass::None`] for 0 and for a status outside 100 … 599.
    pub fn of(status: u16) -> Self {
        match status {
            100..=199 => Self::Informational,
            200..=299 => Self::Success,
            300..=399 => Self::Redirection,
            400..=499 => Self::ClientError,
            500..=599 => Self::ServerError,
            _ => Self::None,
        }
    }
}

bounded! {
    /// The outcome of a wait for a slot at a full peer.
    pub enum PeerWaitOutcome as "outcome" {
        /// The request got a slot.
        Placed = "placed",
        /// No slot became free in time: the request went to another peer.
        Timeout = "timeout",
        /// The request ended while it waited.
        Cancelled = "cancelled",
    }
}

bounded! {
    /// Why a connection was closed before its first request.
    pub enum ConnectionRefusal as "reason" {
        /// The client has reached its connection limit.
        ClientLimit = "client_limit",
        /// The source of the connection is not trusted to send a PROXY header.
        UntrustedSource = "untrusted_source",
        /// The connection does not begin with a PROXY header.
        NoHeader = "no_header",
        /// The PROXY header was not complete in time.
        HeaderTimeout = "header_timeout",
        /// The connection ended within the PROXY header.
        HeaderTruncated = "header_truncated",
        /// The PROXY header is over its size limit.
        HeaderTooLong = "header_too_long",
        /// The PROXY header is malformed.
        HeaderMalformed = "header_malformed",
        /// The PROXY header has a wrong checksum.
        HeaderChecksum = "header_checksum",
    }
}

bounded! {
    /// The kind of a TLS handshake.
    pub enum HandshakeKind as "kind" {
        /// A full handshake.
        Full = "full",
        /// A resumed session.
        Resumed = "resumed",
    }
}

bounded! {
    /// Why a TLS handshake failed.
    pub enum HandshakeFailure as "reason" {
        /// The handshake was not complete in time.
        Timeout = "timeout",
        /// The client closed the connection during the handshake.
        Closed = "closed",
        /// The client does not speak TLS.
        NotTls = "not_tls",
        /// No version, cipher, group or signature scheme in common.
        Incompatible = "incompatible",
        /// No application protocol in common (ALPN).
        Protocol = "protocol",
        /// The client sent an alert, for example because it does not trust the certificate.
        Refused = "refused",
        /// The client sent no certificate, or one that is not accepted.
        ClientCertificate = "client_certificate",
        /// The client violated the TLS protocol.
        Violation = "violation",
        /// No certificate for the SNI name has been issued yet, or none has a key that the client can verify.
        NoCertificate = "no_certificate",
        /// A TLS-ALPN-01 validation by an ACME authority (RFC 8737); not a failure: it ends after the handshake.
        Challenge = "acme_challenge",
        /// Anything else.
        Other = "other",
    }
}

bounded! {
    /// Why TLS with a peer failed.
    pub enum PeerTlsFailure as "reason" {
        /// The certificate of the peer is for other names.
        Name = "name",
        /// The certificate of the peer is not valid yet, or has expired.
        Date = "date",
        /// The certificate of the peer is from an unknown issuer, or self-signed.
        Issuer = "issuer",
        /// The certificate of the peer is not accepted for another reason.
        Certificate = "certificate",
        /// The peer sent an alert.
        Refused = "refused",
        /// Anything else: no TLS, an old version, no HTTP/2, a broken connection.
        Other = "other",
    }
}

bounded! {
    /// Why a request was rejected before routing.
    pub enum BadRequest as "reason" {
        /// Not HTTP, a header that cannot be read, or a malformed request of HTTP/2 (RFC 9113 §8.1.1).
        Malformed = "malformed",
        /// A truncated header.
        Truncated = "truncated",
        /// A body with an ambiguous length or broken chunks.
        Framing = "framing",
        /// A missing, repeated or unreadable `Host`.
        Host = "host",
        /// A path that `normalize_path` refuses.
        Path = "path",
        /// A request target over the limit.
        UriTooLong = "uri_too_long",
        /// A header over the limit.
        HeaderTooLarge = "header_too_large",
        /// A body over the limit.
        BodyTooLarge = "body_too_large",
    }
}

bounded! {
    /// Why an HTTP/2 connection was closed.
    pub enum Http2Violation as "reason" {
        /// A protocol error of the client.
        Protocol = "protocol",
        /// Rapid reset (CVE-2023-44487): the client has used up a bucket of 200 resets, which 10 per second and
        /// each response refill.
        RapidReset = "rapid_reset",
        /// Too many frames that carry nothing for a request.
        ControlFlood = "control_flood",
        /// Another flood: endless headers, tiny DATA frames, resets.
        EnhanceYourCalm = "enhance_your_calm",
    }
}

bounded! {
    /// The state of a peer as one word.
    pub enum PeerStateLabel as "state" {
        /// Not probed yet.
        Unknown = "unknown",
        /// Up, and on the ring.
        Up = "up",
        /// Its probes fail.
        Down = "down",
        /// Off the ring for a time, because of failures in traffic.
        Ejected = "ejected",
        /// Off the ring for a time, because it changed between up and down too often.
        Suppressed = "suppressed",
        /// Back on the ring; gets its keys gradually.
        SlowStart = "slow_start",
        /// Taken out of service by the operator.
        Draining = "draining",
        /// Without an address: its name was not resolved yet.
        Unresolved = "unresolved",
    }
}

bounded! {
    /// The result of a reload, or of an order of a certificate.
    pub enum OperationResult as "result" {
        /// The new configuration or certificate is in use.
        Ok = "ok",
        /// The old one stays in use.
        Failed = "failed",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn metric_label_value_index_matches_its_position() {
        fn check<V: Bounded>() {
            let indexes: Vec<_> = V::ALL.iter().map(|v| v.index()).collect();
            assert_eq!(indexes, (0..V::ALL.len()).collect::<Vec<_>>());
        }
        check::<StatusClass>();
        check::<BadRequest>();
        check::<HandshakeKind>();
        check::<HandshakeFailure>();
        check::<Http2Violation>();
        check::<PeerStateLabel>();
        check::<PeerTlsFailure>();
        check::<OperationResult>();
    }

    #[test]
    fn metric_counts_appear_under_their_labels() {
        let metrics = metrics();
        metrics
            .route("example.com/api")
            .record(204, Duration::from_millis(2), 5, 7);
        metrics
            .listener("0.0.0.0:80")
            .bad_requests
            .inc(BadRequest::Framing);
        metrics.process.reloads.inc(OperationResult::Failed);
        metrics.fault("connect_refused");
        let text = metrics.render();
        for line in [
            "clockwise_build_info{version=\"1.2.3\"} 1",
            "clockwise_start_time_seconds 1700000000.25",
            "clockwise_route_requests_total{route=\"example.com/api\",class=\"2xx\"} 1",
            "clockwise_route_requests_total{route=\"example.com/api\",class=\"5xx\"} 0",
            "clockwise_route_response_body_bytes_total{route=\"example.com/api\"} 7",
            "clockwise_route_duration_seconds_count{route=\"example.com/api\"} 1",
            "clockwise_listener_bad_requests_total{listener=\"0.0.0.0:80\",reason=\"framing\"} 1",
            "clockwise_reloads_total{result=\"failed\"} 1",
            "clockwise_faults_total{fault=\"connect_refused\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} in {text}");
        }
    }

    #[test]
    fn metric_handle_resolved_twice_is_the_same_counter() {
        let metrics = metrics();
        metrics.upstream("app").no_available_peer.inc();
        metrics.upstream("app").no_available_peer.inc();
        assert_eq!(metrics.upstream("app").no_available_peer.get(), 2);
    }

    #[test]
    fn peer_state_gauge_is_one_for_exactly_one_state() {
        let metrics = metrics();
        let peer = metrics.peer("app", "a:1");
        peer.set_state(PeerStateLabel::Up, true);
        peer.set_state(PeerStateLabel::Draining, false);
        let one = |state| peer.state.get(state).unwrap().get();
        assert_eq!(one(PeerStateLabel::Draining), 1);
        assert_eq!(PeerStateLabel::ALL.iter().map(|&s| one(s)).sum::<i64>(), 1);
        assert_eq!(peer.up.get(), 0);
    }

    #[test]
    fn metric_removed_series_is_hidden_and_its_handle_still_works() {
        let metrics = metrics();
        let gone = metrics.peer("app", "a:1");
        metrics.peer("app", "b:1");
        metrics.route("r");
        metrics.upstream("old");
        metrics.listener("l:1");
        metrics.remove_peer("app", "a:1");
        metrics.remove_route("r");
        metrics.remove_upstream("old");
        metrics.remove_listener("l:1");
        gone.attempts.inc();
        let text = metrics.render();
        assert!(text.contains("peer=\"b:1\""));
        for label in ["\"a:1\"", "\"r\"", "\"old\"", "\"l:1\""] {
            assert!(!text.contains(label), "{label} in {text}");
        }
    }

    #[test]
    fn gauge_guard_decrements_when_dropped() {
        let gauge = metrics().peer("app", "a:1").in_flight;
        let held = GaugeGuard::new(&gauge);
        assert_eq!(gauge.get(), 1);
        drop(held);
        assert_eq!(gauge.get(), 0);
    }

    #[test]
    fn metric_names_have_prefix_and_help_and_are_distinct() {
        let text = metrics().render();
        let described: Vec<_> = text
            .lines()
            .filter_map(|l| l.strip_prefix("# HELP "))
            .collect();
        let names: BTreeSet<_> = described
            .iter()
            .filter_map(|d| d.split(' ').next())
            .collect();
        assert_eq!(names.len(), described.len());
        for help in described {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(name.starts_with("clockwise_"), "{name}");
            assert!(words.len() > 10 && !words.ends_with(".."), "{help}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    fn metrics() -> Metrics {
        Metrics::new(
            "1.2.3",
            Timestamp::from_millisecond(1_700_000_000_250).unwrap(),
        )
    }
}
