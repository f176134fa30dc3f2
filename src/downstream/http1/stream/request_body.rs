//! The body of a request, decoded by the codec.

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::HeaderMap;
use pingora::ErrorType::{ConnectionClosed, InvalidHTTPHeader, ReadError};
use pingora::{Error, Result};

use super::super::client_stream::ClientStream;
use super::super::received_body::ReceivedBody;
use crate::http1::{BodyPart, FieldLines, Refusal};

/// A request's body, read piece by piece.
#[derive(Debug)]
pub(super) struct Http1RequestBody {
    pub(super) received: ReceivedBody,
    /// After 101 the client sends until it ends the tunnel.
    is_tunnel_open: bool,
    /// The trailers behind the last chunk, until they are taken.
    trailers: Option<HeaderMap>,
}

impl Http1RequestBody {
    pub(super) fn new(received: ReceivedBody) -> Self {
        Self {
            received,
            is_tunnel_open: false,
            trailers: None,
        }
    }

    /// Takes the trailers, once they were read.
    pub(super) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// Whether it was read to its end; of a tunnel: whether one side has ended it.
    pub(super) fn is_complete(&self) -> bool {
        self.received.is_complete() && !self.is_tunnel_open
    }

    pub(super) fn begin_tunnel(&mut self) {
        self.is_tunnel_open = true;
    }

    pub(super) fn end_tunnel(&mut self) {
        self.is_tunnel_open = false;
    }

    /// Reads the next piece; `None` at the end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut ClientStream<'_>,
    ) -> Poll<Result<Option<Bytes>>> {
        loop {
            if self.received.is_complete() {
                return Poll::Ready(Ok(None));
            }
            let data = self.decode(client.input()).map_err(refused)?;
            if !data.is_empty() {
                return Poll::Ready(Ok(Some(data.freeze())));
            }
            if !self.received.is_complete() {
                ready!(poll_more(cx, client))?;
            }
        }
    }

    /// Reads what a tunnel brings; `None` at the end.
    pub(super) fn poll_read_tunnel(
        &mut self,
        cx: &mut Context<'_>,
        client: &mut ClientStream<'_>,
    ) -> Poll<Result<Option<Bytes>>> {
        if self.is_tunnel_open && client.input().is_empty() {
            let read = ready!(client.poll_read(cx));
            let read = read.map_err(|error| Error::because(ReadError, "from a tunnel", error));
            self.is_tunnel_open = read.map_err(Error::into_down)? > 0;
        }
        if !self.is_tunnel_open {
            return Poll::Ready(Ok(None));
        }
        Poll::Ready(Ok(Some(std::mem::take(client.input()).freeze())))
    }

    /// The data of all chunks in `input`, in one piece: many small ones would cost as many steps of the proxy.
    fn decode(&mut self, input: &mut BytesMut) -> Result<BytesMut, Refusal> {
        let mut data = BytesMut::new();
        loop {
            match self.received.decode(input)? {
                BodyPart::Data(range) => {
                    let mut piece = input.split_to(range.end);
                    piece.advance(range.start);
                    if data.is_empty() {
                        data = piece;
                    } else {
                        data.extend_from_slice(&piece);
                    }
                }
                BodyPart::NeedMore { done } => {
                    input.advance(done);
                    return Ok(data);
                }
                BodyPart::End { trailers } => {
                    let section = input.split_to(trailers.end).freeze().slice(trailers);
                    if !section.is_empty() {
                        let mut fields = FieldLines::default();
                        fields.read_trailers(section)?;
                        self.trailers = Some(fields.to_map()?);
                    }
                    self.received.complete();
                    return Ok(data);
                }
            }
        }
    }
}

/// Reads more of a body, which must not end here.
fn poll_more(cx: &mut Context<'_>, client: &mut ClientStream<'_>) -> Poll<Result<()>> {
    Poll::Ready(match ready!(client.poll_read(cx)) {
        Ok(1..) => Ok(()),
        Ok(0) => Err(Error::new_down(ConnectionClosed)),
        Err(error) => Err(Error::because(ReadError, "in a request's body", error).into_down()),
    })
}

/// The refusal stays the cause: it has the fault.
#[expect(clippy::unnecessary_box_returns, reason = "Pingora's errors are boxed")]
fn refused(refusal: Refusal) -> Box<Error> {
    Error::because(InvalidHTTPHeader, "in a request's body", refusal).into_down()
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::Arc;

    use pingora::ErrorType;
    use tokio::io::AsyncWriteExt;

    use super::super::super::super::connection_limit::ConnectionLimit;
    use super::super::super::super::exchange::Exchange;
    use super::super::super::super::io::DownstreamIo;
    use super::*;
    use crate::config::DownstreamConfig;
    use crate::http1::BodyLength;

    /// The pieces and trailers that are read of a body, after which the client closes its side; or the error and the
    /// refusal.
    async fn read(
        length: BodyLength,
        sent: &str,
    ) -> Result<(Vec<Bytes>, Option<HeaderMap>), (ErrorType, Option<Refusal>)> {
        let limit = ConnectionLimit::new(None);
        let (exchange, mut socket) = Exchange::for_test(DownstreamConfig::DEFAULT, &limit);
        exchange.begin_request();
        socket.write_all(sent.as_bytes()).await.unwrap();
        drop(socket);
        let mut io = DownstreamIo::new(Arc::clone(&exchange));
        let mut body = Http1RequestBody::new(ReceivedBody::new(length, false));
        let mut input = BytesMut::new();
        let mut pieces = Vec::new();
        loop {
            let mut client = ClientStream::new(&mut io, &mut input);
            match poll_fn(|cx| body.poll_read(cx, &mut client)).await {
                Ok(Some(piece)) => pieces.push(piece),
                Ok(None) => return Ok((pieces, body.take_trailers())),
                Err(error) => {
                    let refusal = error.root_cause().downcast_ref().copied();
                    return Err((error.etype().clone(), refusal));
                }
            }
        }
    }

    #[tokio::test]
    async fn chunks_that_came_together_are_one_piece_with_the_trailers_beside_it() {
        let chunked = "2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\nX: 1\r\nHost: h\r\n\r\nGET ";
        let x = HeaderMap::from_iter([("x".parse().unwrap(), "1".parse().unwrap())]);
        for (length, sent, body, trailers) in [
            (BodyLength::Chunked, chunked, "hello", Some(x)),
            (BodyLength::Exact(5), "helloGET ", "hello", None),
            (BodyLength::Empty, "GET ", "", None),
        ] {
            let (pieces, read_trailers) = read(length, sent).await.unwrap();
            assert_eq!(pieces.concat(), body.as_bytes());
            assert!(pieces.len() <= 1, "{pieces:?}");
            assert_eq!(read_trailers, trailers, "{sent:?}");
        }
    }

    #[tokio::test]
    async fn body_that_is_malformed_or_cut_off_is_an_error_with_its_cause() {
        let malformed = |refusal| Err((InvalidHTTPHeader, Some(refusal)));
        for (length, sent, expected) in [
            (
                BodyLength::Chunked,
                "z\r\n",
                malformed(Refusal::InvalidChunkSize),
            ),
            (
                BodyLength::Chunked,
                "1\r\nab\r\n",
                malformed(Refusal::InvalidChunkEnd),
            ),
            (
                BodyLength::Chunked,
                "0\r\nno-colon\r\n\r\n",
                malformed(Refusal::InvalidFieldName),
            ),
            (
                BodyLength::Chunked,
                "1\r\na\r\n",
                Err((ConnectionClosed, None)),
            ),
            (BodyLength::Exact(2), "a", Err((ConnectionClosed, None))),
        ] {
            assert_eq!(read(length, sent).await, expected, "{sent:?}");
        }
    }
}
