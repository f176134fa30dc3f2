//! What a change of an upstream would do, before it is done: which keys move, and where the load goes.
//!
//! ```text
//!  peers ── Change ──► peers          without, add, weight: questions that need no second file
//!    │                   │
//!   Side              Side            peers on their ring; Parts: who has how much of it
//!    │                   │
//!  Placement         Placement        a ring, the names of its members, and who is down
//!    └──── Comparison ───┘            the share of the key space that moves, from whom to whom
//!    └──── Simulation ───┘            a day of traffic: requests, requests in flight, overflow
//!               ▲
//!            Replay                   the lines of a log, in the order in which requests came
//! ```
//!
//! Nothing here acts, and nothing here guesses where it can count: a [`Comparison`] goes through
//! every point of both rings. Shares are whole numbers of the 2^32 hashes; where a dialect has 2^64 of
//! them, of as many equal parts, and where it has no points, of a sample.

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

pub use change::{PeerSetChange, PeerSpec, UnknownPeer};
pub use movement::{Comparison, KeyMoves, Movement, MovementBasis, OwnerPair, PeerMovement};
pub use peer_shares::{PeerShare, PeerShares};
pub use placement::KeyPlacement;
pub use reorder_buffer::ReorderBuffer;
pub use replay::{
    LogReplay, LogStats, NoMatchingRequests, ReplayFormat, ReplayOptions, ReplayOutcome,
    SimulatedLoads, ratio,
};
pub use scenario::{Scenario, ScenarioError};
pub use simulation::{LoadRules, ReplayRequest, SimulatedLoad, Simulation};
pub use svg::render_svg;

/// The number of hashes, of which shares are parts.
pub const HASH_SPACE: u64 = 1 << 32;

/// A number of hashes as a share of all of them, 0 … 1; exact.
#[expect(
    clippy::cast_precision_loss,
    reason = "at most 2^32, which f64 holds exactly"
)]
pub const fn share(hashes: u64) -> f64 {
    hashes as f64 / HASH_SPACE as f64
}

/// A number of hashes in per cent of all of them, as in `33.33333333`. Eight decimals tell any two
/// numbers of hashes apart: one hash is 2.3 of the last digit.
pub fn percent(hashes: u64) -> String {
    /// 100 % in units of the last digit.
    const WHOLE: u128 = 100 * 100_000_000;
    let units = (u128::from(hashes) * WHOLE + u128::from(HASH_SPACE / 2)) >> 32;
    format!("{}.{:08}", units / 100_000_000, units % 100_000_000)
}
