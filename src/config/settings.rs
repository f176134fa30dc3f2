//! The resolved configuration: what the operator wrote, checked, with every default filled in.
//!
//! Everything here is a domain value (an address, a duration, a weight), never text that
//! somebody has to parse later. `resolve` is the only place that makes these; after it,
//! nothing about the configuration can be wrong but the world outside (a port that is taken, a
//! name that does not resolve).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;
use rustls_pki_types::CertificateDer;

use super::acme::{AcmeConfig, DomainNames, Secret};
use super::upstream_protocol::{PeerTlsConfig, TransportConfig};
use crate::certificate::{CertFile, CertWarning, Certificate, Identity, RevocationLists};
use crate::client_addr::TrustedProxies;
use crate::key::KeySource;
use crate::policy::bounded_load::BalanceFactor;
use crate::policy::flap_damping;
use crate::policy::heavy_hitters::HotKeyThreshold;
use crate::policy::hot_key_spread::HotKeySpread;
use crate::predict::LoadRules;
use crate::proxy_protocol::ProxyHeaderVersion;
use crate::ring::{Dialect, Member, Weight};
use crate::route::RouteMatch;

/// One whole configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Where clients connect; at least one.
    pub listeners: Vec<ListenerConfig>,
    /// Which request goes to which upstream; at least one.
    pub routes: Vec<RouteConfig>,
    /// The groups of peers, by name.
    pub upstreams: BTreeMap<String, UpstreamConfig>,
    /// What a client may do, and for how long.
    pub downstream: DownstreamConfig,
    /// What is told to the peers about the client.
    pub forwarding: ForwardingConfig,
    /// Networks whose `X-Forwarded-For` is believed; empty: nobody's.
    pub trusted_proxies: Vec<IpNet>,
    /// The admin HTTP server; `None`: off.
    pub admin: Option<AdminConfig>,
    /// Worker threads; `None`: one per core.
    pub threads: Option<NonZeroUsize>,
    /// One line per request.
    pub access_log: AccessLogConfig,
    /// What the process says about itself, on stderr.
    pub error_log: ErrorLogConfig,
    /// The Unix socket of `clockwise status`, `drain`, …; `None`: the runtime directory's default.
    pub control: Option<PathBuf>,
    /// How long a stopping process waits for its connections before it cuts them.
    pub drain_timeout: Duration,
    /// How long a new process may take to take over from this one; above zero.
    pub upgrade_timeout: Duration,
    /// How often the configuration's file is looked at for changes, which are then put in force;
    /// `None`: never, only when asked to.
    pub watch: Option<Duration>,
    /// Where drains and health outlive the process; `None`: they end with it.
    pub state_file: Option<StateFileConfig>,
    /// Idle upstream connections kept for reuse, per worker thread.
    pub pool_size: usize,
    /// How certificates are ordered; `None`: none are.
    pub acme: Option<AcmeConfig>,
    /// What the files that the listeners name held when this was loaded.
    pub credentials: Credentials,
}

/// A socket that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Where it is bound.
    pub address: ListenAddress,
    /// How its socket is made.
    pub socket: SocketOptions,
    /// Who says with a header of the PROXY protocol whose connections these are; `None`: nobody does.
    pub proxy_protocol: Option<AcceptProxyConfig>,
    /// Connections that the kernel may queue before they are accepted (`listen(2)`); the system's
    /// `net.core.somaxconn` caps it.
    pub backlog: u32,
    /// What its connections are encrypted with; `None`: they are not.
    pub tls: Option<TlsConfig>,
    /// Where they are not, clients may begin with HTTP/2.
    pub h2c: bool,
    /// Every request is sent on to HTTPS on this port; `None`: it is served.
    pub https_redirect: Option<u16>,
}

impl ListenerConfig {
    /// A plain one at this address, with every option as it is where nothing is written.
    pub fn plain(address: SocketAddr, backlog: u32) -> Self {
        Self {
            address: ListenAddress::Ip(address),
            socket: SocketOptions::default(),
            proxy_protocol: None,
            backlog,
            tls: None,
            h2c: false,
            https_redirect: None,
        }
    }
}

/// Where a listener is bound.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenAddress {
    /// An IP address and a TCP port; port 0 lets the system choose.
    Ip(SocketAddr),
    /// The file of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// How a listener's socket is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// An IPv6 socket takes no IPv4; `None`: not written, as if `false`.
    pub ipv6_only: Option<bool>,
    /// Other processes of the same user may bind the same address (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// The address need not be this machine's yet (`IP_FREEBIND`).
    pub freebind: bool,
    /// Who may connect to a Unix socket.
    pub access: SocketAccess,
}

/// Who may connect to a Unix socket: the mode, owner and group of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketAccess {
    /// Permission bits, at most 0o777.
    pub mode: u32,
    /// `None`: who runs the process.
    pub owner: Option<UnixAccount>,
    /// `None`: the group of who runs the process.
    pub group: Option<UnixAccount>,
}

impl SocketAccess {
    /// For the owner and the group, as it is between two programs that know of each other.
    pub const MODE: u32 = 0o660;
}

impl Default for SocketAccess {
    fn default() -> Self {
        Self {
            mode: Self::MODE,
            owner: None,
            group: None,
        }
    }
}

/// A user or group of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnixAccount {
    /// By number.
    Id(u32),
    /// By name; looked up when the socket is made.
    Name(String),
}

/// Who says whose connections these are (the PROXY protocol), and what becomes of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptProxyConfig {
    /// Networks that are believed, and must say it. On a Unix socket everybody is.
    pub from: TrustedProxies,
    /// How long a whole header may take; above zero.
    pub timeout: Duration,
    /// Who connects from elsewhere is served without a header; else its connection is closed.
    pub accept_untrusted: bool,
}

/// What a peer is told of each connection, in a header of the PROXY protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SendProxyConfig {
    /// How it is written.
    pub version: ProxyHeaderVersion,
    /// What is said besides the addresses; version 1 says nothing else.
    pub tlvs: Vec<TlvKind>,
}

/// What a peer is told of a connection besides the addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlvKind {
    /// The name that the client asked for in TLS.
    Authority,
    /// The protocol that was agreed on in TLS.
    Alpn,
    /// Version and cipher of TLS, and whom the client's certificate is for.
    Tls,
    /// What the connection is called: by who passed it on to us, else the id of the request.
    UniqueId,
    /// The header's checksum.
    Checksum,
}

/// How a listener speaks TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// What a client may be shown, by the name it asks for; at least one, the first for all others.
    pub certificates: Vec<CertificateSource>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// How long a handshake may take in all; above zero.
    pub handshake_timeout: Duration,
    /// Clients may speak HTTP/2 inside.
    pub http2: bool,
    /// Clients are asked for a certificate; `None`: they are not.
    pub client_auth: Option<ClientAuthConfig>,
    /// `Strict-Transport-Security` (RFC 6797) in every response; `None`: what the peers send.
    pub hsts: Option<HstsConfig>,
}

/// For how long browsers ask for nothing but HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HstsConfig {
    /// From each response on; zero ends it.
    pub max_age: Duration,
    /// Also for all names below.
    pub subdomains: bool,
    /// May be built into browsers.
    pub preload: bool,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2 (RFC 5246).
    Tls12,
    /// 1.3 (RFC 8446).
    Tls13,
}

/// Where a certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateSource {
    /// The operator has put it there.
    Files(CertificateFiles),
    /// It is ordered for these names ([`Config::acme`]).
    Acme(DomainNames),
}

/// Where a certificate lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateFiles {
    /// PEM: the server's certificate, then those of its issuers.
    pub cert: PathBuf,
    /// PEM: its private key.
    pub key: PathBuf,
    /// DER: an OCSP response that is sent along (RFC 6066, 8); `None`: none is.
    pub ocsp: Option<PathBuf>,
}

/// How clients prove who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthConfig {
    /// A client without a certificate is turned away.
    pub required: bool,
    /// PEM: the issuers whose certificates count.
    pub ca: PathBuf,
    /// PEM: what they have revoked; `None`: nothing is looked up.
    pub crl: Option<PathBuf>,
}

/// What the files for TLS held when the configuration was loaded. Empty where only its text was read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Credentials {
    /// The servers' certificates.
    pub certificates: BTreeMap<CertificateFiles, Certificate>,
    /// What peers are shown.
    pub identities: BTreeMap<CertificateFiles, Identity>,
    /// The issuers of the clients' certificates, and of the peers'.
    pub issuers: BTreeMap<PathBuf, Vec<CertificateDer<'static>>>,
    /// What they have revoked.
    pub crls: BTreeMap<PathBuf, RevocationLists>,
    /// The key of [`ExternalAccount`](super::ExternalAccount).
    pub external_account: Option<Secret>,
}

impl Credentials {
    /// What there is to say of them at this time (seconds since 1970), each with its file.
    pub fn warnings(&self, now: i64) -> impl Iterator<Item = (&Path, CertWarning)> {
        let shown = self.identities.iter();
        let shown = shown.map(|(files, identity)| (files, &identity.certificate));
        let certificates = self.certificates.iter().chain(shown);
        let certificates = certificates.flat_map(move |(files, read)| {
            let concerns = read.warnings(now);
            concerns.map(|concern| (files.file_for(concern.file()), concern))
        });
        let crls = self.crls.iter();
        let crls = crls.filter_map(move |(file, read)| Some((file.as_path(), read.warning(now)?)));
        certificates.chain(crls)
    }
}

impl CertificateFiles {
    /// The file of a part; of an OCSP response that there is none of, the certificate's.
    fn file_for(&self, part: CertFile) -> &Path {
        match part {
            CertFile::Key => &self.key,
            CertFile::Ocsp => self.ocsp.as_ref().unwrap_or(&self.cert),
            CertFile::Chain => &self.cert,
        }
    }
}

impl Config {
    /// Whether clients of the listener with this address may begin with HTTP/2.
    pub fn allows_h2c(&self, address: &ListenAddress) -> bool {
        let listener = self.listeners.iter().find(|one| one.address == *address);
        listener.is_some_and(|listener| listener.h2c)
    }

    /// The files that are read when the configuration is loaded, besides its own.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let tls = self.listeners.iter().filter_map(|one| one.tls.as_ref());
        let links = self.upstreams.values().map(|upstream| &upstream.transport);
        let peers = links.filter_map(|link| link.tls.as_ref());
        let acme = self.acme.iter().flat_map(AcmeConfig::files);
        tls.flat_map(TlsConfig::files)
            .chain(peers.flat_map(PeerTlsConfig::files))
            .chain(acme)
    }

    /// The certificates that are to be ordered, each once.
    pub fn acme_certificate_names(&self) -> BTreeSet<&DomainNames> {
        let tls = self.listeners.iter().filter_map(|one| one.tls.as_ref());
        let sources = tls.flat_map(|tls| &tls.certificates);
        let names = sources.filter_map(|source| match source {
            CertificateSource::Files(_) => None,
            CertificateSource::Acme(names) => Some(names),
        });
        names.collect()
    }
}

impl TlsConfig {
    fn files(&self) -> impl Iterator<Item = &Path> {
        let files = self.certificates.iter().filter_map(|source| match source {
            CertificateSource::Files(files) => Some(files),
            CertificateSource::Acme(_) => None,
        });
        let certificates = files.flat_map(|files| {
            let ocsp = files.ocsp.as_deref();
            [files.cert.as_path(), &files.key].into_iter().chain(ocsp)
        });
        let clients = self.client_auth.iter();
        let clients = clients.flat_map(|auth| [Some(auth.ca.as_path()), auth.crl.as_deref()]);
        certificates.chain(clients.flatten())
    }
}

/// What a request must look like, and what is then done with it.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfig {
    /// Host, path and methods.
    pub matches: RouteMatch,
    /// The name of an upstream that exists.
    pub upstream: String,
    /// Overrides [`Downstream::max_body_size`]; outer `None`: not set, inner `None`: no limit.
    pub max_body_size: Option<Option<u64>>,
    /// Only clients that have shown a certificate may take it, on whichever listener they come.
    pub client_cert: bool,
}

/// A named group of peers that share policy.
#[derive(Clone, Debug, PartialEq)]
pub struct UpstreamConfig {
    /// Where the key comes from: the first source that is present.
    pub key: Vec<KeySource>,
    /// What happens when no source is present.
    pub missing_key: MissingKey,
    /// How labels and keys are placed on the ring.
    pub dialect: Dialect,
    /// The servers; at least one, labels unique.
    pub peers: Vec<PeerConfig>,
    /// Active probes; `None`: off, every peer counts as up.
    pub health: Option<HealthConfig>,
    /// Ejection on failures of real traffic; `None`: off.
    pub outlier_detection: Option<OutlierDetectionConfig>,
    /// How failed attempts are repeated on other peers.
    pub retry: RetryConfig,
    /// How long each step of an exchange with a peer may take.
    pub timeouts: TimeoutsConfig,
    /// The `Host` that a peer is sent.
    pub host_header: HostHeader,
    /// What a peer is told of each connection before its first request; `None`: nothing.
    pub proxy_protocol: Option<SendProxyConfig>,
    /// The largest share of the keys that a reload may move between peers, 0.0 ..= 1.0; one that
    /// would move more is refused. `None`: no limit.
    pub max_moved: Option<f64>,
    /// How far above its fair share of the requests in flight a peer may be; `None`: as far as its
    /// keys take it.
    pub bounded_load: Option<BoundedLoadConfig>,
    /// How a peer that comes back, or is new, gets its keys; `None`: all at once.
    pub slow_start: Option<SlowStartConfig>,
    /// Which keys a draining peer keeps for a while; `None`: none.
    pub drain: Option<SessionDrainConfig>,
    /// Which keys have too many requests for one peer, and go to several; `None`: none.
    pub hot_keys: Option<HotKeysConfig>,
    /// How a peer that comes and goes is kept off the ring; `None`: it is not.
    pub flap_damping: Option<flap_damping::FlapDampingPolicy>,
    /// When long streams on a peer that no longer owns their key are closed; `None`: never.
    pub close_moved_streams: Option<MovedStreamsConfig>,
    /// How its peers are spoken to.
    pub transport: TransportConfig,
    /// Whether calls by gRPC-Web reach them as gRPC.
    pub grpc_web: bool,
}

/// How far above its fair share of the requests in flight a peer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundedLoadConfig {
    /// So many times the fair share.
    pub factor: BalanceFactor,
    /// How long a request may wait for a place at its home; `None`: it goes on at once.
    pub wait: Option<Duration>,
}

/// How a peer that comes back, or is new, gets its keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowStartConfig {
    /// From its first key to its last: 1 s to a day.
    pub duration: Duration,
    /// Whether what is there when the process starts is as cold as what comes a moment later, so that a
    /// peer that comes so much later takes only so long; else it is warm.
    pub at_start: bool,
}

/// Which keys a draining peer keeps, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionDrainConfig {
    /// A key moves when it had no request for so long.
    pub idle: Duration,
    /// All keys have moved so long after the drain's begin.
    pub deadline: Duration,
    /// How many active keys of the upstream are remembered, about; 16 bytes each.
    pub max_tracked_keys: u32,
}

/// Which keys are hot, and over how many peers they go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotKeysConfig {
    /// The share of the upstream's requests from which on a key is hot.
    pub threshold: HotKeyThreshold,
    /// The least number of peers that it goes to.
    pub spread: HotKeySpread,
}

/// When long streams on a peer that no longer owns their key are closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MovedStreamsConfig {
    /// How long after their key has moved.
    pub after: Duration,
    /// How many in a second, at most.
    pub per_second: u32,
}

/// One server of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Where it listens.
    pub address: PeerAddress,
    /// Its name, unique in its upstream; places it on the ring where there is no `id`.
    pub label: String,
    /// How much of the key space it gets, relative to the others.
    pub weight: Weight,
    /// What the ring's dialect hashes for it, where that is not the label.
    pub id: Option<String>,
    /// The name that it is asked for in TLS and must prove, or its IP address; `None`: the one that
    /// the client asked for, or no TLS.
    pub server_name: Option<String>,
}

impl UpstreamConfig {
    /// The peers as the ring takes them.
    pub fn members(&self) -> impl Iterator<Item = Member<'_>> {
        self.peers.iter().map(PeerConfig::member)
    }

    /// What keeps requests from their home. A slow start is not in it: to a prediction it is over.
    pub fn rules(&self) -> LoadRules {
        LoadRules {
            bound: self.bounded_load.map(|load| load.factor),
            hot_keys: self.hot_keys.map(|hot| (hot.threshold, hot.spread)),
        }
    }

    /// Whether a key has the same hash in both.
    pub fn hashes_like(&self, other: &Self) -> bool {
        self.key == other.key && self.dialect.hashes_keys_like(other.dialect)
    }
}

impl PeerConfig {
    /// The peer as the ring takes it.
    pub fn member(&self) -> Member<'_> {
        Member {
            label: &self.label,
            id: self.id.as_deref(),
            weight: self.weight,
        }
    }
}

/// Where a peer listens: an address, or a name that is looked up when the configuration is loaded.
/// As text it is what an operator writes.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum PeerAddress {
    /// A literal IP address and port.
    Ip(SocketAddr),
    /// A host name and port.
    Name(String, u16),
    /// The absolute path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name(name, port) => write!(f, "{name}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What happens to a request that has none of the upstream's key sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingKey {
    /// It goes to the available peers in turn.
    RoundRobin,
    /// It is answered 400.
    Reject,
}

/// Active probes of every peer.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthConfig {
    /// What is asked.
    pub probe: ProbeConfig,
    /// Time from the start of one probe to the start of the next; each is moved by up to ±10 %.
    pub interval: Duration,
    /// The longest that one whole probe may take.
    pub timeout: Duration,
    /// Failed probes in a row that take an up peer down; at least 1.
    pub fall: u32,
    /// Passed probes in a row that bring a down peer up; at least 1.
    pub rise: u32,
}

/// What a probe asks of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeConfig {
    /// That it accepts a connection, and proves who it is where it has to.
    Tcp,
    /// That it answers a GET.
    Http {
        /// The path and query that are asked for; begins with `/`.
        path: String,
        /// The `Host` sent; `None`: the peer's address as written.
        host: Option<HeaderValue>,
        /// The statuses that pass, both ends included.
        expect: Vec<(u16, u16)>,
    },
    /// That it says `SERVING` when asked by gRPC's own protocol for that (`grpc.health.v1`).
    Grpc {
        /// The service that is asked for; empty: the server as a whole.
        service: String,
        /// The `:authority` sent; `None`: the peer's address as written.
        host: Option<HeaderValue>,
    },
}

/// Ejection of a peer on failures of real traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutlierDetectionConfig {
    /// Failed connects in a row that eject a peer; at least 1.
    pub failures: u32,
    /// How long the first ejection lasts; each repetition doubles it.
    pub eject: Duration,
    /// The longest ejection.
    pub max_eject: Duration,
}

/// How failed attempts are repeated on other peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryConfig {
    /// Attempts in total, the first included; 1 ..= 16.
    pub attempts: u32,
    /// No further attempt starts later than this after the first one started.
    pub timeout: Duration,
}

/// How long each step of an exchange with a peer may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutsConfig {
    /// Until the connection stands.
    pub connect: Duration,
    /// From the request's last byte to the response's header.
    pub first_byte: Duration,
    /// Between two reads of a response body.
    pub read: Duration,
    /// The same, where a body is silent by nature: of gRPC in either direction, and of event streams.
    pub stream: Duration,
    /// For one write of the request.
    pub write: Duration,
    /// How long an unused connection is kept; keep it below the peer's own keep-alive timeout.
    pub idle: Duration,
    /// After a protocol upgrade (WebSocket).
    pub tunnel: TunnelTimeoutsConfig,
}

/// How long a tunnel may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelTimeoutsConfig {
    /// Without a byte in either direction.
    pub idle: Duration,
    /// From its beginning to its end; `None`: no limit.
    pub total: Option<Duration>,
}

/// The `Host` that a peer is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostHeader {
    /// The one the client sent.
    Keep,
    /// The peer's address as written in the configuration.
    Peer,
    /// This one.
    Set(HeaderValue),
}

/// What a client may do, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DownstreamConfig {
    /// From a request's first byte (or the accept) to the end of its header.
    pub header_timeout: Duration,
    /// How long a connection may be idle between two requests.
    pub keepalive: Duration,
    /// Requests on one connection; `None`: no limit.
    pub keepalive_requests: Option<u32>,
    /// Requests at once on one connection of HTTP/2.
    pub max_streams: u32,
    /// Between two reads of a request body.
    pub read_timeout: Duration,
    /// For one write of the response.
    pub write_timeout: Duration,
    /// A whole request, from its header's end to the response's end; `None`: no limit.
    pub request_timeout: Option<Duration>,
    /// Connections at once, all listeners together; `None`: no limit.
    pub max_connections: Option<usize>,
    /// Connections at once of one client, all listeners together; `None`: no limit.
    pub per_client: Option<PerClientLimitConfig>,
    /// Bytes of request line and header fields; above it 431.
    pub max_header_size: usize,
    /// Bytes of the request target; above it 414.
    pub max_uri_length: usize,
    /// Bytes of a request body; above it 413; `None`: no limit.
    pub max_body_size: Option<u64>,
}

impl DownstreamConfig {
    /// What holds where the operator wrote nothing.
    pub const DEFAULT: Self = Self {
        header_timeout: Duration::from_secs(10),
        keepalive: Duration::from_secs(60),
        keepalive_requests: None,
        max_streams: 100,
        read_timeout: Duration::from_secs(60),
        write_timeout: Duration::from_secs(60),
        request_timeout: None,
        max_connections: None,
        per_client: None,
        max_header_size: 32 * 1024,
        max_uri_length: 8 * 1024,
        max_body_size: None,
    };
}

/// How many connections one client may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerClientLimitConfig {
    /// At once; at least 1.
    pub limit: u32,
    /// Bits of an IPv4 address that tell one client from another; at most 32.
    pub v4_prefix: u8,
    /// Bits of an IPv6 address that do; at most 128. Who has one such address has a network of 64 bits.
    pub v6_prefix: u8,
}

impl PerClientLimitConfig {
    /// What holds where only a limit is written.
    pub const DEFAULT: Self = Self {
        limit: u32::MAX,
        v4_prefix: 32,
        v6_prefix: 64,
    };
}

/// What is told to the peers about the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardingConfig {
    /// `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
    pub x_forwarded: bool,
    /// `Forwarded` (RFC 7239).
    pub forwarded: bool,
    /// `Client-Cert` (RFC 9440): the certificate that the client showed.
    pub client_cert: bool,
    /// The header that carries the request id; `None`: none is sent.
    pub request_id: Option<HeaderName>,
}

/// The admin HTTP server. Its debug output keeps the token secret.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// The address to bind.
    pub address: SocketAddr,
    /// Asked for as `Authorization: Bearer …`; must be set where the address is not loopback.
    pub token: Option<String>,
}

impl fmt::Debug for AdminConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "…");
        f.debug_struct("Admin")
            .field("address", &self.address)
            .field("token", &token)
            .finish()
    }
}

/// Where the access log goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogConfig {
    /// No access log.
    Off,
    /// Standard output.
    Stdout,
    /// A file, appended to, reopened on SIGUSR1.
    File(PathBuf),
}

/// What the process says about itself, on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorLogConfig {
    /// The least severe message that is written.
    pub level: log::LevelFilter,
}

/// The file by which a cold restart remembers drains and health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFileConfig {
    /// Replaced as a whole with every change, so its directory must be writable.
    pub path: PathBuf,
    /// How old the file may be at a start; an older one tells too little about now and is left alone.
    pub max_age: Duration,
}
