//! HTTP/1 connections to peers: one pool and one codec, for the engine and for Pingora.
//!
//! ```text
//!  engine ───────────────────────────────────────────────────────► connections ──► pool, peer_stream
//!  Pingora ──► connector ──► peer_session ──► session ──┬─► request    ▲
//!                  │          (also HTTP/2)             └─► response   │
//!                  └───────────────────────────────────────────────────┘
//! ```
//!
//! Pingora 0.9.1 has its own HTTP/1 client, which is used only for tunnels. It accepts responses that RFC 9112 does not
//! allow, refuses a response with more than 256 fields, and buffers up to 512 KiB of a response while the client does not
//! read (request 9 in `pingora_compat/README.md`). [`PeerConnector`] replaces it through Pingora's interface for custom
//! protocols, which `pingora_compat::upstream_h2` uses for HTTP/2.

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
pub(crate) use self::request::{convert_request, set_target};
pub(crate) use self::response::PARTIAL_RESPONSE;
