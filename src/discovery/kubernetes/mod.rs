//! A source that is a service of Kubernetes: each ready endpoint of its `EndpointSlices` is a peer.
//!
//! ```text
//!  watch ─► api        requests to the API server: list, then watch from its version
//!    ├────► event_lines, objects    lines of JSON ─► slices and events
//!    ├────► slices     what the slices of a service mean: its peers
//!    └────► reconnect  how long a failed request is followed by none
//! ```
//!
//! All but `api` and `watch` are pure. The API is used as the Kubernetes documentation describes it ("API
//! Concepts": efficient detection of changes, bookmarks, chunks, 410 Gone), without a library: of the crate `kube` only
//! one list and one watch would be used.

mod api;
mod event_lines;
mod objects;
mod reconnect;
mod slices;
mod watch;

pub(super) use watch::WatchedService;
pub(crate) use watch::read_service;
