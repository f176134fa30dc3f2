//! Let's Encrypt's test authority `pebble` (Debian's package), with its own DNS.
//!
//! It validates every name at [`Pebble::http`] and [`Pebble::tls`], the listeners of the instance under test,
//! unless a test points a name elsewhere.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore, ServerConfig, ServerConnection};
use serde_json::{Value, json};

use super::curl::curl;
use super::edge::ConfigBuilder;
use super::process::Process;
use super::tls::{self, Authority, Session};
use super::wait::PATIENCE;
use super::{port, wait};

/// The key of the account `kid-1`, base64url.
pub(crate) const ACCOUNT_KEY: &str =
    "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

/// An authority with its DNS.
pub(crate) struct Pebble {
    /// The address of http-01 validations.
    pub(crate) http: SocketAddr,
    /// The address of tls-alpn-01 validations.
    pub(crate) tls: SocketAddr,
    address: SocketAddr,
    management: SocketAddr,
    dns: SocketAddr,
    options: Options,
    /// Issues the certificates of the authority's own servers.
    authority: Authority,
    running: Option<Process>,
    _names: Process,
}

/// Deviations from the default behaviour.
#[derive(Clone, Copy, Default)]
pub(crate) struct Options {
    /// The lifetime of certificates, in seconds.
    pub(crate) life: Option<u32>,
    /// Requires external account binding.
    pub(crate) closed: bool,
    /// The percentage of valid nonces that are rejected.
    pub(crate) bad_nonces: u32,
}

impl Pebble {
    pub(crate) fn start() -> Self {
        Self::with(Options::default())
    }

    pub(crate) fn with(options: Options) -> Self {
        let authority = Authority::new();
        let [http, tls, address, management, dns, names] = [(); 6].map(|()| port::free());
        authority.issue("pebble", &[&address.ip().to_string()]);
        let home = http.ip().to_string();
        let mut command = Command::new("pebble-challtestsrv");
        command
            .args([
                "-management",
                &dns.to_string(),
                "-dns01",
                &names.to_string(),
            ])
            .args(["-defaultIPv4", &home, "-defaultIPv6", ""])
            .args(["-http01", "", "-https01", "", "-tlsalpn01", ""]);
        let dns_server = Process::spawn(&mut command);
        let mut pebble = Self {
            http,
            tls,
            address,
            management,
            dns,
            options,
            authority,
            running: None,
            _names: dns_server,
        };
        pebble.write_config(names);
        pebble.resume();
        pebble
    }

    /// Starts it again, without any state: accounts and its own keys are lost.
    pub(crate) fn resume(&mut self) {
        let mut command = Command::new("pebble");
        command
            .arg("-config")
            .arg(self.authority.path("pebble.json"))
            .args(["-strict", "-dnsserver"])
            .arg(fs::read_to_string(self.authority.path("dns")).expect("written"))
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .env(
                "PEBBLE_WFE_NONCEREJECT",
                self.options.bad_nonces.to_string(),
            );
        self.running = Some(Process::spawn(&mut command));
        // It makes RSA keys at its start, which is slow on a busy machine.
        wait::until_due(Duration::from_secs(60), "pebble to answer", || {
            self.ask("/roots/0").is_some()
        });
        wait::until("its DNS to answer", || {
            self.try_tell("clear-a", &json!({"host": "nobody.test"}))
        });
    }

    /// Stops it.
    pub(crate) fn stop(&mut self) {
        self.running = None;
    }

    fn write_config(&self, names: SocketAddr) {
        let file = |name: &str| self.authority.path(name).display().to_string();
        let mut config = json!({
            "listenAddress": self.address.to_string(),
            "managementListenAddress": self.management.to_string(),
            "certificate": file("pebble.crt"),
            "privateKey": file("pebble.key"),
            "httpPort": self.http.port(),
            "tlsPort": self.tls.port(),
            "externalAccountBindingRequired": self.options.closed,
        });
        if let Some(life) = self.options.life {
            config["certificateValidityPeriod"] = life.into();
        }
        if self.options.closed {
            config["externalAccountMACKeys"] = json!({"kid-1": ACCOUNT_KEY});
        }
        fs::write(file("pebble.json"), json!({"pebble": config}).to_string()).unwrap();
        fs::write(file("dns"), names.to_string()).unwrap();
    }

    /// A file in the authority's directory.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.authority.path(file)
    }

    /// Adds to `site` a plain and a TLS listener at the validation addresses, the latter with these
    /// certificates, and the section `acme` with more keys.
    pub(crate) fn site(
        &self,
        site: ConfigBuilder,
        certificates: &str,
        more: &str,
    ) -> ConfigBuilder {
        let (http, tls) = (self.http, self.tls);
        let listeners = format!(
            "[{{address: \"{tls}\", tls: {certificates}}}, {{address: \"{http}\", https_redirect: {}}}]",
            tls.port()
        );
        site.top("listeners", &listeners)
            .top("acme", &self.acme(more))
    }

    /// The section `acme`.
    pub(crate) fn acme(&self, more: &str) -> String {
        let ca = self.authority.path("ca.crt");
        format!(
            "{{directory: \"https://{}/dir\", contact: [mailto:ops@example.test], storage: acme, ca: {}{more}}}",
            self.address,
            ca.display()
        )
    }

    /// Starts a second directory with renewal information (RFC 9773), which this version of pebble lacks. It
    /// suggests this window for every certificate. Returns its address.
    pub(crate) fn suggest(&self, start: &str, end: &str) -> SocketAddr {
        let address = port::free();
        self.authority.issue("front", &[&address.ip().to_string()]);
        let terms = self.authority.server("front");
        let url = format!("https://{}/dir", self.address);
        let directory = self.get(&url).expect("a directory");
        let mut directory: Value = serde_json::from_slice(&directory).unwrap();
        directory["renewalInfo"] = format!("https://{address}/renewal").into();
        let window = json!({"suggestedWindow": {"start": start, "end": end}});
        let listener = TcpListener::bind(address).expect("a free port");
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                // A client that disconnects is no failure.
                let _ = answer(socket, &terms, &directory, &window);
            }
        });
        address
    }

    /// The directory's name in the storage.
    pub(crate) fn folder(&self) -> String {
        format!("{}-dir", self.address).replace(':', "-")
    }

    /// Points a name to this address from now on.
    pub(crate) fn point(&self, name: &str, address: &str) {
        let accepted = self.try_tell("add-a", &json!({"host": name, "addresses": [address]}));
        assert!(accepted, "the DNS accepts the record");
    }

    /// Points a name to the instance again.
    pub(crate) fn point_home(&self, name: &str) {
        assert!(
            self.try_tell("clear-a", &json!({"host": name})),
            "the DNS takes it"
        );
    }

    fn try_tell(&self, what: &str, of: &Value) -> bool {
        let url = format!("http://{}/{what}", self.dns);
        let mut command = curl();
        let output = command
            .args(["--fail", "--data", &of.to_string(), &url])
            .output();
        output.expect("curl").status.success()
    }

    /// Requests a path of pebble's management interface; `None` on failure.
    fn ask(&self, path: &str) -> Option<Vec<u8>> {
        self.get(&format!("https://{}{path}", self.management))
    }

    fn get(&self, url: &str) -> Option<Vec<u8>> {
        let mut command = curl();
        command
            .args(["--fail", "--cacert"])
            .arg(self.authority.path("ca.crt"))
            .arg(url);
        let output = command.output().expect("curl");
        output.status.success().then_some(output.stdout)
    }

    /// True if a certificate is revoked.
    pub(crate) fn has_revoked(&self, certificate: &CertificateDer<'_>) -> bool {
        use x509_parser::prelude::{FromDer as _, X509Certificate};
        let (_, parsed) = X509Certificate::from_der(certificate).unwrap();
        let serial = parsed.raw_serial_as_string().replace(':', "");
        let status = self.ask(&format!("/cert-status-by-serial/{serial}"));
        let status: Value = serde_json::from_slice(&status.expect("it knows it")).unwrap();
        status["Status"] == "Revoked"
    }

    /// A client that trusts the authority and resumes no sessions, so that every handshake shows a certificate.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        let root = self.ask("/roots/0").expect("a root");
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(&root).unwrap())
            .unwrap();
        let builder = tls::builder().with_root_certificates(roots);
        let mut client = builder.with_no_client_auth();
        client.resumption = Resumption::disabled();
        Arc::new(client)
    }

    /// Waits until the instance presents a certificate of this authority for `name`.
    pub(crate) fn wait_for(&self, client: &Arc<ClientConfig>, name: &str) -> Session {
        wait::value(&format!("a certificate for {name}"), || {
            tls::connect(client, name, self.tls).ok()
        })
    }
}

/// Handles one request to the directory.
fn answer(
    mut socket: TcpStream,
    terms: &Arc<ServerConfig>,
    directory: &Value,
    window: &Value,
) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut session = ServerConnection::new(Arc::clone(terms)).expect("a server");
    let mut stream = rustls::Stream::new(&mut session, &mut socket);
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    let body = if head.starts_with(b"GET /dir ") {
        directory
    } else {
        window
    };
    let body = body.to_string();
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nRetry-After: 3600\r\n\r\n{body}"
    )?;
    session.send_close_notify();
    session.complete_io(&mut socket).map(drop)
}

/// The certificate that the server presented in this session.
pub(crate) fn shown(session: &Session) -> CertificateDer<'static> {
    let chain = session.conn.peer_certificates().expect("a certificate");
    chain[0].clone().into_owned()
}
