//! What the old system does, in our words: the one shape that all three languages become.
//!
//! A value that is `None` or empty was not said, and is left to our default. Comments stand above
//! what they belong to.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use http::HeaderName;

use super::notes::Notes;
use super::source::Place;
use super::tls::{Beginning, Ending};
use crate::config;
use crate::ring::Weight;
use crate::route::{HostPattern, PathPrefix};

/// One whole configuration.
#[derive(Debug, Default)]
pub(super) struct Setup {
    pub(super) comments: Vec<String>,
    pub(super) listeners: Vec<Listener>,
    pub(super) routes: Vec<Route>,
    pub(super) upstreams: Vec<Upstream>,
    pub(super) downstream: Downstream,
    pub(super) trusted_proxies: Vec<String>,
    /// These name the client in a header of the PROXY protocol, not in `X-Forwarded-For`.
    pub(super) trusted_introduce: bool,
    pub(super) threads: Option<String>,
    pub(super) access_log: Option<String>,
    pub(super) error_level: Option<&'static str>,
    pub(super) drain_timeout: Option<Duration>,
    pub(super) pool_size: Option<u64>,
}

/// A socket that clients connect to.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) address: String,
    pub(super) backlog: Option<u64>,
    /// `None`: plain HTTP. Without a certificate it is one that could not be translated.
    pub(super) tls: Option<Ending>,
    /// The port of HTTPS that all requests are sent to, and where that is said.
    pub(super) redirect: Option<(u16, Place)>,
    /// What it says comes before what others say of the same address.
    pub(super) default: bool,
    /// Where it is said.
    pub(super) place: Place,
    pub(super) ipv6_only: bool,
    /// Whose header of the PROXY protocol is believed.
    pub(super) introduced_by: Option<Vec<String>>,
    /// Where it is said that somebody's is.
    pub(super) introduced_at: Place,
    pub(super) comments: Vec<String>,
}

/// Which requests go to which upstream.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) host: HostPattern,
    pub(super) path: PathPrefix,
    pub(super) upstream: String,
    pub(super) max_body_size: Option<Size>,
    /// Only clients get through that have shown a certificate.
    pub(super) client_cert: bool,
    pub(super) comments: Vec<String>,
    pub(super) place: Place,
}

/// A number of bytes, or none that is too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    Bytes(u64),
    Off,
}

/// A group of peers.
#[derive(Clone, Debug, Default)]
pub(super) struct Upstream {
    /// As in the old configuration, until [`Setup::complete`] makes it one of ours.
    pub(super) name: String,
    pub(super) key: Vec<Source>,
    pub(super) ring: Option<Ring>,
    /// `1.25` for 125 %.
    pub(super) bounded_load: Option<String>,
    pub(super) slow_start: Option<Duration>,
    pub(super) peers: Vec<Peer>,
    pub(super) health: Health,
    pub(super) passive: Passive,
    pub(super) retry: Retry,
    pub(super) timeouts: Timeouts,
    pub(super) host_header: Option<String>,
    /// `None`: plain.
    pub(super) tls: Option<Beginning>,
    /// `h2`, or `auto` where the peer chooses, within TLS; `h2c` without.
    pub(super) protocol: Option<&'static str>,
    /// Calls by gRPC-Web reach the peers as gRPC; only with a protocol.
    pub(super) grpc_web: bool,
    /// What the peers are told in a header of the PROXY protocol.
    pub(super) introduction: Option<Introduction>,
    pub(super) comments: Vec<String>,
}

/// Where a key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Source {
    ClientIp,
    /// The octets of the address instead of its text.
    ClientOctets,
    ClientNetwork {
        v4: u8,
        v6: u8,
    },
    Header(String),
    /// The first or the last element of a header field.
    Element(String, &'static str),
    Cookie(String),
    Query(String),
    Path,
    PathAndQuery,
    Host,
    /// Those that are present, one after the other; the separator if it is not ours.
    Any(Vec<Self>, Option<&'static str>),
}

/// What the peers are told in a header of the PROXY protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Introduction {
    /// `v1` or `v2`.
    pub(super) version: &'static str,
    /// Words of ours.
    pub(super) tlvs: Vec<&'static str>,
}

/// How the old system places servers and keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ring {
    pub(super) dialect: &'static str,
    /// Values are words and numbers of ours, which need no quotes.
    pub(super) options: Vec<(&'static str, String)>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) address: String,
    /// Where another peer has the same address.
    pub(super) label: Option<String>,
    /// What the old system places it by, where that is not the address.
    pub(super) id: Option<String>,
    /// What it is asked for and must prove in TLS, where that is not what the upstream says.
    pub(super) server_name: Option<String>,
    pub(super) weight: u64,
    pub(super) comments: Vec<String>,
    pub(super) place: Place,
}

/// Probes of the peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Health {
    #[default]
    Unsaid,
    Off,
    On(Probe),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Probe {
    /// The path of an HTTP probe.
    pub(super) http: Option<String>,
    pub(super) host: Option<String>,
    pub(super) expect: Vec<String>,
    pub(super) interval: Option<Duration>,
    pub(super) timeout: Option<Duration>,
    pub(super) fall: Option<u64>,
    pub(super) rise: Option<u64>,
}

/// Ejection on failures of real requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Passive {
    #[default]
    Unsaid,
    Off,
    On {
        failures: u64,
        eject: Duration,
    },
}

/// Attempts on other peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Retry {
    /// In total; 1 is none.
    pub(super) attempts: Option<u64>,
    pub(super) timeout: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Timeouts {
    pub(super) connect: Option<Duration>,
    pub(super) first_byte: Option<Duration>,
    pub(super) read: Option<Duration>,
    pub(super) write: Option<Duration>,
    pub(super) idle: Option<Duration>,
    pub(super) tunnel: Option<Duration>,
}

/// What a client may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Downstream {
    pub(super) header_timeout: Option<Duration>,
    pub(super) keepalive: Option<Duration>,
    pub(super) keepalive_requests: Option<u64>,
    pub(super) read_timeout: Option<Duration>,
    pub(super) write_timeout: Option<Duration>,
    pub(super) max_connections: Option<u64>,
    pub(super) max_header_size: Option<u64>,
    pub(super) max_uri_length: Option<u64>,
    pub(super) max_body_size: Option<Size>,
}

impl Source {
    /// Whether a key can come from there.
    pub(super) fn is_valid(&self) -> bool {
        match self {
            Self::Header(name) | Self::Element(name, _) => {
                HeaderName::from_bytes(name.as_bytes()).is_ok()
            }
            Self::Cookie(name) => config::is_cookie_name(name),
            Self::Query(name) => config::is_query_name(name),
            Self::Any(sources, _) => sources.iter().all(Self::is_valid),
            _ => true,
        }
    }
}

impl Upstream {
    /// A server that is there twice gets a label of its own if the ring can tell the two apart; if
    /// not, it is one server here, too.
    fn tell_twins_apart(&mut self, notes: &Notes<'_>) {
        let mut seen: HashMap<(String, Option<String>), usize> = HashMap::new();
        let mut counts: HashMap<String, usize> = HashMap::new();
        for mut peer in std::mem::take(&mut self.peers) {
            match seen.entry((peer.address.clone(), peer.id.clone())) {
                Entry::Occupied(first) => {
                    self.join_twin(*first.get(), &peer, notes);
                    continue;
                }
                Entry::Vacant(place) => place.insert(self.peers.len()),
            };
            let count = counts.entry(peer.address.clone()).or_default();
            *count += 1;
            if *count > 1 {
                peer.label = Some(format!("{}-{count}", peer.address));
                // What it is placed by is still the address.
                let own = self.ring.as_ref().map(|_| peer.address.clone());
                peer.id = peer.id.or(own);
            }
            self.peers.push(peer);
        }
    }

    /// The points of nginx's twins are the same, as far as they go: together they have those of the
    /// heavier one. Where all keys move once, they have what both had.
    fn join_twin(&mut self, first: usize, twin: &Peer, notes: &Notes<'_>) {
        const ONCE: &str = "it is there more than once; once is written";
        let Some(first) = self.peers.get_mut(first) else {
            return;
        };
        let place = twin.place;
        let dialect = self.ring.as_ref().map(|ring| ring.dialect);
        let comment = if matches!(dialect, None | Some("nginx")) {
            let (one, other) = (first.weight, twin.weight);
            let both = one.saturating_add(other).min(Weight::MAX.get().into());
            first.weight = dialect.map_or(both, |_| one.max(other));
            notes.remark(place, &twin.address, ONCE)
        } else {
            let why = format!("{ONCE}, and keys will move");
            notes.gap(place, &twin.address, &why)
        };
        self.comments.push(comment);
    }
}

impl Peer {
    pub(super) fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            label: None,
            id: None,
            server_name: None,
            weight: 1,
            comments: Vec::new(),
            place: Place::default(),
        }
    }
}

impl Listener {
    pub(super) fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            backlog: None,
            tls: None,
            redirect: None,
            default: false,
            place: Place::default(),
            ipv6_only: false,
            introduced_by: None,
            introduced_at: Place::default(),
            comments: Vec::new(),
        }
    }
}

impl Listener {
    /// Takes in what is said of the same address elsewhere.
    fn join(&mut self, other: Self, notes: &Notes<'_>) {
        const MIXED: &str = "a listener sends all its requests to HTTPS or none, and others are served here; let their servers send them there";
        match (&mut self.tls, other.tls) {
            (Some(tls), Some(others)) => {
                for (what, why) in tls.join(others, other.default && !self.default) {
                    let what = format!("{} at {}", what, self.address);
                    self.comments.push(notes.gap(other.place, &what, why));
                }
            }
            (tls @ None, others @ Some(_)) => *tls = others,
            (_, None) => {}
        }
        if self.redirect.map(|(port, _)| port) != other.redirect.map(|(port, _)| port) {
            for (port, place) in self.redirect.take().into_iter().chain(other.redirect) {
                let what = format!("{} to HTTPS, port {port}", self.address);
                self.comments.push(notes.gap(place, &what, MIXED));
            }
        }
        self.default |= other.default;
        for comment in other.comments {
            if !self.comments.contains(&comment) {
                self.comments.push(comment);
            }
        }
    }
}

impl Route {
    /// Every request to `upstream`.
    pub(super) fn all(upstream: &str, place: Place) -> Self {
        Self {
            host: HostPattern::Any,
            path: PathPrefix::ROOT,
            upstream: upstream.to_owned(),
            max_body_size: None,
            client_cert: false,
            comments: Vec::new(),
            place,
        }
    }
}

impl Setup {
    /// A configuration that can be run: with at least one listener and route, with names that we
    /// allow, and nothing twice. `None` where no upstream has a peer.
    pub(super) fn complete(mut self, notes: &Notes<'_>) -> Option<Self> {
        self.upstreams
            .iter_mut()
            .for_each(|upstream| upstream.tell_twins_apart(notes));
        self.drop_empty_upstreams(notes);
        self.drop_twin_routes(notes);
        self.rename_upstreams();
        let first = self.upstreams.first()?.name.clone();
        if self.routes.is_empty() {
            let mut route = Route::all(&first, Place::default());
            route
                .comments
                .push("no route was found: say which requests go where".to_owned());
            self.routes.push(route);
        }
        self.check_tls(notes);
        self.choose_listeners(notes);
        Some(self)
    }

    fn drop_empty_upstreams(&mut self, notes: &Notes<'_>) {
        self.upstreams.retain(|upstream| !upstream.peers.is_empty());
        let names: BTreeSet<_> = self
            .upstreams
            .iter()
            .map(|upstream| upstream.name.clone())
            .collect();
        let (kept, lost): (Vec<_>, Vec<_>) = std::mem::take(&mut self.routes)
            .into_iter()
            .partition(|route| names.contains(&route.upstream));
        self.routes = kept;
        for route in lost {
            let why = "no server of it could be translated";
            self.comments
                .push(notes.gap(route.place, &route.upstream, why));
        }
    }

    /// The first of two routes for the same requests stays. Where one of them only lets clients with a
    /// certificate through, it does, too.
    fn drop_twin_routes(&mut self, notes: &Notes<'_>) {
        const STRICT: &str =
            "some of these requests needed a client's certificate, and so all do here";
        let mut seen: HashMap<(String, String), usize> = HashMap::new();
        for route in std::mem::take(&mut self.routes) {
            let requests = (route.host.to_string(), route.path.to_string());
            let place = *seen.entry(requests).or_insert(self.routes.len());
            let Some(first) = self.routes.get_mut(place) else {
                self.routes.push(route);
                continue;
            };
            if first.upstream != route.upstream {
                self.comments.push(refuse_twin(&route, notes));
            }
            if first.client_cert != route.client_cert {
                let what = format!("host {}, path {}", route.host, route.path);
                let comment = notes.gap(route.place, &what, STRICT);
                first.comments.push(comment);
                first.client_cert = true;
            }
        }
    }

    /// Names stand in URLs and metrics, so not every character is allowed.
    fn rename_upstreams(&mut self) {
        let mut taken = HashSet::new();
        for upstream in &mut self.upstreams {
            let new = free_name(&allowed_name(&upstream.name), &taken);
            taken.insert(new.clone());
            for route in self
                .routes
                .iter_mut()
                .filter(|route| route.upstream == upstream.name)
            {
                route.upstream.clone_from(&new);
            }
            upstream.name = new;
        }
    }

    /// One listener of each address. One whose certificates could not be translated is left out, and if
    /// no other is there, one on loopback stands in for it.
    fn choose_listeners(&mut self, notes: &Notes<'_>) {
        let mut places: HashMap<String, usize> = HashMap::new();
        for listener in std::mem::take(&mut self.listeners) {
            match places.entry(listener.address.clone()) {
                Entry::Vacant(place) => {
                    place.insert(self.listeners.len());
                    self.listeners.push(listener);
                }
                Entry::Occupied(place) => {
                    if let Some(first) = self.listeners.get_mut(*place.get()) {
                        first.join(listener, notes);
                    }
                }
            }
        }
        let bare = |listener: &Listener| {
            let tls = listener.tls.as_ref();
            tls.is_some_and(|tls| tls.certificates.is_empty())
        };
        let (bare, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.listeners)
            .into_iter()
            .partition(bare);
        self.comments
            .extend(bare.into_iter().flat_map(|listener| listener.comments));
        self.listeners = kept;
        self.share_ports();
        if self.listeners.is_empty() {
            let mut listener = Listener::new("127.0.0.1:8080");
            listener
                .comments
                .push("no listener could be translated: say where clients connect".to_owned());
            self.listeners.push(listener);
        }
    }
}

impl Setup {
    /// Where IPv4 has a listener of its own on a port, that of `[::]` is IPv6's.
    fn share_ports(&mut self) {
        let port = |address: &str| address.rsplit_once(':').map(|(_, port)| port.to_owned());
        let v4 = self
            .listeners
            .iter()
            .filter(|one| !one.address.starts_with('['));
        let ports: HashSet<_> = v4.filter_map(|one| port(&one.address)).collect();
        for listener in &mut self.listeners {
            let both = listener.address.starts_with("[::]:");
            let shared = port(&listener.address).is_some_and(|port| ports.contains(&port));
            listener.ipv6_only |= both && shared;
        }
    }
}

fn refuse_twin(route: &Route, notes: &Notes<'_>) -> String {
    let what = format!("host {}, path {}", route.host, route.path);
    let why = format!(
        "these requests already go elsewhere; here it was `{}`",
        route.upstream
    );
    notes.gap(route.place, &what, &why)
}

fn allowed_name(name: &str) -> String {
    const MAX: usize = 56;
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let shown: String = name
        .chars()
        .take(MAX)
        .map(|c| if good(c) { c } else { '-' })
        .collect();
    let trimmed = shown.trim_matches('-');
    if trimmed.is_empty() {
        "app".to_owned()
    } else {
        trimmed.to_owned()
    }
}

fn free_name(name: &str, taken: &HashSet<String>) -> String {
    let numbered = (2..).map(|number| format!("{name}-{number}"));
    let mut names = std::iter::once(name.to_owned()).chain(numbered);
    names.find(|name| !taken.contains(name)).unwrap_or_default()
}
