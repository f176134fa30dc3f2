//! The checks of a probe: TCP, HTTP and gRPC, each over a new connection of the kind that requests use.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use pingora::connectors::TransportConnector;
use pingora::connectors::http::Connector;
use pingora::http::RequestHeader;
use pingora::lb::Backend;
use pingora::lb::health_check::HealthCheck;
use pingora::protocols::Digest;
use pingora::protocols::http::client::HttpSession;
use pingora::protocols::http::v2::client::Http2Session;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::tls::SslDigest;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use tokio::sync::Semaphore;

use super::grpc_health;
use crate::config::{HealthConfig, ProbeConfig};
use crate::pingora_compat::proxy_header;
use crate::tls;
use crate::upstream::{Peer, Upstream};

/// The most concurrent probes; bounds the descriptors that a start with 10,000 peers needs.
pub(super) const MAX_CONCURRENT: usize = 512;

pub(super) type ProbeCheck = Arc<dyn HealthCheck + Send + Sync>;

/// The connectors that all probes share; each loads the system's certificates, which is expensive.
pub(crate) struct ProbeConnectors {
    tcp: Arc<TransportConnector>,
    http: Arc<Connector>,
    pub(super) permits: Arc<Semaphore>,
}

impl ProbeConnectors {
    /// Creates the connectors.
    pub(crate) fn new() -> Self {
        Self {
            tcp: Arc::new(TransportConnector::new(None)),
            http: Arc::new(Connector::new(None)),
            permits: Arc::new(Semaphore::new(MAX_CONCURRENT)),
        }
    }
}

impl Default for ProbeConnectors {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for ProbeConnectors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProbeConnectors").finish_non_exhaustive()
    }
}

/// The check of a peer, and the address to check. `None` if the peer cannot be connected to, which a valid
/// configuration rules out.
pub(super) fn build_check(
    upstream: &Upstream,
    peer: &Peer,
    health: &HealthConfig,
    connectors: &ProbeConnectors,
) -> Option<(ProbeCheck, SocketAddr)> {
    let (mut http, request) = match &health.probe {
        // Without a configured server name TLS is impossible (requests use the client's name): plain TCP only.
        ProbeConfig::Tcp if peer.server_name.is_none() => (upstream.tcp_peer(peer)?, None),
        ProbeConfig::Tcp => (upstream.http_peer(peer, "")?, None),
        ProbeConfig::Http { host, .. } | ProbeConfig::Grpc { host, .. } => {
            let name = host.as_ref().and_then(|host| host.to_str().ok());
            let http =
                upstream.http_peer(peer, crate::route::host_name(name.unwrap_or_default()))?;
            let request = request(upstream, peer, &health.probe, host.as_ref()).ok()?;
            (http, Some(request))
        }
    };
    set_limits(&mut http, health.timeout);
    let proxy_protocol = upstream.config.proxy_protocol.as_ref();
    http.options.custom_l4 = proxy_protocol.map(|proxy_protocol| {
        proxy_header::connector(proxy_header::local_header(proxy_protocol.version))
    });
    let (address, transport) = (http._address.clone(), ProbeTransport::new(upstream, http));
    let check: ProbeCheck = match (&health.probe, request) {
        (ProbeConfig::Http { expect, .. }, Some(request)) => Arc::new(HttpCheck {
            connector: Arc::clone(&connectors.http),
            transport,
            request,
            expect: expect.clone(),
        }),
        (ProbeConfig::Grpc { service, .. }, Some(request)) => Arc::new(GrpcCheck {
            connector: Arc::clone(&connectors.http),
            transport,
            request,
            request_body: grpc_health::encode_request(service),
        }),
        _ => Arc::new(TcpCheck {
            connector: Arc::clone(&connectors.tcp),
            transport,
        }),
    };
    Some((check, address))
}

fn set_limits(http: &mut HttpPeer, timeout: Duration) {
    http.options.connection_timeout = Some(timeout);
    http.options.read_timeout = Some(timeout);
    // One stream and no pings: the connection is for this probe only.
    http.options.max_h2_streams = 1;
    http.options.h2_ping_interval = None;
}

fn request(
    upstream: &Upstream,
    peer: &Peer,
    probe: &ProbeConfig,
    host: Option<&HeaderValue>,
) -> Result<RequestHeader> {
    let agent = concat!("clockwise/", env!("CARGO_PKG_VERSION"));
    let mut request = match probe {
        ProbeConfig::Http { path, .. } => RequestHeader::build("GET", path.as_bytes(), Some(2))?,
        _ => RequestHeader::build("POST", grpc_health::PATH, Some(4))?,
    };
    request.insert_header(USER_AGENT, agent)?;
    if let ProbeConfig::Grpc { .. } = probe {
        request.insert_header(CONTENT_TYPE, "application/grpc")?;
        request.insert_header(TE, "trailers")?;
    }
    let host = host.and_then(|host| host.to_str().ok());
    let host = host.unwrap_or(&peer.host);
    if !upstream.config.transport.protocol.is_always_h2() {
        request.insert_header(HOST, host)?;
        return Ok(request);
    }
    // Set here, because Pingora 0.9.1 sends the scheme `https` without TLS too.
    let scheme = if upstream.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let path = request
        .uri
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let uri = http::Uri::builder().scheme(scheme).authority(host);
    let uri = uri.path_and_query(path).build();
    request.set_uri(uri.map_err(|_| Error::new_in(ErrorType::InvalidHTTPHeader))?);
    Ok(request)
}

/// The connection to a peer, and the requirements for it.
struct ProbeTransport {
    http: HttpPeer,
    tls: Option<Arc<tls::UpstreamTls>>,
    requires_h2: bool,
}

impl ProbeTransport {
    fn new(upstream: &Upstream, http: HttpPeer) -> Self {
        Self {
            tls: upstream.tls.clone().filter(|_| http.is_tls()),
            requires_h2: upstream.config.transport.protocol.is_always_h2(),
            http,
        }
    }

    fn peer_at(&self, target: &Backend) -> HttpPeer {
        let mut http = self.http.clone();
        http._address = target.addr.clone();
        http
    }

    fn check_tls_version(&self, digest: Option<&SslDigest>) -> Result<()> {
        match &self.tls {
            Some(tls) if !tls.accepts_version(digest) => {
                Error::e_explain(ErrorType::Custom("TLS version too old"), "")
            }
            _ => Ok(()),
        }
    }

    async fn open(&self, connector: &Connector, target: &Backend) -> Result<HttpSession> {
        let (session, _) = connector.get_http_session(&self.peer_at(target)).await?;
        let tls_digest = session
            .digest()
            .and_then(|digest: &Digest| digest.ssl_digest.clone());
        self.check_tls_version(tls_digest.as_deref())?;
        if self.requires_h2 && session.as_http2().is_none() {
            return Error::e_explain(ErrorType::Custom("no HTTP/2"), "");
        }
        Ok(session)
    }
}

/// Passes when the connection is established, with TLS if configured; closes it at once.
struct TcpCheck {
    connector: Arc<TransportConnector>,
    transport: ProbeTransport,
}

#[async_trait]
impl HealthCheck for TcpCheck {
    async fn check(&self, target: &Backend) -> Result<()> {
        let stream = self
            .connector
            .new_stream(&self.transport.peer_at(target))
            .await?;
        self.transport
            .check_tls_version(stream.get_ssl_digest().as_deref())
    }

    fn health_threshold(&self, _success: bool) -> usize {
        1 // rise and fall are counted in `policy::health`
    }
}

/// Sends a GET and passes on an expected status. The body is not read, and the connection is closed: a slow
/// body cannot hold the probe.
struct HttpCheck {
    connector: Arc<Connector>,
    transport: ProbeTransport,
    request: RequestHeader,
    expect: Vec<(u16, u16)>,
}

#[async_trait]
impl HealthCheck for HttpCheck {
    async fn check(&self, target: &Backend) -> Result<()> {
        let mut session = self.transport.open(&self.connector, target).await?;
        session
            .write_request_header(Box::new(self.request.clone()))
            .await?;
        session.finish_request_body().await?;
        let status = final_status(&mut session).await?;
        session.shutdown().await;
        if self
            .expect
            .iter()
            .any(|&(from, to)| (from..=to).contains(&status))
        {
            return Ok(());
        }
        Error::e_explain(ErrorType::HTTPStatus(status), format!("status {status}"))
    }

    fn health_threshold(&self, _success: bool) -> usize {
        1 // rise and fall are counted in `policy::health`
    }
}

/// The status of the final response, after interim responses (RFC 9110 §15.2), which Pingora does not pass
/// on for HTTP/2.
async fn final_status(session: &mut HttpSession) -> Result<u16> {
    loop {
        session.read_response_header().await?;
        match session.response_header() {
            Some(response) if matches!(response.status.as_u16(), 100 | 102..=199) => {}
            response => return Ok(response.map_or(0, |response| response.status.as_u16())),
        }
    }
}

/// Calls `grpc.health.v1.Health/Check` and passes on `SERVING`.
struct GrpcCheck {
    connector: Arc<Connector>,
    transport: ProbeTransport,
    request: RequestHeader,
    request_body: Bytes,
}

#[async_trait]
impl HealthCheck for GrpcCheck {
    async fn check(&self, target: &Backend) -> Result<()> {
        let session = self.transport.open(&self.connector, target).await?;
        let HttpSession::H2(mut session) = session else {
            return Error::e_explain(ErrorType::Custom("no HTTP/2"), "");
        };
        session.read_timeout = self.transport.http.options.read_timeout;
        session.write_request_header(Box::new(self.request.clone()), false)?;
        session
            .write_request_body(self.request_body.clone(), true)
            .await?;
        self.check_response(&mut session).await
    }

    fn health_threshold(&self, _success: bool) -> usize {
        1 // rise and fall are counted in `policy::health`
    }
}

impl GrpcCheck {
    /// Reads the response: status 200, the message, and `grpc-status` 0 in the trailers. A `grpc-status` in
    /// the header is an error without a message.
    async fn check_response(&self, session: &mut Http2Session) -> Result<()> {
        session.read_response_header().await?;
        let header = session.response_header();
        let (status, grpc_error) = header.map_or((0, None), |header| {
            (
                header.status.as_u16(),
                grpc_health::grpc_status(&header.headers),
            )
        });
        if status != 200 {
            return Error::e_explain(ErrorType::HTTPStatus(status), "");
        }
        if let Some(code) = grpc_error {
            return grpc_status_error(code);
        }
        let body = read_response_body(session).await?;
        let trailers = session.read_trailers().await?;
        match trailers.as_ref().and_then(grpc_health::grpc_status) {
            Some(0) if grpc_health::is_serving(&body) => Ok(()),
            Some(0) => Error::e_explain(ErrorType::Custom("gRPC health is not SERVING"), ""),
            Some(code) => grpc_status_error(code),
            None => Error::e_explain(ErrorType::Custom("no grpc-status"), ""),
        }
    }
}

fn grpc_status_error(code: u16) -> Result<()> {
    Error::e_explain(ErrorType::CustomCode("grpc-status", code), "")
}

async fn read_response_body(session: &mut Http2Session) -> Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(chunk) = session.read_response_body().await? {
        body.extend_from_slice(&chunk);
        if body.len() > grpc_health::MAX_RESPONSE {
            return Error::e_explain(ErrorType::Custom("response too long"), "");
        }
    }
    Ok(body)
}
