//! Reads into a buffer that holds no memory while nothing has come.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

/// Room of a thread for a head with the start of its body, or for a piece of a body; bytes.
const SHARED_SIZE: usize = 16 * 1024;

/// Room for the rest of a head that has come in part; bytes.
const HEAD_REST_SIZE: usize = 4 * 1024;

thread_local! {
    static SHARED: RefCell<Vec<u8>> = RefCell::new(vec![0; SHARED_SIZE]);
}

/// Reads a head or the start of one into `input`; the number of bytes, 0 at the end of the stream.
///
/// If `input` is empty, the bytes are read into memory of the thread and copied: a connection that waits has no buffer,
/// and one that does not gets a buffer of the right size. To copy a head is cheaper than to allocate twice.
pub(crate) fn poll_read_head(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    input: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    if !input.is_empty() {
        return poll_read_body(stream, cx, input, HEAD_REST_SIZE);
    }
    SHARED.with_borrow_mut(|shared| {
        let mut buffer = ReadBuf::new(shared);
        ready!(pin!(stream).poll_read(cx, &mut buffer))?;
        let read = buffer.filled();
        *input = BytesMut::from(read);
        Poll::Ready(Ok(read.len()))
    })
}

/// Reads at most `room` bytes more into `input`; the number of bytes, 0 at the end of the stream. A buffer that stays
/// empty is released.
pub(crate) fn poll_read_body(
    stream: &mut (impl AsyncRead + Unpin),
    cx: &mut Context<'_>,
    input: &mut BytesMut,
    room: usize,
) -> Poll<io::Result<usize>> {
    input.reserve(room);
    let read = pin!(stream.read_buf(input)).poll(cx);
    if read.is_pending() && input.is_empty() {
        *input = BytesMut::new();
    }
    read
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Waker;

    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn head_is_read_in_pieces_without_memory_while_none_comes() {
        let (mut near, mut far) = duplex(64);
        let mut input = BytesMut::new();
        let mut idle = Context::from_waker(Waker::noop());
        assert!(poll_read_head(&mut near, &mut idle, &mut input).is_pending());
        assert_eq!(input.capacity(), 0);
        for (piece, whole) in [("GET ", "GET "), ("/ HTTP/1.1", "GET / HTTP/1.1")] {
            far.write_all(piece.as_bytes()).await.unwrap();
            let read = poll_fn(|cx| poll_read_head(&mut near, cx, &mut input)).await;
            assert_eq!((read.unwrap(), &input[..]), (piece.len(), whole.as_bytes()));
        }
        drop(far);
        let read = poll_fn(|cx| poll_read_head(&mut near, cx, &mut input)).await;
        assert_eq!(read.unwrap(), 0);
    }

    #[tokio::test]
    async fn body_buffer_is_released_when_nothing_comes() {
        let (mut near, mut far) = duplex(64);
        let mut input = BytesMut::new();
        let mut idle = Context::from_waker(Waker::noop());
        assert!(poll_read_body(&mut near, &mut idle, &mut input, 32).is_pending());
        assert_eq!(input.capacity(), 0);
        far.write_all(&[7; 40]).await.unwrap();
        let read = poll_fn(|cx| poll_read_body(&mut near, cx, &mut input, 32)).await;
        assert!((1..=40).contains(&read.unwrap()));
        assert!(poll_read_body(&mut far, &mut idle, &mut BytesMut::new(), 8).is_pending());
    }
}
