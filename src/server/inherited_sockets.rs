//! Listening sockets that come from outside: handed over by an old process, or passed by the service manager.
//!
//! Each has a name that both processes derive from their configuration, so that a socket finds the listener it
//! belongs to.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

/// The sockets by name. Each listener takes its own out; the rest is closed.
pub(super) type InheritedSockets = BTreeMap<String, OwnedFd>;

/// The name of the control socket is this, a space, and its path. A listener's name is its configured address.
pub(super) const CONTROL_NAME: &str = "control";

/// Comes before the address of a listener with a socket that the service manager keeps, too.
pub(super) const SHARED_PREFIX: &str = "shared ";

/// Comes before the address of the admin server's socket.
pub(super) const ADMIN_PREFIX: &str = "admin ";
