//! Phase 6, outward: what a peer is told of a connection before its first request (the PROXY protocol).
//!
//! The header says whose the connection is, so it carries that client's requests and no other's: it is
//! kept for reuse under a key made of the header.

use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, LazyLock};

use http::Version as HttpVersion;
use std::net::{IpAddr, SocketAddr};

use super::context::Context;
use crate::config::{SendProxyConfig, TlvKind};
use crate::downstream::{Connection, TlsSession};
use crate::proxy_protocol::{ProxyAddresses, ProxyHeader, ProxyTlv, TlsTlv, Transport};

/// What the peer of this attempt is told; `None`: nothing.
pub(super) fn encode(ctx: &Context) -> Option<Arc<[u8]>> {
    let attempt = ctx.attempt.as_ref()?;
    let introduction = attempt.upstream.config.proxy_protocol.as_ref()?;
    let header = ProxyHeader {
        version: introduction.version,
        addresses: origin(ctx).unwrap_or(ProxyAddresses::Unknown),
        tlvs: extensions(introduction, ctx),
    };
    let checksum = introduction.tlvs.contains(&TlvKind::Checksum);
    let addresses_only = || ProxyHeader {
        tlvs: Vec::new(),
        ..header.clone()
    };
    // What clients and others have said may be long; the addresses are what counts.
    let bytes = header
        .write(checksum)
        .or_else(|| addresses_only().write(checksum));
    bytes.map(Into::into)
}

/// Tells the pooled connections of one header from all others; never 0, as those without a header are.
pub(super) fn pool_key(header: &[u8]) -> u64 {
    // With a secret, so that nobody can choose a header that meets another's.
    static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    HASHER.hash_one(header) | 1 << 63
}

/// The client, as requests are counted and logged; of one that a trusted proxy names, no port is known.
fn origin(ctx: &Context) -> Option<ProxyAddresses> {
    let connection = ctx.connection()?;
    let client = connection.client_addr?;
    let named = ctx.request.client_ip();
    let port = if named == client.ip() {
        client.port()
    } else {
        0
    };
    Some(ProxyAddresses::Inet {
        transport: Transport::Stream,
        source: SocketAddr::new(named, port),
        destination: connection
            .destination_addr()
            .unwrap_or_else(|| unspecified_address(named)),
    })
}

fn unspecified_address(like: IpAddr) -> SocketAddr {
    let any = match like {
        IpAddr::V4(_) => IpAddr::from([0; 4]),
        IpAddr::V6(_) => IpAddr::from([0; 16]),
    };
    SocketAddr::new(any, 0)
}

fn extensions(introduction: &SendProxyConfig, ctx: &Context) -> Vec<ProxyTlv> {
    let Some(connection) = ctx.connection() else {
        return Vec::new();
    };
    let told = introduction.tlvs.iter().filter_map(|tell| match tell {
        TlvKind::Authority => authority(connection),
        TlvKind::Alpn => alpn(connection, ctx.request.version),
        TlvKind::Tls => tls(connection),
        TlvKind::UniqueId => unique_id(connection, ctx),
        TlvKind::Checksum => None,
    });
    told.collect()
}

fn authority(connection: &Connection) -> Option<ProxyTlv> {
    let sni = connection
        .tls
        .as_ref()
        .and_then(|secured| secured.sni.as_deref());
    let said = || connection.info.proxy_header.as_ref()?.authority();
    let name = sni.map(str::as_bytes).or_else(said)?;
    Some(ProxyTlv::Authority(name.to_vec()))
}

fn alpn(connection: &Connection, version: HttpVersion) -> Option<ProxyTlv> {
    if connection.tls.is_some() {
        let spoken: &[u8] = match version {
            HttpVersion::HTTP_2 => b"h2",
            _ => b"http/1.1",
        };
        return Some(ProxyTlv::Alpn(spoken.to_vec()));
    }
    let said = connection
        .info
        .proxy_header
        .iter()
        .flat_map(|header| &header.tlvs);
    said.into_iter()
        .find(|one| matches!(one, ProxyTlv::Alpn(_)))
        .cloned()
}

fn tls(connection: &Connection) -> Option<ProxyTlv> {
    let own = connection.tls.as_ref().map(tls_of_handshake);
    let said = || connection.info.proxy_header.as_ref()?.tls().cloned();
    own.or_else(said).map(ProxyTlv::Tls)
}

fn tls_of_handshake(secured: &TlsSession) -> TlsTlv {
    let shown = secured.client_certificate.as_ref();
    let certificate = match (shown, secured.resumed) {
        (None, _) => 0,
        (Some(_), false) => TlsTlv::CONNECTION_CERTIFICATE | TlsTlv::SESSION_CERTIFICATE,
        (Some(_), true) => TlsTlv::SESSION_CERTIFICATE,
    };
    let holder = shown.and_then(|shown| shown.subject_name.as_deref());
    // As everybody but our TLS library writes it (RFC 8446, B.4).
    let cipher = secured.cipher.replacen("TLS13_", "TLS_", 1);
    let version = Some((TlsTlv::VERSION, format!("TLSv{}", secured.version)));
    let name = holder.map(|holder| (TlsTlv::COMMON_NAME, holder.to_owned()));
    let parts = [version, name, Some((TlsTlv::CIPHER, cipher))];
    TlsTlv {
        flags: TlsTlv::ENCRYPTED | certificate,
        verify: u32::from(shown.is_none()),
        sub_tlvs: parts
            .into_iter()
            .flatten()
            .map(|(kind, text)| (kind, text.into_bytes()))
            .collect(),
    }
}

/// That of whom passed the connection on stays what it is; a request's id is another with each request,
/// and so is then the connection.
fn unique_id(connection: &Connection, ctx: &Context) -> Option<ProxyTlv> {
    let said = connection
        .info
        .proxy_header
        .as_ref()
        .and_then(|header| header.unique_id());
    let own = || ctx.request.id.as_ref().map(http::HeaderValue::as_bytes);
    said.or_else(own).map(|id| ProxyTlv::UniqueId(id.to_vec()))
}
