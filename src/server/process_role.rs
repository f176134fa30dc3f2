//! The role that the environment gives this process: started on its own, to take over from another, or by a supervisor.

use std::ffi::OsStr;

/// Set to `1`: standard input is the hand-over channel of the process to take over from.
pub(super) const SUCCESSOR_ENV: &str = "CLOCKWISE_SUCCESSOR";

/// Set to `1`: a supervisor stands above this process, which must not become one.
pub(super) const SUPERVISED_ENV: &str = "CLOCKWISE_SUPERVISED";

/// Whether this process was started to take over from another.
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
