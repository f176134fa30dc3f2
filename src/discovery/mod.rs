//! Discovery: the addresses of peers that are configured by name, and the peers that sources find.
//!
//! ```text
//!  names          addresses of configured names: for each snapshot, and again while a name has none
//!  watcher        a task for each source ──► SourceUpdate ──► server
//!    file         a list in a file ◄── folder_watch (inotify)
//!    dns          a name with addresses or services
//!    kubernetes   the endpoints of a service
//!    etcd         the keys with a prefix
//! ```
//!
//! A watcher sends what its source says. Whether a list comes into force is decided by
//! [`PeerListGate`](crate::policy::peer_list::PeerListGate); an error never changes a list.

mod dns;
mod etcd;
mod file;
mod folder_watch;
mod kubernetes;
mod names;
mod update;
mod watcher;

pub(crate) use self::dns::look_up_name;
pub(crate) use self::etcd::read_etcd_keys;
pub(crate) use self::file::read_source_file;
pub(crate) use self::kubernetes::read_service;
pub(crate) use self::names::{
    Error, LOOKUP_TIMEOUT, LookupResult, find_unresolved, look_up, peer_names, resolve_new_names,
    resolve_peers,
};
pub(crate) use self::update::{FoundList, SourceId, SourceUpdate};
pub(crate) use self::watcher::{KnownSource, SourceWatcher, WatchedSource, read_once};
