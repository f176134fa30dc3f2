//! Requests to the authority, as `instant-acme` wants them sent.
//!
//! One connection for each: an order is a dozen requests a month. Each is bounded in time and size,
//! which a client that waits for a stranger must be.

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

/// RFC 8555, 6.1.
const USER_AGENT_VALUE: &str = concat!("clockwise/", env!("CARGO_PKG_VERSION"), " instant-acme");

/// For a whole request, from the look-up of the name to the response's end.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// For one address to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Bytes of a response; a chain has a few thousand.
const MAX_RESPONSE_BYTES: usize = 1 << 20;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Sends requests.
#[derive(Clone)]
pub(super) struct HttpsClient(TlsConnector);

impl HttpsClient {
    /// `authorities`: who vouches for the servers; `None`: whom the system trusts. It may read files.
    pub(super) fn new(authorities: Option<&[CertificateDer<'static>]>) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        let known = match authorities {
            Some(authorities) => authorities.to_vec(),
            None => rustls_native_certs::load_native_certs()?,
        };
        let (added, _) = roots.add_parsable_certificates(known);
        if added == 0 {
            let message = "the system knows no certificate authority; install `ca-certificates`";
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
            let asked = request.uri().clone();
            let done = tokio::time::timeout(REQUEST_TIMEOUT, send_request(tls, request)).await;
            let done = done
                .unwrap_or_else(|_| Err(format!("no answer within {REQUEST_TIMEOUT:?}").into()));
            done.map_err(|why| Error::Other(format!("cannot ask {asked}: {why}").into()))
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
    let answer = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_RESPONSE_BYTES)
            .collect()
            .await?
            .to_bytes();
        Ok::<_, BoxError>(Response::from_parts(parts, body))
    };
    tokio::pin!(answer);
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        // What the server has sent before it closed is there already.
        _ = connection => answer.await,
    };
    let (parts, body) = answer?.into_parts();
    let body = Box::new(body);
    Ok(BytesResponse { parts, body })
}

async fn connect_tls(
    tls: TlsConnector,
    uri: &Uri,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, BoxError> {
    if uri.scheme_str() != Some("https") {
        return Err("it is not `https`".into());
    }
    let host = uri.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned())?;
    let socket = connect_tcp(host, uri.port_u16().unwrap_or(443)).await?;
    Ok(tls.connect(name, socket).await?)
}

/// The first address that answers: where IPv6 leads nowhere, IPv4 may lead there.
async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for address in tokio::net::lookup_host((host, port)).await? {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => return Ok(socket),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last)
}

/// As HTTP/1.1 has it: the path in the request line, the host in a field.
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
