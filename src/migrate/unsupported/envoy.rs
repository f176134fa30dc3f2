//! Envoy fields without a counterpart.

use super::{NO_LOCAL_REPLY, NO_RATE_LIMIT, NO_REWRITE, NO_XDS, ReasonTable, find_reason};

/// Why a field is not translated, or what to do instead.
pub(in crate::migrate) fn reason(name: &str) -> &'static str {
    find_reason(REASONS, name)
}

const REASONS: ReasonTable = &[
    (
        "transport_socket_matches",
        "all peers of an upstream share one `tls`, that of `transport_socket`; put the others into an upstream of their own",
    ),
    (
        "transport_socket_connect_timeout",
        "see `tls.handshake_timeout` of the listener",
    ),
    ("transport_socket", "a connection is plain TCP or TLS"),
    (
        "tls_certificate_",
        "Clockwise reads certificates and keys from files; write `tls: {cert: FILE, key: FILE}`",
    ),
    ("secrets", "name the files of each secret where it is used"),
    ("pkcs12", "Clockwise reads PEM only; convert the file"),
    (
        "password",
        "Clockwise reads unencrypted keys only; remove the password from the key",
    ),
    (
        "private_key_provider",
        "Clockwise reads keys from files; see `key` of `tls`",
    ),
    (
        "tls_context",
        "for a route, see `client_cert: required`; for a filter chain or a cluster, write it as `transport_socket`",
    ),
    (
        "forward_client_cert_details",
        "see `forwarding.client_cert`, which sends the header `Client-Cert` to servers",
    ),
    (
        "set_current_client_cert_details",
        "see `forwarding.client_cert`, which sends the header `Client-Cert` to servers",
    ),
    (
        "require_tls",
        "a listener redirects all its requests to HTTPS or none; give these hosts a listener of their own with `https_redirect`",
    ),
    (
        "grpc_health_check",
        "a TCP probe is written; write `health: {grpc: SERVICE}`",
    ),
    ("rds", NO_XDS),
    (
        "outlier_detection",
        "Clockwise ejects a peer after 5 failures in a row, of which `outlier_detection` of the upstream lists the kinds",
    ),
    (
        "circuit_breakers",
        "to limit the load of a server, use `bounded_load` of the upstream",
    ),
    ("prefix_rewrite", NO_REWRITE),
    ("regex_rewrite", NO_REWRITE),
    (
        "xff_num_trusted_hops",
        "list the proxies in front of Clockwise in `trusted_proxies`",
    ),
    (
        "original_ip_detection_extensions",
        "Clockwise takes the client's address from `X-Forwarded-For`; list the proxies in front of it in `trusted_proxies`",
    ),
    ("host_rewrite", "see `host_header` of the upstream"),
    ("request_headers", NO_REWRITE),
    ("response_headers", NO_REWRITE),
    ("redirect", NO_LOCAL_REPLY),
    ("direct_response", NO_LOCAL_REPLY),
    (
        "weighted_clusters",
        "a route has one upstream; use the weights of its peers instead",
    ),
    ("cluster_header", "a route has one upstream"),
    ("rate_limits", NO_RATE_LIMIT),
    (
        "request_mirror_policies",
        "Clockwise sends a request to one server only",
    ),
    ("admin", "see `admin`, which has its own address"),
    ("dynamic_resources", NO_XDS),
    (
        "http_filters",
        "Clockwise does not change requests and responses; let the servers do it",
    ),
    ("cors", NO_REWRITE),
    (
        "timeout",
        "see `downstream.request_timeout`, which holds for all routes",
    ),
    (
        "http3_protocol_options",
        "Clockwise speaks HTTP/1.1 or HTTP/2 to servers",
    ),
    (
        "use_downstream_protocol_config",
        "the protocol to servers does not depend on the client; write `protocol: h2`, `auto` or `h2c`",
    ),
    (
        "protocol_selection",
        "the protocol to servers does not depend on the client; write `protocol: h2`, `auto` or `h2c`",
    ),
    (
        "override_auto_sni_header",
        "the SNI name is the client's `Host`",
    ),
    (
        "max_concurrent_streams",
        "see `h2.max_streams` of the upstream",
    ),
    ("connection_keepalive", "see `h2.ping` of the upstream"),
    (
        "lb_subset_config",
        "Clockwise chooses the server by the key only",
    ),
];
