//! Connections to peers of HTTP/1: one pool, one codec, for the engine and for Pingora.
//!
//! ```text
//!  engine ───────────────────────────────────────────────────────► connections ──► pool, peer_stream
//!  Pingora ──► connector ──► peer_session ──► session ──┬─► request    ▲
//!                  │          (also HTTP/2)             └─► response   │
//!                  └───────────────────────────────────────────────────┘
//! ```
//!
//! Pingora 0.9.1 has its own client of HTTP/1. It is not used, except for tunnels: it accepts responses that RFC 9112 does not allow, at most 256 fields, and buffers up to 512 KiB of a
//! response that its client does not read. The custom protocol of `pingora_compat::upstream_h2` is extended by HTTP/1 here.

mod connections;
mod connector;
mod peer_session;
mod peer_stream;
mod pool;
mod request;
mod response;
mod session;

pub(crate) use self::connections::PeerConnections;
pub(crate) use self::connector::{PeerConnector, enable};
pub(crate) use self::peer_session::connected_version;
pub(crate) use self::peer_stream::PeerStream;
pub(crate) use self::pool::PoolKey;
pub(crate) use self::request::convert_request;
pub(crate) use self::response::PARTIAL_RESPONSE;
