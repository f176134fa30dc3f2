//! Certificates for one test, and TLS clients.

use std::fs::{self, Permissions};
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer,
    KeyIdMethod, KeyPair, KeyUsagePurpose, RevokedCertParams, SerialNumber,
};
use ring::digest::{SHA256, digest};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, StreamOwned,
    SupportedProtocolVersion,
};
use tempfile::TempDir;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::curl::curl;
use super::ocsp;
use super::wait::PATIENCE;

/// A certificate authority, with a directory for its certificates.
pub(crate) struct Authority {
    directory: TempDir,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().unwrap();
        let own = params.self_signed(&key).unwrap();
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::write(directory.path().join("ca.crt"), own.pem()).unwrap();
        Self {
            directory,
            certificate: own.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// A file in the directory.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// Issues `FILE.crt` and `FILE.key`, and replaces existing ones; returns the YAML that names them.
    pub(crate) fn issue(&self, file: &str, names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, file);
        let key = KeyPair::generate().unwrap();
        let issued = params.signed_by(&key, &self.issuer).unwrap();
        let (cert, secret) = (format!("{file}.crt"), format!("{file}.key"));
        self.replace(&secret, key.serialize_pem());
        self.replace(&cert, issued.pem());
        self.yaml(file)
    }

    /// Issues a certificate that is valid between these times.
    pub(crate) fn issue_for(
        &self,
        file: &str,
        names: &[&str],
        (from, until): (Timestamp, Timestamp),
    ) -> String {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let time = |time: Timestamp| {
            let since = Duration::try_from(time.as_duration()).expect("after 1970");
            rcgen::date_time_ymd(1970, 1, 1) + since
        };
        (params.not_before, params.not_after) = (time(from), time(until));
        let key = KeyPair::generate().unwrap();
        let issued = params.signed_by(&key, &self.issuer).unwrap();
        self.replace(&format!("{file}.key"), key.serialize_pem());
        self.replace(&format!("{file}.crt"), issued.pem());
        self.yaml(file)
    }

    /// The SHA-256 of a certificate's public key, as Chromium expects it.
    pub(crate) fn key_digest(&self, file: &str) -> String {
        let leaf = CertificateDer::from_pem_file(self.path(&format!("{file}.crt"))).unwrap();
        let (_, leaf) = X509Certificate::from_der(&leaf).unwrap();
        BASE64_STANDARD.encode(digest(&SHA256, leaf.public_key().raw))
    }

    /// Writes `FILE.ocsp`: this certificate is good between these times.
    pub(crate) fn vouch(&self, file: &str, times: (Timestamp, Timestamp)) {
        let leaf = CertificateDer::from_pem_file(self.path(&format!("{file}.crt"))).unwrap();
        let response = ocsp::good(&leaf, &self.certificate, self.issuer.key(), times);
        self.replace(&format!("{file}.ocsp"), response);
    }

    /// Issues a certificate with this serial number; returns the number.
    pub(crate) fn issue_numbered(&self, file: &str, number: u64) -> SerialNumber {
        let mut params = CertificateParams::new([format!("{file}.test")]).unwrap();
        params.serial_number = Some(number.into());
        let key = KeyPair::generate().unwrap();
        let issued = params.signed_by(&key, &self.issuer).unwrap();
        self.replace(&format!("{file}.key"), key.serialize_pem());
        self.replace(&format!("{file}.crt"), issued.pem());
        SerialNumber::from(number)
    }

    /// Writes `clients.crl`, which revokes these certificates.
    pub(crate) fn revoke(&self, numbers: &[SerialNumber]) {
        let day = rcgen::date_time_ymd(2026, 1, 1);
        let revoked = numbers.iter().map(|number| RevokedCertParams {
            serial_number: number.clone(),
            revocation_time: day,
            reason_code: None,
            invalidity_date: None,
        });
        let params = CertificateRevocationListParams {
            this_update: day,
            next_update: rcgen::date_time_ymd(2100, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = params.signed_by(&self.issuer).unwrap();
        self.replace("clients.crl", list.pem().unwrap());
    }

    pub(crate) fn yaml(&self, file: &str) -> String {
        let path = |kind: &str| self.path(&format!("{file}.{kind}")).display().to_string();
        format!("{{cert: {}, key: {}}}", path("crt"), path("key"))
    }

    /// Replaces a file atomically.
    pub(crate) fn replace(&self, file: &str, contents: impl AsRef<[u8]>) {
        let new = self.path("new");
        fs::write(&new, contents).unwrap();
        fs::set_permissions(&new, Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, self.path(file)).unwrap();
    }

    /// A server with this certificate.
    pub(crate) fn server(&self, file: &str) -> Arc<ServerConfig> {
        use rustls::pki_types::pem::PemObject;
        let cert = CertificateDer::from_pem_file(self.path(&format!("{file}.crt"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(self.path(&format!("{file}.key"))).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let server = builder.with_no_client_auth();
        Arc::new(server.with_single_cert(vec![cert], key).unwrap())
    }

    /// A client that trusts only this authority.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        builder()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    /// A client with this certificate of `issuer`.
    pub(crate) fn client_with(&self, file: &str, issuer: &Self) -> ClientConfig {
        self.client_showing(builder(), file, issuer)
    }

    /// A client with this certificate that supports only this version of TLS.
    pub(crate) fn client_of(
        &self,
        version: &'static SupportedProtocolVersion,
        file: &str,
        issuer: &Self,
    ) -> ClientConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(&[version]).unwrap();
        self.client_showing(builder, file, issuer)
    }

    fn client_showing(
        &self,
        builder: rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>,
        file: &str,
        issuer: &Self,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let cert = CertificateDer::from_pem_file(issuer.path(&format!("{file}.crt"))).unwrap();
        let key = PrivateKeyDer::from_pem_file(issuer.path(&format!("{file}.key"))).unwrap();
        let builder = builder.with_root_certificates(roots);
        builder.with_client_auth_cert(vec![cert], key).unwrap()
    }

    /// The output of `curl` for `https://NAME:PORT/?k=a`, with more arguments. Panics if curl fails.
    pub(crate) fn curl(&self, name: &str, address: SocketAddr, more: &[&str]) -> String {
        let output = self.try_curl(name, address, more);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    pub(crate) fn try_curl(&self, name: &str, address: SocketAddr, more: &[&str]) -> Output {
        let port = address.port();
        let mut command = curl();
        command
            .arg("--cacert")
            .arg(self.path("ca.crt"))
            .args(["--resolve", &format!("{name}:{port}:{}", address.ip())])
            .args(more)
            .arg(format!("https://{name}:{port}/?k=a"));
        command.output().expect("curl")
    }

    /// The output of `openssl s_client` for one request.
    pub(crate) fn s_client(&self, name: &str, address: SocketAddr, more: &[&str]) -> String {
        let mut command = Command::new("openssl");
        command
            .args(["s_client", "-ign_eof", "-connect", &address.to_string()])
            .args(["-servername", name])
            .arg("-CAfile")
            .arg(self.path("ca.crt"))
            .args(more);
        let request = format!("GET /?k=a HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n");
        fed(&mut command, request.as_bytes())
    }
}

pub(crate) fn builder() -> rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    builder.with_safe_default_protocol_versions().unwrap()
}

/// The output of a command with this input, including stderr.
pub(crate) fn fed(command: &mut Command, input: &[u8]) -> String {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program");
    let _ = child.stdin.take().expect("piped").write_all(input);
    let output = child.wait_with_output().expect("its output");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// A TLS connection as a client.
pub(crate) type Session = StreamOwned<ClientConnection, TcpStream>;

/// Connects with a handshake; returns the client's error on failure.
pub(crate) fn connect(
    config: &Arc<ClientConfig>,
    name: &str,
    address: SocketAddr,
) -> std::io::Result<Session> {
    let mut socket = TcpStream::connect_timeout(&address, PATIENCE)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    socket.set_write_timeout(Some(PATIENCE))?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let mut session = ClientConnection::new(Arc::clone(config), name).expect("a client");
    while session.is_handshaking() {
        session.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(session, socket))
}

/// Sends a request and reads a short response with a length; the session stays open.
pub(crate) fn ask(session: &mut Session, host: &str) -> std::io::Result<String> {
    ask_for(session, host, "/?k=a")
}

/// [`ask`] for this target.
pub(crate) fn ask_for(session: &mut Session, host: &str, target: &str) -> std::io::Result<String> {
    write!(session, "GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n")?;
    session.flush()?;
    let (mut text, mut byte) = (Vec::new(), [0]);
    while !text.ends_with(b"\r\n\r\n") {
        session.read_exact(&mut byte)?;
        text.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&text).to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
    session.read_exact(&mut body)?;
    text.extend(body);
    Ok(String::from_utf8_lossy(&text).into_owned())
}
