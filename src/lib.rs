//! Clockwise: an edge proxy that sends every request with the same key to the same server.
//!
//! # Words
//!
//! | word | means |
//! |---|---|
//! | downstream / upstream (direction) | towards the client / towards the origin |
//! | listener | a bound socket |
//! | route | host + path + method → what to do |
//! | upstream (thing) | a named group of peers that share policy |
//! | peer | one server of an upstream; has an address, a label that places it on the ring, a weight |
//! | key, key source | the bytes that are hashed; where they come from |
//! | ring | the continuum of 2^32 hashes: all points, sorted |
//! | point | one hash position owned by a peer |
//! | walk | the distinct peers in clockwise order from a key; the owner is the first |
//! | probe / passive failure | active health check / failure seen on real traffic |
//! | attempt, retry | one try on one peer; later tries |
//! | snapshot, generation | one immutable configuration in force; its number |
//! | fault | an error judged once: whose blame, retry or not, which status |
//!
//! # A request's way
//!
//! ```text
//!  downstream
//!      │
//!   1 accept      downstream             socket, number of connections, TLS, deadlines, keep-alive
//!   2 route       proxy/route  ─► route    limits; host, path, method → route
//!   3 key         proxy/request_key ─► key the upstream's key sources → bytes
//!   4 ring        proxy/select ─► ring     bytes → walk: the peers in clockwise order
//!   5 peer        proxy/select ─► upstream the first of the walk that is available and untried ◄─┐
//!   6 upstream    proxy/connect, forward_* connect, headers, bodies                              │
//!      │          proxy/retry  ─► fault, policy   on failure: blame? safe to retry? budget left? ┘
//!   7 log         proxy/finish ─► telemetry   one record → counters and one access-log line
//!      │
//!  upstream
//!
//!  beside the way, never on it:  probe (do the peers answer) ── feeds ──► upstream's peer states
//!                                predict (what would a change move) ◄── asked by cli, admin, reload
//! ```
//!
//! # Layers
//!
//! Imports point down only (`tests/source/layers.rs` keeps it so). The core is pure: no I/O, no clock, no
//! randomness, no log; time is an argument.
//!
//! | layer | modules |
//! |---|---|
//! | assembly | [`cli`], [`server`] |
//! | edge: sockets and Pingora | [`admin`], [`proxy`], [`probe`], [`acme`], [`downstream`], [`pingora_compat`] |
//! | state: shared, swapped, counted | [`snapshot`], [`tls`], [`lifecycle`], [`upstream`], [`telemetry`] |
//! | data: what the operator wrote, for us or for another proxy; the time | [`config`], [`migrate`], [`clock`] |
//! | core: values in, values out | [`predict`], [`policy`], [`ring`], [`key`], [`cookie`], [`client_addr`], [`proxy_protocol`], [`certificate`], [`route`], [`grpc`], [`fault`] |

// assembly
pub mod cli;

pub mod server;

// edge, in the order a request meets it
pub mod downstream;

pub mod proxy;

pub mod pingora_compat;

pub mod probe;

pub mod acme;

pub mod admin;

// state
pub mod snapshot;

pub mod tls;

pub mod lifecycle;

pub mod upstream;

pub mod telemetry;

// data
pub mod config;

pub mod migrate;

pub mod clock;

// core, in the order a request meets it
pub mod route;

pub mod proxy_protocol;

pub mod client_addr;

pub mod certificate;

pub mod grpc;

pub mod fault;

pub mod key;

pub mod cookie;

pub mod ring;

pub mod policy;

pub mod predict;
