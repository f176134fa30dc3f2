//! The copy of a request's body that is sent again in a retry.

use bytes::{Bytes, BytesMut};

/// The largest body that is kept for a retry, as in Pingora's own sessions; bytes.
const RETRY_BUFFER_SIZE: usize = 64 << 10;

/// A copy of the body as far as it was read, if it is not larger than [`RETRY_BUFFER_SIZE`].
#[derive(Debug, Default)]
pub(crate) enum RetryBuffer {
    /// Nothing is kept: Pingora has not asked for a copy.
    #[default]
    Disabled,
    Complete(BytesMut),
    /// The body is too large; its bytes were dropped.
    Truncated,
}

impl RetryBuffer {
    /// An empty copy of a body that is about to be read.
    pub(crate) fn enabled() -> Self {
        Self::Complete(BytesMut::new())
    }

    pub(super) fn enable(&mut self) {
        if matches!(self, Self::Disabled) {
            *self = Self::enabled();
        }
    }

    /// Adds bytes that were read.
    pub(crate) fn push(&mut self, data: &[u8]) {
        match self {
            Self::Complete(bytes) if bytes.len() + data.len() <= RETRY_BUFFER_SIZE => {
                bytes.extend_from_slice(data);
            }
            Self::Complete(_) => *self = Self::Truncated,
            Self::Disabled | Self::Truncated => {}
        }
    }

    /// Whether the body was too large, so that it cannot be sent again.
    pub(crate) fn is_truncated(&self) -> bool {
        matches!(self, Self::Truncated)
    }

    /// The bytes to send again.
    pub(crate) fn kept(&self) -> &[u8] {
        match self {
            Self::Complete(bytes) => bytes,
            Self::Disabled | Self::Truncated => b"",
        }
    }

    /// The bytes to send again, as Pingora wants them; `None`: there are none.
    pub(super) fn to_bytes(&self) -> Option<Bytes> {
        let kept = self.kept();
        (!kept.is_empty()).then(|| Bytes::copy_from_slice(kept))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn body_is_kept_up_to_its_limit_and_only_once_it_is_asked_for() {
        let mut buffer = RetryBuffer::default();
        buffer.push(b"a");
        assert!(buffer.kept().is_empty() && !buffer.is_truncated());
        buffer.enable();
        assert_eq!(buffer.to_bytes(), None);
        buffer.push(b"bc");
        buffer.enable();
        buffer.push("d".repeat(RETRY_BUFFER_SIZE - 2).as_bytes());
        assert_eq!(buffer.kept().len(), RETRY_BUFFER_SIZE);
        assert_eq!(buffer.to_bytes().unwrap(), buffer.kept());
        buffer.push(b"e");
        assert!(buffer.kept().is_empty() && buffer.is_truncated());
    }
}
