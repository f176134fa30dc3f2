//! A peer as Pingora is told of it: for requests and for probes alike, so that what a probe finds is
//! what a request would.
//!
//! A connection is kept for reuse among those that Pingora's hash calls equal: address, name, scheme.
//! The rest of what a connection is goes into `group_key`.

use std::net::Ipv4Addr;
use std::os::unix::net as unix;
use std::time::Duration;

use pingora::protocols::TcpKeepalive;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::upstreams::peer::HttpPeer;
use rustls_pki_types::ServerName;

use super::{Address, Peer, Upstream};
use crate::config::UpstreamProtocol;

/// A connection with many requests must not take them all with it for as long as its silence is
/// believed: after so long without a word of the other kernel's it is broken. Below most timeouts of
/// requests, above what a network takes to find another way.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(30);

impl Upstream {
    /// How to connect to one of its peers, without the times that it may take; `name` is what the peer
    /// must prove to be, where it has no name of its own. `None`: that is no name, and Pingora would
    /// take any certificate for it.
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

    /// How to connect to one of its peers and say nothing, not even in TLS.
    pub fn tcp_peer(&self, peer: &Peer) -> Option<HttpPeer> {
        let mut http = HttpPeer::new(PLACEHOLDER_ADDRESS, false, String::new());
        http._address = socket_address(&peer.address)?;
        Some(http)
    }

    fn set_protocol(&self, http: &mut HttpPeer) {
        let link = &self.config.transport;
        let (most, least) = match link.protocol {
            UpstreamProtocol::Http1 => return,
            UpstreamProtocol::H2 | UpstreamProtocol::H2c => (2, 2),
            UpstreamProtocol::Auto => (2, 1),
        };
        let options = &mut http.options;
        options.set_http_version(most, least);
        options.max_h2_streams = usize::from(link.h2.max_streams);
        options.h2_ping_interval = link.h2.ping;
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

/// Pingora's peers are made from an address of the internet.
const PLACEHOLDER_ADDRESS: (Ipv4Addr, u16) = (Ipv4Addr::UNSPECIFIED, 0);

fn socket_address(address: &Address) -> Option<SocketAddr> {
    match address {
        Address::Ip(address) => Some(SocketAddr::Inet(*address)),
        Address::Unix(path) => unix::SocketAddr::from_pathname(path)
            .ok()
            .map(SocketAddr::Unix),
    }
}
