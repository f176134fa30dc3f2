//! A request on its way through a simulation.

use crate::ring::{Hash, HashedKey};

pub(super) const MICROS_PER_SECOND: u64 = 1_000_000;

/// A request of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ReplayRequest {
    /// Its start, in microseconds since any fixed moment.
    pub start: u64,
    /// From its start to its end, in microseconds.
    pub duration: u64,
    /// The bytes of the response's body.
    pub bytes: u64,
    /// The hash of its key; `None`: it had none.
    pub hash: Option<Hash>,
}

impl ReplayRequest {
    /// The request with a later start; its end stays, unless the start is after it.
    #[must_use]
    pub(crate) fn with_start(self, start: u64) -> Self {
        let end = self.end().max(start);
        Self {
            start,
            duration: end - start,
            ..self
        }
    }

    /// Its end.
    pub(crate) const fn end(self) -> u64 {
        self.start.saturating_add(self.duration)
    }
}

/// A request of the log, numbered.
#[derive(Debug)]
pub(super) struct SimulatedRequest {
    pub(super) number: u64,
    pub(super) selector: PeerSelector,
    pub(super) logged: ReplayRequest,
}

/// The input that selects the peer of a request.
#[derive(Debug)]
pub(super) enum PeerSelector {
    Key(HashedKey),
    RoundRobin(usize),
}
