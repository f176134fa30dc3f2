//! Finds the places where a stream can end without a truncated message.
//!
//! | stream | boundary | end marker |
//! |---|---|---|
//! | WebSocket | between two frames, also those of one message (RFC 6455 §5.4) | a close frame |
//! | server-sent events | after a whole event | the last chunk; without chunks the connection's end |
//! | gRPC | after a whole message | trailers |
//!
//! The scanners read all bytes sent to the client, including the response header, and store none of them. Bytes
//! that cannot be parsed have no boundary.

mod chunked;
mod grpc_messages;
mod server_sent_events;
mod websocket;

use self::chunked::ChunkScanner;
use self::grpc_messages::GrpcMessageScanner;
use self::server_sent_events::EventScanner;
use self::websocket::WebSocketScanner;

/// A kind of stream with boundaries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamKind {
    /// WebSocket frames, after a 101.
    WebSocket,
    /// `text/event-stream`.
    ServerSentEvents {
        /// The body is chunked; otherwise it ends with the connection.
        chunked: bool,
    },
    /// gRPC messages, on HTTP/2.
    GrpcMessages,
}

/// Tracks a stream, and knows whether it is at a boundary.
#[derive(Clone, Debug)]
pub(super) struct BoundaryScanner {
    /// The response header; `None` after its end.
    head: Option<ResponseHeadScanner>,
    body: BodyScanner,
}

#[derive(Clone, Debug)]
enum BodyScanner {
    WebSocket(WebSocketScanner),
    ServerSentEvents {
        /// `None`: the body is not chunked.
        chunks: Option<ChunkScanner>,
        events: EventScanner,
    },
    GrpcMessages(GrpcMessageScanner),
}

impl BoundaryScanner {
    /// Scans an HTTP/1 stream from the first byte of its response header.
    pub(super) fn new(kind: StreamKind) -> Self {
        let body = match kind {
            StreamKind::WebSocket => BodyScanner::WebSocket(WebSocketScanner::new()),
            StreamKind::ServerSentEvents { chunked } => BodyScanner::ServerSentEvents {
                chunks: chunked.then(ChunkScanner::new),
                events: EventScanner::default(),
            },
            StreamKind::GrpcMessages => BodyScanner::GrpcMessages(GrpcMessageScanner::default()),
        };
        Self {
            head: Some(ResponseHeadScanner::default()),
            body,
        }
    }

    /// Scans the body of an HTTP/2 stream: no response header and no chunk framing.
    pub(super) fn for_http2(kind: StreamKind) -> Self {
        let kind = match kind {
            StreamKind::ServerSentEvents { .. } => StreamKind::ServerSentEvents { chunked: false },
            StreamKind::WebSocket | StreamKind::GrpcMessages => kind,
        };
        Self {
            head: None,
            ..Self::new(kind)
        }
    }

    /// Consumes bytes that are sent to the client.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some(rest) = bytes
            .get(self.consume(bytes)..)
            .filter(|_| !bytes.is_empty())
        {
            bytes = rest;
        }
    }

    /// The number of bytes up to the first boundary; the length of `bytes` without a boundary.
    pub(super) fn len_to_boundary(&self, bytes: &[u8]) -> usize {
        let mut ahead = self.clone();
        let mut rest = bytes;
        while !rest.is_empty() && !ahead.is_at_boundary() {
            rest = rest.get(ahead.consume(rest)..).unwrap_or_default();
        }
        bytes.len() - rest.len()
    }

    /// Whether the stream can end here.
    pub(super) fn is_at_boundary(&self) -> bool {
        let body_is_at_boundary = match &self.body {
            BodyScanner::WebSocket(frames) => frames.is_at_boundary(),
            BodyScanner::ServerSentEvents { chunks, events } => {
                chunks.as_ref().is_none_or(ChunkScanner::is_at_boundary) && events.is_at_boundary()
            }
            BodyScanner::GrpcMessages(messages) => messages.is_at_boundary(),
        };
        self.head.is_none() && body_is_at_boundary
    }

    /// The bytes that tell the client that the stream is complete.
    pub(super) fn end_marker(&self) -> &'static [u8] {
        match &self.body {
            // A close frame with status 1001, going away (RFC 6455 §7.4.1).
            BodyScanner::WebSocket(_) => &[0x88, 2, 0x03, 0xe9],
            BodyScanner::ServerSentEvents {
                chunks: Some(_), ..
            } => b"0\r\n\r\n",
            // The end of the connection, or the trailers of the HTTP/2 stream.
            BodyScanner::ServerSentEvents { chunks: None, .. } | BodyScanner::GrpcMessages(_) => {
                b""
            }
        }
    }

    /// Consumes one or more bytes of the same kind; returns how many.
    fn consume(&mut self, bytes: &[u8]) -> usize {
        let Some(&byte) = bytes.first() else { return 0 };
        if let Some(head) = &mut self.head {
            if head.push(byte) {
                self.head = head.is_interim().then(ResponseHeadScanner::default);
            }
            return 1;
        }
        match &mut self.body {
            BodyScanner::WebSocket(frames) => frames.consume(byte, bytes.len()),
            BodyScanner::ServerSentEvents { chunks, events } => {
                if chunks.as_mut().is_none_or(|chunks| chunks.consume(byte)) {
                    events.consume(byte);
                }
                1
            }
            BodyScanner::GrpcMessages(messages) => messages.consume(byte, bytes.len()),
        }
    }
}

/// A response header as Pingora writes it, with CRLF line ends.
#[derive(Clone, Debug, Default)]
struct ResponseHeadScanner {
    /// Version and status, such as `HTTP/1.1 101`.
    status_line: [u8; 12],
    length: usize,
    /// How many bytes of the empty line that ends the header have matched.
    end_matched: usize,
}

impl ResponseHeadScanner {
    /// Consumes one byte; true: it was the last of the header.
    fn push(&mut self, byte: u8) -> bool {
        const END: &[u8] = b"\r\n\r\n";
        if let Some(slot) = self.status_line.get_mut(self.length) {
            *slot = byte;
        }
        self.length = self.length.saturating_add(1);
        let expected = END.get(self.end_matched) == Some(&byte);
        self.end_matched = if expected {
            self.end_matched + 1
        } else {
            usize::from(byte == b'\r')
        };
        self.end_matched == END.len()
    }

    /// Whether another header follows (RFC 9110 §15.2).
    fn is_interim(&self) -> bool {
        let status = self.status_line.get(9..).unwrap_or_default();
        status.starts_with(b"1") && status != b"101"
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";
    const OK: &[u8] = b"HTTP/1.1 200 OK\r\n\r\n";
    const EVENTS: StreamKind = StreamKind::ServerSentEvents { chunked: false };
    const CHUNKS: StreamKind = StreamKind::ServerSentEvents { chunked: true };

    fn scan(kind: StreamKind, chunks: &[&[u8]]) -> BoundaryScanner {
        let mut scanner = BoundaryScanner::new(kind);
        for chunk in chunks {
            scanner.feed(chunk);
        }
        scanner
    }

    #[test]
    fn stream_boundary_is_never_inside_a_response_header() {
        let early = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n";
        assert!(!scan(EVENTS, &[]).is_at_boundary());
        assert!(!scan(EVENTS, &[OK.split_last().unwrap().1]).is_at_boundary());
        assert!(!scan(EVENTS, &[early]).is_at_boundary());
        assert!(scan(EVENTS, &[early, early, OK]).is_at_boundary());
        assert!(scan(StreamKind::WebSocket, &[SWITCHING]).is_at_boundary());
    }

    #[test]
    fn sse_boundary_is_after_an_empty_line() {
        for (text, is_boundary) in [
            ("data: 1", false),
            ("data: 1\n", false),
            ("data: 1\n\n", true),
            ("data: 1\r\n", false),
            ("data: 1\r\n\r", true),
            ("data: 1\r\n\r\n", true),
            ("data: 1\r\r", true),
            ("data: 1\n\ndata", false),
            (": ping", false),
            (": ping\n", true),
            ("data: 1\n: ping\n", false),
            ("\n", true),
        ] {
            assert_eq!(
                scan(EVENTS, &[OK, text.as_bytes()]).is_at_boundary(),
                is_boundary,
                "{text:?}"
            );
        }
    }

    #[test]
    fn chunked_sse_boundary_is_between_chunks() {
        for (text, is_boundary) in [
            ("", true),
            ("9", false),
            ("9\r\ndata: 1\n\n", false),
            ("9\r\ndata: 1\n\n\r", false),
            ("9\r\ndata: 1\n\n\r\n", true),
            ("8;x=1\r\ndata: 1\n\r\n", false),
            ("8\r\ndata: 1\n\r\n1\r\n\n\r\n", true),
            ("0\r\n\r\n", false),
            ("x", false),
            ("11111111111111111\r\n", false),
        ] {
            assert_eq!(
                scan(CHUNKS, &[OK, text.as_bytes()]).is_at_boundary(),
                is_boundary,
                "{text:?}"
            );
        }
    }

    #[test]
    fn websocket_boundary_is_absent_after_a_close_frame() {
        assert!(!scan(StreamKind::WebSocket, &[SWITCHING, &[0x88, 0]]).is_at_boundary());
        assert!(!scan(StreamKind::WebSocket, &[SWITCHING, &[0x88, 2, 3, 0xe8]]).is_at_boundary());
        let too_long = [0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0];
        assert!(!scan(StreamKind::WebSocket, &[SWITCHING, &too_long]).is_at_boundary());
    }

    #[test]
    fn grpc_message_boundary_is_after_its_last_byte() {
        for (bytes, is_boundary) in [
            (&b""[..], true),
            (b"\0", false),
            (b"\0\0\0\0\0", true),
            (b"\x01\0\0\0\x03", false),
            (b"\0\0\0\0\x03ab", false),
            (b"\0\0\0\0\x03abc", true),
            (b"\0\0\0\0\x03abc\0", false),
            (b"\0\0\0\0\x03abc\0\0\0\0\x01d", true),
        ] {
            let mut whole = BoundaryScanner::for_http2(StreamKind::GrpcMessages);
            whole.feed(bytes);
            assert_eq!(whole.is_at_boundary(), is_boundary, "{bytes:?}");
            let mut bytewise = BoundaryScanner::for_http2(StreamKind::GrpcMessages);
            for byte in bytes {
                bytewise.feed(&[*byte]);
            }
            assert_eq!(bytewise.is_at_boundary(), is_boundary, "{bytes:?}");
        }
        let mut partial = BoundaryScanner::for_http2(StreamKind::GrpcMessages);
        partial.feed(b"\0\0\0\0\x03a");
        assert_eq!(partial.len_to_boundary(b"bc\0\0"), 2);
    }

    /// A frame with its length in the shortest form, masked or not.
    fn frame((length, masked): (usize, bool)) -> Vec<u8> {
        let mask = if masked { 0x80 } else { 0 };
        let mut frame = vec![0x82];
        match (u8::try_from(length), u16::try_from(length)) {
            (Ok(short @ 0..126), _) => frame.push(mask | short),
            (_, Ok(long)) => {
                frame.push(mask | 0x7e);
                frame.extend(long.to_be_bytes());
            }
            _ => {
                frame.push(mask | 0x7f);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.resize(frame.len() + length + if masked { 4 } else { 0 }, 0x88);
        frame
    }

    proptest! {
        #[test]
        fn websocket_boundary_is_only_between_frames(
            frames in prop::collection::vec((prop_oneof![0..130_usize, 65_530..65_540_usize], any::<bool>()), 1..5),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
        ) {
            let frames: Vec<_> = frames.into_iter().map(frame).collect();
            let ends: Vec<_> = frames.iter().scan(0, |sum, frame| { *sum += frame.len(); Some(*sum) }).collect();
            let bytes = frames.concat();
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut scanner = scan(StreamKind::WebSocket, &[SWITCHING]);
            let mut at = 0;
            for cut in cuts {
                scanner.feed(&bytes[at..cut]);
                prop_assert_eq!(scanner.is_at_boundary(), cut == 0 || ends.contains(&cut));
                let next = ends.iter().find(|end| **end >= cut).map_or(0, |end| end - cut);
                let expected = if scanner.is_at_boundary() { 0 } else { next };
                prop_assert_eq!(scanner.len_to_boundary(&bytes[cut..]), expected);
                at = cut;
            }
        }

        #[test]
        fn stream_boundary_with_random_bytes_is_independent_of_chunking(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..200_usize) {
            for kind in [StreamKind::WebSocket, EVENTS, CHUNKS, StreamKind::GrpcMessages] {
                let cut = cut.min(bytes.len());
                let whole = scan(kind, &[OK, &bytes]);
                let parts = scan(kind, &[OK, &bytes[..cut], &bytes[cut..]]);
                prop_assert_eq!(whole.is_at_boundary(), parts.is_at_boundary());
            }
        }
    }
}
