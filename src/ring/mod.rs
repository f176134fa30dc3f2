//! The ring: labels and weights in, indices out.
//!
//! Every member puts points on the circle of 2^32 hashes; a key is hashed onto the same circle and
//! belongs to the member of the next point clockwise. Which points a member gets and how a key is
//! hashed is a [`Dialect`]; everything else here is the same for all of them. Some dialects, which place
//! keys as another system does, have hashes of 64 bits, or look for the *nearest* point, or have no
//! points at all; then "clockwise" means the order in which that system goes on.
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
//! The ring knows no addresses, no health and no load. A member that is down stays on it and is
//! stepped over by [`Ring::find`]; that gives the same answer as a ring built without it, so a
//! flip of health costs no rebuild.
//!
//! Invariants:
//! * the ring is a function of the *set* of members: their order changes the [`MemberId`]s, never
//!   the label that an answer stands for; but for dialects of systems in which the order counts;
//! * points on one hash are all kept, the smallest name first; but where another system does not;
//! * a lookup allocates nothing and costs the same for any number of points; where there are none, it is
//!   the key that costs something for each member, once.

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
