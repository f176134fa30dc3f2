//! The client's side of a connection: received bytes that are not used yet, and writes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncWrite;

use super::super::exchange::Exchange;
use super::super::io::DownstreamIo;
use crate::read_buffer::poll_read_head;

/// While a response is awaited, later requests (pipelining) are read until this many bytes are buffered.
const MAX_PIPELINED: usize = 16 * 1024;

/// The stream to and from a client, with the bytes that were read and are not used yet.
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

    /// Reads more bytes, and returns their number; 0: the client has closed its side. An idle client holds no buffer.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        poll_read_head(self.io, cx, self.input)
    }

    /// Ready when the client has closed its side, or its connection has failed, while it waits for a response.
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

    /// Writes some of `bytes`, and returns how many. Small writes are collected until the connection has to wait.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.io).poll_write(cx, bytes)
    }
}
