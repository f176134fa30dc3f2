//! A request of either HTTP version as the downstream session of Pingora's proxy.
//!
//! The version has its own reader and writer, a [`RequestStream`]. All else that Pingora 0.9.1 wants of a session is the same
//! for both: the header, the digest, time limits, the copy for a retry, and "custom messages".

use std::future::{Future, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use http::HeaderMap;
use pingora::ErrorType::{InternalError, ReadTimedout};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session;
use pingora::protocols::http::v1::client::http_req_header_to_wire;
use pingora::protocols::http::{HttpTask, ServerSession};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::{Error, Result};

use super::exchange::Exchange;
use super::no_custom_messages::NoCustomMessages;
use super::retry_buffer::RetryBuffer;

/// One request and its response, in one HTTP version.
pub(super) trait RequestStream: Send + Sync + Unpin + 'static {
    fn exchange(&self) -> &Exchange;

    /// Reads the next piece of the body, as soon as the peer has room for it, or of a tunnel; `None` at the end. `limit`: the
    /// longest time that the client may send nothing.
    fn read_body(
        &mut self,
        limit: Option<Duration>,
    ) -> impl Future<Output = Result<Option<Bytes>>> + Send;

    /// As [`read_body`](Self::read_body), but the piece is dropped.
    fn read_dropped(
        &mut self,
        limit: Option<Duration>,
    ) -> impl Future<Output = Result<Option<Bytes>>> + Send {
        self.read_body(limit)
    }

    /// Waits until the client gives the request up; returns the error for it.
    fn wait_for_close(&mut self) -> impl Future<Output = Box<Error>> + Send;

    /// Whether the client has sent the whole body, or has none to send; of a tunnel: whether one side has ended it.
    fn is_body_complete(&self) -> bool;

    /// Takes the trailers of the request, once they were read.
    fn take_trailers(&mut self) -> Option<HeaderMap> {
        None
    }

    /// Waits until the last part of the response may be sent, if it is in `task`.
    fn hold_end(&mut self, _task: &HttpTask) -> impl Future<Output = ()> + Send {
        ready(())
    }

    /// A peer is connected: a response that begins later may be the peer's.
    fn on_peer_connected(&mut self) {}

    /// Sends a header, final or interim; ignored after the final one. `end`: no body follows.
    fn send_header(
        &mut self,
        header: Box<ResponseHeader>,
        end: bool,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Sends a piece of the body. `end`: it is the last.
    fn send_data(&mut self, data: Bytes, end: bool) -> impl Future<Output = Result<()>> + Send;

    /// Sends the trailers, and the end of the response.
    fn send_trailers(&mut self, trailers: HeaderMap) -> impl Future<Output = Result<()>> + Send;

    /// Sends the end of the response; does nothing if none has begun, or if it was sent.
    fn complete_response(&mut self) -> impl Future<Output = Result<()>> + Send;

    /// Gives the response up, so that the client can see it.
    fn abort(&mut self);

    /// The header of the final response, once it was sent.
    fn response(&self) -> Option<&ResponseHeader>;

    /// Bytes of the response's body so far.
    fn bytes_sent(&self) -> usize;

    /// Whether the client asks for another protocol.
    fn asks_for_upgrade(&self) -> bool {
        false
    }

    /// Whether the protocol was switched by a 101.
    fn is_tunnel(&self) -> bool {
        false
    }
}

/// Reads from a client within `limit`; `None`: unlimited.
pub(super) async fn read_within<T>(
    limit: Option<Duration>,
    read: impl Future<Output = Result<T>>,
) -> Result<T> {
    match limit {
        None => read.await,
        Some(limit) => tokio::time::timeout(limit, read)
            .await
            .unwrap_or_else(|_| Err(Error::new_down(ReadTimedout))),
    }
}

/// The session of one request.
pub(super) struct PingoraSession<S> {
    stream: S,
    request: RequestHeader,
    digest: Digest,
    /// Bytes of the request's body so far.
    bytes_read: usize,
    retry_buffer: RetryBuffer,
    read_timeout: Option<Duration>,
    /// Stored only: the exchange applies its own `write_timeout`.
    write_timeout: Option<Duration>,
    drain_timeout: Option<Duration>,
}

impl<S: RequestStream> PingoraSession<S> {
    /// The session of a request with this header on `stream`, for Pingora's proxy.
    pub(super) fn of(stream: S, request: RequestHeader, digest: Digest) -> ServerSession {
        ServerSession::new_custom(Box::new(Self {
            stream,
            request,
            digest,
            bytes_read: 0,
            retry_buffer: RetryBuffer::default(),
            read_timeout: None,
            write_timeout: None,
            drain_timeout: None,
        }))
    }

    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        let piece = self.stream.read_body(self.read_timeout).await?;
        if let Some(piece) = &piece {
            self.bytes_read += piece.len();
            self.retry_buffer.push(piece);
        }
        if let Some(trailers) = self.stream.take_trailers() {
            // Pingora 0.9.1 has no way for them: the writer to the peer finds them there.
            let exchange = self.stream.exchange();
            exchange.body_queue.set_trailers(trailers);
        }
        Ok(piece)
    }

    /// Executes one task of Pingora's proxy; returns whether it is the last of the response.
    async fn run_task(&mut self, task: HttpTask) -> Result<bool> {
        let stream = &mut self.stream;
        stream.hold_end(&task).await;
        match task {
            HttpTask::Header(header, end) => {
                let is_interim = header.status.is_informational();
                stream.send_header(header, end).await?;
                if is_interim {
                    stream.exchange().interim_responses.on_taken();
                }
                Ok(end)
            }
            HttpTask::UpgradedBody(..) if !stream.is_tunnel() => {
                Error::e_explain(InternalError, "bytes of a tunnel without a 101")
            }
            HttpTask::Body(data, end) | HttpTask::UpgradedBody(data, end) => {
                let data = data.unwrap_or_default();
                stream.send_data(data, end).await.map(|()| end)
            }
            HttpTask::Trailer(Some(trailers)) => {
                stream.send_trailers(*trailers).await.map(|()| true)
            }
            HttpTask::Trailer(None) | HttpTask::Done => Ok(true),
            HttpTask::Failed(error) => Err(error),
        }
    }
}

#[async_trait]
impl<S: RequestStream> Session for PingoraSession<S> {
    fn req_header(&self) -> &RequestHeader {
        &self.request
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.request
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.read_body().await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        let limit = self.drain_timeout;
        while self.stream.read_dropped(limit).await?.is_some() {}
        Ok(())
    }

    async fn write_response_header(&mut self, resp: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.stream.send_header(resp, end).await
    }

    async fn write_response_header_ref(&mut self, resp: &ResponseHeader, end: bool) -> Result<()> {
        self.stream.send_header(Box::new(resp.clone()), end).await
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.stream.send_data(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.stream.send_trailers(trailers).await
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut complete = false;
        for task in tasks {
            complete |= self.run_task(task).await?;
        }
        if complete {
            self.stream.complete_response().await?;
        }
        Ok(complete)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.read_timeout
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.write_timeout = timeout;
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.write_timeout
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.drain_timeout = timeout;
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.drain_timeout
    }

    fn request_summary(&self) -> String {
        format!("{} {}", self.request.method, self.request.uri)
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.stream.response()
    }

    async fn shutdown(&mut self, _code: u32, _ctx: &str) {
        self.stream.abort();
    }

    fn is_body_done(&mut self) -> bool {
        self.stream.is_body_complete() || self.stream.exchange().body_queue.is_stopped()
    }

    async fn finish(&mut self) -> Result<()> {
        self.stream.complete_response().await
    }

    fn is_body_empty(&mut self) -> bool {
        self.bytes_read == 0 && self.stream.is_body_complete()
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected || self.stream.is_body_complete() {
            return Err(self.stream.wait_for_close().await);
        }
        self.read_body().await
    }

    fn body_bytes_sent(&self) -> usize {
        self.stream.bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.bytes_read
    }

    fn digest(&self) -> Option<&Digest> {
        Some(&self.digest)
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        Some(&mut self.digest)
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.peer_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.digest.socket_digest.as_ref()?.local_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        http_req_header_to_wire(&self.request)
            .unwrap_or_default()
            .freeze()
    }

    fn enable_retry_buffering(&mut self) {
        self.stream.on_peer_connected();
        self.retry_buffer.enable();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.retry_buffer.is_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.retry_buffer.to_bytes()
    }

    fn is_upgrade_req(&self) -> bool {
        self.stream.asks_for_upgrade()
    }

    fn was_upgraded(&self) -> bool {
        self.stream.is_tunnel()
    }

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        Some(Box::new(NoCustomMessages))
    }

    fn restore_custom_message_reader(
        &mut self,
        _reader: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        Some(Box::new(()))
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::connection_limit::ConnectionLimit;
    use super::*;
    use crate::config::DownstreamConfig;

    /// A request with these pieces, and the calls that write its response.
    struct TestStream {
        exchange: Arc<Exchange>,
        pieces: Vec<Bytes>,
        has_peer: bool,
        is_tunnel: bool,
        calls: Vec<String>,
    }

    impl RequestStream for TestStream {
        fn exchange(&self) -> &Exchange {
            &self.exchange
        }

        async fn read_body(&mut self, _limit: Option<Duration>) -> Result<Option<Bytes>> {
            Ok(self.pieces.pop())
        }

        async fn wait_for_close(&mut self) -> Box<Error> {
            Error::new_down(InternalError)
        }

        fn is_body_complete(&self) -> bool {
            self.pieces.is_empty()
        }

        fn on_peer_connected(&mut self) {
            self.has_peer = true;
        }

        async fn send_header(&mut self, header: Box<ResponseHeader>, end: bool) -> Result<()> {
            self.is_tunnel |= header.status == 101;
            self.calls.push(format!("{} {end}", header.status.as_u16()));
            Ok(())
        }

        async fn send_data(&mut self, data: Bytes, end: bool) -> Result<()> {
            let text = String::from_utf8_lossy(&data);
            self.calls.push(format!("{text} {end}"));
            Ok(())
        }

        async fn send_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
            self.calls.push(format!("{} trailers", trailers.len()));
            Ok(())
        }

        async fn complete_response(&mut self) -> Result<()> {
            self.calls.push("complete".to_owned());
            Ok(())
        }

        fn abort(&mut self) {}

        fn response(&self) -> Option<&ResponseHeader> {
            None
        }

        fn bytes_sent(&self) -> usize {
            0
        }

        fn is_tunnel(&self) -> bool {
            self.is_tunnel
        }
    }

    fn session(pieces: &[&'static str]) -> PingoraSession<TestStream> {
        let limit = ConnectionLimit::new(None);
        let (exchange, _) = Exchange::for_test(DownstreamConfig::DEFAULT, &limit);
        PingoraSession {
            stream: TestStream {
                exchange,
                pieces: pieces.iter().rev().map(|&piece| piece.into()).collect(),
                has_peer: false,
                is_tunnel: false,
                calls: Vec::new(),
            },
            request: RequestHeader::build("POST", b"/", None).unwrap(),
            digest: Digest::default(),
            bytes_read: 0,
            retry_buffer: RetryBuffer::default(),
            read_timeout: None,
            write_timeout: None,
            drain_timeout: None,
        }
    }

    #[tokio::test]
    async fn body_is_copied_once_a_peer_is_connected_and_counted_always() {
        let mut session = session(&["ab", "cd", "e"]);
        assert!(!session.is_body_empty() && !session.is_body_done());
        session.read_body_bytes().await.unwrap();
        assert_eq!(session.get_retry_buffer(), None);
        session.enable_retry_buffering();
        assert!(session.stream.has_peer);
        session.read_body_or_idle(false).await.unwrap();
        assert_eq!(session.get_retry_buffer().unwrap(), "cd");
        assert_eq!(session.body_bytes_read(), 4);
        session.drain_request_body().await.unwrap();
        assert!(session.is_body_done() && !session.is_body_empty());
        assert!(session.read_body_or_idle(false).await.is_err());
    }

    #[tokio::test]
    async fn task_that_ends_the_response_completes_it() {
        let header = |status, end| {
            let header = ResponseHeader::build(status, None).unwrap();
            HttpTask::Header(Box::new(header), end)
        };
        let body = |end| HttpTask::Body(Some("a".into()), end);
        let tunnel = || HttpTask::UpgradedBody(Some("a".into()), false);
        let trailers = || HttpTask::Trailer(Some(Box::default()));
        for (tasks, expected) in [
            (vec![header(103, false)], Ok("103 false")),
            (vec![header(200, true)], Ok("200 true, complete")),
            (
                vec![header(200, false), body(false), body(true)],
                Ok("200 false, a false, a true, complete"),
            ),
            (
                vec![header(200, false), trailers()],
                Ok("200 false, 0 trailers, complete"),
            ),
            (
                vec![header(200, false), HttpTask::Trailer(None)],
                Ok("200 false, complete"),
            ),
            (
                vec![header(200, false), HttpTask::Done],
                Ok("200 false, complete"),
            ),
            (vec![header(101, false), tunnel()], Ok("101 false, a false")),
            (vec![header(200, false), tunnel()], Err(())),
            (
                vec![HttpTask::Failed(Error::new_up(InternalError))],
                Err(()),
            ),
        ] {
            let mut session = session(&[]);
            let ended = session.response_duplex_vec(tasks).await;
            let calls = session.stream.calls.join(", ");
            let is_complete = calls.ends_with("complete");
            assert!(ended.as_ref().is_ok_and(|&ended| ended == is_complete) || expected.is_err());
            assert_eq!(ended.map_or(Err(()), |_| Ok(&*calls)), expected);
        }
    }
}
