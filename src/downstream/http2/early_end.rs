//! The rest of a request after its complete response (RFC 9113 §8.1).
//!
//! The server may reset such a stream with `NO_ERROR`; `h2` does so when the last handle of the stream is dropped. But
//! libcurl 7.88 (Debian 12) loses a response if the reset arrives together with its end. So the rest is read and dropped for a
//! short time: a small upload ends meanwhile, and any other client has read the response before the reset. The end of a 2xx may
//! be held back before: see `stream/held_end.rs`.

use std::time::Duration;

use h2::RecvStream;
use tokio::time::timeout;

use super::super::close::LINGERING_CLOSE;

/// The longest time for which the rest of a request is read; at most as many bytes as in a lingering close.
pub(super) const LINGER: Duration = Duration::from_millis(500);

/// Reads and drops the rest of a request; returns whether the request has ended within the limits. If not, the stream
/// is reset.
pub(super) async fn discard_rest(mut rest: RecvStream) -> bool {
    let ended = timeout(LINGER, read_to_end(&mut rest, LINGERING_CLOSE.1)).await;
    ended.unwrap_or(false)
}

async fn read_to_end(rest: &mut RecvStream, limit: usize) -> bool {
    let mut read = 0;
    while let Some(data) = rest.data().await {
        let Ok(data) = data else {
            return false;
        };
        read += data.len();
        if read > limit {
            return false;
        }
        // Fails if the stream has ended; then the window does not matter.
        let _ = rest.flow_control().release_capacity(data.len());
    }
    true
}
