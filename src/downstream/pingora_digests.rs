//! The digests that Pingora 0.9.1 wants of a connection, one of which carries the [`Exchange`] to the hooks.
//!
//! A Pingora session has no field for data of the server. The downstream proxy digest is the one value that
//! Pingora passes from the stream to the hooks untouched and does not use itself; its `user_data` holds the
//! exchange. It can go when a session takes user data.

use std::sync::Arc;

use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{Digest, SocketDigest, UniqueIDType};

use super::connection::Connection;
use super::exchange::Exchange;

/// The digests of a connection, shared by its sessions.
#[derive(Clone)]
pub(super) struct PingoraDigests {
    pub(super) socket: Arc<SocketDigest>,
    pub(super) tls: Option<Arc<SslDigest>>,
}

impl PingoraDigests {
    pub(super) fn new(connection: &Connection, id: UniqueIDType) -> Self {
        let socket = SocketDigest::from_raw_fd(id);
        if let Some(client) = connection.client_addr {
            // Set here, so that Pingora does not ask the kernel for it.
            let _ = socket.peer_addr.set(Some(client.into()));
        }
        // Pingora looks at whether there is a digest, and not at the certificates in it.
        let tls = connection.tls.as_ref().map(|session| {
            let (cipher, version) = (session.cipher, session.version);
            Arc::new(SslDigest::new(cipher, version, None, None, Vec::new()))
        });
        Self {
            socket: Arc::new(socket),
            tls,
        }
    }

    /// The digest for the session of one exchange.
    ///
    /// # Errors
    /// Only if Pingora refuses to build an empty response header.
    pub(super) fn session_digest(&self, exchange: &Arc<Exchange>) -> pingora::Result<Digest> {
        Ok(Digest {
            ssl_digest: self.tls.clone(),
            timing_digest: Vec::new(),
            proxy_digest: Some(exchange_digest(exchange)?),
            socket_digest: Some(Arc::clone(&self.socket)),
        })
    }
}

/// The exchange, as the proxy digest carries it.
struct ExchangeHandle(Arc<Exchange>);

impl Exchange {
    /// The exchange of the session that carries this digest.
    pub fn from_digest(digest: &ProxyDigest) -> Option<&Arc<Self>> {
        let handle = digest.user_data.as_ref()?.downcast_ref::<ExchangeHandle>();
        handle.map(|handle| &handle.0)
    }
}

/// A proxy digest that carries the exchange; its response header is never read.
///
/// # Errors
/// Only if Pingora refuses to build an empty response header.
pub(super) fn exchange_digest(exchange: &Arc<Exchange>) -> pingora::Result<Arc<ProxyDigest>> {
    let header = Box::new(ResponseHeader::build(200, Some(0))?);
    let handle = Box::new(ExchangeHandle(Arc::clone(exchange)));
    Ok(Arc::new(ProxyDigest::new(header, Some(handle))))
}
