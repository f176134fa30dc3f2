//! One request to a peer of HTTP/2, and its response: Pingora's session, but for how the body is sent.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use http::header::{CONTENT_LENGTH, HOST};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, StatusCode, Uri};
use pingora_core::protocols::http::custom::client;
use pingora_core::protocols::http::custom::{BodyWrite, CustomMessageWrite};
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::{Digest, UniqueIDType};
use pingora_error::ErrorType::{H2Downgrade, H2Error, InvalidH2, InvalidHTTPHeader};
use pingora_error::{Error, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use tokio::sync::oneshot;

use super::send::{Sending, Writer};
use crate::connection::Exchange;

/// A stream to a peer.
pub struct Session {
    within: Http2Session,
    /// The request that it carries; its body comes from there.
    exchange: Option<Arc<Exchange>>,
    /// Sends the body, until Pingora takes it to do so.
    sending: Option<Sending>,
    /// The body could not be sent.
    failed: Option<oneshot::Receiver<Box<Error>>>,
    wants_http1: bool,
}

impl From<Http2Session> for Session {
    fn from(within: Http2Session) -> Self {
        Self {
            within,
            exchange: None,
            sending: None,
            failed: None,
            wants_http1: false,
        }
    }
}

impl Session {
    pub(super) fn into_inner(self) -> Http2Session {
        self.within
    }

    /// Whether the peer has asked for HTTP/1.1 (RFC 9113, 7), or does not know HTTP/2 well.
    pub(super) fn wants_http1(&self) -> bool {
        self.wants_http1
    }

    /// The header is sent: the body may follow.
    fn begin_body(&mut self, end: bool) {
        let (Some(exchange), Some(peer)) = (&self.exchange, self.within.take_request_body_writer())
        else {
            return;
        };
        exchange.body_queue.open();
        if end {
            return exchange.body_queue.end();
        }
        let (sending, failed) = Sending::new(Arc::clone(exchange), peer, self.within.write_timeout);
        self.sending = Some(sending);
        self.failed = Some(failed);
    }

    /// A header that says its body is longer than nothing, and is the end, is cut short (RFC 9113, 8.1.1).
    fn check_length(&self) -> Result<()> {
        let Some(response) = self.within.response_header() else {
            return Ok(());
        };
        let asked = self.within.request_header();
        let bodiless = asked.is_some_and(|asked| asked.method == Method::HEAD)
            || matches!(
                response.status,
                StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
            );
        let length = response.headers.get(CONTENT_LENGTH);
        let some =
            length.is_some_and(|length| length.as_bytes().iter().any(|&digit| digit != b'0'));
        if some && !bodiless && self.within.response_finished() {
            return Error::e_explain(H2Error, "the response's body is missing");
        }
        Ok(())
    }
}

/// Why the body could not be sent. Never, where it can be.
async fn failure(failed: &mut Option<oneshot::Receiver<Box<Error>>>) -> Box<Error> {
    if let Some(told) = failed {
        let told = told.await;
        *failed = None;
        if let Ok(error) = told {
            return error;
        }
    }
    pending().await
}

/// `:scheme`, `:authority` and `:path` (RFC 9113, 8.3.1), of a request whose host is in a field.
fn target(request: &RequestHeader, scheme: Scheme) -> Result<Uri> {
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
impl client::Session for Session {
    async fn write_request_header(&mut self, mut req: Box<RequestHeader>, end: bool) -> Result<()> {
        let scheme = match self.within.digest() {
            Some(digest) if digest.ssl_digest.is_some() => Scheme::HTTPS,
            _ => Scheme::HTTP,
        };
        let target = target(&req, scheme)?;
        req.set_uri(target);
        req.remove_header(&HOST);
        self.exchange = req.extensions_mut().remove();
        self.within.write_request_header(req, end)?;
        self.begin_body(end);
        Ok(())
    }

    async fn write_request_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.within.write_request_body(data, end).await
    }

    async fn finish_request_body(&mut self) -> Result<()> {
        self.within.finish_request_body()
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.within.read_timeout = timeout;
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.within.write_timeout = timeout;
    }

    async fn read_response_header(&mut self) -> Result<()> {
        let header = tokio::select! {
            biased;
            error = failure(&mut self.failed) => Err(error),
            header = self.within.read_response_header() => header,
        };
        if let Err(error) = &header {
            self.wants_http1 = matches!(error.etype(), H2Downgrade | InvalidH2);
        }
        header.and_then(|()| self.check_length())
    }

    async fn read_response_body(&mut self) -> Result<Option<Bytes>> {
        tokio::select! {
            biased;
            error = failure(&mut self.failed) => Err(error),
            piece = self.within.read_response_body() => piece,
        }
    }

    async fn read_trailers(&mut self) -> Result<Option<HeaderMap>> {
        tokio::select! {
            biased;
            error = failure(&mut self.failed) => Err(error),
            trailers = self.within.read_trailers() => trailers,
        }
    }

    async fn check_response_end_or_error(&mut self, _headers: bool) -> Result<bool> {
        self.within.check_response_end_or_error()
    }

    fn response_finished(&self) -> bool {
        self.within.response_finished()
    }

    fn response_header(&self) -> Option<&ResponseHeader> {
        self.within.response_header()
    }

    async fn shutdown(&mut self, _code: u32, _ctx: &str) {
        self.within.shutdown();
    }

    fn was_upgraded(&self) -> bool {
        false
    }

    fn digest(&self) -> Option<&Digest> {
        self.within.digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.within.digest_mut()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.within.server_addr()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.within.client_addr()
    }

    fn fd(&self) -> UniqueIDType {
        self.within.fd()
    }

    fn take_request_body_writer(&mut self) -> Option<Box<dyn BodyWrite>> {
        let exchange = self.exchange.clone()?;
        Some(Box::new(Writer(exchange)))
    }

    // HTTP has no messages; what stands for their reader sends the body.

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        let sending = self.sending.take().unwrap_or_else(Sending::nothing);
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
    fn the_host_of_a_request_is_its_authority() {
        let mut request = RequestHeader::build("GET", b"/a?b", None).unwrap();
        assert!(target(&request, Scheme::HTTP).is_err());
        request.insert_header(HOST, "a.test:8443").unwrap();
        let uri = target(&request, Scheme::HTTPS).unwrap();
        assert_eq!(uri, "https://a.test:8443/a?b");
    }
}
