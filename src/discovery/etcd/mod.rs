//! A source that is a prefix of keys in etcd: each key is a peer.
//!
//! ```text
//!  watch ─► connection    one member: a list, then a watch from its revision, a check every minute
//!    ├────► entries       keys and values ─► peers
//!    ├────► position      whether two answers belong to one history
//!    └────► reconnect     which member is next, and when
//! ```
//!
//! `entries`, `position` and `reconnect` are pure.

#[cfg(feature = "etcd")]
mod connection;
#[cfg(feature = "etcd")]
mod entries;
#[cfg(feature = "etcd")]
mod position;
#[cfg(feature = "etcd")]
mod reconnect;
#[cfg(feature = "etcd")]
mod watch;

#[cfg(not(feature = "etcd"))]
#[path = "not_built.rs"]
mod watch;

pub(super) use watch::WatchedPrefix;
pub(crate) use watch::read_etcd_keys;
