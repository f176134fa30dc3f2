//! The `HttpPeer` with which Pingora connects to a peer. Requests and probes use the same one, so a probe
//! connects as a request does.
//!
//! Pingora pools connections by a hash of address, name and scheme. Every other property that distinguishes
//! connections is part of `group_key`.

use std::net::Ipv4Addr;
use std::os::unix::net as unix;
use std::time::Duration;

use pingora::protocols::TcpKeepalive;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::upstreams::peer::HttpPeer;
use rustls_pki_types::ServerName;

use super::{Address, Peer, Upstream};
use crate::config::UpstreamProtocol;

/// The time without a packet of the peer's host after which a connection is broken (TCP keepalive and user
/// timeout), for HTTP/2: all requests of a broken connection fail, so it must be detected soon. Below most
/// timeouts of requests, above the time in which a network finds another route.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(30);

/// The window of a connection before it is raised (RFC 9113 §6.9.2); bytes.
const MIN_CONNECTION_WINDOW: u32 = 65_535;

impl Upstream {
    /// The Pingora peer for one of its peers, without timeouts. `name` is the server name that the
    /// certificate must have if the peer has none of its own. `None` if it is not a valid name: Pingora
    /// would accept any certificate for it.
    pub fn http_peer(&self, peer: &Peer, name: &str) -> Option<HttpPeer> {
        let mut http = HttpPeer::new(PLACEHOLDER_ADDRESS, self.tls.is_some(), String::new());
        http._address = socket_address(&peer.address)?;
        if let Some(tls) = &self.tls {
            let name = peer.server_name.as_deref().unwrap_or(name);
            ServerName::try_from(name).ok()?;
            name.clone_into(&mut http.sni);
            http.group_key = tls.pool_id;
            http.client_cert_key.clone_from(&tls.client_cert);
            http.options.ca.clone_from(&tls.issuers);
            http.options.verify_cert = tls.verify;
            http.options.verify_hostname = tls.verify;
        }
        self.set_protocol(&mut http);
        Some(http)
    }

    /// The Pingora peer for a plain TCP connection to one of its peers, without TLS.
    pub fn tcp_peer(&self, peer: &Peer) -> Option<HttpPeer> {
        let mut http = HttpPeer::new(PLACEHOLDER_ADDRESS, false, String::new());
        http._address = socket_address(&peer.address)?;
        Some(http)
    }

    fn set_protocol(&self, http: &mut HttpPeer) {
        let transport = &self.config.transport;
        let (max_version, min_version) = match transport.protocol {
            UpstreamProtocol::Http1 => return,
            UpstreamProtocol::H2 | UpstreamProtocol::H2c => (2, 2),
            UpstreamProtocol::Auto => (2, 1),
        };
        let options = &mut http.options;
        options.set_http_version(max_version, min_version);
        options.max_h2_streams = usize::from(transport.h2.max_streams);
        options.h2_ping_interval = transport.h2.ping;
        // Pingora has 8 MiB for a stream, and the same for all streams of a connection together: two clients that do not
        // read would hold up the others.
        let (window, streams) = (transport.h2.window, u32::from(transport.h2.max_streams));
        let all_windows = window.saturating_mul(streams).min(u32::MAX >> 1);
        options.h2_stream_window_size = Some(window);
        options.h2_connection_window_size = Some(all_windows.max(MIN_CONNECTION_WINDOW));
        if http._address.as_inet().is_some() {
            options.tcp_keepalive = Some(TcpKeepalive {
                idle: KEEPALIVE_TIMEOUT / 2,
                interval: KEEPALIVE_TIMEOUT / 4,
                count: 2,
                user_timeout: KEEPALIVE_TIMEOUT,
            });
        }
    }
}

/// `HttpPeer::new` takes only an IP address; the address is set afterwards.
const PLACEHOLDER_ADDRESS: (Ipv4Addr, u16) = (Ipv4Addr::UNSPECIFIED, 0);

fn socket_address(address: &Address) -> Option<SocketAddr> {
    match address {
        Address::Ip(address) => Some(SocketAddr::Inet(*address)),
        Address::Unix(path) => unix::SocketAddr::from_pathname(path)
            .ok()
            .map(SocketAddr::Unix),
        Address::Unresolved => None,
    }
}
