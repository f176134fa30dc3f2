//! One request to an HTTP/2 peer and its response: Pingora's session, with another way to send the body.

use std::future::poll_fn;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use h2::{Reason, SendStream};
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, StatusCode, Uri};
use pingora::ErrorType::{H2Downgrade, H2Error, InvalidH2, InvalidHTTPHeader};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::custom::client;
use pingora::protocols::http::custom::{BodyWrite, CustomMessageWrite};
use pingora::protocols::http::v2::client::Http2Session;
use pingora::protocols::http::v2::write_body;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{Digest, UniqueIDType};
use pingora::{Error, ErrorType, OrErr, Result};
use tokio::sync::oneshot;

use super::super::body_queue::BodySource;
use super::super::body_sender::{BodyFailure, BodyQueueWriter, BodySender};
use super::super::in_transit::InTransit;
use super::super::user_data;
use crate::grpc;

/// In the digest of every session of this connector. Pingora 0.9.1 does not tell its hooks which connector a
/// connection is from.
static MARKER: LazyLock<Option<Arc<ProxyDigest>>> =
    LazyLock::new(|| user_data::wrap(&Arc::new(Marker)).ok());

struct Marker;

/// Whether it is the digest of a session of this connector.
pub(super) fn is_marker(digest: &ProxyDigest) -> bool {
    user_data::unwrap::<Marker>(digest).is_some()
}

/// A stream to a peer.
pub(crate) struct UpstreamH2Session {
    inner: Http2Session,
    /// The connection's, with [`MARKER`].
    digest: Digest,
    /// The source of the request's body.
    source: Option<Arc<dyn BodySource>>,
    /// Sends the body; taken by Pingora, which polls it.
    body_sender: Option<BodySender>,
    /// Receives the error if the body could not be sent.
    body_failure: BodyFailure,
    /// What was read of the response, and not written to the client yet.
    in_transit: InTransit,
    requires_http1: bool,
}

impl From<Http2Session> for UpstreamH2Session {
    fn from(inner: Http2Session) -> Self {
        let digest = Digest {
            proxy_digest: MARKER.clone(),
            ..inner.digest().cloned().unwrap_or_default()
        };
        Self {
            inner,
            digest,
            source: None,
            body_sender: None,
            body_failure: BodyFailure::default(),
            in_transit: InTransit::default(),
            requires_http1: false,
        }
    }
}

impl UpstreamH2Session {
    pub(super) fn into_inner(self) -> Http2Session {
        self.inner
    }

    /// Whether the peer requires HTTP/1.1 (RFC 9113 §7), or its HTTP/2 is broken.
    pub(super) fn requires_http1(&self) -> bool {
        self.requires_http1
    }

    /// Starts to send the body after the header.
    fn start_body(&mut self, end: bool) {
        let (Some(source), Some(peer)) = (&self.source, self.inner.take_request_body_writer())
        else {
            return;
        };
        source.body_queue().open();
        if end {
            return source.body_queue().end();
        }
        let (failure, failed) = BodyFailure::channel();
        let sending = send_body(Arc::clone(source), peer, self.inner.write_timeout, failure);
        self.body_sender = Some(BodySender::new(sending));
        self.body_failure = failed;
    }

    /// A header with `content-length` above 0 and `END_STREAM` is a truncated response (RFC 9113 §8.1.1).
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

    /// Responses that have no body, whatever `content-length` says (RFC 9110 §6.4.1).
    fn has_no_body(&self, response: &ResponseHeader) -> bool {
        let asked = self.inner.request_header();
        asked.is_some_and(|asked| asked.method == Method::HEAD)
            || matches!(
                response.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            )
    }

    /// Whether a failed read is only the end of the connection after a complete response.
    ///
    /// If the connection ends before the request is complete, `h2` forgets that the response has ended
    /// (0.4.20, `State::recv_eof`). The header may show it instead: by its length, or by gRPC's status.
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

/// Sends the body to `peer`, each chunk within `limit`. If a chunk takes longer or the request is aborted, the error
/// goes to `failure`.
async fn send_body(
    source: Arc<dyn BodySource>,
    mut peer: SendStream<Bytes>,
    limit: Option<Duration>,
    failure: oneshot::Sender<Box<Error>>,
) {
    let queue = source.body_queue();
    let failed = loop {
        let Some((chunk, last)) = poll_fn(|cx| queue.poll_next(cx)).await else {
            // The request's context has the fault, and so the status.
            break Error::explain(ErrorType::InternalError, "the request was rejected");
        };
        match write_body(&mut peer, chunk, last, limit).await {
            Ok(()) if last => return,
            Ok(()) => {}
            Err(error) if *error.etype() == ErrorType::WriteTimedout => break error,
            // The response says why the stream has ended.
            Err(_) => return queue.stop_sending(),
        }
    };
    peer.send_reset(Reason::CANCEL);
    // The receiver is gone if the response is already complete.
    let _ = failure.send(failed);
    queue.stop_sending();
}

/// `:scheme`, `:authority` and `:path` (RFC 9113 §8.3.1), of a request with its host in a field.
fn request_uri(request: &RequestHeader, scheme: Scheme) -> Result<Uri> {
    let host = request
        .headers
        .get(HOST)
        .map_or(&b""[..], |host| host.as_bytes());
    let authority = Authority::try_from(host).or_err(InvalidHTTPHeader, "no authority")?;
    let path = request.uri.path_and_query().cloned();
    let path = path.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let uri = Uri::builder()
        .scheme(scheme)
        .authority(authority)
        .path_and_query(path);
    uri.build().or_err(InvalidHTTPHeader, "no target")
}

#[async_trait]
impl client::Session for UpstreamH2Session {
    async fn write_request_header(&mut self, mut req: Box<RequestHeader>, end: bool) -> Result<()> {
        let scheme = match self.inner.digest() {
            Some(digest) if digest.ssl_digest.is_some() => Scheme::HTTPS,
            _ => Scheme::HTTP,
        };
        let target = request_uri(&req, scheme)?;
        req.set_uri(target);
        req.remove_header(&HOST);
        self.source = req.extensions_mut().remove();
        self.inner.write_request_header(req, end)?;
        self.start_body(end);
        Ok(())
    }

    async fn write_request_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.inner.write_request_body(data, end).await
    }

    async fn finish_request_body(&mut self) -> Result<()> {
        self.inner.finish_request_body()
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.read_timeout = timeout;
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.inner.write_timeout = timeout;
    }

    async fn read_response_header(&mut self) -> Result<()> {
        let header = tokio::select! {
            biased;
            error = self.body_failure.wait() => Err(error),
            header = self.inner.read_response_header() => header,
        };
        if let Err(error) = &header {
            self.requires_http1 = matches!(error.etype(), H2Downgrade | InvalidH2);
        }
        header.and_then(|()| self.check_content_length())
    }

    async fn read_response_body(&mut self) -> Result<Option<Bytes>> {
        let (inner, in_transit) = (&mut self.inner, &self.in_transit);
        let reading = async {
            poll_fn(|cx| in_transit.poll_room(cx)).await;
            inner.read_response_body().await
        };
        let piece = tokio::select! {
            biased;
            error = self.body_failure.wait() => return Err(error),
            piece = reading => piece,
        };
        match piece {
            Err(failure) if self.is_complete(&failure) => Ok(None),
            Ok(Some(piece)) => {
                let size = piece.len();
                Ok(Some(self.in_transit.track(piece, size)))
            }
            end => end,
        }
    }

    async fn read_trailers(&mut self) -> Result<Option<HeaderMap>> {
        let trailers = tokio::select! {
            biased;
            error = self.body_failure.wait() => return Err(error),
            trailers = self.inner.read_trailers() => trailers,
        };
        match trailers {
            Err(failure) if self.is_complete(&failure) => Ok(None),
            trailers => trailers,
        }
    }

    async fn check_response_end_or_error(&mut self, _headers: bool) -> Result<bool> {
        self.inner.check_response_end_or_error()
    }

    fn response_finished(&self) -> bool {
        self.inner.response_finished()
    }

    fn response_header(&self) -> Option<&ResponseHeader> {
        self.inner.response_header()
    }

    async fn shutdown(&mut self, _code: u32, _ctx: &str) {
        self.inner.shutdown();
    }

    fn was_upgraded(&self) -> bool {
        false
    }

    fn digest(&self) -> Option<&Digest> {
        Some(&self.digest)
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        Some(&mut self.digest)
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.inner.server_addr()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.inner.client_addr()
    }

    fn fd(&self) -> UniqueIDType {
        self.inner.fd()
    }

    fn take_request_body_writer(&mut self) -> Option<Box<dyn BodyWrite>> {
        let source = self.source.clone()?;
        Some(Box::new(BodyQueueWriter(source)))
    }

    // HTTP has no messages besides request and response; the reader of such messages sends the body.

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        let sending = self.body_sender.take().unwrap_or_else(BodySender::empty);
        Some(Box::new(sending))
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        Some(Box::new(()))
    }

    async fn drain_custom_messages(&mut self) -> Result<()> {
        Ok(())
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }
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
