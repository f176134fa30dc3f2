//! The peers that one request was already sent to.

use crate::ring::MemberId;

/// The most attempts a request can make; also the bound of `retry.attempts`.
pub const MAX_ATTEMPTS: usize = 16;

/// A small set of peers; never allocates. More than [`MAX_ATTEMPTS`] are not remembered, and a
/// request never gets that far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    members: [Option<MemberId>; MAX_ATTEMPTS],
    len: usize,
}

impl Tried {
    /// No peer yet.
    pub fn none() -> Self {
        Self::default()
    }

    /// Remembers a peer.
    pub fn insert(&mut self, member: MemberId) {
        if let Some(slot) = self.members.get_mut(self.len) {
            *slot = Some(member);
            self.len += 1;
        }
    }

    /// Whether this is the first attempt.
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
