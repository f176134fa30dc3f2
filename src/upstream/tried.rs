//! The peers that one request was already sent to.

use crate::ring::MemberId;

/// The most attempts of a request; also the upper bound of `retry.attempts`.
pub(crate) const MAX_ATTEMPTS: usize = 16;

/// A set of at most [`MAX_ATTEMPTS`] peers, without allocation. Further peers are not recorded: a request
/// has no further attempts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    members: [Option<MemberId>; MAX_ATTEMPTS],
    len: usize,
}

impl Tried {
    /// The set before the first attempt.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds a peer.
    pub fn insert(&mut self, member: MemberId) {
        if let Some(slot) = self.members.get_mut(self.len) {
            *slot = Some(member);
            self.len += 1;
        }
    }

    /// Whether no peer was tried.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the peer was tried.
    pub fn contains(&self, member: MemberId) -> bool {
        self.members
            .iter()
            .take(self.len)
            .any(|tried| *tried == Some(member))
    }
}
