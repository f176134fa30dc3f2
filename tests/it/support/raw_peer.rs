//! A peer that sends and receives raw bytes, plain or over TLS.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::client::Connection;
use super::edge::{ConfigBuilder, Edge};
use super::port;
use super::wait::{self, PATIENCE};

/// A WebSocket handshake and its response.
pub(crate) const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                                  Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
pub(crate) const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// A listener on which the test accepts connections.
pub(crate) struct RawPeer {
    pub(crate) address: SocketAddr,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
}

impl RawPeer {
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

    /// A peer with TLS.
    pub(crate) fn secure(tls: Arc<ServerConfig>) -> Self {
        Self {
            tls: Some(tls),
            ..Self::start()
        }
    }

    /// Accepts the next connection, and reads nothing from it.
    #[track_caller]
    pub(crate) fn accept(&self) -> Connection {
        let accepted = wait::value("a connection to the peer", || self.listener.accept().ok());
        let socket = accepted.0;
        socket.set_nonblocking(false).expect("blocking");
        socket.set_nodelay(true).expect("TCP_NODELAY can be set");
        socket
            .set_write_timeout(Some(PATIENCE))
            .expect("the timeout can be set");
        let connection = match &self.tls {
            None => Connection::over(Box::new(socket)),
            Some(tls) => ServerConnection::new(Arc::clone(tls))
                .map_err(io::Error::other)
                .and_then(|tls| Connection::over(Box::new(StreamOwned::new(tls, socket)))),
        };
        connection.expect("a connection")
    }
}

/// An instance in front of a [`RawPeer`].
pub(crate) struct EdgeWithRawPeer {
    pub(crate) edge: Edge,
    pub(crate) peer: RawPeer,
}

impl EdgeWithRawPeer {
    pub(crate) fn start() -> Self {
        Self::with(|site| site)
    }

    pub(crate) fn with(change: impl FnOnce(ConfigBuilder) -> ConfigBuilder) -> Self {
        let peer = RawPeer::start();
        let site = ConfigBuilder::of([peer.address]).app("key", "client_ip");
        Self {
            edge: change(site).start(),
            peer,
        }
    }

    /// Opens a tunnel; returns the connections of client and peer.
    #[track_caller]
    pub(crate) fn open(&self) -> (Connection, Connection) {
        let (mut client, mut peer) = self.ask(UPGRADE);
        peer.send(SWITCH).unwrap();
        assert_eq!(client.head().unwrap().status, 101);
        (client, peer)
    }

    pub(crate) fn wait_for_in_flight(&self, count: u64) {
        wait::until("the peer's requests in flight to be counted", || {
            self.edge.admin.metric("clockwise_peer_in_flight", &[]) == count
        });
    }

    /// Sends a request, which the peer reads; returns the connections of client and peer.
    #[track_caller]
    pub(crate) fn ask(&self, request: &str) -> (Connection, Connection) {
        let mut client = self.edge.connect();
        client.send(request).unwrap();
        let mut peer = self.peer.accept();
        peer.read_request().unwrap();
        (client, peer)
    }
}
