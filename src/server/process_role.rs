//! The role of this process, set by environment variables: the successor of a running process (hot restart), the child of
//! a supervisor, both or neither.

use std::ffi::OsStr;

/// `1` in a process that takes over from a running one: standard input is the channel between the two.
pub(super) const SUCCESSOR_ENV: &str = "CLOCKWISE_SUCCESSOR";

/// `1` in the child of a supervisor and its descendants, so that none of them becomes a supervisor itself.
pub(super) const SUPERVISED_ENV: &str = "CLOCKWISE_SUPERVISED";

/// `1` in the `check` of an upgrade. Not an argument: a program of another version refuses those that it does not know.
pub(super) const UPGRADE_CHECK_ENV: &str = "CLOCKWISE_UPGRADE_CHECK";

/// Whether a running process started this one to check the configuration before an upgrade: it holds ports and
/// sockets itself, and does not wait for name servers.
pub(crate) fn is_upgrade_check() -> bool {
    is_set(UPGRADE_CHECK_ENV)
}

/// Whether this process was started to take over from a running one.
pub(super) fn is_successor() -> bool {
    is_set(SUCCESSOR_ENV)
}

/// Whether a supervisor started this process, or one of its ancestors.
pub(super) fn is_supervised() -> bool {
    is_set(SUPERVISED_ENV)
}

fn is_set(name: &str) -> bool {
    std::env::var_os(name).as_deref() == Some(OsStr::new("1"))
}
