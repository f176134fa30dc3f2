//! Connects to a peer, and says with a header of the PROXY protocol whose connection it is, before
//! anything else: also before TLS.
//!
//! Pingora connects through this ([`Connect`]), times it, and goes on with what it is given.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::ext;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::{ErrorType, OkOrErr, OrErr, Result};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::proxy_protocol::{ProxyAddresses, ProxyHeader, ProxyHeaderVersion};

/// What connects to a peer instead of Pingora, and sends this first.
pub fn connector(header: Arc<[u8]>) -> Arc<dyn Connect + Send + Sync> {
    Arc::new(ProxyHeaderConnector(header))
}

/// The header of a connection that is our own: a probe's.
pub fn local_header(version: ProxyHeaderVersion) -> Arc<[u8]> {
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
                    .or_err(ErrorType::InternalError, "no file")?;
                let mut socket = ext::connect_uds(path).await?;
                write_header(&mut socket, &self.0).await?;
                Ok(socket.into())
            }
        }
    }
}

/// A peer that takes no header is one that cannot be connected to: nothing of a request was sent.
async fn write_header(socket: &mut (impl AsyncWrite + Unpin), header: &[u8]) -> Result<()> {
    let sent = socket.write_all(header).await;
    sent.or_err(
        ErrorType::ConnectError,
        "sending the header of the PROXY protocol",
    )
}
