//! The byte stream of an HTTP/1 client: reads into a buffer of unprocessed bytes, and writes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWrite;

use super::super::exchange::Exchange;
use super::super::io::DownstreamIo;
use crate::read_buffer::poll_read_head;

/// While a response is awaited or sent, later requests (pipelining) are read until this many bytes are buffered; the last
/// read may exceed it.
const MAX_PIPELINED: usize = 16 * 1024;

/// The stream to and from a client, and the buffer of received bytes that are not processed yet.
#[derive(Debug)]
pub(crate) struct ClientStream<'a> {
    io: &'a mut DownstreamIo,
    input: &'a mut BytesMut,
}

impl<'a> ClientStream<'a> {
    pub(crate) fn new(io: &'a mut DownstreamIo, input: &'a mut BytesMut) -> Self {
        Self { io, input }
    }

    /// Bytes received from the client that are not processed yet.
    pub(crate) fn input(&mut self) -> &mut BytesMut {
        self.input
    }

    pub(crate) fn exchange(&self) -> &Exchange {
        self.io.exchange()
    }

    /// The longest pause between two reads of a request's body.
    pub(crate) fn read_timeout(&self) -> Duration {
        self.exchange().connection.limits.read_timeout
    }

    /// Reads more bytes into the buffer, and returns their number; 0: the client has closed its side. An empty buffer is
    /// allocated only when bytes arrive.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        poll_read_head(self.io, cx, self.input)
    }

    /// Ready when the client has closed its side, or its connection has failed. Pipelined requests are buffered meanwhile:
    /// once [`MAX_PIPELINED`] bytes are, nothing more is read, and a close is not noticed.
    pub(crate) fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while self.input.len() < MAX_PIPELINED {
            match self.poll_read(cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(_)) => {}
                Poll::Pending => break,
            }
        }
        Poll::Pending
    }

    /// Writes some of `bytes`, and returns how many. Small writes are buffered until the connection's task waits.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io).poll_write(cx, bytes)
    }
}
