//! A header of the PROXY protocol, before anything else on a connection: whose it is.
//!
//! Invariant: not a byte is taken from behind the header, so whatever comes next (a request, or a
//! handshake of TLS) finds all of it. What has arrived is looked at first, and then taken as far as it
//! belongs to the header: one that drips in costs one look per piece.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::socket::DownstreamSocket;
use crate::proxy_protocol::{
    ProxyAddresses, ProxyHeader, ProxyHeaderError, ProxyHeaderReader, TlsTlv,
};
use crate::telemetry::metrics::ConnectionRefusal;

/// How much is looked at at once; bytes.
const PEEK_SIZE: usize = 512;

/// Who is at the other end of a connection.
#[derive(Debug, Default)]
pub struct ConnectionInfo {
    /// The address on the other end of the socket; `None` on a Unix socket.
    pub remote_addr: Option<SocketAddr>,
    /// What that one says of the connection, where it may.
    pub proxy_header: Option<Box<ProxyHeader>>,
}

impl ConnectionInfo {
    /// Whose connection it is: whom the header names, else the remote itself.
    pub fn client_addr(&self) -> Option<SocketAddr> {
        match self.proxy_addresses() {
            Some(ProxyAddresses::Inet { source, .. }) => Some(canonical_addr(*source)),
            _ => self.remote_addr,
        }
    }

    /// Where the client connected to, as the header has it.
    pub fn destination_addr(&self) -> Option<SocketAddr> {
        match self.proxy_addresses() {
            Some(ProxyAddresses::Inet { destination, .. }) => Some(canonical_addr(*destination)),
            _ => None,
        }
    }

    /// Whether the client spoke TLS to whom the header is from.
    pub fn is_encrypted(&self) -> bool {
        let header = self.proxy_header.as_deref();
        header
            .and_then(ProxyHeader::tls)
            .is_some_and(TlsTlv::is_encrypted)
    }

    fn proxy_addresses(&self) -> Option<&ProxyAddresses> {
        self.proxy_header.as_ref().map(|header| &header.addresses)
    }
}

/// Reads the header that the connection begins with; it must be complete `within` that time.
///
/// # Errors
/// Why there is none; the connection is of no use then.
pub async fn read_proxy_header(
    socket: &mut DownstreamSocket,
    within: Duration,
) -> Result<ProxyHeader, ConnectionRefusal> {
    let read = tokio::time::timeout(within, read_header(socket));
    read.await.unwrap_or(Err(ConnectionRefusal::HeaderTimeout))
}

/// IPv4 addresses mapped into IPv6 are IPv4's.
pub fn canonical_addr(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

async fn read_header(socket: &mut DownstreamSocket) -> Result<ProxyHeader, ConnectionRefusal> {
    let mut reader = ProxyHeaderReader::default();
    let mut glance = [0; PEEK_SIZE];
    loop {
        let seen = socket
            .peek(&mut glance)
            .await
            .map_err(|error| truncated(&error))?;
        let seen = glance.get(..seen).unwrap_or_default();
        if seen.is_empty() {
            return Err(ConnectionRefusal::HeaderTruncated);
        }
        let taken = reader.consume(seen).map_err(refusal)?;
        let taken = glance.get_mut(..taken).unwrap_or_default();
        let read = socket.read_exact(taken).await;
        read.map_err(|error| truncated(&error))?;
        if let Some(header) = reader.parse().map_err(refusal)? {
            return Ok(header);
        }
    }
}

fn truncated(_: &io::Error) -> ConnectionRefusal {
    ConnectionRefusal::HeaderTruncated
}

fn refusal(malformed: ProxyHeaderError) -> ConnectionRefusal {
    match malformed {
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
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut socket = DownstreamSocket::Unix(ours);
        let send = async {
            for piece in pieces {
                theirs.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
            drop(theirs);
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
        assert_eq!(rest, b"PROXY UNKNOWN\r\n", "only one is a header");
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
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut socket = DownstreamSocket::Unix(ours);
        let drip = async {
            for piece in LINE.chunks(1) {
                theirs.write_all(piece).await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            header = read_proxy_header(&mut socket, Duration::from_secs(5)) => {
                assert_eq!(header, Err(ConnectionRefusal::HeaderTimeout));
            }
            () = drip => panic!("nobody minded"),
        }
    }

    #[test]
    fn proxy_header_source_address_is_the_client() {
        let remote = Some("10.0.0.1:1".parse().unwrap());
        let party = |origin| ConnectionInfo {
            remote_addr: remote,
            proxy_header: Some(Box::new(ProxyHeader {
                version: crate::proxy_protocol::ProxyHeaderVersion::V2,
                addresses: origin,
                tlvs: Vec::new(),
            })),
        };
        let internet = party(ProxyAddresses::Inet {
            transport: crate::proxy_protocol::Transport::Stream,
            source: "[::ffff:192.0.2.1]:7".parse().unwrap(),
            destination: "192.0.2.2:80".parse().unwrap(),
        });
        assert_eq!(internet.client_addr(), Some("192.0.2.1:7".parse().unwrap()));
        for origin in [ProxyAddresses::Local, ProxyAddresses::Unknown] {
            assert_eq!(party(origin).client_addr(), remote);
        }
    }
}
