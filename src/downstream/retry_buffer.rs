//! The copy of a request's body that Pingora sends again in a retry.

use bytes::{Bytes, BytesMut};

/// The largest body that is kept for a retry, as in Pingora's own sessions; bytes.
const RETRY_BUFFER_SIZE: usize = 64 << 10;

/// A copy of the body as far as it was read, if it is not larger than [`RETRY_BUFFER_SIZE`].
#[derive(Debug, Default)]
pub(super) enum RetryBuffer {
    /// Pingora has not asked for a copy.
    #[default]
    Disabled,
    Complete(BytesMut),
    /// The body is too large; its bytes were dropped.
    Truncated,
}

impl RetryBuffer {
    pub(super) fn enable(&mut self) {
        if matches!(self, Self::Disabled) {
            *self = Self::Complete(BytesMut::new());
        }
    }

    /// Whether Pingora has asked for a copy: it does so once a peer is connected.
    pub(super) fn is_enabled(&self) -> bool {
        !matches!(self, Self::Disabled)
    }

    pub(super) fn push(&mut self, data: &Bytes) {
        match self {
            Self::Complete(bytes) if bytes.len() + data.len() <= RETRY_BUFFER_SIZE => {
                bytes.extend_from_slice(data);
            }
            Self::Complete(_) => *self = Self::Truncated,
            Self::Disabled | Self::Truncated => {}
        }
    }

    pub(super) fn is_truncated(&self) -> bool {
        matches!(self, Self::Truncated)
    }

    /// The bytes to send again; `None`: there are none.
    pub(super) fn bytes(&self) -> Option<Bytes> {
        match self {
            Self::Complete(bytes) if !bytes.is_empty() => Some(bytes.clone().freeze()),
            _ => None,
        }
    }
}
