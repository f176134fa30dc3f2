//! Clockwise: an edge proxy that sends every request with the same key to the same server.
//!
//! This page is the map of the source: the words, the way of a request through the files, the layers.
//!
//! # Words
//!
//! | word | means |
//! |---|---|
//! | downstream / upstream (direction) | towards the client / towards the origin |
//! | listener | a bound socket with its TLS and PROXY protocol settings |
//! | route | host, path, method, … → the action: forward, redirect or respond |
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
//!  2 route     proxy: begin, validate, redirect, route ─► route                  well formed? which route? allowed?
//!  3 key       proxy: request_key ─► key                                         key sources → bytes
//!  4 ring      proxy: select ─► ring                                             bytes → walk
//!  5 peer      proxy: select ─► upstream (select, admission)                     first available, untried peer ◄─┐
//!  6 forward   proxy: connect, forward_request, forward_response                 headers and bodies              │
//!    │         proxy: classify ─► fault; retry ─► policy                         on failure: blame, next peer? ──┘
//!    │         proxy: local_reply                                                no peer answered: our own response
//!  7 finish    proxy: finish ─► telemetry                                        counters, one access log line
//!    │
//!  client
//!
//!  never on that way:
//!    probe, acme       background tasks: feed the state of the peers and the certificates
//!    server            start, reload, upgrade, drain: swap the snapshot, hand sockets to a new process
//!    admin, cli        status and commands; predict computes which keys a change would move
//! ```
//!
//! # Layers
//!
//! A module imports only from its own row or from rows below, as `tests/source/layers.rs` lists in detail.
//! The core is pure: no I/O, no clock, no randomness, no log; the time is an argument.
//!
//! | layer | modules |
//! |---|---|
//! | assembly | [`cli`], [`server`] |
//! | edge: sockets and Pingora | [`downstream`], [`proxy`], [`pingora_compat`], [`probe`], [`acme`], [`admin`] |
//! | state: shared, replaced, counted | [`snapshot`], [`tls`], [`lifecycle`], [`upstream`], [`telemetry`] |
//! | data: configuration files of Clockwise and of other proxies; the clock | [`config`], [`migrate`], [`clock`] |
//! | core: values in, values out | [`header`], [`route`], [`proxy_protocol`], [`client_addr`], [`certificate`], [`grpc`], [`http1`], [`fault`], [`key`], [`cookie`], [`ring`], [`policy`], [`predict`] |

// assembly
pub mod cli;
pub mod server;

// edge
pub mod acme;
pub mod admin;
pub mod discovery;
pub mod downstream;
pub mod pingora_compat;
pub mod probe;
pub mod proxy;

// state
pub mod lifecycle;
pub mod snapshot;
pub mod telemetry;
pub mod tls;
pub mod upstream;

// data
pub mod clock;
pub mod config;
pub mod migrate;

// core
pub mod certificate;
pub mod client_addr;
pub mod cookie;
pub mod fault;
pub mod grpc;
pub mod header;
pub mod http1;
pub mod key;
pub mod policy;
pub mod predict;
pub mod proxy_protocol;
pub mod ring;
pub mod route;
