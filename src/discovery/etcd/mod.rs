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
mod found_keys;
#[cfg(feature = "etcd")]
mod position;
#[cfg(feature = "etcd")]
mod reconnect;
#[cfg(feature = "etcd")]
mod watch;

#[cfg(not(feature = "etcd"))]
mod not_built;

#[cfg(not(feature = "etcd"))]
pub(super) use not_built::UnbuiltPrefix as WatchedPrefix;
#[cfg(not(feature = "etcd"))]
pub(crate) use not_built::read_etcd_keys;
#[cfg(feature = "etcd")]
pub(super) use watch::WatchedPrefix;
#[cfg(feature = "etcd")]
pub(crate) use watch::read_etcd_keys;
