//! A connector that sends a PROXY header before all other bytes, also before TLS.
//!
//! Pingora 0.9.1 has no option for bytes before the TLS handshake. This connector takes the place of its own
//! (`custom_l4`): it connects, sends the header and returns the stream, which Pingora then uses. Pingora's connect
//! timeout limits the connect and the header together.
//!
//! It can be removed when a peer can have such bytes: README.md, request 6.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::ext;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::{ErrorType, OkOrErr, OrErr, Result};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::proxy_protocol::{ProxyAddresses, ProxyHeader, ProxyHeaderVersion};

/// A connector that sends `header` first.
pub(crate) fn connector(header: Arc<[u8]>) -> Arc<dyn Connect + Send + Sync> {
    Arc::new(ProxyHeaderConnector(header))
}

/// The header of a connection that Clockwise makes for itself: a health check (command LOCAL).
pub(crate) fn local_header(version: ProxyHeaderVersion) -> Arc<[u8]> {
    let header = ProxyHeader {
        version,
        addresses: ProxyAddresses::Local,
        tlvs: Vec::new(),
    };
    header.write(false).unwrap_or_default().into()
}

#[derive(Debug)]
struct ProxyHeaderConnector(Arc<[u8]>);

#[async_trait]
impl Connect for ProxyHeaderConnector {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        match address {
            SocketAddr::Inet(address) => {
                let mut socket = ext::connect(address, None).await?;
                write_header(&mut socket, &self.0).await?;
                Ok(socket.into())
            }
            SocketAddr::Unix(unix) => {
                let path = unix
                    .as_pathname()
                    .or_err(ErrorType::InternalError, "a Unix socket without a path")?;
                let mut socket = ext::connect_uds(path).await?;
                write_header(&mut socket, &self.0).await?;
                Ok(socket.into())
            }
        }
    }
}

/// Sends the header. An error counts as a failed connect: nothing of a request was sent.
async fn write_header(socket: &mut (impl AsyncWrite + Unpin), header: &[u8]) -> Result<()> {
    let sent = socket.write_all(header).await;
    sent.or_err(ErrorType::ConnectError, "sending the PROXY header")
}
