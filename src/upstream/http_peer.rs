//! The `HttpPeer` with which Pingora connects to a peer. Requests and probes build it here, so a probe
//! connects as a request does.
//!
//! Pingora 0.9.1 pools connections by a hash of this `HttpPeer`. The hash omits the issuers, the protocol, the oldest TLS
//! version, and the window and PINGs of HTTP/2, so these are part of `group_key`.

use std::net::Ipv4Addr;
use std::os::unix::net as unix;
use std::time::Duration;

use pingora::protocols::TcpKeepalive;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::upstreams::peer::HttpPeer;
use rustls_pki_types::ServerName;

use super::{Address, Peer, Upstream};
use crate::config::{TransportConfig, UpstreamProtocol};

/// An HTTP/2 connection without a packet from the peer's host is closed after this time (TCP keepalive,
/// `TCP_USER_TIMEOUT`). Shorter than most request timeouts, because all requests of a broken connection fail; longer
/// than a network needs to find another route.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(30);

/// The initial window of a connection, which can only be raised (RFC 9113 §6.9.2); bytes.
const MIN_CONNECTION_WINDOW: u32 = 65_535;

impl Upstream {
    /// The Pingora peer for a peer of this upstream, without timeouts. `name`: the server name for TLS if the
    /// peer has none of its own. `None` if the peer has no address, or the name is invalid: for an empty name
    /// Pingora 0.9.1 would accept any certificate.
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

    /// Whether peers that are in this and the other upstream are probed in the same way, with the same consequences.
    pub fn probes_alike(&self, other: &Self) -> bool {
        let (one, other_config) = (&self.config, &other.config);
        let pool = |upstream: &Self| upstream.tls.as_ref().map(|tls| tls.pool_id);
        pool(self) == pool(other)
            && one.health == other_config.health
            && one.transport == other_config.transport
            && one.proxy_protocol == other_config.proxy_protocol
            && one.slow_start == other_config.slow_start
            && one.flap_damping == other_config.flap_damping
            && one.drain == other_config.drain
    }

    /// The Pingora peer for a connection without TLS; `None` if the peer has no address.
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
        http.group_key ^= h2_pool_key(transport);
        let options = &mut http.options;
        options.set_http_version(max_version, min_version);
        options.max_h2_streams = usize::from(transport.h2.max_streams);
        options.h2_ping_interval = transport.h2.ping;
        // Pingora 0.9.1 has 8 MiB for a stream, and no more for all streams of a connection: one client that does not read
        // would stop the others.
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

/// Separates connections by the settings that a connection keeps from its start; `max_streams` is in Pingora's hash. Large,
/// because small group keys are those of connections that are not shared.
fn h2_pool_key(transport: &TransportConfig) -> u64 {
    const LARGE: u64 = 1 << 62;
    let h2 = &transport.h2;
    let ping = u64::try_from(h2.ping.unwrap_or_default().as_millis()).unwrap_or_default();
    LARGE | (ping << 32) | u64::from(h2.window)
}

/// `HttpPeer::new` cannot take a Unix socket; the address is set afterwards.
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
