//! TLS and HTTP/2 to servers.
//!
//! All servers of an upstream are spoken to alike, but for the name that each must prove.

use std::net::IpAddr;

use super::proxy::Proxy;
use super::server::Server;
use super::syntax::{Line, Word};
use super::tls::{Global, OWN, Versions};
use crate::config;
use crate::migrate::model::{Health, Upstream};
use crate::migrate::notes::Notes;
use crate::migrate::source::Place;
use crate::migrate::tls::{Beginning, can_be_proven};

const ALIKE: &str = "all servers of an upstream are spoken to alike (`tls`, `protocol`); give this one an upstream of its own";
const UNVERIFIED: &str =
    "as there, no certificate is verified: whoever is on the way can read and change everything";
const SYSTEM: &str =
    "HAProxy verifies by a `ca-file`, and none is named; here the system's authorities count";
const NO_USE: &str = "the file has no use where nothing is verified, and is left out";
const UNPROVEN: &str = "HAProxy looks at who issued a certificate and at no name in it; here a server must prove one, that in its address unless `server_name` says another";
const UNNAMED: &str = "HAProxy looks at who issued a certificate and at no name in it; here a server must prove one: its address is written, give the name that its certificate is for";
const SNI: &str =
    "the name that is asked for is a fixed one or the client's `Host`; give it as `server_name`";
const BOTH: &str =
    "the name that is asked for is the one that must be proven; that of `verifyhost` is written";
const HOST: &str = "it is the client's `Host` that is asked for";
const NO_NAME: &str = "a certificate cannot be for it; give the name as `server_name`";
const FILE: &str = "give the path of one file";
const CA: &str = "give the path of one file; until then the system's authorities count";
const CRL: &str = "whether a server's certificate was revoked is not looked at";
const HTTP1: &str = "where a server does not choose it, HTTP/1.1 is spoken";
const PROBE: &str = "probes are made like requests";
const PROBE_NAME: &str = "with `server_name: host` a probe has no name that a server could prove; they are only connected to: give `health` a path and a `host`";
const PROBE_HOST: &str = "a probe asks for this name, and says it as `Host`";

/// Flags and values that only say how `HAProxy`'s TLS works.
const ITS_OWN: &[&str] = &[
    "allow-0rtt",
    "ciphers",
    "ciphersuites",
    "client-sigalgs",
    "curves",
    "no-renegotiate",
    "no-ssl-reuse",
    "no-tls-tickets",
    "npn",
    "renegotiate",
    "sigalgs",
    "ssl-reuse",
    "tls-tickets",
];

/// What a server's parameters say.
#[derive(Default)]
pub(super) struct Said {
    ssl: bool,
    verify: Option<(bool, Place)>,
    ca: Option<Authority>,
    shown: Option<String>,
    sni: Option<Name>,
    proven: Option<String>,
    protocols: Option<String>,
    protocol: Option<String>,
    versions: Versions,
    probed: Option<bool>,
    /// The name, and the protocols, of probes.
    probe_name: Option<String>,
    probe_protocols: Option<String>,
    /// What is to be said if there is TLS at all.
    told: Vec<Told>,
}

/// Whose certificates count.
#[derive(Clone, PartialEq, Eq)]
enum Authority {
    System,
    File(String),
}

/// The name that a server must prove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Name {
    /// None is said.
    #[default]
    Own,
    /// The client's.
    Host,
    Given(String),
}

struct Told {
    place: Place,
    shown: String,
    why: &'static str,
    gap: bool,
}

/// How a server is spoken to, but for the name.
#[derive(Clone, Default, PartialEq, Eq)]
pub(super) struct Link {
    tls: Option<Beginning>,
    protocol: Option<&'static str>,
}

impl Said {
    pub(super) fn new(global: &Global) -> Self {
        Self {
            versions: global.server,
            ..Self::default()
        }
    }

    /// Takes in a parameter, which `shown` shows.
    pub(super) fn read(&mut self, word: &Word, value: &str, shown: &str, global: &Global) {
        match word.text.as_str() {
            "ssl" => self.ssl = true,
            "no-ssl" => self.ssl = false,
            "verify" => self.verify = Some((value != "none", word.place)),
            "ca-file" if value == "@system-ca" => self.ca = Some(Authority::System),
            "ca-file" => {
                let file = global.ca(value).map(Authority::File);
                if file.is_none() {
                    self.gap(word, shown, CA);
                }
                self.ca = file.or(Some(Authority::System));
            }
            "crt" => match global.crt(value) {
                Some(file) => self.shown = Some(file),
                None => self.gap(word, shown, FILE),
            },
            "crl-file" => self.gap(word, shown, CRL),
            "sni" => self.sni(word, value, shown),
            "verifyhost" if can_be_proven(value) => self.proven = Some(value.to_owned()),
            "verifyhost" => self.gap(word, shown, NO_NAME),
            "no-verifyhost" => self.proven = None,
            "alpn" => self.protocols = Some(value.to_owned()),
            "no-alpn" => self.protocols = None,
            "proto" => self.protocol = Some(value.to_owned()),
            "check-ssl" => self.probed = Some(true),
            "no-check-ssl" => self.probed = Some(false),
            "check-sni" => self.probe_name = Some(value.to_owned()),
            "check-alpn" => self.probe_protocols = Some(value.to_owned()),
            name if ITS_OWN.contains(&name) => self.tell(word, shown, OWN, false),
            name => self.version(name, value, word, shown),
        }
    }

    fn version(&mut self, name: &str, value: &str, word: &Word, shown: &str) {
        let mut own = Versions::default();
        if own.read(name, value) {
            for what in own.differences() {
                self.tell(word, shown, what, false);
            }
            self.versions = own.over(self.versions);
        }
    }

    /// `sni EXPRESSION`.
    fn sni(&mut self, word: &Word, value: &str, shown: &str) {
        let fixed = value
            .strip_prefix("str(")
            .and_then(|rest| rest.strip_suffix(')'));
        if let Some(name) = fixed {
            if can_be_proven(name) {
                self.sni = Some(Name::Given(name.to_owned()));
            } else {
                self.gap(word, shown, NO_NAME);
            }
            return;
        }
        let bare = value.strip_prefix("req.").unwrap_or(value);
        let converters = ["", ",lower", ",host_only", ",field(1,:)"];
        let host = bare.strip_prefix("hdr(host)");
        let host = host.is_some_and(|rest| {
            converters.contains(&rest) || matches!(rest, ",lower,host_only" | ",host_only,lower")
        });
        if bare == "ssl_fc_sni" {
            self.tell(word, shown, HOST, false);
        }
        if host || bare == "ssl_fc_sni" {
            self.sni = Some(Name::Host);
        } else {
            self.gap(word, shown, SNI);
        }
    }

    fn gap(&mut self, word: &Word, shown: &str, why: &'static str) {
        self.tell(word, shown, why, true);
    }

    fn tell(&mut self, word: &Word, shown: &str, why: &'static str, gap: bool) {
        self.told.push(Told {
            place: word.place,
            shown: shown.to_owned(),
            why,
            gap,
        });
    }

    /// Probes are not made like requests.
    fn probes_otherwise(&self, name: &Name) -> bool {
        let ssl = self.probed.is_some_and(|probed| probed != self.ssl);
        let protocols = self.probe_protocols.is_some() && self.probe_protocols != self.protocols;
        let named = match (&self.probe_name, name) {
            (Some(probed), Name::Given(name)) => probed != name,
            (Some(_), Name::Own) => true,
            (_, Name::Host) | (None, _) => false,
        };
        ssl || (self.ssl && (protocols || named))
    }

    fn verifies(&self, global: &Global) -> bool {
        self.verify
            .map_or(!global.unverified, |(verifies, _)| verifies)
    }

    fn name(&self, verifies: bool) -> Name {
        match (&self.proven, &self.sni) {
            (Some(name), _) if verifies => Name::Given(name.clone()),
            (_, Some(name)) => name.clone(),
            _ => Name::Own,
        }
    }

    fn link(&self, global: &Global) -> Link {
        let tls = self.ssl.then(|| {
            let verify = self.verifies(global);
            let ca = match &self.ca {
                Some(Authority::File(file)) if verify => Some(file.clone()),
                _ => None,
            };
            Beginning {
                server_name: None,
                ca,
                shown: self.shown.clone().map(|file| (file.clone(), file)),
                min_version: self.versions.least(),
                verify,
            }
        });
        Link {
            tls,
            protocol: self.spoken(),
        }
    }

    fn spoken(&self) -> Option<&'static str> {
        let offered = self.protocols.as_deref().unwrap_or_default();
        let mut offered = offered.split(',');
        let h2 = offered.clone().any(|name| name == "h2");
        match self.protocol.as_deref() {
            Some("h2") if self.ssl => Some("h2"),
            Some("h2") => Some("h2c"),
            Some(_) => None,
            None if !self.ssl || !h2 => None,
            None if offered.all(|name| name == "h2") => Some("h2"),
            None => Some("auto"),
        }
    }
}

/// Gives the upstream what its first server says, and tells of what others say else.
pub(super) fn settle(
    said: Said,
    server: &mut Server,
    line: &Line,
    proxy: &mut Proxy,
    notes: &Notes<'_>,
) {
    if !server.used {
        return;
    }
    let asked = said.link(&proxy.global);
    let verifies = said.verifies(&proxy.global);
    server.name = said.name(verifies);
    match &proxy.link {
        None => {
            let comments = peculiar(&said, line, proxy, notes);
            proxy.upstream.comments.extend(comments);
            proxy.upstream.tls.clone_from(&asked.tls);
            proxy.upstream.protocol = asked.protocol;
            proxy.link = Some(asked);
        }
        Some(first) if *first == asked => {}
        Some(_) => {
            let comment = notes.gap(line.place, &line.shown(), ALIKE);
            server.peer.comments.push(comment);
        }
    }
    if said.probes_otherwise(&server.name) {
        let comment = notes.gap(line.place, &line.shown(), PROBE);
        server.peer.comments.push(comment);
    }
    if !said.ssl {
        return;
    }
    if server.name == Name::Host && proxy.probe_name.is_none() {
        proxy.probe_name.clone_from(&said.probe_name);
    }
    if verifies
        && matches!((&said.proven, &said.sni), (Some(one), Some(other)) if Name::Given(one.clone()) != *other)
    {
        let comment = notes.gap(line.place, &line.shown(), BOTH);
        server.peer.comments.push(comment);
    }
    tell(said.told, &mut server.peer.comments, proxy, notes);
}

/// What a server's parameters lead to is told beside it, what all have in common above them.
fn tell(all: Vec<Told>, beside: &mut Vec<String>, proxy: &mut Proxy, notes: &Notes<'_>) {
    for told in all {
        let comment = if told.gap {
            notes.gap(told.place, &told.shown, told.why)
        } else {
            notes.remark(told.place, &told.shown, told.why)
        };
        if told.why == OWN {
            continue;
        }
        if told.shown.starts_with("default-server ") {
            proxy.upstream.comments.push(comment);
        } else {
            beside.push(comment);
        }
    }
}

/// What is worth knowing of how all servers are spoken to.
fn peculiar(said: &Said, line: &Line, proxy: &Proxy, notes: &Notes<'_>) -> Vec<String> {
    let mut comments = Vec::new();
    if !said.ssl {
        return comments;
    }
    let shown = line.shown();
    if !said.verifies(&proxy.global) {
        let place = said.verify.map_or(line.place, |(_, place)| place);
        comments.push(notes.remark(place, &shown, UNVERIFIED));
        if said.ca.is_some() {
            comments.push(notes.remark(place, &shown, NO_USE));
        }
    } else if said.ca.is_none() {
        comments.push(notes.remark(line.place, &shown, SYSTEM));
    }
    if said.spoken() == Some("auto") {
        comments.push(notes.remark(line.place, &shown, HTTP1));
    }
    comments
}

/// Says the names that the servers must prove: once where it is one.
pub(super) fn name(upstream: &mut Upstream, servers: &mut [Server], notes: &Notes<'_>) {
    let Some(tls) = &mut upstream.tls else { return };
    let mut used = servers.iter().filter(|server| server.used);
    let first = used.next().map(|server| server.name.clone());
    if let Some(Name::Given(name)) = first.as_ref()
        && used.all(|server| Some(&server.name) == first.as_ref())
    {
        tls.server_name = Some(name.clone());
        return;
    }
    let client = servers
        .iter()
        .any(|server| server.used && server.name == Name::Host);
    tls.server_name = client.then(|| "host".to_owned());
    let mut told = None;
    for server in servers.iter_mut().filter(|server| server.used) {
        let (host, ip) = host(&server.peer.address);
        if server.name == Name::Own && tls.verify {
            // One of many is enough; it is worse where there is no name at all.
            told = told.filter(|(other, _)| *other || !ip).or_else(|| {
                let (place, shown) = (server.peer.place, &server.peer.address);
                Some((ip, (place, shown.clone())))
            });
        }
        server.peer.server_name = match &server.name {
            Name::Given(name) => Some(name.clone()),
            Name::Own if (client || (tls.verify && ip)) && can_be_proven(&host) => Some(host),
            Name::Host | Name::Own => None,
        };
    }
    upstream.comments.extend(told.map(|(ip, (place, shown))| {
        if ip {
            notes.gap(place, &shown, UNNAMED)
        } else {
            notes.remark(place, &shown, UNPROVEN)
        }
    }));
}

/// The host of an address, and whether it is an IP address.
fn host(address: &str) -> (String, bool) {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (host.to_owned(), host.parse::<IpAddr>().is_ok())
}

/// A probe that speaks TLS has a name to ask for.
pub(super) fn probe(health: &mut Health, proxy: &mut Proxy, notes: &Notes<'_>) {
    let name = proxy.probe_name.take();
    let upstream = &mut proxy.upstream;
    let client = |tls: &Beginning| tls.server_name.as_deref() == Some("host");
    let Health::On(probe) = health else { return };
    if probe.http.is_none() || probe.host.is_some() || !upstream.tls.as_ref().is_some_and(client) {
        return;
    }
    let (place, shown) = (proxy.place, "option httpchk");
    probe.host = name.filter(|name| config::is_host(name));
    let comment = if probe.host.is_some() {
        notes.remark(place, shown, PROBE_HOST)
    } else {
        probe.http = None;
        notes.gap(place, shown, PROBE_NAME)
    };
    upstream.comments.push(comment);
}
