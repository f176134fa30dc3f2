//! The counters of the process, in the words of the Prometheus text format.
//!
//! Every name begins with `clockwise_`, units are seconds and bytes, and labels are bounded: they
//! name things of the configuration (upstream, peer, route, listener, certificate) or values that this file
//! lists; never a path, a key or a client. Every decision that is worse than the owner answering at
//! once has a counter.
//!
//! [`Metrics`] is a value, not a global: whoever starts the process makes one. Handles are
//! resolved when a snapshot is built; a request only adds to atomics. A handle whose series was
//! removed still works, nobody sees what it counts.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use arc_swap::ArcSwap;
use jiff::Timestamp;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

pub use prometheus_client::metrics::counter::Counter;
pub use prometheus_client::metrics::gauge::Gauge;

use super::counter_carryover::{self, CounterCarryover};
pub use super::histogram::Histogram;
pub use super::metric_group::{Bounded, Each, GaugeGuard};
use super::metric_group::{Labels, Series, bounded, help, metrics};

/// The media type of [`Metrics::render`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// What belongs to no listener, route or upstream.
    pub process: ProcessMetrics,
    faults: Family<Labels, Counter>,
    listeners: ListenerFamilies,
    certificates: CertificateFamilies,
    orders: OrderFamilies,
    routes: RouteFamilies,
    upstreams: UpstreamFamilies,
    peers: PeerFamilies,
    carryover: ArcSwap<CounterCarryover>,
}

impl Metrics {
    /// The metrics of a process of this version that started at this time; all counts are zero.
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
                "Requests that failed, by what went wrong",
            ),
            listeners: ListenerFamilies::register(&mut registry),
            certificates: CertificateFamilies::register(&mut registry),
            orders: OrderFamilies::register(&mut registry),
            routes: RouteFamilies::register(&mut registry),
            upstreams: UpstreamFamilies::register(&mut registry),
            peers: PeerFamilies::register(&mut registry),
            registry,
            carryover: ArcSwap::default(),
        }
    }

    /// The handles of one listener, by its configured address.
    pub fn listener(&self, address: &str) -> ListenerMetrics {
        self.listeners.resolve(&listener_labels(address))
    }

    /// The handles of one certificate, by its file, or by its first name where it is ordered.
    pub fn certificate(&self, file: &str) -> CertificateMetrics {
        self.certificates.resolve(&certificate_labels(file))
    }

    /// The handles of the orders of one certificate, by its first name.
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

    /// Counts one fault. It costs a lookup under a shared lock, so it is for failures only.
    pub fn fault(&self, kind: &'static str) {
        Counter::resolve(&self.faults, &vec![("fault", kind.to_owned())]).inc();
    }

    /// Takes a listener that is bound no more out of the listing.
    pub fn remove_listener(&self, address: &str) {
        self.listeners.remove(&listener_labels(address));
    }

    /// Takes a certificate that is served no more out of the listing.
    pub fn remove_certificate(&self, file: &str) {
        self.certificates.remove(&certificate_labels(file));
        self.orders.remove(&certificate_labels(file));
    }

    /// Takes a route that exists no more out of the listing.
    pub fn remove_route(&self, name: &str) {
        self.routes.remove(&route_labels(name));
    }

    /// Takes an upstream that exists no more out of the listing; its peers are removed one by one.
    pub fn remove_upstream(&self, name: &str) {
        self.upstreams.remove(&upstream_labels(name));
    }

    /// Takes a peer that exists no more out of the listing.
    pub fn remove_peer(&self, upstream: &str, label: &str) {
        self.peers.remove(&peer_labels(upstream, label));
    }

    /// All metrics as text, of type [`CONTENT_TYPE`].
    pub fn render(&self) -> String {
        let mut text = String::new();
        // The only error is one of the writer, and a `String` has none.
        let _ = encode(&mut text, &self.registry);
        self.carryover.load().add_previous(text)
    }

    /// What another process needs to go on counting: for its [`Metrics::inherit`].
    pub fn export_counters(&self) -> String {
        counter_carryover::counter_lines(&self.render())
    }

    /// Goes on from the counters of the process before this one, in place of those told before.
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
    /// What belongs to no listener, route or upstream.
    pub struct ProcessMetrics alone {
        /// When the process started, in seconds since 1970.
        start_time: Gauge<f64, AtomicU64> = "clockwise_start_time_seconds",
        /// The number of the configuration in force.
        generation: Gauge = "clockwise_generation",
        /// Reloads of the configuration.
        reloads: Each<OperationResult> = "clockwise_reloads",
        /// Connections that the process before this one still has, after an upgrade.
        predecessor_connections: Gauge = "clockwise_predecessor_connections",
        /// 1 from the moment the process stops taking connections.
        draining: Gauge = "clockwise_draining",
        /// Connections that were cut because a drain reached its time limit.
        drain_cut: Counter = "clockwise_drain_cut_connections",
        /// Requests that no route matched.
        no_route: Counter = "clockwise_no_route_requests",
        /// Requests whose client went away before the response was complete.
        client_aborts: Counter = "clockwise_client_aborts",
        /// Access-log lines that could not be written.
        log_dropped: Counter = "clockwise_access_log_dropped_lines",
        /// Panics caught; each is a defect of the program.
        panics: Counter = "clockwise_panics",
    }
}

metrics! {
    /// Of one listener.
    pub struct ListenerMetrics from ListenerFamilies {
        /// Connections accepted.
        accepted: Counter = "clockwise_listener_accepted_connections",
        /// Connections open now.
        active: Gauge = "clockwise_listener_active_connections",
        /// Times that accepting waited because there were as many connections as allowed.
        full: Counter = "clockwise_listener_full",
        /// Times that accepting failed, as it does without free file descriptors.
        accept_errors: Counter = "clockwise_listener_accept_errors",
        /// Connections that were closed before anything was served on them.
        refused: Each<ConnectionRefusal> = "clockwise_listener_refused_connections",
        /// TLS handshakes that were completed.
        handshakes: Each<HandshakeKind> = "clockwise_listener_handshakes",
        /// TLS handshakes that came to nothing.
        handshake_failures: Each<HandshakeFailure> = "clockwise_listener_handshake_failures",
        /// Requests that were refused for how they are written.
        bad_requests: Each<BadRequest> = "clockwise_listener_bad_requests",
        /// Connections closed because a request header did not arrive in time.
        header_timeouts: Counter = "clockwise_listener_header_timeouts",
        /// Connections closed because no further request came.
        idle_closed: Counter = "clockwise_listener_idle_closed_connections",
        /// Connections on which HTTP/2 was spoken.
        http2_connections: Counter = "clockwise_listener_http2_connections",
        /// Requests on such connections; each is a stream.
        http2_streams: Counter = "clockwise_listener_http2_streams",
        /// Such streams that their clients took back.
        http2_resets: Counter = "clockwise_listener_http2_resets",
        /// Such streams that never were requests: malformed, over a limit, or too many at once.
        http2_refused: Counter = "clockwise_listener_http2_refused_streams",
        /// Such connections that were ended for what their clients did.
        http2_violations: Each<Http2Violation> = "clockwise_listener_http2_violations",
    }
}

metrics! {
    /// Of one certificate that listeners show.
    pub struct CertificateMetrics from CertificateFamilies {
        /// Until when the certificate is valid, in seconds since 1970.
        expiry: Gauge = "clockwise_certificate_expiry_time_seconds",
        /// 1 where an OCSP response is sent along with the certificate.
        stapled: Gauge = "clockwise_certificate_stapled",
    }
}

metrics! {
    /// Of the orders of one certificate (ACME).
    pub struct OrderMetrics from OrderFamilies {
        /// Orders that came to an end, by how.
        orders: Each<OperationResult> = "clockwise_acme_orders",
        /// Orders that failed since the last one that did not.
        failures: Gauge = "clockwise_acme_failures",
        /// When the certificate is ordered next, in seconds since 1970.
        next_order: Gauge = "clockwise_acme_next_order_time_seconds",
    }
}

metrics! {
    /// Of one route.
    pub struct RouteMetrics from RouteFamilies {
        /// Requests, by the class of the status that was sent.
        requests: Each<StatusClass> = "clockwise_route_requests",
        /// From the end of the request header to the end of the response.
        duration: Histogram = "clockwise_route_duration_seconds",
        /// Request body received.
        received: Counter = "clockwise_route_request_body_bytes",
        /// Response body sent.
        sent: Counter = "clockwise_route_response_body_bytes",
    }
}

impl RouteMetrics {
    /// Counts one finished request: its status (0: none was sent), its duration, and the bytes of
    /// body received and sent.
    pub fn record(&self, status: u16, duration: Duration, received: u64, sent: u64) {
        self.requests.inc(StatusClass::of(status));
        self.duration.observe(duration);
        self.received.inc_by(received);
        self.sent.inc_by(sent);
    }
}

metrics! {
    /// Of one upstream.
    pub struct UpstreamMetrics from UpstreamFamilies {
        /// Requests, by the class of the status that was sent.
        requests: Each<StatusClass> = "clockwise_upstream_requests",
        /// Requests without any of the upstream's key sources.
        missing_key: Counter = "clockwise_upstream_missing_key",
        /// Sticky cookies that were made for clients without one.
        cookies_made: Counter = "clockwise_upstream_cookies_made",
        /// Requests that were answered by a peer other than the owner of their key.
        off_owner: Counter = "clockwise_upstream_requests_off_owner",
        /// Attempts after the first.
        retries: Counter = "clockwise_upstream_retries",
        /// Requests that failed although another attempt was possible, had the limits allowed it.
        retries_exhausted: Counter = "clockwise_upstream_retries_exhausted",
        /// Requests that found every peer down.
        no_available_peer: Counter = "clockwise_upstream_no_available_peer",
        /// How long requests waited at their home for a place there, with and without success.
        waits: Histogram = "clockwise_upstream_wait_seconds",
        /// Requests that took a peer above its bound, as none with room was found.
        bounded_load_exceeded: Counter = "clockwise_upstream_bounded_load_exceeded",
        /// Keys that a drain could not keep with their peer: `drain.keys` is too small.
        affinity_evictions: Counter = "clockwise_upstream_affinity_evictions",
        /// Keys that have so many of the requests that they go to several peers.
        hot_keys: Gauge = "clockwise_upstream_hot_keys",
        /// Long streams that were ended because their key had moved to another peer.
        moved_streams: Counter = "clockwise_upstream_moved_streams",
        /// Connections that failed within TLS, by the reason.
        tls_failures: Each<PeerTlsFailure> = "clockwise_upstream_tls_failures",
        /// Time until a new connection stood.
        connect: Histogram = "clockwise_upstream_connect_seconds",
        /// From the start of the attempt to the header of the response.
        first_byte: Histogram = "clockwise_upstream_first_byte_seconds",
    }
}

metrics! {
    /// Of one peer.
    pub struct PeerMetrics from PeerFamilies {
        /// Attempts on the peer.
        attempts: Counter = "clockwise_peer_attempts",
        /// Connections to the peer that failed.
        connect_failures: Counter = "clockwise_peer_connect_failures",
        /// Failed attempts on the peer that were repeated on another.
        retries: Counter = "clockwise_peer_retries",
        /// Times that failures of traffic took the peer off the ring for a while.
        ejections: Counter = "clockwise_peer_ejections",
        /// Times that coming and going took the peer off the ring, or kept it off for longer.
        suppressions: Counter = "clockwise_peer_suppressions",
        /// How many of its keys have come home in a slow start, 0 to 1; 1 where there is none.
        slow_start: Gauge<f64, AtomicU64> = "clockwise_peer_slow_start_share",
        /// Keys that the peer keeps while it drains; 0 where it does not.
        drain_keys: Gauge = "clockwise_peer_drain_keys",
        /// Requests that were at home with the peer and went on, as it held as many as it may.
        overflow: Counter = "clockwise_peer_overflow",
        /// Requests that waited for a place at the peer, which was full, by what came of it.
        waits: Each<PeerWaitOutcome> = "clockwise_peer_waits",
        /// Probes that failed.
        probe_failures: Counter = "clockwise_peer_probe_failures",
        /// Attempts in progress.
        in_flight: Gauge = "clockwise_peer_in_flight",
        /// 1 where the peer is given requests.
        up: Gauge = "clockwise_peer_up",
        /// 1 for the state that the peer is in, 0 for the others.
        state: Each<PeerStateLabel, Gauge> = "clockwise_peer_state",
    }
}

impl PeerMetrics {
    /// Shows the peer's state, and whether it is given requests in it.
    pub fn set_state(&self, state: PeerStateLabel, available: bool) {
        self.state.set_only(state);
        self.up.set(i64::from(available));
    }
}

bounded! {
    /// The class of a status.
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
    /// The class of a status; 0 and whatever HTTP does not know is [`Class::None`].
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
    /// What came of a wait for a place at a full peer.
    pub enum PeerWaitOutcome as "outcome" {
        /// It was given one.
        Placed = "placed",
        /// There was none in time: it went on.
        Timeout = "timeout",
        /// It went, or was cut, while it waited.
        Cancelled = "cancelled",
    }
}

bounded! {
    /// Why a connection was closed before anything was served on it.
    pub enum ConnectionRefusal as "reason" {
        /// Its client has as many as one may have.
        ClientLimit = "client_limit",
        /// It is from nobody whose header of the PROXY protocol is believed.
        UntrustedSource = "untrusted_source",
        /// It does not begin with a header.
        NoHeader = "no_header",
        /// Its header was not complete in time.
        HeaderTimeout = "header_timeout",
        /// It ended within its header.
        HeaderTruncated = "header_truncated",
        /// Its header is longer than it may be.
        HeaderTooLong = "header_too_long",
        /// Its header is against the rules.
        HeaderMalformed = "header_malformed",
        /// Its header has a wrong checksum.
        HeaderChecksum = "header_checksum",
    }
}

bounded! {
    /// How a TLS handshake went.
    pub enum HandshakeKind as "kind" {
        /// The whole of it.
        Full = "full",
        /// A session was taken up again.
        Resumed = "resumed",
    }
}

bounded! {
    /// Why a TLS handshake came to nothing.
    pub enum HandshakeFailure as "reason" {
        /// It was not complete in time.
        Timeout = "timeout",
        /// The client left in the middle.
        Closed = "closed",
        /// What came was not TLS.
        NotTls = "not_tls",
        /// No version, cipher, group or kind of key that both sides know.
        Incompatible = "incompatible",
        /// No protocol that both sides know (ALPN).
        Protocol = "protocol",
        /// The client did not like what it was shown, and said so.
        Refused = "refused",
        /// The client showed no certificate, or one that does not count.
        ClientCertificate = "client_certificate",
        /// What came was TLS, and against its rules.
        Violation = "violation",
        /// There is no certificate yet for the name that the client asked for, or none that it can verify.
        NoCertificate = "no_certificate",
        /// An authority looked who is here before it issues a certificate: there is nothing more to it.
        Challenge = "acme_challenge",
        /// Anything else.
        Other = "other",
    }
}

bounded! {
    /// Why a peer could not be spoken to within TLS.
    pub enum PeerTlsFailure as "reason" {
        /// Its certificate is for other names.
        Name = "name",
        /// Its certificate is not valid yet, or no more.
        Date = "date",
        /// Its certificate is of an issuer that does not count, or of itself.
        Issuer = "issuer",
        /// Its certificate is wrong otherwise.
        Certificate = "certificate",
        /// It did not like what it was told or shown.
        Refused = "refused",
        /// Anything else: no TLS, an old version, no HTTP/2, a connection that broke.
        Other = "other",
    }
}

bounded! {
    /// Why a request was refused before any route was asked.
    pub enum BadRequest as "reason" {
        /// Not HTTP, or a header that cannot be read.
        Malformed = "malformed",
        /// A header that broke off.
        Truncated = "truncated",
        /// A body whose length is ambiguous or whose chunks are broken.
        Framing = "framing",
        /// A missing, repeated or unreadable `Host`.
        Host = "host",
        /// A request target over the limit.
        UriTooLong = "uri_too_long",
        /// A header over the limit.
        HeaderTooLarge = "header_too_large",
        /// A body over the limit.
        BodyTooLarge = "body_too_large",
    }
}

bounded! {
    /// Why a connection with HTTP/2 was ended.
    pub enum Http2Violation as "reason" {
        /// What came was against the protocol.
        Protocol = "protocol",
        /// More than half of the streams were taken back.
        RapidReset = "rapid_reset",
        /// Too many frames that did nothing for any request.
        ControlFlood = "control_flood",
        /// Too much of something else: endless headers, tiny pieces, resets.
        EnhanceYourCalm = "enhance_your_calm",
    }
}

bounded! {
    /// The state of a peer, as shown.
    pub enum PeerStateLabel as "state" {
        /// Not probed yet.
        Unknown = "unknown",
        /// It answers.
        Up = "up",
        /// Its probes fail.
        Down = "down",
        /// Failures of traffic took it off the ring for a while.
        Ejected = "ejected",
        /// It came and went too often: it stays off the ring for a while.
        Suppressed = "suppressed",
        /// It is back, and gets its keys one after the other.
        SlowStart = "slow_start",
        /// The operator takes it out of service.
        Draining = "draining",
    }
}

bounded! {
    /// How a reload, or an order of a certificate, ended.
    pub enum OperationResult as "result" {
        /// What is new is in force.
        Ok = "ok",
        /// What was before stays.
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
            let places: Vec<_> = V::ALL.iter().map(|v| v.index()).collect();
            assert_eq!(places, (0..V::ALL.len()).collect::<Vec<_>>());
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
