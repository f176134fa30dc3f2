//! Listening sockets that come from outside: handed over by an old process, or passed by the service manager.
//!
//! Each socket has a name, by which its listener looks it up. In a hot restart both processes derive the name from
//! their configuration; for a socket from the service manager it is made from the address that the socket is bound to.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

/// The sockets by name; a listener's name is its configured address. Each listener removes its socket from the map;
/// sockets that are left are closed.
pub(super) type InheritedSockets = BTreeMap<String, OwnedFd>;

/// The first word of the control socket's name, `control PATH`; also its label in the listener metrics.
pub(super) const CONTROL_NAME: &str = "control";

/// Prefix of the name of a listener's socket that the service manager keeps open as well; the listener's address
/// follows.
pub(super) const SHARED_PREFIX: &str = "shared ";

/// Prefix of the name of the admin server's socket; its address follows.
pub(super) const ADMIN_PREFIX: &str = "admin ";
