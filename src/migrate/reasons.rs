//! Why a directive is not translated, or what to do instead, by how its name begins.

/// What only tells nginx how to work.
pub(super) const NGINX_OWN: &[&str] = &[
    "user",
    "pid",
    "daemon",
    "master_process",
    "events",
    "load_module",
    "pcre_jit",
    "timer_resolution",
    "lock_file",
    "env",
    "thread_pool",
    "working_directory",
    "types",
    "default_type",
    "sendfile",
    "sendfile_max_chunk",
    "tcp_nopush",
    "tcp_nodelay",
    "aio",
    "directio",
    "server_tokens",
    "types_hash_max_size",
    "types_hash_bucket_size",
    "server_names_hash_bucket_size",
    "server_names_hash_max_size",
    "variables_hash_max_size",
    "variables_hash_bucket_size",
    "map_hash_bucket_size",
    "map_hash_max_size",
    "proxy_headers_hash_max_size",
    "proxy_headers_hash_bucket_size",
    "log_format",
    "open_log_file_cache",
    "log_not_found",
    "reset_timedout_connection",
    "client_body_buffer_size",
    "client_header_buffer_size",
    "client_body_temp_path",
    "proxy_temp_path",
    "fastcgi_temp_path",
    "uwsgi_temp_path",
    "scgi_temp_path",
    "proxy_buffering",
    "proxy_buffer_size",
    "proxy_buffers",
    "proxy_busy_buffers_size",
    "proxy_max_temp_file_size",
    "proxy_request_buffering",
    "proxy_http_version",
    "proxy_socket_keepalive",
    "proxy_redirect",
    "lingering_close",
    "lingering_time",
    "lingering_timeout",
    "resolver_timeout",
    "merge_slashes",
    "underscores_in_headers",
    "ignore_invalid_headers",
    "server_name_in_redirect",
    "port_in_redirect",
    "absolute_redirect",
    "access_log_flush",
    "keepalive_disable",
    "http2",
    "accept_mutex",
    "multi_accept",
    "use",
    "limit_rate_after",
    "real_ip_recursive",
    "chunked_transfer_encoding",
];

/// What only tells `HAProxy` how to work.
pub(super) const HAPROXY_OWN: &[&str] = &[
    "daemon",
    "user",
    "group",
    "uid",
    "gid",
    "chroot",
    "pidfile",
    "log",
    "log-format",
    "log-tag",
    "log-send-hostname",
    "stats",
    "ca-base",
    "crt-base",
    "nbproc",
    "cpu-map",
    "ulimit-n",
    "description",
    "node",
    "master-worker",
    "maxpipes",
    "spread-checks",
    "unix-bind",
    "localpeer",
    "set-dumpable",
    "no",
    "hard-stop-after",
    "mode",
    "name",
    "id",
    "default-path",
    "lua-load",
    "insecure-fork-wanted",
    "insecure-setuid-wanted",
    "option",
    "quiet",
    "ssl-default-bind-ciphers",
    "ssl-default-bind-ciphersuites",
    "ssl-default-bind-options",
    "ssl-default-server-ciphers",
    "ssl-default-server-ciphersuites",
    "ssl-default-server-options",
    "ssl-dh-param-file",
    "ssl-server-verify",
    "presetenv",
    "setenv",
    "resetenv",
    "unsetenv",
    "error-log-format",
];

type Table = &'static [(&'static str, &'static str)];

const ELSE: &str = "there is nothing like it here";
const CACHE: &str = "nothing is cached here";
const TLS: &str = "no TLS is spoken here; let something in front end it, and pass HTTP on";
const ANSWER: &str = "every request is passed to an upstream; let a server behind it answer";
const ACCESS: &str = "nobody is refused here; let a firewall or the servers decide";
const RATE: &str = "rates are not limited here; let the servers do it";
const CHANGE: &str = "requests and responses are passed on as they are; let the servers do it";
const XDS: &str = "what comes by xDS is not in the file";

const NGINX: Table = &[
    ("proxy_cache", CACHE),
    ("proxy_no_cache", CACHE),
    ("proxy_ssl", "servers are spoken to without TLS"),
    (
        "proxy_",
        "exchanges with servers have only `timeouts`, `retry` and `host_header`",
    ),
    ("ssl_", TLS),
    ("rewrite", CHANGE),
    ("sub_filter", CHANGE),
    ("add_header", CHANGE),
    ("more_", CHANGE),
    ("expires", CHANGE),
    ("gzip", "nothing is compressed here; let the servers do it"),
    (
        "brotli",
        "nothing is compressed here; let the servers do it",
    ),
    ("return", ANSWER),
    ("root", ANSWER),
    ("alias", ANSWER),
    ("index", ANSWER),
    ("try_files", ANSWER),
    ("error_page", ANSWER),
    ("autoindex", ANSWER),
    (
        "stub_status",
        "see `admin`: status, metrics and a page for operators",
    ),
    ("fastcgi_", "servers are spoken to in HTTP"),
    ("uwsgi_", "servers are spoken to in HTTP"),
    ("scgi_", "servers are spoken to in HTTP"),
    ("grpc_", "servers are spoken to in HTTP/1.1"),
    ("memcached_", "servers are spoken to in HTTP"),
    ("auth_", ACCESS),
    ("access_log", "one access log is kept for all"),
    ("allow", ACCESS),
    ("deny", ACCESS),
    ("satisfy", ACCESS),
    ("limit_req", RATE),
    ("limit_rate", RATE),
    (
        "limit_conn",
        "see `downstream.max_connections`, for all clients together",
    ),
    ("if", "routes look at host, path and method only"),
    (
        "map",
        "there are no variables; routes and keys take what is in the request",
    ),
    (
        "geo",
        "there are no variables; routes and keys take what is in the request",
    ),
    ("set_real_ip", "see `trusted_proxies`"),
    (
        "real_ip",
        "see `trusted_proxies`; the client is found by `X-Forwarded-For`",
    ),
    (
        "set",
        "there are no variables; routes and keys take what is in the request",
    ),
    (
        "split_clients",
        "there are no variables; routes and keys take what is in the request",
    ),
    ("stream", "only HTTP is passed on"),
    ("mail", "only HTTP is passed on"),
    (
        "sticky",
        "choose the cookie as `key`, as in `key: {cookie: sid}`",
    ),
    ("queue", "a request waits for no server"),
    (
        "resolver",
        "names are looked up by the system, when the configuration is loaded",
    ),
    ("worker_", "see `threads`"),
    ("js_", "there is no scripting"),
    ("lua_", "there is no scripting"),
    ("access_by_lua", "there is no scripting"),
    ("content_by_lua", "there is no scripting"),
    ("health_check", "see `health` of an upstream"),
    ("mirror", "a request goes to one server"),
];

const HAPROXY: Table = &[
    ("http-request redirect", ANSWER),
    ("http-request return", ANSWER),
    ("http-request deny", ACCESS),
    ("http-request tarpit", ACCESS),
    ("http-request auth", ACCESS),
    ("http-request", CHANGE),
    ("http-response", CHANGE),
    ("http-after-response", CHANGE),
    ("tcp-request", RATE),
    ("tcp-response", CHANGE),
    ("reqrep", CHANGE),
    ("rspadd", CHANGE),
    ("redirect", ANSWER),
    ("errorfile", ANSWER),
    ("errorloc", ANSWER),
    ("monitor-uri", "see `GET /healthz` of `admin`"),
    (
        "stick",
        "choose what it looks at as `key`: the key's server is always the same",
    ),
    (
        "compression",
        "nothing is compressed here; let the servers do it",
    ),
    ("filter", CHANGE),
    ("cache", CACHE),
    ("timeout", "there is no such time-out here"),
    ("ssl", TLS),
    ("tune", "there are no such knobs here"),
    ("rate-limit", RATE),
    ("server-template", "write the servers out under `peers`"),
    ("use-server", "the key alone decides on the server"),
    (
        "fullconn",
        "to bound the load of a server use `bounded_load`",
    ),
    (
        "maxconn",
        "see `downstream.max_connections`, for all listeners together",
    ),
    ("http-reuse", "idle connections are always shared"),
    (
        "http-check",
        "a probe asks for one path and looks at the status only",
    ),
    ("email-alert", "see the metrics of `admin`"),
    ("capture", "the access log has fields of its own"),
    ("unique-id", "see `forwarding.request_id`"),
    ("dispatch", "name the servers under `peers`"),
    ("source", "the system chooses the address to connect from"),
    ("bind-process", "see `threads`"),
    (
        "external-check",
        "a probe is a connect or a GET; see `health`",
    ),
    ("load-server-state-from-file", "see `state_file`"),
    ("server-state", "see `state_file`"),
];

const ENVOY: Table = &[
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
    ("rds", XDS),
    (
        "outlier_detection",
        "see `passive`: failed connects eject a peer",
    ),
    (
        "circuit_breakers",
        "to bound the load of a server use `bounded_load`",
    ),
    ("prefix_rewrite", CHANGE),
    ("regex_rewrite", CHANGE),
    ("host_rewrite", "see `host_header` of the upstream"),
    ("request_headers", CHANGE),
    ("response_headers", CHANGE),
    ("redirect", ANSWER),
    ("direct_response", ANSWER),
    (
        "weighted_clusters",
        "a route has one upstream; weigh its peers instead",
    ),
    ("cluster_header", "a route has one upstream"),
    ("rate_limits", RATE),
    ("request_mirror_policies", "a request goes to one server"),
    ("admin", "see `admin`; it has an address of its own"),
    ("dynamic_resources", XDS),
    (
        "http_filters",
        "requests and responses are passed on as they are; let the servers do it",
    ),
    ("cors", CHANGE),
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

/// Why an nginx directive is not translated.
pub(super) fn nginx(name: &str) -> &'static str {
    find(NGINX, name)
}

/// Why a line of `HAProxy` is not translated.
pub(super) fn haproxy(line: &str) -> &'static str {
    find(HAPROXY, line)
}

/// Why a field of Envoy is not translated.
pub(super) fn envoy(field: &str) -> &'static str {
    find(ENVOY, field)
}

fn find(table: Table, name: &str) -> &'static str {
    let found = table.iter().find(|(begins, _)| name.starts_with(begins));
    found.map_or(ELSE, |(_, why)| why)
}
