//! Why an attempt ended without a whole response.

use crate::fault::{Blame, Fault};
use crate::proxy::classify::classify_connect;

/// Why an attempt ended without a whole response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No other attempt follows: the client left, its request is refused, or a header cannot be written.
    Client(Fault),
    /// The peer failed, or its response is refused.
    Peer(Fault),
}

impl From<Fault> for Failure {
    /// A fault that a phase returned; its row in the table of faults contains whether another attempt may follow.
    fn from(fault: Fault) -> Self {
        match fault.blame() {
            Blame::Peer => Self::Peer(fault),
            Blame::Client | Blame::Proxy => Self::Client(fault),
        }
    }
}

/// Why no connection was made.
#[derive(Debug)]
pub(super) struct ConnectFailure {
    pub(super) fault: Fault,
    /// The error of the connect, if there was one.
    pub(super) error: Option<Box<pingora::Error>>,
}

impl From<Fault> for ConnectFailure {
    fn from(fault: Fault) -> Self {
        Self { fault, error: None }
    }
}

impl From<Box<pingora::Error>> for ConnectFailure {
    fn from(error: Box<pingora::Error>) -> Self {
        Self {
            fault: classify_connect(error.etype()),
            error: Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_of_a_phase_allows_another_attempt_only_if_it_blames_the_peer() {
        for fault in Fault::ALL {
            let expected = if fault.blame() == Blame::Peer {
                Failure::Peer(*fault)
            } else {
                Failure::Client(*fault)
            };
            assert_eq!(Failure::from(*fault), expected);
        }
    }
}
