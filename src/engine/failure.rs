//! Why an attempt ended without a whole response.

use crate::fault::Fault;

/// Why an attempt ended without a whole response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The client broke off, or its request is refused: no other attempt follows.
    Client(Fault),
    /// The peer failed.
    Peer {
        fault: Fault,
        /// A connection from the pool ended before anything came: the peer had closed it.
        stale_connection: bool,
    },
}

impl Failure {
    /// A failure of the peer that says something about it.
    pub(super) const fn peer(fault: Fault) -> Self {
        Self::Peer {
            fault,
            stale_connection: false,
        }
    }
}
