//! Hot restart: a new process takes over the sockets and the state of the running one.
//!
//! | file | runs in | does |
//! |---|---|---|
//! | [`protocol`] | both | the messages and their channel; the picture of the exchange |
//! | [`upgrade`] | old process | checks the configuration, starts the new program, waits, activates it |
//! | [`old`] | old process | its end of the channel: sends sockets and state, reports its drain |
//! | [`new`] | new process | its end of the channel: receives them, waits for activation |
//! | [`program`] | old process, supervisor | which file to start |

mod new;
mod old;
mod program;
mod protocol;
mod upgrade;

pub(super) use self::new::PredecessorHandle;
pub(super) use self::old::SuccessorHandle;
pub(super) use self::program::program_path;
pub(super) use self::protocol::Error;
pub(super) use self::upgrade::{
    CompletedUpgrade, PendingUpgrade, StandbyProcess, UpgradeJob, send_reply,
};
