//! Requests to HTTP/2 peers, with the two directions of a stream independent of each other.
//!
//! Pingora 0.9.1 does not pass the response on while it waits until an HTTP/2 peer takes a chunk of the request
//! ([`body_queue`](super::body_queue)): a gRPC stream blocks for ever if both directions are full. Its loop for custom
//! protocols waits in the same way, but lets the program provide the writer of the body. So HTTP/2 is registered as a custom
//! protocol: connections, pools and streams are Pingora's, and only the sending of the body is ours.
//!
//! In Pingora's own loop, the error code of a reset is also lost if the reset comes before the body is sent, and so is a
//! response that arrived before the reset. Here the response is always read.
//!
//! It can be removed when Pingora reads a response while it waits to write the request: README.md, request 3.

mod session;

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    CONNECTION, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderName, Version};
use pingora::connectors::ConnectorOptions;
use pingora::connectors::http::v2::{self, H2HandshakeSettings, handshake};
use pingora::http::RequestHeader;
use pingora::protocols::Stream;
use pingora::protocols::http::v2::client::Http2Session;
use pingora::protocols::tls::{ALPN, CustomALPN};
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::{HttpPeer, Peer};
use pingora::{Error, ErrorType, OkOrErr, Result};

pub(crate) use self::session::UpstreamH2Session;
use super::body_queue::BodySource;
use crate::http1::listed_fields;

/// The name of the custom protocol for peers that must speak HTTP/2. Never sent.
const ALPN_H2_ONLY: &[u8] = b"h2 duplex";
/// The name of the custom protocol for peers that may choose HTTP/1.1 instead. Never sent.
const ALPN_H2_OR_HTTP1: &[u8] = b"h2 duplex, http/1.1";

/// Changes the pool key of a peer that must speak HTTP/2. Pingora remembers for each pool key whether the peer requires
/// HTTP/1.1, also after a reload, and would then offer HTTP/1.1 even if the upstream now requires HTTP/2.
const POOL_KEY: u64 = 0x6832_6475_706c_6578;

/// The fields that a proxy does not forward (RFC 9110 §7.6.1), including those that HTTP/2 forbids (RFC 9113 §8.2.2).
static HOP_BY_HOP: [HeaderName; 9] = [
    CONNECTION,
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Makes requests to `peer` use this connector. The peer's ALPN must include HTTP/2.
pub(crate) fn enable(peer: &mut HttpPeer) {
    let protocol = match peer.options.alpn.get_min_http_version() {
        2 => {
            peer.group_key ^= POOL_KEY;
            ALPN_H2_ONLY
        }
        _ => ALPN_H2_OR_HTTP1,
    };
    peer.options.alpn = ALPN::Custom(CustomALPN::new(protocol.to_vec()));
}

/// Whether `peer` was [enabled](enable), and must speak HTTP/2.
pub(crate) fn requires_h2(peer: &HttpPeer) -> bool {
    is_protocol(peer, ALPN_H2_ONLY)
}

/// Whether `peer` was [enabled](enable).
pub(crate) fn is_enabled(peer: &HttpPeer) -> bool {
    requires_h2(peer) || is_protocol(peer, ALPN_H2_OR_HTTP1)
}

fn is_protocol(peer: &HttpPeer, name: &[u8]) -> bool {
    matches!(&peer.options.alpn, ALPN::Custom(protocol) if protocol.protocol() == name)
}

/// Removes the hop-by-hop fields (RFC 9110 §7.6.1): [`HOP_BY_HOP`], and those that `Connection` lists, if
/// they may be dropped. Pingora removes such fields only in its own loops.
pub(crate) fn remove_hop_by_hop(request: &mut RequestHeader) {
    let named = listed_fields(&request.headers);
    for name in named.iter().chain(&HOP_BY_HOP) {
        request.remove_header(name.as_str());
    }
}

/// Converts a request of an HTTP/1 client to HTTP/2: removes the fields that HTTP/2 forbids (RFC 9113 §8.2.2).
pub(crate) fn upgrade_request(request: &mut RequestHeader) {
    remove_hop_by_hop(request);
    request.set_version(Version::HTTP_2);
}

/// Stores the source of the request's body in the request's extensions. The session takes it from there; that of an HTTP/1
/// peer, too.
pub(crate) fn attach_body(request: &mut RequestHeader, source: Arc<dyn BodySource>) {
    request.extensions_mut().insert(source);
}

/// A new connection, in the version that the peer has chosen.
pub(crate) enum NegotiatedPeer {
    Http2(Box<UpstreamH2Session>),
    Http1(Stream),
}

/// Connects to HTTP/2 peers.
pub(crate) struct UpstreamH2Connector {
    connector: v2::Connector,
}

impl UpstreamH2Connector {
    /// Creates a connector with pools of its own. `conf`: Pingora's settings of connectors.
    pub(crate) fn new(conf: &ServerConf) -> Self {
        let options = ConnectorOptions::from_server_conf(conf);
        Self {
            connector: v2::Connector::new(Some(options)),
        }
    }

    /// Makes the HTTP/2 handshake and opens a stream. The connection stays available for other requests if it allows more
    /// streams.
    async fn handshake(&self, peer: &HttpPeer, stream: Stream) -> Result<Http2Session> {
        let mut settings = H2HandshakeSettings::new();
        settings.max_streams = peer.options.max_h2_streams;
        settings.ping_interval = peer.options.h2_ping_interval;
        settings.stream_window_size = peer.options.h2_stream_window_size;
        settings.connection_window_size = peer.options.h2_connection_window_size;
        let connection = handshake(stream, settings).await?;
        let session = connection.spawn_stream().await?;
        if connection.more_streams_allowed() {
            self.connector
                .in_use_pool()
                .insert(peer.reuse_hash(), connection);
        }
        session.or_err(ErrorType::H2Error, "the new connection accepts no stream")
    }

    /// Makes a new connection.
    ///
    /// # Errors
    /// The connect failed, or the peer must speak HTTP/2 and does not.
    pub(crate) async fn connect(&self, peer: &HttpPeer) -> Result<NegotiatedPeer> {
        let only = requires_h2(peer);
        let mut peer = peer.clone();
        peer.options.set_http_version(2, if only { 2 } else { 1 });
        let stream = self.connector.transport().new_stream(&peer).await?;
        let is_h2 = match stream.selected_alpn_proto() {
            Some(protocol) => matches!(protocol, ALPN::H2),
            None => only && !peer.is_tls(),
        };
        if is_h2 {
            let session = self.handshake(&peer, stream).await?.into();
            return Ok(NegotiatedPeer::Http2(Box::new(session)));
        }
        if only {
            return Error::e_explain(ErrorType::TLSHandshakeFailure, "HTTP/2 not negotiated");
        }
        Ok(NegotiatedPeer::Http1(stream))
    }

    /// Opens a stream on a pooled connection. `None` if there is no such connection, or if the stream cannot be opened.
    pub(crate) async fn reuse(&self, peer: &HttpPeer) -> Option<Box<UpstreamH2Session>> {
        let session = self.connector.reused_http_session(peer).await.ok()??;
        Some(Box::new(session.into()))
    }

    /// Ends a stream, and keeps its connection for others.
    pub(crate) fn release<P: Peer + Send + Sync + 'static>(
        &self,
        session: UpstreamH2Session,
        peer: &P,
        idle_timeout: Option<Duration>,
    ) {
        // Pingora would offer no other version to this peer again, not even to one that must speak HTTP/2.
        let http = (peer as &dyn Any).downcast_ref();
        let may_fall_back = http.is_some_and(|peer| !requires_h2(peer));
        if may_fall_back && session.requires_http1() {
            self.connector.prefer_h1(peer);
        }
        let session = session.into_inner();
        self.connector
            .release_http_session(session, peer, idle_timeout);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn http1_request_loses_the_fields_that_http2_does_not_have() {
        let mut request = RequestHeader::build("POST", b"/a", None).unwrap();
        for (name, value) in [
            ("connection", "x-listed, close"),
            ("connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
            ("x-listed", "1"),
            ("connection", "x-forwarded-for, host"),
            ("x-forwarded-for", "192.0.2.1"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("trailer", "x-sum"),
            ("host", "a.test"),
            ("x-kept", "1"),
        ] {
            request.append_header(name, value).unwrap();
        }
        upgrade_request(&mut request);
        let names: BTreeSet<_> = request.headers.keys().map(HeaderName::as_str).collect();
        let kept = ["host", "trailer", "x-forwarded-for", "x-kept"];
        assert_eq!(names, BTreeSet::from(kept));
        assert_eq!(request.version, Version::HTTP_2);
    }
}
