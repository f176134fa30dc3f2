//! Clockwise: an edge proxy that sends every request with the same key to the same server.
//!
//! This page is the map of the source: the words, the way of a request through the files, where a change goes, the layers.
//!
//! # Words
//!
//! | word | means |
//! |---|---|
//! | downstream / upstream (direction) | towards the client / towards the origin |
//! | listener | a bound socket with its TLS and PROXY protocol settings |
//! | route | a rule: host, path and methods → an upstream, and limits that apply to the request |
//! | upstream (thing) | a named group of peers with a common policy (Envoy: cluster, HAProxy: backend) |
//! | peer | one server of an upstream; has an address, a label that places it on the ring, and a weight |
//! | key, key source | the bytes that are hashed; the part of a request they are taken from |
//! | ring | the circle of 2^32 hashes with the points of all peers, sorted |
//! | point | one hash position owned by a peer (elsewhere: virtual node) |
//! | dialect | the algorithm of points and key hashes; one for each load balancer that Clockwise can replace |
//! | owner, walk | the peer that a key belongs to; all peers in clockwise order from the key, owner first |
//! | exchange | one request with its response, and the deadlines that apply to it |
//! | attempt, retry | one try of a request on one peer; a later attempt |
//! | probe, ejection | an active health check of a peer; a peer's removal after failures of real requests |
//! | unresolved | a peer whose name has no address yet: it keeps its points, and gets no requests |
//! | source, list | where an upstream's peers come from besides its configuration (a file, a name of DNS, a service of Kubernetes, keys of etcd); all peers that a source has at one time |
//! | held | a list that waits for an operator, because it lost too many peers or would move too many keys |
//! | leaving | a peer that its source no longer has, or that an operator has removed, and that still drains |
//! | change | what an operator has set, removed or reweighted of an upstream's peers; it lies over configuration and sources, by label |
//! | drain | a peer gets no new keys and keeps its active ones; a process finishes its requests, then exits |
//! | snapshot, generation | one immutable configuration in force; its number |
//! | reload, upgrade | a new snapshot in the same process; a new process that takes over sockets and state |
//! | fault | one row of the table of failures: the party to blame, retry or not, status, log word |
//!
//! # The way of a request
//!
//! ```text
//!  client
//!    │
//!  1 accept    downstream: listener, proxy_header, tls_handshake, http1, http2   limits, deadlines, HTTP version
//!    │         engine: carries HTTP/1; proxy: all else, through Pingora; both call the phases
//!  2 route     phases: begin, validate, redirect, route ─► route                 well formed? which route? allowed?
//!  3 key       phases: request_key ─► key                                        key sources → bytes
//!  4 ring      phases: select ─► ring                                            bytes → walk
//!  5 peer      phases: select ─► upstream (select, admission)                    first available, untried peer ◄─┐
//!  6 forward   phases: connect, forward_request, forward_response                headers and bodies              │
//!    │         upstream_http1; pingora_compat: upstream_h2                       connections to peers            │
//!    │         proxy: classify ─► fault; phases: retry ─► policy                 on failure: blame, next peer? ──┘
//!    │         phases: local_reply                                               no peer answered: our own response
//!  7 finish    phases: finish ─► telemetry                                       counters, one access log line
//!    │
//!  client
//!
//!  never on that way:
//!    discovery         addresses of the peers: for each snapshot; lists of peers that sources find
//!    probe, acme       background tasks: feed the state of the peers and the certificates
//!    server            start, reload, upgrade, drain: swap the snapshot, hand sockets to a new process
//!    admin, cli        status and commands; predict computes which keys a change would move
//! ```
//!
//! # Where a change goes
//!
//! A rule that needs no I/O is a function in [`policy`]; the file of its phase in [`phases`] calls it.
//!
//! | change | main file | also |
//! |---|---|---|
//! | a configuration key | its section in `config/sections/`: name, type, default, reader | a section in it: its `nested`; `config/sections/mod.rs`: a key of the top level, a new file, or a type that other modules name; `conf/clockwise.yaml`: its documentation |
//! | a key source | `key/mod.rs`; if it needs a parser, a new file in `key/` | `config/sections/key.rs` |
//! | a dialect | a new file in `ring/dialect/` | `ring/dialect/mod.rs`: its variant; `config/sections/ring.rs`; `ring/mod.rs`: if it has options |
//! | which requests a route matches | `route/host.rs`, `route/path_prefix.rs`: the pattern and its index; another kind of pattern: a new file in `route/` | `request_target/normalize.rs`: the form of paths that are compared; `route/mod.rs`: the match, the precedence and the table; `config/sections/routes.rs` |
//! | what a route demands: access, authentication | a new file in `phases/` | `phases/mod.rs`: the call in `route_request`; `snapshot/route_target.rs`: its settings; `fault.rs`: the refusal; `config/sections/routes.rs` |
//! | a limit with counters: of a route, a client or a key | a new file in `snapshot/`: the bounded table of counters | a new file in `phases/`: the check; `phases/mod.rs`: its call in `route_request`; `phases/request_key.rs`: the bytes of a key; `snapshot/route_target.rs`: its settings; `snapshot/mod.rs`: counters that outlive a reload; `fault.rs`: the refusal; `phases/local_reply.rs`: its `Retry-After`; `config/sections/routes.rs`; `policy/gcra.rs`: a token bucket |
//! | a header to peers, or to clients | to peers: `phases/forward_request.rs`; to clients: `phases/response_fields.rs` | a setting of a header to peers: `config/sections/forwarding.rs`; of a route: `config/sections/routes.rs`, `snapshot/route_target.rs`; only on responses of peers: `phases/forward_response.rs`; only on our own: `phases/local_reply.rs` |
//! | when a request is retried: after which error or status, how often | `phases/retry.rs`: whether another attempt follows | after a status: `phases/forward_response.rs` asks it before the response is final, counts the response for outlier detection, and returns a fault; `fault.rs`: blame and class of each failure; `config/sections/retry.rs`; `policy/retry.rs`: only if the rule changes |
//! | a way to fail: its status, its log word | `fault.rs` | `proxy/classify.rs`, `engine/failure.rs`: which error it is; `phases/local_reply.rs`: the response; `phases/outlier_detection.rs`: whether it counts for an ejection |
//! | which peer gets a request | `policy/selection/`: the core that serves and predicts | `upstream/select.rs`, `upstream/admission.rs`: its view of the peers; `config/sections/load_balancing.rs` |
//! | when a peer counts as failed | `policy/health.rs` and `probe/check.rs`, or `policy/ejection.rs`, `upstream/ejection.rs` and `phases/outlier_detection.rs` | `config/sections/health.rs`, `config/sections/outlier_detection.rs` |
//! | where the addresses of configured names come from, and when they are looked up again | `server/peer_lookups.rs`: the names that are looked up again | `server/instance.rs`: the event, which calls `server/reload.rs`; `policy/lookup_backoff.rs`: only for the interval; `discovery/names.rs`: the lookup; `config/sections/mod.rs` |
//! | what DNS says of peers, and when it is asked | `discovery/dns/records.rs`, `discovery/dns/answer.rs`, `discovery/dns/refresh.rs`, `discovery/dns/preferred_server.rs`: pure | `discovery/dns/name_servers.rs`, `discovery/dns/system.rs`: the servers that are asked; `config/sections/resolver.rs` |
//! | what the endpoints of a service of Kubernetes mean, and how they are watched | `discovery/kubernetes/slices.rs`: pure; `discovery/kubernetes/watch.rs` | `discovery/kubernetes/objects.rs`: the fields that are read; `discovery/kubernetes/api.rs`: connections, tokens; `config/sections/kubernetes.rs` |
//! | what a key of etcd says of a peer, and how its changes are followed | `discovery/etcd/entries.rs`: pure; `discovery/etcd/watch.rs` | `discovery/etcd/connection.rs`: the client; `config/sections/etcd.rs` |
//! | a source of peers | a new file in `discovery/`: what it reads, and when | `config/sections/peer_sources.rs`: its key; `discovery/watcher.rs`: its task; `cli/peer_sources.rs`: commands without an instance |
//! | how configuration, sources and operators together make the peers | `config/runtime_peers.rs` | `config/peer_changes.rs`: the changes of operators; `server/peer_discovery/operator_change.rs`: what is refused, the answer; `admin/peer_changes.rs`, `cli/control/peers.rs`; `snapshot/runtime_peers.rs`: what is persisted |
//! | when a list of peers comes into force | `policy/peer_list.rs`: settle, `max_lost`, the list that is held | `server/peer_discovery/`: `max_moved`, the reload, drains of peers that left; `config/sections/peer_sources.rs` |
//! | a metric, a field of the access log, a trace | `telemetry/metrics.rs`, `telemetry/access_log/`, or a new file in `telemetry/` | `phases/finish.rs`: the end of a request; `phases/attempt_events.rs`: the start, the failures and the end of attempts, their state is in `phases/attempt.rs`; what a request keeps: `phases/context.rs`; ids of clients: `phases/request_info.rs`; ids to peers: `phases/forward_request.rs`; a new destination: `telemetry/mod.rs`, `config/sections/process.rs`, `config/sections/mod.rs` |
//! | an endpoint of the admin API | `admin/routing.rs`: its path | `admin/mod.rs`: the call; `admin/json.rs`, or a new file in `admin/`: its response; `admin/access.rs`: if it needs no token |
//! | an HTTP version or a transport of clients | a new directory in `downstream/` | as a model `downstream/http2/`; `downstream/connection.rs`, `downstream/listener/`, `tls/`, `config/sections/listeners.rs`, `server/listeners.rs`, `server/socket_activation.rs`, `server/hot_restart/`; a byte stream: `downstream/serve.rs`; no byte stream: `downstream/phase.rs`, `downstream/exchange.rs` (near the limit of 400 lines), `downstream/close.rs`, `server/start.rs`; `config/schema.rs`: it is refused there; `telemetry/metrics.rs`, `phases/forward_response.rs`, `phases/request_key.rs`: rules by version |
//! | connections to peers: pool, connect, bytes of HTTP/1 | a file in `upstream_http1/` | `http1/`: the codec; `engine/upload.rs`, `engine/download.rs`: how the engine uses it; `pingora_compat/upstream_h2/`: HTTP/2; `proxy/connect.rs`: which one a request takes |
//! | a setting of another proxy that `migrate` reads | `migrate/nginx/`, `migrate/haproxy/` or `migrate/envoy/` | `migrate/draft/`, `migrate/write/` |
//!
//! # Layers
//!
//! A module imports only from its own row or from rows below, as `tests/source/layers.rs` lists in detail.
//! The core is pure: no I/O, no clock, no randomness, no log; the time is an argument.
//!
//! | layer | modules |
//! |---|---|
//! | assembly | [`cli`], [`server`] |
//! | edge: sockets and Pingora | [`engine`], [`proxy`], [`phases`] (without Pingora), [`downstream`], [`upstream_http1`], [`read_buffer`], [`pingora_compat`], [`probe`], [`acme`], [`discovery`], [`admin`] |
//! | state: shared, replaced, counted | [`snapshot`], [`tls`], [`lifecycle`], [`upstream`], [`telemetry`] |
//! | data: configuration files of Clockwise and of other proxies; the clock | [`config`], [`migrate`], [`clock`] |
//! | core: values in, values out | [`header`], [`request_target`], [`route`], [`proxy_protocol`], [`client_addr`], [`certificate`], [`grpc`], [`http1`], [`fault`], [`key`], [`cookie`], [`ring`], [`policy`], [`predict`] |

#![cfg_attr(
    not(feature = "etcd"),
    expect(dead_code, reason = "only sources in etcd use it")
)]

// assembly
pub mod cli;
mod server;

// edge
mod acme;
mod admin;
mod discovery;
mod downstream;
mod engine;
mod phases;
mod pingora_compat;
mod probe;
mod proxy;
mod read_buffer;
mod upstream_http1;

// state
mod lifecycle;
mod snapshot;
mod telemetry;
mod tls;
mod upstream;

// data
mod clock;
mod config;
mod migrate;

// core
mod certificate;
mod client_addr;
mod cookie;
mod fault;
mod grpc;
mod header;
pub mod http1; // public for `tests/fuzz`, not for other programs
mod key;
mod policy;
mod predict;
mod proxy_protocol;
mod request_target;
pub mod ring;
mod route;

pub use upstream::ring_selection::RingSelection;

/// What `benches/ring.rs` measures; not for other programs.
#[doc(hidden)]
pub mod measured {
    pub use crate::clock::since_start;
    pub use crate::config::load;
    pub use crate::telemetry::metrics::Metrics;
    pub use crate::upstream::{HashTarget, Tried, Upstream};
}
