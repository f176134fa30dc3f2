//! One request to an HTTP/2 peer and its response: Pingora's session, but the body is sent from the body queue.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, SendStream};
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, StatusCode, Uri};
use pingora::ErrorType::{H2Downgrade, H2Error, InvalidH2, InvalidHTTPHeader, WriteError};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::v2::client::Http2Session;
use pingora::protocols::http::v2::write_body;
use pingora::protocols::{Digest, UniqueIDType};
use pingora::{Error, ErrorType, OrErr, Result};

use super::super::body_sender::{BodySender, BodyToSend};
use super::super::in_transit::InTransit;
use crate::grpc;

/// An HTTP/2 stream to a peer.
pub(crate) struct UpstreamH2Session {
    inner: Http2Session,
    /// The pieces of the response that were read and are not yet written to the client.
    in_transit: InTransit,
    /// Whether requests to this peer must use HTTP/1.1 from now on.
    requires_http1: bool,
}

impl From<Http2Session> for UpstreamH2Session {
    fn from(inner: Http2Session) -> Self {
        Self {
            inner,
            in_transit: InTransit::of_http2(),
            requires_http1: false,
        }
    }
}

impl UpstreamH2Session {
    pub(super) fn into_inner(self) -> Http2Session {
        self.inner
    }

    /// Whether the peer requires HTTP/1.1 (`HTTP_1_1_REQUIRED`, RFC 9113 §7), or has violated HTTP/2.
    pub(super) fn requires_http1(&self) -> bool {
        self.requires_http1
    }

    /// The digest of the connection.
    pub(crate) fn digest(&self) -> Option<&Digest> {
        self.inner.digest()
    }

    /// The file descriptor of the connection.
    pub(crate) fn fd(&self) -> UniqueIDType {
        self.inner.fd()
    }

    /// Sends the header of the request; returns the sender of the body. `end`: no body follows.
    ///
    /// # Errors
    /// The header cannot be sent.
    pub(crate) fn start(
        &mut self,
        mut request: Box<RequestHeader>,
        end: bool,
        body: BodyToSend,
    ) -> Result<Option<BodySender>> {
        let scheme = match self.inner.digest() {
            Some(digest) if digest.ssl_digest.is_some() => Scheme::HTTPS,
            _ => Scheme::HTTP,
        };
        let target = request_uri(&request, scheme)?;
        request.set_uri(target);
        request.remove_header(&HOST);
        let queue = body.source.body_queue();
        // A body that the attempt before has read may have been empty but for its trailers.
        let ends_with_header = end && !queue.has_trailers();
        self.inner.write_request_header(request, ends_with_header)?;
        let Some(peer) = self.inner.take_request_body_writer() else {
            return Ok(None);
        };
        queue.open();
        if end {
            queue.end();
        }
        if ends_with_header {
            return Ok(None);
        }
        Ok(Some(BodySender::new(send_body(body, peer))))
    }

    /// Reads the next header of the response, interim or final.
    ///
    /// # Errors
    /// The stream or the connection ended, or the response is malformed.
    pub(crate) async fn read_head(&mut self) -> Result<()> {
        let header = self.inner.read_response_header().await;
        if let Err(error) = &header {
            self.requires_http1 = matches!(error.etype(), H2Downgrade | InvalidH2);
        }
        header.and_then(|()| self.check_content_length())
    }

    /// Reads the next piece of the response's body; `None`: it has ended.
    ///
    /// # Errors
    /// The stream or the connection ended within the body.
    pub(crate) async fn read_piece(&mut self) -> Result<Option<Bytes>> {
        poll_fn(|cx| self.in_transit.poll_room(cx)).await;
        match self.inner.read_response_body().await {
            Err(failure) if self.is_complete(&failure) => Ok(None),
            Ok(Some(piece)) => {
                let size = piece.len();
                Ok(Some(self.in_transit.track(piece, size)))
            }
            end => end,
        }
    }

    /// Reads the trailers of the response; `None`: it has none.
    ///
    /// # Errors
    /// The stream or the connection ended before them.
    pub(crate) async fn read_trailers(&mut self) -> Result<Option<HeaderMap>> {
        match self.inner.read_trailers().await {
            Err(failure) if self.is_complete(&failure) => Ok(None),
            trailers => trailers,
        }
    }

    /// Whether the response has ended.
    ///
    /// # Errors
    /// The stream or the connection ended before its end.
    pub(crate) fn check_end(&mut self) -> Result<bool> {
        self.inner.check_response_end_or_error()
    }

    /// Whether nothing of the response follows.
    pub(crate) fn is_finished(&self) -> bool {
        self.inner.response_finished()
    }

    /// The header of the response that was read last.
    pub(crate) fn header(&self) -> Option<&ResponseHeader> {
        self.inner.response_header()
    }

    /// Resets the stream.
    pub(crate) fn abort(&mut self) {
        self.inner.shutdown();
    }

    /// Returns an error if the header has a `content-length` above 0 and `END_STREAM`: the response is truncated
    /// (RFC 9113 §8.1.1).
    fn check_content_length(&self) -> Result<()> {
        let Some(response) = self.inner.response_header() else {
            return Ok(());
        };
        let length = response.headers.get(CONTENT_LENGTH);
        let some =
            length.is_some_and(|length| length.as_bytes().iter().any(|&digit| digit != b'0'));
        if some && !self.has_no_body(response) && self.inner.response_finished() {
            return Error::e_explain(H2Error, "the response's body is missing");
        }
        Ok(())
    }

    /// Whether the response has no body, whatever its `content-length` says (RFC 9110 §6.4.1).
    fn has_no_body(&self, response: &ResponseHeader) -> bool {
        let asked = self.inner.request_header();
        asked.is_some_and(|asked| asked.method == Method::HEAD)
            || matches!(
                response.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            )
    }

    /// Whether a read failed only because the connection ended after a complete response.
    ///
    /// If the connection ends before the whole request is sent, `h2` forgets that the response has ended (0.4.20,
    /// `State::recv_eof`). The response is known to be complete if all bytes of its `content-length` have come, or if it has
    /// no body: its header has gRPC's status, or its status or the method excludes a body.
    fn is_complete(&self, failure: &Error) -> bool {
        let cause = failure.root_cause().downcast_ref::<h2::Error>();
        let (Some(cause), Some(response)) = (cause, self.inner.response_header()) else {
            return false;
        };
        if !cause.is_io() && !cause.is_go_away() {
            return false;
        }
        let received = self.inner.body_bytes_received();
        let header_is_all =
            self.has_no_body(response) || response.headers.contains_key(grpc::STATUS);
        let length = response.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        (received == 0 && header_is_all) || length == Some(received)
    }
}

/// Sends the body and its trailers to `peer`. If a chunk takes longer than the limit or the request is aborted, resets the
/// stream and sends the error to `body.failure`.
async fn send_body(body: BodyToSend, mut peer: SendStream<Bytes>) {
    let queue = body.source.body_queue();
    let failed = loop {
        let Some((chunk, last)) = poll_fn(|cx| queue.poll_next(cx)).await else {
            // Not the error for the client: the status comes from the fault in the request's context.
            break Error::explain(ErrorType::InternalError, "the request was rejected");
        };
        let trailers = if last { queue.trailers() } else { None };
        let sent = match trailers {
            Some(trailers) => send_end(&mut peer, chunk, trailers, body.limit).await,
            None => write_body(&mut peer, chunk, last, body.limit).await,
        };
        match sent {
            Ok(()) if last => return,
            Ok(()) => {}
            Err(error) if *error.etype() == ErrorType::WriteTimedout => break error,
            // Not reported here: the read of the response returns why the stream has ended.
            Err(_) => return queue.stop_sending(),
        }
    };
    peer.send_reset(Reason::CANCEL);
    // The receiver is gone if the response is already complete.
    let _ = body.failure.send(failed);
    queue.stop_sending();
}

/// Sends the last chunk, which may be empty, and the trailers.
async fn send_end(
    peer: &mut SendStream<Bytes>,
    chunk: Bytes,
    trailers: HeaderMap,
    limit: Option<Duration>,
) -> Result<()> {
    if !chunk.is_empty() {
        write_body(peer, chunk, false, limit).await?;
    }
    let sent = peer.send_trailers(trailers);
    sent.or_err(WriteError, "the trailers of a request")
}

/// Builds the URI that has `:scheme`, `:authority` and `:path` (RFC 9113 §8.3.1), from the request's target and `Host`.
///
/// # Errors
/// `Host` is missing or is not an authority.
fn request_uri(request: &RequestHeader, scheme: Scheme) -> Result<Uri> {
    let host = request
        .headers
        .get(HOST)
        .map_or(&b""[..], |host| host.as_bytes());
    let authority = Authority::try_from(host).or_err(InvalidHTTPHeader, "invalid or no Host")?;
    let path = request.uri.path_and_query().cloned();
    let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(path);
    uri.build().or_err(InvalidHTTPHeader, "invalid target")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn http2_upstream_request_target_has_the_authority() {
        let mut request = RequestHeader::build("GET", b"/a?b", None).unwrap();
        assert!(request_uri(&request, Scheme::HTTP).is_err());
        request.insert_header(HOST, "a.test:8443").unwrap();
        let uri = request_uri(&request, Scheme::HTTPS).unwrap();
        assert_eq!(uri, "https://a.test:8443/a?b");
    }
}
