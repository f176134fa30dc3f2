//! A listening socket, TCP or Unix, and the ways to accept connections from it.

use std::io;
use std::net::SocketAddr;

use socket2::{SockFilter, SockRef};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::downstream::DownstreamSocket;

/// A socket filter (classic BPF, `socket(7)`: `SO_ATTACH_FILTER`) that drops the first segment of a
/// connection, the one with SYN and without ACK (RFC 9293 §3.1: byte 13 of the header).
const DROP_SYN_FILTER: [SockFilter; 5] = [
    SockFilter::new(0x30, 0, 0, 13),       // load the flags
    SockFilter::new(0x54, 0, 0, 0x12),     // keep SYN and ACK
    SockFilter::new(0x15, 0, 1, 0x02),     // SYN alone?
    SockFilter::new(0x06, 0, 0, 0),        // then drop the segment
    SockFilter::new(0x06, 0, 0, u32::MAX), // else accept all of it
];

/// An accepted connection, and the client's address if it has one.
pub(super) type AcceptedSocket = (DownstreamSocket, Option<SocketAddr>);

/// A listening socket.
#[derive(Debug)]
pub(super) enum ListenSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl ListenSocket {
    /// Waits for the next connection. Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<AcceptedSocket> {
        match self {
            Self::Tcp(socket) => socket
                .accept()
                .await
                .map(|(tcp, client)| (DownstreamSocket::Tcp(tcp), Some(client))),
            Self::Unix(socket) => socket
                .accept()
                .await
                .map(|(unix, _)| (DownstreamSocket::Unix(unix), None)),
        }
    }

    /// Takes a connection from the accept queue without waiting. Calls `accept(2)` directly, because the
    /// runtime may not know yet that the socket is readable.
    pub(super) fn accept_nonblocking(&self) -> io::Result<AcceptedSocket> {
        let (socket, client) = match self {
            Self::Tcp(listener) => SockRef::from(listener).accept()?,
            Self::Unix(listener) => SockRef::from(listener).accept()?,
        };
        socket.set_nonblocking(true)?;
        let socket = match self {
            Self::Tcp(_) => DownstreamSocket::Tcp(TcpStream::from_std(socket.into())?),
            Self::Unix(_) => DownstreamSocket::Unix(UnixStream::from_std(socket.into())?),
        };
        Ok((socket, client.as_socket()))
    }

    /// Drops the SYN of every new TCP handshake without closing the socket: handshakes that have begun can
    /// complete and be accepted. Closing at once would reset connections that were established a moment
    /// before and have a request on its way. A client that connects after this call sends its SYN again, and
    /// is refused when the socket is closed.
    pub(super) fn drop_new_syns(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => SockRef::from(socket).attach_filter(&DROP_SYN_FILTER),
            Self::Unix(_) => Ok(()),
        }
    }
}
