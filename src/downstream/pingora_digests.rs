//! The digests of a connection, as Pingora wants them, and the access from Pingora's session to the [`Exchange`].

use std::sync::Arc;

use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::SslDigest;
use pingora::protocols::{Digest, SocketDigest};

use super::connection::Connection;
use super::exchange::Exchange;
use crate::pingora_compat::user_data;

/// The digests of a connection, shared by its sessions.
#[derive(Clone)]
pub(super) struct PingoraDigests {
    socket: Arc<SocketDigest>,
    tls: Option<Arc<SslDigest>>,
}

impl PingoraDigests {
    pub(super) fn new(connection: &Connection) -> Self {
        let socket = SocketDigest::from_raw_fd(connection.socket.lock().raw_fd());
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

    fn with_user_data(&self, user_data: Arc<ProxyDigest>) -> Digest {
        Digest {
            ssl_digest: self.tls.clone(),
            timing_digest: Vec::new(),
            proxy_digest: Some(user_data),
            socket_digest: Some(Arc::clone(&self.socket)),
        }
    }
}

/// The digests of one exchange, for its sessions one after another.
pub(super) struct SessionDigests {
    connection: PingoraDigests,
    user_data: Arc<ProxyDigest>,
}

impl SessionDigests {
    /// # Errors
    /// Only if Pingora refuses to build an empty response header.
    pub(super) fn new(exchange: &Arc<Exchange>) -> pingora::Result<Self> {
        Ok(Self {
            connection: PingoraDigests::new(&exchange.connection),
            user_data: user_data::wrap(exchange)?,
        })
    }

    /// The digest for the next session.
    pub(super) fn digest(&self) -> Digest {
        self.connection.with_user_data(Arc::clone(&self.user_data))
    }
}

impl Exchange {
    /// The exchange of the session that carries this digest.
    pub(crate) fn from_digest(digest: &ProxyDigest) -> Option<&Arc<Self>> {
        user_data::unwrap(digest)
    }
}
