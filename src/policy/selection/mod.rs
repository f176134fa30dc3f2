//! The peer for a request, and the bound that it is admitted under: one code for serving and for predictions.
//!
//! ```text
//!   PeerView ──► assigned_peer ──┐
//!                                ├─► try_assigned_peer ─┬─ below the bound ──► admitted
//!   LoadView ──► hot key's turn ─┘                      └─ at the bound ─┬─ may_wait ──► a queue of the caller
//!                                                                        └─ otherwise ─► admit_overflow
//! ```
//!
//! The two traits are what differs: serving reads atomics and hands out permits, a prediction reads its own
//! numbers. All calls are static; nothing here allocates.

mod admission;
mod assigned;
mod bound;
mod overflow;
mod view;

pub(crate) use self::admission::{AssignedPeerResult, MAX_WAITING, may_wait, try_assigned_peer};
pub(crate) use self::assigned::{assigned_peer, may_be_assigned};
pub(crate) use self::bound::{PARTS_PER_WEIGHT, PeerBound, total_parts};
pub(crate) use self::overflow::{OverflowAdmission, admit_overflow};
pub(crate) use self::view::{DrainLimits, LoadView, PeerView, peer_bound};
