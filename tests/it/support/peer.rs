//! A peer of which the test has every byte in its own hands, plain or behind TLS.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::client::Connection;
use super::port;
use super::wait::{self, PATIENCE};

/// It listens; the test accepts.
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
}

impl Peer {
    pub(crate) fn start() -> Self {
        let address = port::free();
        let socket = port::reusable(address);
        socket.listen(1024).expect("listen");
        socket.set_nonblocking(true).expect("nonblocking");
        Self {
            address,
            listener: socket.into(),
            tls: None,
        }
    }

    /// One that speaks TLS.
    pub(crate) fn secure(tls: Arc<ServerConfig>) -> Self {
        Self {
            tls: Some(tls),
            ..Self::start()
        }
    }

    /// The next connection, from the server's side; nothing of it is read yet.
    #[track_caller]
    pub(crate) fn accept(&self) -> Connection {
        let accepted = wait::value("a connection to the peer", || self.listener.accept().ok());
        let socket = accepted.0;
        socket.set_nonblocking(false).expect("blocking");
        socket.set_nodelay(true).expect("a socket option");
        socket.set_write_timeout(Some(PATIENCE)).expect("an option");
        let connection = match &self.tls {
            None => Connection::over(Box::new(socket)),
            Some(tls) => ServerConnection::new(Arc::clone(tls))
                .map_err(io::Error::other)
                .and_then(|tls| Connection::over(Box::new(StreamOwned::new(tls, socket)))),
        };
        connection.expect("a connection")
    }
}
