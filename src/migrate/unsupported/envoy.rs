//! Envoy fields without a counterpart.

use super::{NO_LOCAL_REPLY, NO_RATE_LIMIT, NO_REWRITE, NO_XDS, ReasonTable, find_reason};

/// Why a field is not translated, or what to do instead.
pub(in crate::migrate) fn reason(name: &str) -> &'static str {
    find_reason(REASONS, name)
}

const REASONS: ReasonTable = &[
    (
        "transport_socket_matches",
        "all peers of an upstream are spoken to alike, as its `transport_socket` says; give the others an upstream of their own",
    ),
    (
        "transport_socket_connect_timeout",
        "see `tls.handshake_timeout` of the listener",
    ),
    ("transport_socket", "connections are plain or TLS here"),
    (
        "tls_certificate_",
        "certificates and keys are in files here: name them, as in `tls: {cert: FILE, key: FILE}`",
    ),
    ("secrets", "name the files where they are used"),
    ("pkcs12", "certificates and keys are PEM here"),
    ("password", "keys are read without a password here"),
    ("private_key_provider", "keys are in files here"),
    (
        "tls_context",
        "of a route see `client_cert: required`; of a filter chain or a cluster write it as `transport_socket`",
    ),
    (
        "forward_client_cert_details",
        "see `forwarding.client_cert`: servers are told of it in `Client-Cert`",
    ),
    (
        "set_current_client_cert_details",
        "see `forwarding.client_cert`: servers are told of it in `Client-Cert`",
    ),
    (
        "require_tls",
        "a listener sends all its requests to HTTPS or none; give these a listener of their own, with `https_redirect`",
    ),
    (
        "grpc_health_check",
        "see `health: {grpc: SERVICE}`; a connect is written",
    ),
    ("rds", NO_XDS),
    (
        "outlier_detection",
        "here failed connects eject a peer: see `outlier_detection` of the upstream",
    ),
    (
        "circuit_breakers",
        "to bound the load of a server use `bounded_load`",
    ),
    ("prefix_rewrite", NO_REWRITE),
    ("regex_rewrite", NO_REWRITE),
    ("host_rewrite", "see `host_header` of the upstream"),
    ("request_headers", NO_REWRITE),
    ("response_headers", NO_REWRITE),
    ("redirect", NO_LOCAL_REPLY),
    ("direct_response", NO_LOCAL_REPLY),
    (
        "weighted_clusters",
        "a route has one upstream; weigh its peers instead",
    ),
    ("cluster_header", "a route has one upstream"),
    ("rate_limits", NO_RATE_LIMIT),
    ("request_mirror_policies", "a request goes to one server"),
    ("admin", "see `admin`; it has an address of its own"),
    ("dynamic_resources", NO_XDS),
    (
        "http_filters",
        "requests and responses are passed on as they are; let the servers do it",
    ),
    ("cors", NO_REWRITE),
    (
        "timeout",
        "see `downstream.request_timeout`, for all routes together",
    ),
    (
        "http3_protocol_options",
        "servers are spoken to in HTTP/1.1 or HTTP/2",
    ),
    (
        "use_downstream_protocol_config",
        "what servers are spoken to in does not depend on the client; choose `protocol: h2`, `auto` or `h2c`",
    ),
    (
        "protocol_selection",
        "what servers are spoken to in does not depend on the client; choose `protocol: h2`, `auto` or `h2c`",
    ),
    (
        "override_auto_sni_header",
        "the name asked for is that of the client's `Host`",
    ),
    (
        "max_concurrent_streams",
        "see `h2.max_streams` of the upstream",
    ),
    ("connection_keepalive", "see `h2.ping` of the upstream"),
    ("lb_subset_config", "the key alone decides on the server"),
];
