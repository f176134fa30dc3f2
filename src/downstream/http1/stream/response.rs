//! The response as it is written: its header, its framing, its end.

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode, Version};
use pingora::ErrorType::{ConnectionClosed, InternalError};
use pingora::http::ResponseHeader;
use pingora::protocols::http::date::get_cached_date;
use pingora::{Error, Result};

use super::transfer::{Http1Transfer, ResponseState};
use crate::http1::{
    CHUNK_END, trailer_fields, write_chunk_head, write_last_chunk, write_status_line,
};

impl Http1Transfer {
    /// Completes a header, and returns its bytes. `end`: no body follows.
    ///
    /// # Errors
    /// 101 to a request that did not ask for it.
    pub(super) fn begin_response(
        &mut self,
        header: &mut ResponseHeader,
        end: bool,
    ) -> Result<Vec<u8>> {
        let status = header.status;
        header.remove_header(&CONNECTION);
        let option = if status == StatusCode::SWITCHING_PROTOCOLS {
            self.begin_tunnel()?;
            Some("Upgrade")
        } else if status.is_informational() {
            if self.request.version < Version::HTTP_11 {
                // RFC 9110 §15.2: clients of HTTP/1.0 get no interim responses.
                return Ok(Vec::new());
            }
            None
        } else {
            self.set_framing(header, end)?;
            self.set_body_due();
            self.keep_alive.option(self.client.exchange())
        };
        if let Some(option) = option {
            header.insert_header("Connection", option)?;
        }
        // RFC 9110 §6.6.1: a response without a date gets the time at which it came.
        if !status.is_informational() && !header.headers.contains_key(DATE) {
            header.insert_header("Date", get_cached_date())?;
        }
        let mut bytes = Vec::with_capacity(512);
        let reason = header.get_reason_phrase().unwrap_or_default();
        write_status_line(status, reason.as_bytes(), &mut bytes);
        header.header_to_h1_wire(&mut bytes);
        bytes.extend_from_slice(b"\r\n");
        Ok(bytes)
    }

    fn begin_tunnel(&mut self) -> Result<()> {
        if !self.request.asks_for_upgrade {
            return Error::e_explain(InternalError, "101 to a request that asked for no switch");
        }
        self.keep_alive.forbid();
        self.body.begin_tunnel();
        self.is_tunnel = true;
        self.response = ResponseState::UntilClose;
        Ok(())
    }

    /// Chooses how the client finds the end of the body (RFC 9112 §6.3).
    fn set_framing(&mut self, header: &mut ResponseHeader, end: bool) -> Result<()> {
        let status = header.status;
        let has_no_body = self.request.is_head
            || status == StatusCode::NO_CONTENT
            || status == StatusCode::NOT_MODIFIED;
        let length = header.headers.get(CONTENT_LENGTH);
        let length = length.and_then(|it| it.to_str().ok()?.parse().ok());
        header.remove_header(&TRANSFER_ENCODING);
        self.response = match length {
            _ if has_no_body => ResponseState::Sized(0),
            Some(length) => ResponseState::Sized(length),
            None if end => {
                header.insert_header("Content-Length", "0")?;
                ResponseState::Sized(0)
            }
            None if self.request.version < Version::HTTP_11 => {
                self.keep_alive.forbid();
                ResponseState::UntilClose
            }
            None => {
                header.insert_header("Transfer-Encoding", "chunked")?;
                ResponseState::Chunked
            }
        };
        Ok(())
    }

    /// Notes whether the client has yet to send some of the request's body.
    fn set_body_due(&mut self) {
        let (keep_alive, body) = (&mut self.keep_alive, &mut self.body);
        if self.has_peer {
            keep_alive.set_body_due(!body.is_complete());
        } else {
            keep_alive.before_own_response(&mut body.received, &mut self.client.input);
        }
    }

    /// Prepares a piece of the body: writes what goes before it to `head`, and returns what goes after it. Drops bytes beyond
    /// the declared length.
    pub(super) fn frame_data(
        &mut self,
        data: &mut Bytes,
        head: &mut Vec<u8>,
    ) -> Result<&'static [u8]> {
        let mut end: &[u8] = b"";
        match &mut self.response {
            ResponseState::NotBegun => {
                return Error::e_explain(InternalError, "a body before the header");
            }
            ResponseState::Complete => data.clear(),
            ResponseState::Sized(left) => {
                data.truncate(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= data.len() as u64;
            }
            ResponseState::Chunked if !data.is_empty() => {
                write_chunk_head(data.len(), head);
                end = CHUNK_END;
            }
            ResponseState::Chunked | ResponseState::UntilClose => {}
        }
        self.bytes_sent += data.len();
        Ok(end)
    }

    /// Ends the response, if one has begun; returns its last bytes. Only a client that accepts trailers gets them.
    ///
    /// # Errors
    /// The body is shorter than declared.
    pub(super) fn end_response(&mut self, trailers: Option<&HeaderMap>) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        match self.response {
            ResponseState::NotBegun | ResponseState::Complete => return Ok(bytes),
            ResponseState::Sized(1..) => {
                let error = Error::explain(ConnectionClosed, "a body shorter than its length");
                return Err(error.into_up());
            }
            ResponseState::Chunked => {
                let trailers = trailers.filter(|_| self.request.accepts_trailers);
                write_last_chunk(trailers.into_iter().flat_map(trailer_fields), &mut bytes);
            }
            ResponseState::Sized(0) | ResponseState::UntilClose => {}
        }
        if self.is_tunnel {
            // If one side ends, the tunnel ends.
            self.body.end_tunnel();
        }
        self.response = ResponseState::Complete;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::super::super::super::connection_limit::ConnectionLimit;
    use super::super::super::super::exchange::Exchange;
    use super::super::super::super::io::DownstreamIo;
    use super::super::super::client::Http1Client;
    use super::*;
    use crate::config::DownstreamConfig;

    /// The transfer of a request; `line` has the method, the target and the version. And the client's end.
    async fn transfer(line: &str, fields: &str) -> (Http1Transfer, UnixStream) {
        let limit = ConnectionLimit::new(None);
        let (exchange, mut socket) = Exchange::for_test(DownstreamConfig::DEFAULT, &limit);
        let request = format!("{line}\r\nHost: h\r\n{fields}\r\n");
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut client = Box::new(Http1Client::new(DownstreamIo::new(Arc::clone(&exchange))));
        assert_eq!(client.read_head().await, Ok(true));
        (Http1Transfer::new(client), socket)
    }

    fn response(status: u16, fields: &[(&'static str, &'static str)]) -> ResponseHeader {
        let mut header = ResponseHeader::build(status, None).unwrap();
        for (name, value) in fields {
            header.append_header(*name, *value).unwrap();
        }
        header.insert_header("Date", "now").unwrap();
        header
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap().replace("\r\n", "|")
    }

    const GET: &str = "GET / HTTP/1.1";
    const LENGTH: (&str, &str) = ("Content-Length", "5");
    const CHUNKED: (&str, &str) = ("Transfer-Encoding", "chunked");

    #[tokio::test]
    async fn response_has_the_framing_that_its_client_understands() {
        for (line, fields, end, expected, body) in [
            (GET, &[LENGTH][..], false, "Content-Length: 5|", "hello"),
            (GET, &[], true, "Content-Length: 0|", ""),
            (
                GET,
                &[CHUNKED],
                false,
                "Transfer-Encoding: chunked|",
                "5|hello|0||",
            ),
            (
                GET,
                &[],
                false,
                "Transfer-Encoding: chunked|",
                "5|hello|0||",
            ),
            (
                "GET / HTTP/1.0",
                &[CHUNKED],
                false,
                "Connection: close|",
                "hello",
            ),
            (
                "HEAD / HTTP/1.1",
                &[LENGTH],
                false,
                "Content-Length: 5|",
                "",
            ),
            ("HEAD / HTTP/1.1", &[CHUNKED], false, "", ""),
            (
                GET,
                &[("Connection", "close"), LENGTH],
                false,
                "Content-Length: 5|",
                "hello",
            ),
        ] {
            let (mut transfer, _client) = transfer(line, "").await;
            let mut header = response(200, fields);
            let head = text(transfer.begin_response(&mut header, end).unwrap());
            let head = head.replacen("Date: now|", "", 1);
            assert_eq!(head, format!("HTTP/1.1 200 OK|{expected}|"), "{line}");
            let (mut data, mut sent) = (Bytes::from_static(b"hello"), Vec::new());
            if !end {
                let after = transfer.frame_data(&mut data, &mut sent).unwrap();
                sent.extend_from_slice(&data);
                sent.extend_from_slice(after);
            }
            sent.extend(transfer.end_response(None).unwrap());
            assert_eq!(text(sent), body, "{line} {fields:?}");
            assert_eq!(transfer.response, ResponseState::Complete);
        }
    }

    #[tokio::test]
    async fn interim_responses_go_to_clients_of_http11_and_are_not_the_response() {
        for (line, expected) in [
            (GET, "HTTP/1.1 103 Early Hints|Link: a|Date: now||"),
            ("GET / HTTP/1.0", ""),
        ] {
            let (mut transfer, _client) = transfer(line, "").await;
            let mut header = response(103, &[("Link", "a")]);
            let head = transfer.begin_response(&mut header, false).unwrap();
            assert_eq!(text(head), expected);
            assert!(!transfer.has_begun());
        }
    }

    #[tokio::test]
    async fn switch_of_protocols_is_an_error_unless_it_was_asked_for() {
        let asks = "Connection: upgrade\r\nUpgrade: websocket\r\n";
        for (fields, is_asked) in [(asks, true), ("", false)] {
            let (mut transfer, _client) = transfer(GET, fields).await;
            let mut header = response(101, &[("Upgrade", "websocket")]);
            let switched = transfer.begin_response(&mut header, false);
            assert_eq!(switched.is_ok(), is_asked);
            assert_eq!(transfer.is_tunnel, is_asked);
            assert_eq!(transfer.body.is_complete(), !is_asked);
        }
    }

    #[tokio::test]
    async fn response_shorter_than_its_length_is_never_complete() {
        let (mut transfer, _client) = transfer(GET, "").await;
        let mut header = response(200, &[LENGTH]);
        transfer.begin_response(&mut header, false).unwrap();
        let mut data = Bytes::from_static(b"hell");
        transfer.frame_data(&mut data, &mut Vec::new()).unwrap();
        assert!(transfer.end_response(None).is_err());
        assert!(transfer.finish().await.is_err());
    }

    #[tokio::test]
    async fn trailers_go_to_a_client_that_accepts_them_without_those_that_none_may_have() {
        let trailers = HeaderMap::from_iter(
            [("grpc-status", "0"), ("host", "h")]
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())),
        );
        for (fields, expected) in [
            ("Connection: TE\r\nTE: trailers\r\n", "0|grpc-status: 0||"),
            ("", "0||"),
        ] {
            let (mut transfer, _client) = transfer(GET, fields).await;
            let mut header = response(200, &[]);
            transfer.begin_response(&mut header, false).unwrap();
            let end = transfer.end_response(Some(&trailers)).unwrap();
            assert_eq!(text(end), expected);
        }
    }
}
