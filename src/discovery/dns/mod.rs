//! A source that is a name of DNS: each address of a name is a peer, or each service (SRV).
//!
//! ```text
//!  watch ─► lookup ─► resolver ─► system         hosts file, search domains
//!    │         │          └─────► name_servers   one after the other: UDP, then TCP ─► preferred_server
//!    │         └─► records, answer               what the records mean; what fills their gaps
//!    └─► refresh                                 when the next lookup follows
//! ```
//!
//! `records`, `answer`, `refresh` and `preferred_server` are pure.

mod answer;
mod lookup;
mod name_servers;
mod preferred_server;
mod records;
mod refresh;
mod resolver;
mod system;
mod watch;

pub(super) use watch::WatchedName;
pub(crate) use watch::look_up_name;
