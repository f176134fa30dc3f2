//! Reads an HTTP/1 response with our codec, and returns it in Pingora's types.

use std::future::poll_fn;
use std::task::ready;

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method};
use pingora::ErrorType::{ConnectionClosed, Custom, InvalidHTTPHeader, ReadError};
use pingora::http::ResponseHeader;
use pingora::{Error, OrErr as _, Result};
use tokio::io::AsyncRead;

use crate::http1::{
    BodyDecoder, BodyLength, BodyPart, ChunkLimits, FieldLines, HeadLimits, ParseStatus, Refusal,
    ResponseContext, ResponseHead, ResponseParser,
};
use crate::pingora_compat::in_transit::InTransit;
use crate::read_buffer::poll_read_head;

/// Pingora's error type for a connection that ended after some bytes of a response, before its final header was complete.
/// Unlike `ConnectionClosed`, it never means that a pooled connection was stale.
pub(crate) const PARTIAL_RESPONSE: &str = "PartialResponse";

/// Reads one final response and the interim responses before it.
#[derive(Debug, Default)]
pub(super) struct ResponseReader {
    parser: ResponseParser,
    head: ResponseHead,
    /// Bytes received from the peer that are not processed yet.
    input: BytesMut,
    state: ReadState,
    /// The part of the body after the piece that was returned last, decoded in advance: Pingora asks with each piece
    /// whether it is the last one.
    next: Option<Result<BodyPart, Refusal>>,
    trailers: Option<HeaderMap>,
    in_transit: InTransit,
    /// Whether the peer keeps the connection open for another request.
    peer_persists: bool,
    /// Whether any byte of the response has arrived.
    has_received: bool,
    /// Whether the client accepts trailers.
    pub(super) passes_trailers: bool,
}

#[derive(Debug, Default)]
enum ReadState {
    #[default]
    Head,
    Body(BodyDecoder),
    Done,
}

impl ResponseReader {
    /// Reads the next head, interim or final.
    ///
    /// # Errors
    /// The connection ended before the head was complete, or the head is malformed or too large.
    pub(super) async fn read_head(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
        method: &Method,
    ) -> Result<ResponseHeader> {
        let context = ResponseContext {
            method,
            asks_upgrade: false,
        };
        while !self.parse_head(context)? {
            let input = &mut self.input;
            match poll_fn(|cx| poll_read_head(stream, cx, input)).await {
                Ok(1..) => self.has_received = true,
                end => return Err(self.head_is_cut(end.err())),
            }
        }
        if !self.head.is_interim() {
            self.peer_persists = self.head.leaves_persistent();
            self.state = match self.head.body() {
                BodyLength::Empty => ReadState::Done,
                body => ReadState::Body(BodyDecoder::new(body, ChunkLimits::DEFAULT)),
            };
        }
        to_header(&self.head)
    }

    /// Parses the head at the start of the buffer; false: it is not complete yet.
    fn parse_head(&mut self, context: ResponseContext<'_>) -> Result<bool> {
        if self.input.is_empty() {
            return Ok(false);
        }
        let (input, head) = (&mut self.input, &mut self.head);
        let parsed = self
            .parser
            .parse(input, &HeadLimits::RESPONSE, context, head);
        Ok(parsed.map_err(refused)? == ParseStatus::Complete)
    }

    /// Makes the error for a connection that ended before the final head. If no byte has arrived, its type is `ReadError` or
    /// `ConnectionClosed`: the peer may have closed an idle connection, so the request may be sent again on a new one.
    #[expect(clippy::unnecessary_box_returns, reason = "Pingora's errors are boxed")]
    fn head_is_cut(&self, error: Option<std::io::Error>) -> Box<Error> {
        let kind = match &error {
            _ if self.has_received => Custom(PARTIAL_RESPONSE),
            Some(_) => ReadError,
            None => ConnectionClosed,
        };
        let context = "the connection to the peer ended before the final header of the response";
        match error {
            Some(error) => Error::because(kind, context, error),
            None => Error::explain(kind, context),
        }
    }

    /// Reads the next piece of the body. An empty piece: the body ends here, without trailers. `None`: the whole body was
    /// returned already; [`Self::take_trailers`] may have trailers.
    ///
    /// # Errors
    /// The connection ended before the end of the body, or the body is malformed.
    pub(super) async fn read_piece(
        &mut self,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<Option<Bytes>> {
        while let ReadState::Body(decoder) = &mut self.state {
            let next = self.next.take();
            let part = next.unwrap_or_else(|| decoder.decode(&self.input));
            match part.map_err(refused)? {
                BodyPart::Data(range) => {
                    let size = range.end;
                    let piece = self.input.split_to(size).freeze().slice(range);
                    self.look_ahead()?;
                    return Ok(Some(self.in_transit.track(piece, size)));
                }
                BodyPart::NeedMore { done } => {
                    self.input.advance(done);
                    self.read_more(stream).await?;
                }
                BodyPart::End { trailers } => {
                    let section = self.input.split_to(trailers.end).freeze().slice(trailers);
                    self.end(section)?;
                }
            }
            if self.is_finished() {
                return Ok(Some(Bytes::new()));
            }
        }
        Ok(None)
    }

    /// Decodes the bytes after the piece that is about to be returned, as far as they have arrived: if the body ends there,
    /// [`Self::is_finished`] must be true with this piece.
    fn look_ahead(&mut self) -> Result<()> {
        let ReadState::Body(decoder) = &mut self.state else {
            return Ok(());
        };
        match decoder.decode(&self.input) {
            Ok(BodyPart::End { trailers }) => {
                let section = self.input.split_to(trailers.end).freeze().slice(trailers);
                self.end(section)
            }
            next => {
                self.next = Some(next);
                Ok(())
            }
        }
    }

    /// Waits until enough of the returned pieces are released, then reads more of the body.
    async fn read_more(&mut self, stream: &mut (impl AsyncRead + Unpin)) -> Result<()> {
        let (input, in_transit) = (&mut self.input, &self.in_transit);
        let read = poll_fn(|cx| {
            ready!(in_transit.poll_room(cx));
            poll_read_head(stream, cx, input)
        });
        match read.await {
            Ok(1..) => Ok(()),
            end => {
                self.peer_persists = false;
                match &self.state {
                    // Only a clean close ends a body: after a reset, or TLS without `close_notify`, it may be
                    // truncated (RFC 9112 §8, §9.8).
                    ReadState::Body(decoder) if end.is_ok() && decoder.may_end_at_close() => {
                        self.state = ReadState::Done;
                        Ok(())
                    }
                    _ => {
                        end.or_err(ReadError, "in the body of the response")?;
                        Error::e_explain(ConnectionClosed, "in the body of the response")
                    }
                }
            }
        }
    }

    /// Notes the end of the body, and reads its trailers if the client accepts them.
    fn end(&mut self, section: Bytes) -> Result<()> {
        self.state = ReadState::Done;
        if self.passes_trailers && !section.is_empty() {
            let mut fields = FieldLines::default();
            fields.read_trailers(section).map_err(refused)?;
            let trailers = fields.to_map().map_err(refused)?;
            self.trailers = Some(trailers).filter(|trailers| !trailers.is_empty());
        }
        Ok(())
    }

    /// Whether the response was read to its end and has no trailers left to take.
    pub(super) fn is_finished(&self) -> bool {
        matches!(self.state, ReadState::Done) && self.trailers.is_none()
    }

    /// Whether the response was read to its end; its trailers may not be taken yet.
    pub(super) fn is_read(&self) -> bool {
        matches!(self.state, ReadState::Done)
    }

    /// Takes the trailers; `None` after the first call.
    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// Whether the peer's connection can carry another request.
    pub(super) fn leaves_reusable(&self) -> bool {
        self.is_read() && self.peer_persists && self.input.is_empty()
    }
}

#[expect(clippy::unnecessary_box_returns, reason = "Pingora's errors are boxed")]
fn refused(refusal: Refusal) -> Box<Error> {
    Error::because(InvalidHTTPHeader, "the response is malformed", refusal)
}

/// Converts the head to Pingora's type; field names keep their case.
fn to_header(head: &ResponseHead) -> Result<ResponseHeader> {
    let fields = head.fields();
    let mut header = ResponseHeader::build(head.status(), Some(fields.len()))?;
    header.set_version(head.version());
    header.set_reason_phrase(str::from_utf8(head.reason()).ok())?;
    for field in fields.iter() {
        let name = fields.text().slice_ref(field.name);
        header.append_header(name, to_value(fields, field.value)?)?;
    }
    Ok(header)
}

/// Converts a field value without a copy: it shares the memory of the message.
fn to_value(fields: &FieldLines, value: &[u8]) -> Result<HeaderValue> {
    let value = HeaderValue::from_maybe_shared(fields.text().slice_ref(value));
    value.or_err(InvalidHTTPHeader, "a field has an invalid value")
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// Reads a response to its end. The text has each status, each piece (with a dot if it is marked as the last one), and
    /// the trailers.
    async fn read(bytes: &str, method: Method) -> (ResponseReader, Result<String>) {
        let mut stream = bytes.as_bytes();
        let mut reader = ResponseReader {
            passes_trailers: true,
            ..ResponseReader::default()
        };
        let seen = read_all(&mut reader, &mut stream, &method).await;
        (reader, seen)
    }

    async fn read_all(
        reader: &mut ResponseReader,
        stream: &mut &[u8],
        method: &Method,
    ) -> Result<String> {
        let mut seen = String::new();
        loop {
            let header = reader.read_head(stream, method).await?;
            seen += header.status.as_str();
            if !header.status.is_informational() {
                break;
            }
            seen += " ";
        }
        while let Some(piece) = reader.read_piece(stream).await? {
            let _ = write!(seen, " {}", String::from_utf8_lossy(&piece));
            if reader.is_finished() {
                seen += ".";
            }
        }
        if let Some(trailers) = reader.take_trailers() {
            let _ = write!(seen, " {trailers:?}");
        }
        Ok(seen)
    }

    #[tokio::test]
    async fn response_end_is_known_with_the_last_piece() {
        for (bytes, expected, reusable) in [
            (
                "HTTP/1.1 200 A\r\nContent-Length: 2\r\n\r\nok",
                "200 ok.",
                true,
            ),
            (
                "HTTP/1.1 200 A\r\nContent-Length: 2\r\n\r\nokx",
                "200 ok.",
                false,
            ),
            (
                "HTTP/1.1 200 A\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok",
                "200 ok.",
                false,
            ),
            (
                "HTTP/1.1 100 A\r\n\r\nHTTP/1.1 103 A\r\nContent-Length: x\r\n\r\nHTTP/1.1 204 A\r\n\r\n",
                "100 103 204",
                true,
            ),
            ("HTTP/1.1 200 A\r\n\r\nok", "200 ok .", false),
            (
                "HTTP/1.0 200 A\r\nContent-Length: 2\r\n\r\nok",
                "200 ok.",
                false,
            ),
            (
                "HTTP/1.1 200 A\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1;x\r\nb\r\n0\r\n\r\n",
                "200 a b.",
                true,
            ),
            (
                "HTTP/1.1 200 A\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                "200 .",
                true,
            ),
            (
                "HTTP/1.1 200 A\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\nHost: a\r\n\r\n",
                "200 a {\"x-sum\": \"1\"}",
                true,
            ),
            (
                "HTTP/1.1 200 A\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nHost: a\r\n\r\n",
                "200 a.",
                true,
            ),
        ] {
            let (reader, seen) = read(bytes, Method::GET).await;
            let seen = seen.unwrap_or_else(|error| error.to_string());
            assert_eq!(
                (seen.as_str(), reader.leaves_reusable()),
                (expected, reusable),
                "{bytes:?}"
            );
        }
    }

    #[tokio::test]
    async fn response_to_head_ends_with_its_header() {
        let response = "HTTP/1.1 200 A\r\nContent-Length: 2\r\n\r\n";
        let (reader, seen) = read(response, Method::HEAD).await;
        assert_eq!(seen.unwrap(), "200");
        assert!(reader.leaves_reusable());
    }

    #[tokio::test]
    async fn connection_is_not_reused_after_a_204_in_chunks() {
        let response = "HTTP/1.1 204 A\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (reader, seen) = read(response, Method::GET).await;
        assert_eq!(seen.unwrap(), "204");
        assert!(!reader.leaves_reusable());
    }

    #[tokio::test]
    async fn malformed_or_truncated_response_is_an_error_of_the_expected_type() {
        let chunked = "HTTP/1.1 200 A\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (bytes, kind) in [
            (String::new(), ConnectionClosed),
            ("HTTP/1.1 200".to_owned(), Custom(PARTIAL_RESPONSE)),
            (
                "HTTP/1.1 103 A\r\n\r\n".to_owned(),
                Custom(PARTIAL_RESPONSE),
            ),
            ("HTTP/1.1 101 A\r\n\r\n".to_owned(), InvalidHTTPHeader),
            (
                "HTTP/1.1 200 A\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
                    .to_owned(),
                InvalidHTTPHeader,
            ),
            (
                "HTTP/1.1 200 A\r\nContent-Length: 2\r\n\r\na".to_owned(),
                ConnectionClosed,
            ),
            (format!("{chunked}1\r\na\r\n"), ConnectionClosed),
            (
                format!("{chunked}1;a\n\r\na\r\n0\r\n\r\n"),
                InvalidHTTPHeader,
            ),
            (format!("{chunked};a\r\na\r\n0\r\n\r\n"), InvalidHTTPHeader),
            (
                format!("{chunked}1\r\na\r\n0\r\nno colon\r\n\r\n"),
                InvalidHTTPHeader,
            ),
        ] {
            let (reader, seen) = read(&bytes, Method::GET).await;
            let error = seen.expect_err(&bytes);
            assert_eq!(*error.etype(), kind, "{bytes:?}");
            assert!(!reader.leaves_reusable(), "{bytes:?}");
        }
    }

    #[tokio::test]
    async fn response_with_more_than_max_fields_is_refused() {
        for (count, passes) in [
            (HeadLimits::MAX_FIELDS, true),
            (HeadLimits::MAX_FIELDS + 1, false),
        ] {
            let fields = "Set-Cookie: a=b\r\n".repeat(count - 1);
            let bytes = format!("HTTP/1.1 200 A\r\nContent-Length: 0\r\n{fields}\r\n");
            let (_, seen) = read(&bytes, Method::GET).await;
            assert_eq!(seen.is_ok(), passes, "{count}");
        }
    }
}
