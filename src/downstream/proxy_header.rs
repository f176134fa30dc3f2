//! Reads the PROXY protocol header of a connection, which names the real client.
//!
//! Invariant: no byte after the header is consumed, so that the TLS handshake or request after it is complete.
//! Each step peeks at the received bytes (`MSG_PEEK`), then consumes only those of the header.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::socket::DownstreamSocket;
use crate::proxy_protocol::{
    ProxyAddresses, ProxyHeader, ProxyHeaderError, ProxyHeaderReader, TlsTlv,
};
use crate::telemetry::metrics::ConnectionRefusal;

/// Bytes per peek.
const PEEK_SIZE: usize = 512;

/// The addresses of a connection.
#[derive(Debug, Default)]
pub(crate) struct ConnectionInfo {
    /// The remote address of the socket; `None` on a Unix socket.
    pub remote_addr: Option<SocketAddr>,
    /// The PROXY header, if the listener accepts one from that address.
    pub proxy_header: Option<Box<ProxyHeader>>,
}

impl ConnectionInfo {
    /// The client's address: the source in the header, or the remote address if the header has none.
    pub(crate) fn client_addr(&self) -> Option<SocketAddr> {
        match self.proxy_addresses() {
            Some(ProxyAddresses::Inet { source, .. }) => Some(canonical_addr(*source)),
            _ => self.remote_addr,
        }
    }

    /// The address that the client connected to, if the header has one.
    pub(crate) fn destination_addr(&self) -> Option<SocketAddr> {
        match self.proxy_addresses() {
            Some(ProxyAddresses::Inet { destination, .. }) => Some(canonical_addr(*destination)),
            _ => None,
        }
    }

    /// Whether the client spoke TLS to the proxy that sent the header.
    pub(crate) fn is_encrypted(&self) -> bool {
        let header = self.proxy_header.as_deref();
        header
            .and_then(ProxyHeader::tls)
            .is_some_and(TlsTlv::is_encrypted)
    }

    fn proxy_addresses(&self) -> Option<&ProxyAddresses> {
        self.proxy_header.as_ref().map(|header| &header.addresses)
    }
}

/// Reads the header at the start of a connection; `within` is the time limit.
///
/// # Errors
/// If the header is missing, late or malformed; the connection must be closed then.
pub(crate) async fn read_proxy_header(
    socket: &mut DownstreamSocket,
    within: Duration,
) -> Result<ProxyHeader, ConnectionRefusal> {
    let read = tokio::time::timeout(within, read_header(socket));
    read.await.unwrap_or(Err(ConnectionRefusal::HeaderTimeout))
}

/// Converts an IPv4-mapped IPv6 address (`::ffff:a.b.c.d`) to IPv4.
pub(crate) fn canonical_addr(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

async fn read_header(socket: &mut DownstreamSocket) -> Result<ProxyHeader, ConnectionRefusal> {
    let mut reader = ProxyHeaderReader::default();
    let mut buffer = [0; PEEK_SIZE];
    loop {
        let length = socket
            .peek(&mut buffer)
            .await
            .map_err(|error| truncated(&error))?;
        let peeked = buffer.get(..length).unwrap_or_default();
        if peeked.is_empty() {
            return Err(ConnectionRefusal::HeaderTruncated);
        }
        let consumed = reader.consume(peeked).map_err(refusal)?;
        let header = buffer.get_mut(..consumed).unwrap_or_default();
        let read = socket.read_exact(header).await;
        read.map_err(|error| truncated(&error))?;
        if let Some(header) = reader.parse().map_err(refusal)? {
            return Ok(header);
        }
    }
}

fn truncated(_: &io::Error) -> ConnectionRefusal {
    ConnectionRefusal::HeaderTruncated
}

fn refusal(error: ProxyHeaderError) -> ConnectionRefusal {
    match error {
        ProxyHeaderError::Signature => ConnectionRefusal::NoHeader,
        ProxyHeaderError::TooLong => ConnectionRefusal::HeaderTooLong,
        ProxyHeaderError::Syntax => ConnectionRefusal::HeaderMalformed,
        ProxyHeaderError::Checksum => ConnectionRefusal::HeaderChecksum,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;

    const LINE: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n";

    async fn read_from(pieces: &[&[u8]]) -> (Result<ProxyHeader, ConnectionRefusal>, Vec<u8>) {
        let (server, mut client) = UnixStream::pair().unwrap();
        let mut socket = DownstreamSocket::Unix(server);
        let send = async {
            for piece in pieces {
                client.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(client);
        };
        let (header, ()) = tokio::join!(
            read_proxy_header(&mut socket, Duration::from_secs(10)),
            send
        );
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
        (header, rest)
    }

    #[tokio::test]
    async fn proxy_header_reader_leaves_the_bytes_after_the_header() {
        let (header, rest) = read_from(&[LINE, b"GET / HTTP/1.1\r\n"]).await;
        assert_eq!(rest, b"GET / HTTP/1.1\r\n");
        let (at_once, rest) = read_from(&[&[LINE, b"PROXY UNKNOWN\r\n"].concat()]).await;
        assert_eq!(at_once, header);
        assert_eq!(
            rest, b"PROXY UNKNOWN\r\n",
            "only the first line is a header"
        );
        let pieces: Vec<&[u8]> = LINE.chunks(1).chain([&b"x"[..]]).collect();
        let (dripped, rest) = read_from(&pieces).await;
        assert_eq!(dripped, header);
        assert_eq!(rest, b"x");
    }

    #[tokio::test]
    async fn proxy_header_errors_are_distinguished() {
        assert_eq!(
            read_from(&[]).await.0,
            Err(ConnectionRefusal::HeaderTruncated)
        );
        assert_eq!(
            read_from(&[b"PROXY TC"]).await.0,
            Err(ConnectionRefusal::HeaderTruncated)
        );
        assert_eq!(
            read_from(&[b"GET / HTTP/1.1"]).await.0,
            Err(ConnectionRefusal::NoHeader)
        );
        let long = [&LINE[..10], &[b'x'; 100]].concat();
        assert_eq!(
            read_from(&[&long]).await.0,
            Err(ConnectionRefusal::HeaderTooLong)
        );
        let bad = read_from(&[b"PROXY TCP9 1 2 3 4\r\n"]).await.0;
        assert_eq!(bad, Err(ConnectionRefusal::HeaderMalformed));
    }

    #[tokio::test(start_paused = true)]
    async fn proxy_header_deadline_covers_the_whole_header() {
        let (server, mut client) = UnixStream::pair().unwrap();
        let mut socket = DownstreamSocket::Unix(server);
        let drip = async {
            for piece in LINE.chunks(1) {
                client.write_all(piece).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            header = read_proxy_header(&mut socket, Duration::from_secs(5)) => {
                assert_eq!(header, Err(ConnectionRefusal::HeaderTimeout));
            }
            () = drip => panic!("the deadline did not fire"),
        }
    }

    #[test]
    fn proxy_header_source_address_is_the_client() {
        let remote = Some("10.0.0.1:1".parse().unwrap());
        let info = |addresses| ConnectionInfo {
            remote_addr: remote,
            proxy_header: Some(Box::new(ProxyHeader {
                version: crate::proxy_protocol::ProxyHeaderVersion::V2,
                addresses,
                tlvs: Vec::new(),
            })),
        };
        let inet = info(ProxyAddresses::Inet {
            transport: crate::proxy_protocol::Transport::Stream,
            source: "[::ffff:192.0.2.1]:7".parse().unwrap(),
            destination: "192.0.2.2:80".parse().unwrap(),
        });
        assert_eq!(inet.client_addr(), Some("192.0.2.1:7".parse().unwrap()));
        for addresses in [ProxyAddresses::Local, ProxyAddresses::Unknown] {
            assert_eq!(info(addresses).client_addr(), remote);
        }
    }
}
