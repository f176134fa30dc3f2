//! Requests to the API server of Kubernetes.
//!
//! The token and the certificates are read before each connection, since Kubernetes replaces the files of a pod while it
//! runs: a token is valid for an hour by default. A connection has one list, or one watch.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::objects::ApiStatus;
use crate::config::{ApiServer, KubernetesConfig};

/// The folder with the token and the certificates of a pod ("Accessing the Kubernetes API from a Pod").
const POD_FILES: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The time limit for a TCP connect to one address, and for a TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The time limit for a connection, with the lookup of the server's name and all of its addresses.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// The time limit for the head of a response, and for a whole page of a list.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(15);

/// The largest page of a list, in bytes: 100 slices with up to 1,000 endpoints each.
const MAX_PAGE: usize = 64 << 20;

/// The largest error that is read, in bytes.
const MAX_ERROR: usize = 64 << 10;

/// The largest token file, in bytes; a token has about 1,200.
const MAX_TOKEN: u64 = 64 << 10;

/// When an idle connection is tested, and how often: without it, a server that vanished is noticed only at the end of a
/// watch.
const KEEPALIVE_TIME: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_PROBES: u32 = 3;

/// A request to the API server has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ApiError {
    /// There is no response.
    Unreachable(String),
    /// The server refuses the request.
    Refused(ApiStatus),
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = match self {
            Self::Unreachable(reason) => return f.write_str(reason),
            Self::Refused(status) => status,
        };
        let ApiStatus { code, message, .. } = status;
        let code =
            StatusCode::from_u16(*code).map_or_else(|_| code.to_string(), |code| code.to_string());
        write!(f, "the API server answers {code}")?;
        if !message.is_empty() {
            write!(f, ": {message}")?;
        }
        match status.code {
            401 => f.write_str("; it does not accept the token, check `token_file` of `kubernetes`"),
            403 => f.write_str(
                "; give the service account a role with the verbs get, list and watch on `endpointslices` of the API group `discovery.k8s.io`",
            ),
            _ => Ok(()),
        }
    }
}

/// A client of one API server.
#[derive(Clone, Debug)]
pub(super) struct ApiClient(KubernetesConfig);

/// A connection to the API server, closed when dropped.
pub(super) struct ApiConnection {
    requests: SendRequest<Empty<Bytes>>,
    host: HeaderValue,
    base_path: String,
    token: Option<HeaderValue>,
    driver: AbortHandle,
}

impl Drop for ApiConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl ApiClient {
    pub(super) fn new(config: KubernetesConfig) -> Self {
        Self(config)
    }

    /// Opens a connection, with the present token and certificates.
    ///
    /// # Errors
    /// [`ApiError::Unreachable`].
    pub(super) async fn connect(&self) -> Result<ApiConnection, ApiError> {
        let access = ApiAccess::new(&self.0, |name| std::env::var(name).ok());
        let access = access.map_err(ApiError::Unreachable)?;
        let address = access.server.host_and_port();
        let connected = tokio::time::timeout(CONNECT_LIMIT, access.connect()).await;
        let late = || Err(format!("none within {CONNECT_LIMIT:?}"));
        connected.unwrap_or_else(|_| late()).map_err(|reason| {
            ApiError::Unreachable(format!(
                "no connection to the API server at {address}: {reason}"
            ))
        })
    }
}

impl ApiServer {
    /// As in a URL.
    fn host_and_port(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// The server, and the files that a connection to it needs.
#[derive(Debug, PartialEq, Eq)]
struct ApiAccess {
    server: ApiServer,
    token_file: Option<PathBuf>,
    /// `None`: the certificates of the system.
    ca: Option<PathBuf>,
}

impl ApiAccess {
    /// `variable`: a variable of the environment.
    ///
    /// # Errors
    /// No server is configured, and the process does not run in a pod.
    fn new(
        config: &KubernetesConfig,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let KubernetesConfig {
            server,
            token_file,
            ca,
        } = config.clone();
        if let Some(server) = server {
            return Ok(Self {
                server,
                token_file,
                ca,
            });
        }
        let host = variable("KUBERNETES_SERVICE_HOST").filter(|host| !host.is_empty());
        let host = host.ok_or(
            "KUBERNETES_SERVICE_HOST is not set, so this is no pod; write the address of the API server, as in `kubernetes: {server: \"https://10.0.0.1:6443\"}`",
        )?;
        let port = variable("KUBERNETES_SERVICE_PORT").unwrap_or_else(|| "443".to_owned());
        let port = port.parse();
        let of_pod = |name: &str| Some(Path::new(POD_FILES).join(name));
        Ok(Self {
            server: ApiServer {
                is_tls: true,
                host,
                port: port.map_err(|_| "KUBERNETES_SERVICE_PORT is not a port")?,
                base_path: String::new(),
            },
            token_file: token_file.or_else(|| of_pod("token")),
            ca: ca.or_else(|| of_pod("ca.crt")),
        })
    }

    async fn connect(self) -> Result<ApiConnection, String> {
        let read = move || {
            let token = self.token_file.as_deref().map(read_token).transpose()?;
            let tls = self.server.is_tls.then(|| tls_config(self.ca.as_deref()));
            Ok::<_, String>((self.server, token, tls.transpose()?))
        };
        let read = tokio::task::spawn_blocking(read).await;
        let (server, token, tls) = read.map_err(|error| error.to_string())??;
        let socket = connect_tcp(&server)
            .await
            .map_err(|error| error.to_string())?;
        let opened = async {
            match tls {
                None => start(socket).await,
                Some(tls) => start(start_tls(tls, &server.host, socket).await?).await,
            }
        };
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, opened).await;
        let (requests, driver) = opened
            .unwrap_or_else(|_| Err(format!("no TLS handshake within {CONNECT_TIMEOUT:?}")))?;
        let host = HeaderValue::from_str(&server.host_and_port());
        Ok(ApiConnection {
            requests,
            host: host.map_err(|error| error.to_string())?,
            base_path: server.base_path,
            token,
            driver,
        })
    }
}

/// Starts HTTP/1.1 on a connection.
async fn start<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
) -> Result<(SendRequest<Empty<Bytes>>, AbortHandle), String> {
    let started = http1::handshake(TokioIo::new(stream)).await;
    let (requests, connection) = started.map_err(|error| error.to_string())?;
    // An error of the connection is also that of its request.
    let driver = tokio::spawn(async { connection.await.unwrap_or_default() });
    Ok((requests, driver.abort_handle()))
}

async fn start_tls(
    config: ClientConfig,
    host: &str,
    socket: TcpStream,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
    let tls = TlsConnector::from(Arc::new(config));
    let stream = tls.connect(name, socket).await;
    stream.map_err(|error| format!("TLS: {error}"))
}

/// Tries the addresses of the server in order.
async fn connect_tcp(server: &ApiServer) -> io::Result<TcpStream> {
    let mut last_error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    let addresses = tokio::net::lookup_host((&*server.host, server.port)).await?;
    for address in addresses {
        match tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                let keepalive = TcpKeepalive::new()
                    .with_time(KEEPALIVE_TIME)
                    .with_interval(KEEPALIVE_INTERVAL)
                    .with_retries(KEEPALIVE_PROBES);
                SockRef::from(&socket).set_tcp_keepalive(&keepalive)?;
                return Ok(socket);
            }
            Ok(Err(error)) => last_error = error,
            Err(_) => last_error = io::ErrorKind::TimedOut.into(),
        }
    }
    Err(last_error)
}

/// The value of `Authorization` with the token in a file. Blocks.
fn read_token(path: &Path) -> Result<HeaderValue, String> {
    let mut token = String::new();
    let read = File::open(path).and_then(|file| file.take(MAX_TOKEN).read_to_string(&mut token));
    read.map_err(|error| {
        format!(
            "the token file `{}` cannot be read: {error}",
            path.display()
        )
    })?;
    let token = Some(token.trim()).filter(|token| !token.is_empty());
    let value = token.and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
    let mut value =
        value.ok_or_else(|| format!("the token file `{}` has no token", path.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Verifies servers with the certificates in a file, or with those of the system. Blocks.
fn tls_config(ca: Option<&Path>) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let certs = match ca {
        Some(path) => certificates_in(path)?,
        None => rustls_native_certs::load_native_certs().map_err(|error| error.to_string())?,
    };
    let (added, _) = roots.add_parsable_certificates(certs);
    if added == 0 {
        let place = ca.map_or("the system".to_owned(), |path| {
            format!("`{}`", path.display())
        });
        return Err(format!(
            "{place} has no certificate to verify the server with; set `ca` of `kubernetes`"
        ));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

fn certificates_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path);
    let certs: Result<Vec<_>, _> = read.and_then(Iterator::collect);
    certs.map_err(|error| {
        let path = path.display();
        format!("the certificates in `{path}` cannot be read: {error}")
    })
}

impl ApiConnection {
    /// Requests a path with a query; returns the body of a response with status 200.
    ///
    /// # Errors
    /// There is no response, or it has another status.
    pub(super) async fn get(&mut self, target: &str) -> Result<Incoming, ApiError> {
        let response = self.send(target).await.map_err(ApiError::Unreachable)?;
        let (head, body) = response.into_parts();
        if head.status == StatusCode::OK {
            return Ok(body);
        }
        let body = collect(body, MAX_ERROR).await.unwrap_or_default();
        let status = ApiStatus::of_response(head.status.as_u16(), &body);
        Err(ApiError::Refused(status))
    }

    /// As [`Self::get`], with the whole body.
    ///
    /// # Errors
    /// As [`Self::get`]; or the body is cut, late, or too long.
    pub(super) async fn get_page(&mut self, target: &str) -> Result<Bytes, ApiError> {
        let body = self.get(target).await?;
        collect(body, MAX_PAGE).await.map_err(ApiError::Unreachable)
    }

    async fn send(&mut self, target: &str) -> Result<http::Response<Incoming>, String> {
        let mut request = Request::get(format!("{}{target}", self.base_path))
            .header(HOST, &self.host)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("clockwise/", env!("CARGO_PKG_VERSION")));
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, token);
        }
        let request = request
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let response = self.requests.send_request(request);
        match tokio::time::timeout(RESPONSE_TIMEOUT, response).await {
            Ok(response) => response.map_err(|error| format!("the request has failed: {error}")),
            Err(_) => Err(format!("no response within {RESPONSE_TIMEOUT:?}")),
        }
    }
}

async fn collect(body: Incoming, at_most: usize) -> Result<Bytes, String> {
    let body = Limited::new(body, at_most).collect();
    match tokio::time::timeout(RESPONSE_TIMEOUT, body).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) => Err(format!("the response cannot be read: {error}")),
        Err(_) => Err(format!("no whole response within {RESPONSE_TIMEOUT:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(config: &KubernetesConfig, variables: &[(&str, &str)]) -> Result<ApiAccess, String> {
        ApiAccess::new(config, |name| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn server_of_a_pod_comes_from_its_environment_with_the_files_of_the_pod() {
        let variables = [
            ("KUBERNETES_SERVICE_HOST", "fd00::1"),
            ("KUBERNETES_SERVICE_PORT", "6443"),
        ];
        let found = access(&KubernetesConfig::default(), &variables).unwrap();
        assert_eq!(found.server.host_and_port(), "[fd00::1]:6443");
        assert!(found.server.is_tls);
        let token = found.token_file.unwrap();
        assert_eq!(token, Path::new(POD_FILES).join("token"));
        let config = KubernetesConfig {
            token_file: Some("t".into()),
            ..KubernetesConfig::default()
        };
        let found = access(&config, &variables[..1]).unwrap();
        assert_eq!(
            (found.server.port, found.token_file),
            (443, config.token_file)
        );
        let error = access(&KubernetesConfig::default(), &[]).unwrap_err();
        assert!(error.contains("kubernetes: {server: "), "{error}");
    }

    #[test]
    fn configured_server_gets_no_token_of_the_pod() {
        let config = KubernetesConfig {
            server: Some(ApiServer {
                is_tls: false,
                host: "127.0.0.1".to_owned(),
                port: 8001,
                base_path: String::new(),
            }),
            ..KubernetesConfig::default()
        };
        let found = access(&config, &[("KUBERNETES_SERVICE_HOST", "10.0.0.1")]).unwrap();
        assert_eq!(
            (found.server.port, found.token_file, found.ca),
            (8001, None, None)
        );
    }

    #[test]
    fn token_is_read_without_the_line_feed_and_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "abc\n").unwrap();
        let token = read_token(&path).unwrap();
        assert_eq!(token, "Bearer abc");
        assert!(!format!("{token:?}").contains("abc"));
        for text in ["a\nb", "\n"] {
            std::fs::write(&path, text).unwrap();
            assert!(read_token(&path).unwrap_err().contains("has no token"));
        }
        let missing = read_token(&directory.path().join("none")).unwrap_err();
        assert!(missing.contains("cannot be read"), "{missing}");
    }

    #[test]
    fn refusals_say_what_to_do() {
        let message = |code, message: &str| {
            let body = format!(r#"{{"message":"{message}"}}"#);
            ApiError::Refused(ApiStatus::of_response(code, body.as_bytes())).to_string()
        };
        assert!(message(401, "Unauthorized").ends_with("check `token_file` of `kubernetes`"));
        let forbidden = message(403, "endpointslices is forbidden");
        assert!(
            forbidden.starts_with("the API server answers 403 Forbidden: endpointslices")
                && forbidden.contains("verbs get, list and watch"),
            "{forbidden}"
        );
        assert_eq!(
            message(503, ""),
            "the API server answers 503 Service Unavailable"
        );
    }
}
