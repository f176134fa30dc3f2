//! What one probe asks of a peer: over the kind of connection that requests would have, made anew each
//! time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use pingora_core::connectors::TransportConnector;
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::Digest;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::protocols::http::v2::client::Http2Session;
use pingora_core::protocols::l4::socket::SocketAddr;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_error::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use pingora_load_balancing::Backend;
use pingora_load_balancing::health_check::HealthCheck;

use super::{Check, Prober, grpc};
use crate::config::{Health, Probe};
use crate::dial;
use crate::tls;
use crate::upstream::{Peer, Upstream};

/// What asks this peer, and where it asks; `None`: it cannot be asked, which no loaded configuration
/// leads to.
pub(super) fn of(
    upstream: &Upstream,
    peer: &Peer,
    health: &Health,
    prober: &Prober,
) -> Option<(Check, SocketAddr)> {
    let (mut http, request) = match &health.probe {
        // Whose name only the client knows can be asked no more than whether it is there.
        Probe::Tcp if peer.server_name.is_none() => (upstream.reach(peer)?, None),
        Probe::Tcp => (upstream.dial(peer, "")?, None),
        Probe::Http { host, .. } | Probe::Grpc { host, .. } => {
            let name = host.as_ref().and_then(|host| host.to_str().ok());
            let http = upstream.dial(peer, crate::route::host_name(name.unwrap_or_default()))?;
            let request = request(upstream, peer, &health.probe, host.as_ref()).ok()?;
            (http, Some(request))
        }
    };
    limit(&mut http, health.timeout);
    let told = upstream.config.proxy_protocol.as_ref();
    http.options.custom_l4 = told.map(|told| dial::introducing(dial::own(told.version)));
    let (address, way) = (http._address.clone(), Way::new(upstream, http));
    let check: Check = match (&health.probe, request) {
        (Probe::Http { expect, .. }, Some(request)) => Arc::new(HttpCheck {
            connector: Arc::clone(&prober.http),
            way,
            request,
            expect: expect.clone(),
        }),
        (Probe::Grpc { service, .. }, Some(request)) => Arc::new(GrpcCheck {
            connector: Arc::clone(&prober.http),
            way,
            request,
            question: grpc::question(service),
        }),
        _ => Arc::new(TcpCheck {
            connector: Arc::clone(&prober.tcp),
            way,
        }),
    };
    Some((check, address))
}

fn limit(http: &mut HttpPeer, timeout: Duration) {
    http.options.connection_timeout = Some(timeout);
    http.options.read_timeout = Some(timeout);
    // Nobody else is on the connection, so it ends with the probe.
    http.options.max_h2_streams = 1;
    http.options.h2_ping_interval = None;
}

fn request(
    upstream: &Upstream,
    peer: &Peer,
    probe: &Probe,
    host: Option<&HeaderValue>,
) -> Result<RequestHeader> {
    let agent = concat!("clockwise/", env!("CARGO_PKG_VERSION"));
    let mut request = match probe {
        Probe::Http { path, .. } => RequestHeader::build("GET", path.as_bytes(), Some(2))?,
        _ => RequestHeader::build("POST", grpc::PATH, Some(4))?,
    };
    request.insert_header(USER_AGENT, agent)?;
    if let Probe::Grpc { .. } = probe {
        request.insert_header(CONTENT_TYPE, "application/grpc")?;
        request.insert_header(TE, "trailers")?;
    }
    let host = host.and_then(|host| host.to_str().ok());
    let host = host.unwrap_or(&peer.host);
    if !upstream.config.link.protocol.is_h2() {
        request.insert_header(HOST, host)?;
        return Ok(request);
    }
    // Pingora would say `https` to whoever is spoken to without TLS, too.
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

/// How a peer is connected to, and what has to be true of the connection.
struct Way {
    http: HttpPeer,
    tls: Option<Arc<tls::Client>>,
    h2: bool,
}

impl Way {
    fn new(upstream: &Upstream, http: HttpPeer) -> Self {
        Self {
            tls: upstream.tls.clone().filter(|_| http.is_tls()),
            h2: upstream.config.link.protocol.is_h2(),
            http,
        }
    }

    fn to(&self, target: &Backend) -> HttpPeer {
        let mut http = self.http.clone();
        http._address = target.addr.clone();
        http
    }

    fn accept(&self, secured: Option<&SslDigest>) -> Result<()> {
        match (&self.tls, secured) {
            (Some(tls), Some(secured)) if !tls.takes(&secured.version) => {
                Error::e_explain(ErrorType::Custom("an old version of TLS"), "")
            }
            _ => Ok(()),
        }
    }

    async fn open(&self, connector: &Connector, target: &Backend) -> Result<HttpSession> {
        let (session, _) = connector.get_http_session(&self.to(target)).await?;
        let secured = session
            .digest()
            .and_then(|digest: &Digest| digest.ssl_digest.clone());
        self.accept(secured.as_deref())?;
        if self.h2 && session.as_http2().is_none() {
            return Error::e_explain(ErrorType::Custom("no HTTP/2"), "");
        }
        Ok(session)
    }
}

/// A connect that passes when the connection stands, encrypted where it has to be; it is closed at
/// once.
struct TcpCheck {
    connector: Arc<TransportConnector>,
    way: Way,
}

#[async_trait]
impl HealthCheck for TcpCheck {
    async fn check(&self, target: &Backend) -> Result<()> {
        let stream = self.connector.new_stream(&self.way.to(target)).await?;
        self.way.accept(stream.get_ssl_digest().as_deref())
    }

    fn health_threshold(&self, _success: bool) -> usize {
        1 // rise and fall are counted in `policy::health`
    }
}

/// A GET that passes when the status is an expected one. The body is not read: the connection is
/// closed instead, so a peer that drips cannot hold a probe.
struct HttpCheck {
    connector: Arc<Connector>,
    way: Way,
    request: RequestHeader,
    expect: Vec<(u16, u16)>,
}

#[async_trait]
impl HealthCheck for HttpCheck {
    async fn check(&self, target: &Backend) -> Result<()> {
        let mut session = self.way.open(&self.connector, target).await?;
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

/// The status of the response, after those that only announce it (RFC 9110, 15.2); of HTTP/2 those
/// do not come through.
async fn final_status(session: &mut HttpSession) -> Result<u16> {
    loop {
        session.read_response_header().await?;
        match session.response_header() {
            Some(response) if matches!(response.status.as_u16(), 100 | 102..=199) => {}
            response => return Ok(response.map_or(0, |response| response.status.as_u16())),
        }
    }
}

/// A question of `grpc.health.v1` that passes when the answer is `SERVING`.
struct GrpcCheck {
    connector: Arc<Connector>,
    way: Way,
    request: RequestHeader,
    question: Bytes,
}

#[async_trait]
impl HealthCheck for GrpcCheck {
    async fn check(&self, target: &Backend) -> Result<()> {
        let session = self.way.open(&self.connector, target).await?;
        let HttpSession::H2(mut session) = session else {
            return Error::e_explain(ErrorType::Custom("no HTTP/2"), "");
        };
        session.read_timeout = self.way.http.options.read_timeout;
        session.write_request_header(Box::new(self.request.clone()), false)?;
        session
            .write_request_body(self.question.clone(), true)
            .await?;
        self.judge(&mut session).await
    }

    fn health_threshold(&self, _success: bool) -> usize {
        1 // rise and fall are counted in `policy::health`
    }
}

impl GrpcCheck {
    async fn judge(&self, session: &mut Http2Session) -> Result<()> {
        session.read_response_header().await?;
        let header = session.response_header();
        let (status, failed) = header.map_or((0, None), |header| {
            (header.status.as_u16(), grpc::status(&header.headers))
        });
        if status != 200 {
            return Error::e_explain(ErrorType::HTTPStatus(status), "");
        }
        if let Some(code) = failed {
            return refused(code);
        }
        let answer = read(session).await?;
        let trailers = session.read_trailers().await?;
        match trailers.as_ref().and_then(grpc::status) {
            Some(0) if grpc::is_serving(&answer) => Ok(()),
            Some(0) => Error::e_explain(ErrorType::Custom("it is not serving"), ""),
            Some(code) => refused(code),
            None => Error::e_explain(ErrorType::Custom("no grpc-status"), ""),
        }
    }
}

fn refused(code: u16) -> Result<()> {
    Error::e_explain(ErrorType::CustomCode("grpc-status", code), "")
}

async fn read(session: &mut Http2Session) -> Result<Vec<u8>> {
    let mut answer = Vec::new();
    while let Some(piece) = session.read_response_body().await? {
        answer.extend_from_slice(&piece);
        if answer.len() > grpc::MAX_ANSWER {
            return Error::e_explain(ErrorType::Custom("an answer that is too long"), "");
        }
    }
    Ok(answer)
}
