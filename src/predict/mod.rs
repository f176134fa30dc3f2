//! Predicts what a change of an upstream would do: which keys move, and where the load goes.
//!
//! ```text
//!  PeerSpec[] ─ PeerSetChange ─► PeerSpec[]   peers added, removed, reweighted; needs no second file
//!      │                             │
//!   Scenario                     Scenario     peers and their ring; PeerShares: each peer's share of it
//!      │                             │
//!  KeyPlacement                 KeyPlacement  a ring, the labels of its members, and which are down
//!      ├───────── Comparison ────────┤        the share of the key space that moves, per pair of owners
//!      └───────── Simulation ────────┘        a log's traffic: requests, requests in flight, overflow
//!                     ▲
//!                 LogReplay                   the requests of a log, in the order of their start
//! ```
//!
//! Nothing here changes a running upstream. A [`Comparison`] is computed from every point of both rings and
//! counts in 2^32nds of the hash space; a dialect without points is estimated from a sample.

mod change;
mod json;
mod movement;
mod peer_shares;
mod placement;
mod reorder_buffer;
mod replay;
mod scenario;
mod simulation;
mod svg;

#[cfg(test)]
mod tests;

pub(crate) use change::{PeerSetChange, PeerSpec, UnknownPeer};
pub(crate) use movement::{Comparison, KeyMoves, Movement, MovementBasis, OwnerPair, PeerMovement};
pub(crate) use peer_shares::{PeerShare, PeerShares};
pub(crate) use placement::KeyPlacement;
pub(crate) use reorder_buffer::ReorderBuffer;
pub(crate) use replay::{
    LogReplay, ReplayFormat, ReplayOptions, ReplayOutcome, SimulatedLoads, ratio,
};
pub(crate) use scenario::Scenario;
pub(crate) use simulation::{LoadRules, PlacedRequest, ReplayRequest, SimulatedLoad, Simulation};
pub(crate) use svg::render_svg;

/// The number of hashes that shares are counted in.
pub(crate) const HASH_SPACE: u64 = 1 << 32;

/// Converts a number of hashes to a share, 0 … 1. Exact.
#[expect(
    clippy::cast_precision_loss,
    reason = "at most 2^32, which f64 holds exactly"
)]
pub(crate) const fn share(hashes: u64) -> f64 {
    hashes as f64 / HASH_SPACE as f64
}

/// Converts a number of hashes to per cent, as in `33.33333333`. Eight decimals distinguish any two
/// numbers of hashes: one hash is 2.3 of the last digit.
pub(crate) fn percent(hashes: u64) -> String {
    /// 100 % in units of the last digit.
    const WHOLE: u128 = 100 * 100_000_000;
    let units = (u128::from(hashes) * WHOLE + u128::from(HASH_SPACE / 2)) >> 32;
    format!("{}.{:08}", units / 100_000_000, units % 100_000_000)
}
