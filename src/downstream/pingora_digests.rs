//! The digests of a connection, as Pingora wants them, and the access from Pingora's session to the [`Exchange`].

use std::sync::Arc;

use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{Digest, SocketDigest, UniqueIDType};

use super::connection::Connection;
use super::exchange::Exchange;
use crate::pingora_compat::user_data;

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
            // Set here, so that Pingora does not need a system call for it.
            let _ = socket.peer_addr.set(Some(client.into()));
        }
        // Pingora only checks whether there is a digest, so the certificates in it are left out.
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
        Ok(self.with_user_data(user_data::wrap(exchange)?))
    }

    pub(super) fn with_user_data(&self, user_data: Arc<ProxyDigest>) -> Digest {
        Digest {
            ssl_digest: self.tls.clone(),
            timing_digest: Vec::new(),
            proxy_digest: Some(user_data),
            socket_digest: Some(Arc::clone(&self.socket)),
        }
    }
}

impl Exchange {
    /// The exchange of the session that carries this digest.
    pub(crate) fn from_digest(digest: &ProxyDigest) -> Option<&Arc<Self>> {
        user_data::unwrap(digest)
    }
}
