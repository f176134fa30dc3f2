//! The HTTPS client for requests to the authority; implements `instant_acme::HttpClient`.
//!
//! Each request has its own connection: an order needs only about twelve requests, and orders are weeks apart. The
//! time of each request and the size of each response are limited.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::uri::PathAndQuery;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The `User-Agent` value, which ACME requires (RFC 8555 §6.1).
const USER_AGENT_VALUE: &str = concat!("clockwise/", env!("CARGO_PKG_VERSION"), " instant-acme");

/// The time limit for a request with its response, from the DNS lookup to the last byte.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// The time limit for a TCP connect to one address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The largest response body, in bytes. A certificate chain has a few thousand.
const MAX_RESPONSE_BYTES: usize = 1 << 20;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// An HTTPS client that trusts a fixed set of root certificates.
#[derive(Clone)]
pub(super) struct HttpsClient(TlsConnector);

impl HttpsClient {
    /// Creates a client that verifies servers with `root_certs`; `None`: with the system's root certificates,
    /// which this function reads from files.
    ///
    /// # Errors
    /// If the system's root certificates cannot be read, or none of the certificates is usable.
    pub(super) fn new(root_certs: Option<&[CertificateDer<'static>]>) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        let certs = match root_certs {
            Some(root_certs) => root_certs.to_vec(),
            None => rustls_native_certs::load_native_certs()?,
        };
        let (added, _) = roots.add_parsable_certificates(certs);
        if added == 0 {
            let message =
                "no certificate found; install the package `ca-certificates`, or set `acme.ca`";
            return Err(io::Error::other(message));
        }
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config).into()))
    }
}

impl HttpClient for HttpsClient {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let tls = self.0.clone();
        Box::pin(async move {
            let uri = request.uri().clone();
            let response = tokio::time::timeout(REQUEST_TIMEOUT, send_request(tls, request)).await;
            let response = response
                .unwrap_or_else(|_| Err(format!("no response within {REQUEST_TIMEOUT:?}").into()));
            response
                .map_err(|error| Error::Other(format!("request to {uri} failed: {error}").into()))
        })
    }
}

async fn send_request(
    tls: TlsConnector,
    mut request: Request<BodyWrapper<Bytes>>,
) -> Result<BytesResponse, BoxError> {
    let stream = connect_tls(tls, request.uri()).await?;
    set_origin_form(&mut request)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let response = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_RESPONSE_BYTES)
            .collect()
            .await?
            .to_bytes();
        Ok::<_, BoxError>(Response::from_parts(parts, body))
    };
    tokio::pin!(response);
    let response = tokio::select! {
        biased;
        response = &mut response => response,
        // The connection has ended. The response is buffered or incomplete, so `await` returns at once.
        _ = connection => response.await,
    };
    let (parts, body) = response?.into_parts();
    let body = Box::new(body);
    Ok(BytesResponse { parts, body })
}

async fn connect_tls(
    tls: TlsConnector,
    uri: &Uri,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, BoxError> {
    if uri.scheme_str() != Some("https") {
        return Err("the scheme of the URL is not `https`".into());
    }
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned())?;
    let socket = connect_tcp(host, uri.port_u16().unwrap_or(443)).await?;
    Ok(tls.connect(name, socket).await?)
}

/// Tries the addresses of `host` in order and returns the first connection. On a system without an IPv6 route,
/// an IPv4 address may still work.
async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last_error = io::Error::from(io::ErrorKind::NotFound);
    for address in tokio::net::lookup_host((host, port)).await? {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => last_error = error,
            Err(_) => last_error = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last_error)
}

/// Splits the absolute URI into path and `Host` header (RFC 9112 §3.2.1), and sets `User-Agent`.
fn set_origin_form(request: &mut Request<BodyWrapper<Bytes>>) -> Result<(), BoxError> {
    let uri = request.uri();
    let host = uri.authority().map_or("", |authority| authority.as_str());
    let host = HeaderValue::from_str(host)?;
    let path = uri.path_and_query().map_or("/", PathAndQuery::as_str);
    *request.uri_mut() = path.parse()?;
    request.headers_mut().insert(HOST, host);
    let agent = HeaderValue::from_static(USER_AGENT_VALUE);
    request.headers_mut().insert(USER_AGENT, agent);
    Ok(())
}
