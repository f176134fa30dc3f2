//! Writes a request to a peer of HTTP/1: its head, then its body as it comes out of the body queue.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::Version;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use pingora::ErrorType::{InternalError, InvalidHTTPHeader, WriteTimedout};
use pingora::http::RequestHeader;
use pingora::{Error, OkOrErr as _, Result};
use tokio::io::AsyncWrite;
use tokio::time::timeout;

use crate::http1::{
    CHUNK_END, is_valid_target, trailer_fields, write_chunk_head, write_last_chunk,
};
use crate::pingora_compat::body_queue::BodyQueue;
use crate::pingora_compat::body_sender::BodyToSend;
use crate::pingora_compat::upstream_h2::remove_hop_by_hop;

/// Bytes from which on they are written, without a look at what else is in the queue.
const WRITE_SIZE: usize = 16 * 1024;

/// Converts a request of a client, of any version, to HTTP/1.1 for a peer: removes the fields of the client's connection.
/// A request in chunks stays one, even if its body is known to be empty.
pub(crate) fn convert_request(request: &mut RequestHeader) {
    // RFC 9112 §6.3: the coding counted, not the length.
    let coding = request.remove_header(&TRANSFER_ENCODING);
    remove_hop_by_hop(request);
    if let Some(chunked) = coding {
        request.remove_header(&CONTENT_LENGTH);
        // The only coding that is accepted in a request.
        let _ = request.insert_header(TRANSFER_ENCODING, chunked);
    }
    request.set_version(Version::HTTP_11);
}

/// A target that `http::Uri` cannot hold; an extension of a header that has another one in its place.
#[derive(Clone, Debug)]
struct PeerTarget(Bytes);

/// Sets the target of a request to a peer of HTTP/1, whether `http::Uri` can hold it or not.
pub(crate) fn set_target(request: &mut RequestHeader, target: &str) {
    let target = Bytes::copy_from_slice(target.as_bytes());
    request.extensions_mut().insert(PeerTarget(target));
}

/// A request that is sent: the bytes of its head, and the framing of its body.
#[derive(Debug)]
pub(super) struct RequestWriter {
    out: Vec<u8>,
    framing: BodyFraming,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyFraming {
    Chunked,
    /// The bytes left.
    Exact(u64),
}

impl RequestWriter {
    /// Writes the head, with the framing of its body. `has_body`: a body follows.
    ///
    /// # Errors
    /// The target has bytes that no target has, or `Content-Length` is not a number.
    pub(super) fn new(request: &mut RequestHeader, has_body: bool) -> Result<Self> {
        if !request.headers.contains_key(HOST) {
            // RFC 9112 §3.2: HTTP/1.1 requires the field.
            request.insert_header(HOST, "")?;
        }
        let framing = match request.headers.get(CONTENT_LENGTH) {
            Some(length) => {
                let length = length.to_str().ok().and_then(|length| length.parse().ok());
                let length = length.or_err(InvalidHTTPHeader, "the length of a request")?;
                BodyFraming::Exact(length)
            }
            None if has_body || request.headers.contains_key(TRANSFER_ENCODING) => {
                request.insert_header(TRANSFER_ENCODING, "chunked")?;
                BodyFraming::Chunked
            }
            None => BodyFraming::Exact(0),
        };
        let out = write_head(request)?;
        Ok(Self { out, framing })
    }

    /// Sends the request, and sets `is_sent` when all of it was written. If a write takes too long or the request is
    /// aborted, the error goes to `body.failure`. Other errors end the sending: the response, or its absence, says why the
    /// peer takes no more.
    pub(super) async fn send(
        mut self,
        body: BodyToSend,
        mut peer: impl AsyncWrite + Unpin,
        is_sent: Arc<AtomicBool>,
    ) {
        let queue = body.source.body_queue();
        match self.send_all(queue, &mut peer, body.limit).await {
            Ok(is_complete) => is_sent.store(is_complete, Relaxed),
            Err(error) => {
                // The receiver is gone if the response is already complete.
                let _ = body.failure.send(error);
                queue.stop_sending();
            }
        }
    }

    /// Returns whether all was sent.
    async fn send_all(
        &mut self,
        queue: &BodyQueue,
        peer: &mut (impl AsyncWrite + Unpin),
        limit: Option<Duration>,
    ) -> Result<bool> {
        loop {
            let next = poll_fn(|cx| self.poll_next(cx, queue)).await;
            let is_last = match next {
                QueueStep::Idle => false,
                QueueStep::Chunk(is_last) => is_last,
                QueueStep::Stopped => return Ok(false),
                // The request's context has the fault, and so the status.
                QueueStep::Aborted => {
                    return Error::e_explain(InternalError, "the request was rejected");
                }
                QueueStep::WrongLength => {
                    let context = "the body has another length than its header says";
                    return Error::e_explain(InternalError, context);
                }
            };
            if next == QueueStep::Chunk(false) && self.out.len() < WRITE_SIZE {
                continue;
            }
            match self.flush(queue, peer, limit).await? {
                FlushEnd::Done if is_last => return Ok(true),
                FlushEnd::Stopped if queue.is_stopped() => return Ok(false),
                // If it was aborted, the next look at the queue says so.
                FlushEnd::Done | FlushEnd::Stopped => {}
                FlushEnd::Broken => {
                    queue.stop_sending();
                    return Ok(false);
                }
            }
        }
    }

    /// Frames the next chunk in `out`.
    fn poll_next(&mut self, cx: &mut Context<'_>, queue: &BodyQueue) -> Poll<QueueStep> {
        let (chunk, is_last) = match queue.poll_next(cx) {
            Poll::Ready(Some(_)) if queue.is_stopped() => return Poll::Ready(QueueStep::Stopped),
            Poll::Ready(Some(next)) => next,
            Poll::Ready(None) => return Poll::Ready(QueueStep::Aborted),
            // Nothing is in the queue: what was framed is written meanwhile.
            Poll::Pending if !self.out.is_empty() => return Poll::Ready(QueueStep::Idle),
            Poll::Pending => return Poll::Pending,
        };
        match &mut self.framing {
            BodyFraming::Exact(left) => {
                let Some(rest) = left.checked_sub(chunk.len() as u64) else {
                    return Poll::Ready(QueueStep::WrongLength);
                };
                *left = rest;
                if is_last && rest > 0 {
                    return Poll::Ready(QueueStep::WrongLength);
                }
                self.out.extend_from_slice(&chunk);
            }
            BodyFraming::Chunked => {
                if !chunk.is_empty() {
                    write_chunk_head(chunk.len(), &mut self.out);
                    self.out.extend_from_slice(&chunk);
                    self.out.extend_from_slice(CHUNK_END);
                }
                if is_last {
                    let trailers = queue.trailers().unwrap_or_default();
                    write_last_chunk(trailer_fields(&trailers), &mut self.out);
                }
            }
        }
        Poll::Ready(QueueStep::Chunk(is_last))
    }

    /// Writes what was framed.
    async fn flush(
        &mut self,
        queue: &BodyQueue,
        peer: &mut (impl AsyncWrite + Unpin),
        limit: Option<Duration>,
    ) -> Result<FlushEnd> {
        let mut sent = 0;
        while sent <= self.out.len() {
            let rest = self.out.get(sent..).unwrap_or_default();
            let step = poll_fn(|cx| {
                if let Poll::Ready(step) = poll_step(cx, peer, rest) {
                    return Poll::Ready(Some(step));
                }
                queue.poll_stopped(cx).map(|()| None)
            });
            let step = match limit {
                Some(limit) => timeout(limit, step).await.map_err(|_| timed_out())?,
                None => step.await,
            };
            match step {
                Some(Ok(0)) => break,
                Some(Ok(count)) => sent += count,
                Some(Err(_)) => return Ok(FlushEnd::Broken),
                None => return Ok(FlushEnd::Stopped),
            }
        }
        // A buffer of the usual size is kept: most bodies have more than one chunk.
        self.out.clear();
        self.out.shrink_to(WRITE_SIZE);
        Ok(FlushEnd::Done)
    }
}

/// Pingora's own writer takes the target from `http::Uri`.
fn write_head(request: &RequestHeader) -> Result<Vec<u8>> {
    let target: &[u8] = match request.extensions.get::<PeerTarget>() {
        Some(target) => &target.0,
        None => request.raw_path(),
    };
    if !is_valid_target(target) {
        return Error::e_explain(InvalidHTTPHeader, "the target of a request");
    }
    let mut head = Vec::with_capacity(512 + target.len());
    head.extend_from_slice(request.method.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(target);
    head.extend_from_slice(b" HTTP/1.1\r\n");
    request.header_to_h1_wire(&mut head);
    head.extend_from_slice(b"\r\n");
    Ok(head)
}

/// Writes some of `rest`, and returns how many bytes; flushes if it is empty, and returns 0.
fn poll_step(
    cx: &mut Context<'_>,
    peer: &mut (impl AsyncWrite + Unpin),
    rest: &[u8],
) -> Poll<io::Result<usize>> {
    if rest.is_empty() {
        ready!(Pin::new(peer).poll_flush(cx))?;
        return Poll::Ready(Ok(0));
    }
    match ready!(Pin::new(peer).poll_write(cx, rest)) {
        Ok(0) => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        written => Poll::Ready(written),
    }
}

#[expect(clippy::unnecessary_box_returns, reason = "Pingora's errors are boxed")]
fn timed_out() -> Box<Error> {
    Error::explain(WriteTimedout, "the peer takes nothing of the request")
}

/// What the queue has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueueStep {
    /// Nothing for now.
    Idle,
    /// A chunk was framed; whether it is the last.
    Chunk(bool),
    /// The peer accepts no more.
    Stopped,
    /// The proxy rejects the request.
    Aborted,
    /// The body is longer or shorter than `Content-Length`.
    WrongLength,
}

/// The end of a write.
enum FlushEnd {
    Done,
    /// The queue was stopped.
    Stopped,
    /// The connection failed.
    Broken,
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use tokio::io::{AsyncReadExt as _, duplex};

    use super::*;
    use crate::pingora_compat::body_queue::BodySource;
    use crate::pingora_compat::body_sender::BodyFailure;
    use crate::pingora_compat::interim_responses::InterimResponses;

    #[derive(Default)]
    struct Source(BodyQueue, InterimResponses);

    impl BodySource for Source {
        fn body_queue(&self) -> &BodyQueue {
            &self.0
        }

        fn interim_responses(&self) -> &InterimResponses {
            &self.1
        }
    }

    fn request(fields: &[(&'static str, &'static str)]) -> RequestHeader {
        let mut request = RequestHeader::build("POST", b"/a", None).unwrap();
        for (name, value) in fields {
            request.append_header(*name, *value).unwrap();
        }
        request
    }

    #[test]
    fn converted_request_has_one_framing_and_no_fields_of_the_clients_connection() {
        let hosted = ("Host", "a.test");
        for (fields, has_body, expected) in [
            (&[hosted][..], false, "Host: a.test\r\n"),
            (&[], false, "Host: \r\n"),
            (
                &[hosted, ("Content-Length", "0")],
                false,
                "Host: a.test\r\nContent-Length: 0\r\n",
            ),
            (
                &[hosted, ("Content-Length", "3")],
                true,
                "Host: a.test\r\nContent-Length: 3\r\n",
            ),
            (
                &[hosted],
                true,
                "Host: a.test\r\nTransfer-Encoding: chunked\r\n",
            ),
            (
                &[hosted, ("Transfer-Encoding", "chunked")],
                false,
                "Host: a.test\r\nTransfer-Encoding: chunked\r\n",
            ),
            (
                &[
                    hosted,
                    ("Transfer-Encoding", "chunked"),
                    ("Content-Length", "3"),
                ],
                true,
                "Host: a.test\r\nTransfer-Encoding: chunked\r\n",
            ),
            (
                &[
                    hosted,
                    ("Connection", "X-Listed, close, Host, X-Forwarded-For"),
                    ("X-Listed", "1"),
                    ("TE", "gzip"),
                    ("X-Forwarded-For", "192.0.2.1"),
                ],
                false,
                "Host: a.test\r\nX-Forwarded-For: 192.0.2.1\r\n",
            ),
        ] {
            let mut request = request(fields);
            request.set_version(Version::HTTP_2);
            convert_request(&mut request);
            let writer = RequestWriter::new(&mut request, has_body).unwrap();
            let text = String::from_utf8(writer.out).unwrap();
            let head = text.to_ascii_lowercase();
            let expected = format!("POST /a HTTP/1.1\r\n{expected}\r\n").to_ascii_lowercase();
            assert_eq!(head, expected, "{fields:?}");
        }
    }

    #[test]
    fn target_that_no_uri_can_hold_is_written_and_an_invalid_one_is_an_error() {
        let long = format!("/{}", "x".repeat(70_000));
        for (target, is_valid) in [
            ("/a<b>`\"?\"<>`", true),
            (&long, true),
            ("/a b", false),
            ("/a#b", false),
            ("/a\r\nX: 1", false),
        ] {
            let mut request = request(&[("Host", "h")]);
            set_target(&mut request, target);
            let written = RequestWriter::new(&mut request, false);
            let head = written.map(|writer| String::from_utf8(writer.out).unwrap());
            let expected = format!("POST {target} HTTP/1.1\r\nHost: h\r\n\r\n");
            assert_eq!(head.ok(), is_valid.then_some(expected));
        }
    }

    /// The bytes that a peer gets of a body, whether all was sent, and whether the exchange fails.
    async fn sent(
        length: Option<&'static str>,
        fill: impl FnOnce(&BodyQueue),
    ) -> (String, bool, bool) {
        let fields: Vec<_> = length
            .map(|length| ("Content-Length", length))
            .into_iter()
            .collect();
        let mut request = request(&fields);
        convert_request(&mut request);
        let writer = RequestWriter::new(&mut request, true).unwrap();
        let (near, mut far) = duplex(1 << 16);
        let source = Arc::new(Source::default());
        source.0.open();
        fill(&source.0);
        let (failure, mut failed) = BodyFailure::channel();
        let is_sent = Arc::new(AtomicBool::new(false));
        let body = BodyToSend {
            source,
            limit: Some(Duration::from_secs(5)),
            failure,
        };
        writer.send(body, near, Arc::clone(&is_sent)).await;
        let mut text = String::new();
        far.read_to_string(&mut text).await.unwrap();
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let fails = tokio::select! {
            biased;
            _ = failed.wait() => true,
            () = std::future::ready(()) => false,
        };
        (body.to_owned(), is_sent.load(Relaxed), fails)
    }

    #[tokio::test]
    async fn body_is_sent_in_its_framing_and_only_whole() {
        let chunks = |queue: &BodyQueue| {
            queue.push(Bytes::from_static(b"ab"));
            queue.push(Bytes::new());
            queue.push(Bytes::from_static(b"c"));
        };
        let whole = |queue: &BodyQueue| {
            chunks(queue);
            queue.end();
        };
        let stopped = |queue: &BodyQueue| {
            chunks(queue);
            queue.stop_sending();
        };
        let with_trailers = |queue: &BodyQueue| {
            let trailers = [("x-sum", "1"), ("host", "h")];
            queue.set_trailers(HeaderMap::from_iter(
                trailers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())),
            ));
            whole(queue);
        };
        let trailed = "2\r\nab\r\n1\r\nc\r\n0\r\nx-sum: 1\r\n\r\n".to_owned();
        assert_eq!(sent(None, with_trailers).await, (trailed, true, false));
        // RFC 9112 §7.1.2: only chunks have trailers.
        let plain = ("abc".to_owned(), true, false);
        assert_eq!(sent(Some("3"), with_trailers).await, plain);
        let chunked = "2\r\nab\r\n1\r\nc\r\n0\r\n\r\n".to_owned();
        assert_eq!(sent(None, whole).await, (chunked, true, false));
        assert_eq!(
            sent(Some("3"), whole).await,
            ("abc".to_owned(), true, false)
        );
        for wrong in ["2", "4"] {
            let (_, is_sent, fails) = sent(Some(wrong), whole).await;
            assert!(!is_sent && fails, "{wrong}");
        }
        assert_eq!(sent(None, stopped).await, (String::new(), false, false));
        let (_, is_sent, fails) = sent(None, BodyQueue::abort).await;
        assert!(!is_sent && fails);
    }
}
