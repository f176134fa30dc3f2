//! Implements [`Session`] for [`Http2Stream`], the trait through which Pingora's proxy serves a request.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_core::Stream;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session;
use pingora::protocols::http::v1::client::http_req_header_to_wire;
use pingora::protocols::l4::socket::SocketAddr;

use super::super::super::no_custom_messages::NoCustomMessages;
use super::Http2Stream;

#[async_trait]
impl Session for Http2Stream {
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
        self.body.read_to_end(self.drain_timeout).await
    }

    async fn write_response_header(&mut self, resp: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.wait_for_interim_room(&resp).await;
        self.send_header(resp, end)
    }

    async fn write_response_header_ref(&mut self, resp: &ResponseHeader, end: bool) -> Result<()> {
        self.wait_for_interim_room(resp).await;
        self.send_header(Box::new(resp.clone()), end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.write_data(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.send_trailers(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let mut complete = false;
        for task in tasks {
            complete |= self.run_task(task).await?;
        }
        if complete {
            self.complete_response()?;
        }
        Ok(complete)
    }

    fn set_read_timeout(&mut self, timeout: Option<Duration>) {
        self.read_timeout = timeout;
    }

    fn get_read_timeout(&self) -> Option<Duration> {
        self.read_timeout
    }

    // Stored only: the exchange applies its own `write_timeout`.
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
        self.response.as_ref().map(|(header, _)| &**header)
    }

    async fn shutdown(&mut self, _code: u32, _ctx: &str) {
        self.abort_response();
    }

    fn is_body_done(&mut self) -> bool {
        self.is_body_empty() || self.body.complete || self.exchange.body_queue.is_stopped()
    }

    async fn finish(&mut self) -> Result<()> {
        self.complete_response()
    }

    fn is_body_empty(&mut self) -> bool {
        let declared = || self.request.headers.get(CONTENT_LENGTH);
        let is_zero = || declared().is_some_and(|length| length.as_bytes() == b"0");
        self.body.bytes_read == 0 && (self.body.complete || is_zero())
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        if no_body_expected || self.is_body_empty() || self.body.complete {
            self.exchange.end_body_wait();
            return self.wait_for_reset().await;
        }
        self.read_body().await
    }

    fn body_bytes_sent(&self) -> usize {
        self.bytes_sent
    }

    fn body_bytes_read(&self) -> usize {
        self.body.bytes_read
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
        self.body.retry_buffer.enable();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.body.retry_buffer.is_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.body.retry_buffer.to_bytes()
    }

    // Both ends are custom sessions only while the body queue is active.

    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(
        &mut self,
    ) -> Option<Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>> {
        let empty = || Box::new(NoCustomMessages) as Box<_>;
        self.exchange.body_queue.is_active().then(empty)
    }

    fn restore_custom_message_reader(
        &mut self,
        _reader: Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>,
    ) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        let empty = || Box::new(()) as Box<_>;
        self.exchange.body_queue.is_active().then(empty)
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
