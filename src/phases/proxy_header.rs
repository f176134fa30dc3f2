//! Phase 6, to the peer: the PROXY header at the start of a connection.
//!
//! The header names one client, so the connection must carry only requests of this client. For this reason,
//! the pool key of the connection depends on the header.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};

use http::Version as HttpVersion;
use std::net::{IpAddr, SocketAddr};

use super::context::Context;
use crate::config::{SendProxyConfig, TlvKind};
use crate::downstream::{Connection, TlsSession};
use crate::proxy_protocol::{ProxyAddresses, ProxyHeader, ProxyTlv, TlsTlv, Transport};

/// The header for a connection to this attempt's peer; `None` if the upstream has no `proxy_protocol`.
pub(crate) fn encode(ctx: &Context) -> Option<Arc<[u8]>> {
    let attempt = ctx.attempt.as_ref()?;
    let config = attempt.upstream.config.proxy_protocol.as_ref()?;
    let header = ProxyHeader {
        version: config.version,
        addresses: addresses(ctx).unwrap_or(ProxyAddresses::Unknown),
        tlvs: tlvs(config, ctx),
    };
    let checksum = config.tlvs.contains(&TlvKind::Checksum);
    let addresses_only = || ProxyHeader {
        tlvs: Vec::new(),
        ..header.clone()
    };
    // The TLVs contain text from clients and other proxies. If it is too long, only the addresses are sent.
    let bytes = header
        .write(checksum)
        .or_else(|| addresses_only().write(checksum));
    bytes.map(Into::into)
}

/// The pool key of connections with this header. Never 0: that is the key of connections without a header.
pub(crate) fn pool_key(header: &[u8]) -> u64 {
    // The hasher has a random secret. Otherwise a client could construct a header with the pool key of another
    // client's header, and its requests would use that client's connections.
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    HASHER.hash_one(header) | 1 << 63
}

/// The client's address as in the access log, and the address that the client connected to. If a trusted proxy
/// named the client in `X-Forwarded-For`, the client's port is unknown and is sent as 0.
fn addresses(ctx: &Context) -> Option<ProxyAddresses> {
    let connection = ctx.connection()?;
    let client = connection.client_addr?;
    let ip = ctx.request.client_ip;
    let port = if ip == client.ip() { client.port() } else { 0 };
    Some(ProxyAddresses::Inet {
        transport: Transport::Stream,
        source: SocketAddr::new(ip, port),
        destination: connection
            .destination_addr()
            .unwrap_or_else(|| unspecified_address(ip)),
    })
}

fn unspecified_address(like: IpAddr) -> SocketAddr {
    let any = match like {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    };
    SocketAddr::new(any, 0)
}

fn tlvs(config: &SendProxyConfig, ctx: &Context) -> Vec<ProxyTlv> {
    let Some(connection) = ctx.connection() else {
        return Vec::new();
    };
    let tlvs = config.tlvs.iter().filter_map(|kind| match kind {
        TlvKind::Authority => authority(connection),
        TlvKind::Alpn => alpn(connection, ctx.request.version),
        TlvKind::Tls => tls(connection),
        TlvKind::UniqueId => unique_id(connection, ctx),
        TlvKind::Checksum => None,
    });
    tlvs.collect()
}

fn authority(connection: &Connection) -> Option<ProxyTlv> {
    let sni = connection.tls.as_ref().and_then(|tls| tls.sni.as_deref());
    let received = || connection.info.proxy_header.as_ref()?.authority();
    let name = sni.map(str::as_bytes).or_else(received)?;
    Some(ProxyTlv::Authority(name.to_vec()))
}

fn alpn(connection: &Connection, version: HttpVersion) -> Option<ProxyTlv> {
    if connection.tls.is_some() {
        let protocol: &[u8] = match version {
            HttpVersion::HTTP_2 => b"h2",
            HttpVersion::HTTP_3 => b"h3",
            _ => b"http/1.1",
        };
        return Some(ProxyTlv::Alpn(protocol.to_vec()));
    }
    let header = connection.info.proxy_header.as_ref()?;
    let mut received = header.tlvs.iter();
    received
        .find(|tlv| matches!(tlv, ProxyTlv::Alpn(_)))
        .cloned()
}

fn tls(connection: &Connection) -> Option<ProxyTlv> {
    let own = connection.tls.as_ref().map(tls_of_handshake);
    let received = || connection.info.proxy_header.as_ref()?.tls().cloned();
    own.or_else(received).map(ProxyTlv::Tls)
}

fn tls_of_handshake(tls: &TlsSession) -> TlsTlv {
    let certificate = tls.client_certificate.as_ref();
    let certificate_flags = match (certificate, tls.resumed) {
        (None, _) => 0,
        (Some(_), false) => TlsTlv::CONNECTION_CERTIFICATE | TlsTlv::SESSION_CERTIFICATE,
        (Some(_), true) => TlsTlv::SESSION_CERTIFICATE,
    };
    let subject = certificate.and_then(|certificate| certificate.subject_name.as_deref());
    // RFC 8446 §B.4 writes `TLS_` where rustls writes `TLS13_`.
    let cipher = tls.cipher.replacen("TLS13_", "TLS_", 1);
    let version = Some((TlsTlv::VERSION, format!("TLSv{}", tls.version)));
    let name = subject.map(|subject| (TlsTlv::COMMON_NAME, subject.to_owned()));
    let parts = [version, name, Some((TlsTlv::CIPHER, cipher))];
    TlsTlv {
        flags: TlsTlv::ENCRYPTED | certificate_flags,
        verify: u32::from(certificate.is_none()),
        sub_tlvs: parts
            .into_iter()
            .flatten()
            .map(|(kind, text)| (kind, text.into_bytes()))
            .collect(),
    }
}

/// The id in the received PROXY header; without one, the id of the request. Request ids differ, so with them each
/// request needs a new connection to the peer.
fn unique_id(connection: &Connection, ctx: &Context) -> Option<ProxyTlv> {
    let received = connection
        .info
        .proxy_header
        .as_ref()
        .and_then(|header| header.unique_id());
    let own = || ctx.request.id.as_ref().map(http::HeaderValue::as_bytes);
    received
        .or_else(own)
        .map(|id| ProxyTlv::UniqueId(id.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::downstream::ClientCertificate;

    fn session(certificate: bool, resumed: bool) -> TlsSession {
        TlsSession {
            version: "1.3",
            cipher: "TLS13_AES_128_GCM_SHA256",
            sni: None,
            resumed,
            requests_client_cert: true,
            client_certificate: certificate.then(|| ClientCertificate {
                subject_name: Some("client".into()),
                header_value: None,
            }),
            http2: false,
            hsts: None,
        }
    }

    #[test]
    fn tls_tlv_of_resumed_session_has_only_the_session_certificate_flag() {
        for (certificate, resumed, flags, verify) in [
            (false, false, 0, 1),
            (
                true,
                false,
                TlsTlv::CONNECTION_CERTIFICATE | TlsTlv::SESSION_CERTIFICATE,
                0,
            ),
            (true, true, TlsTlv::SESSION_CERTIFICATE, 0),
        ] {
            let tlv = tls_of_handshake(&session(certificate, resumed));
            assert_eq!((tlv.flags, tlv.verify), (TlsTlv::ENCRYPTED | flags, verify));
            let name = tlv.sub_tlv(TlsTlv::COMMON_NAME);
            assert_eq!(name, certificate.then_some(&b"client"[..]));
        }
    }

    #[test]
    fn tls_tlv_has_version_and_cipher_names_of_rfc_8446() {
        let tlv = tls_of_handshake(&session(false, false));
        assert_eq!(tlv.sub_tlv(TlsTlv::VERSION), Some(&b"TLSv1.3"[..]));
        let cipher = tlv.sub_tlv(TlsTlv::CIPHER);
        assert_eq!(cipher, Some(&b"TLS_AES_128_GCM_SHA256"[..]));
    }

    #[test]
    fn pool_key_differs_between_headers_and_from_no_header() {
        assert_eq!(pool_key(b"a"), pool_key(b"a"));
        assert_ne!(pool_key(b"a"), pool_key(b"b"));
        assert_ne!(pool_key(b""), 0);
    }

    #[test]
    fn unspecified_address_has_the_family_of_the_client() {
        let v4 = unspecified_address([192, 0, 2, 1].into());
        assert_eq!(v4.to_string(), "0.0.0.0:0");
        let v6 = unspecified_address("2001:db8::1".parse().unwrap());
        assert_eq!(v6.to_string(), "[::]:0");
    }
}
