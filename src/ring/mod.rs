//! Consistent hashing: labels and weights in, member numbers out.
//!
//! Every member puts points on the circle of 2^32 hashes. A key is hashed onto the same circle and
//! belongs to the member of the next point clockwise. A [`Dialect`] defines the points of a member and
//! the hash of a key; everything else is common to all dialects. Some dialects of other systems hash to
//! 64 bits, choose the *nearest* point, or rank the members without any points; "clockwise" then means
//! the order in which that system tries the members.
//!
//! ```
//! use clockwise::ring::{Dialect, Ring, Weight};
//!
//! let ring = Ring::new(Dialect::default(), [("a:80", Weight::ONE), ("b:80", Weight::ONE)])?;
//! let key = ring.key(b"some key");
//! let owner = ring.owner(&key);
//! let next = ring.find(&key, |member| Some(member) != owner);
//! assert_ne!(owner, next);
//! # Ok::<(), clockwise::ring::Error>(())
//! ```
//!
//! The ring knows no addresses, no health and no load. A member that is down stays on the ring, and
//! [`Ring::find`] steps over it. With a fixed number of points per member the result is that of a ring
//! built without the member, so a change of health costs no rebuild.
//!
//! Invariants:
//! * the ring depends on the *set* of members: their order changes the [`MemberId`]s, never the label of
//!   an owner. Dialects of systems in which the order counts are the exception;
//! * points with the same hash are all kept, the smallest name first, except in dialects of systems that do
//!   otherwise;
//! * a lookup allocates nothing, and its cost does not depend on the number of points. In a dialect
//!   without points, [`Ring::key`] allocates once and computes one hash per member.

mod build;
mod dialect;
mod hash;
mod index;
mod key;
mod lookup;
mod md5;
mod member;
mod nearest;
mod overlay;
mod rebuild;
mod rendezvous;
mod shares;
mod walk;

#[cfg(test)]
mod tests;

pub use build::Error;
pub use dialect::{
    Dialect, DialectOptionValue, InvalidId, ats, caddy, envoy, haproxy, twemproxy, varnish,
};
pub use hash::{Hash, KEY_PART_SEPARATOR};
pub use key::HashedKey;
pub use lookup::Ring;
pub use member::{Member, MemberId, Weight};
pub use overlay::{OverlayRun, overlay, overlay_available};
pub use walk::{Walk, WalkCursor};
