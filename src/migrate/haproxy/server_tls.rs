//! TLS and HTTP/2 to servers.
//!
//! All servers of an upstream are spoken to alike, but for the name that each must prove.

use super::backend_draft::{BackendDraft, BackendServer, ServerTransport, SniSource};
use super::syntax::{HaproxyLine, HaproxyWord};
use super::tls::{GlobalTls, HAPROXY_ONLY, TlsVersionRange};
use crate::migrate::notes::Notes;
use crate::migrate::source::SourceSpan;
use crate::migrate::tls::{TlsOriginationDraft, is_verifiable_name};

const SAME_TRANSPORT: &str = "all servers of an upstream are spoken to alike (`tls`, `protocol`); give this one an upstream of its own";
const UNVERIFIED: &str =
    "as there, no certificate is verified: whoever is on the way can read and change everything";
const SYSTEM_CA: &str =
    "HAProxy verifies by a `ca-file`, and none is named; here the system's authorities count";
const CA_UNUSED: &str = "the file has no use where nothing is verified, and is left out";
const SNI_UNSUPPORTED: &str =
    "the name that is asked for is a fixed one or the client's `Host`; give it as `server_name`";
const SNI_AND_VERIFYHOST: &str =
    "the name that is asked for is the one that must be proven; that of `verifyhost` is written";
const SNI_IS_CLIENT_HOST: &str = "it is the client's `Host` that is asked for";
const NOT_A_SERVER_NAME: &str = "a certificate cannot be for it; give the name as `server_name`";
const NOT_ONE_FILE: &str = "give the path of one file";
const CA_NOT_ONE_FILE: &str =
    "give the path of one file; until then the system's authorities count";
const NO_SERVER_CRL: &str = "whether a server's certificate was revoked is not looked at";
const HTTP1_FALLBACK: &str = "where a server does not choose it, HTTP/1.1 is spoken";
const PROBES_LIKE_REQUESTS: &str = "probes are made like requests";

/// Flags and values that only say how `HAProxy`'s TLS works.
const IGNORED_PARAMS: &[&str] = &[
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
pub(super) struct ServerTlsParams {
    ssl: bool,
    verify: Option<(bool, SourceSpan)>,
    ca: Option<CaSource>,
    client_certificate: Option<String>,
    sni: Option<SniSource>,
    verify_host: Option<String>,
    alpn: Option<String>,
    proto: Option<String>,
    versions: TlsVersionRange,
    check_ssl: Option<bool>,
    /// The name, and the protocols, of probes.
    check_sni: Option<String>,
    check_alpn: Option<String>,
    /// What is to be said if there is TLS at all.
    pending_notes: Vec<PendingNote>,
}

/// Whose certificates count.
#[derive(Clone, PartialEq, Eq)]
enum CaSource {
    System,
    File(String),
}

struct PendingNote {
    span: SourceSpan,
    text: String,
    reason: &'static str,
    is_gap: bool,
}

impl ServerTlsParams {
    pub(super) fn new(global: &GlobalTls) -> Self {
        Self {
            versions: global.server,
            ..Self::default()
        }
    }

    /// Takes in a parameter, which `shown` shows.
    pub(super) fn read_param(
        &mut self,
        word: &HaproxyWord,
        value: &str,
        shown: &str,
        global: &GlobalTls,
    ) {
        match word.text.as_str() {
            "ssl" => self.ssl = true,
            "no-ssl" => self.ssl = false,
            "verify" => self.verify = Some((value != "none", word.span)),
            "ca-file" if value == "@system-ca" => self.ca = Some(CaSource::System),
            "ca-file" => {
                let file = global.ca_path(value).map(CaSource::File);
                if file.is_none() {
                    self.push_gap(word, shown, CA_NOT_ONE_FILE);
                }
                self.ca = file.or(Some(CaSource::System));
            }
            "crt" => match global.crt_path(value) {
                Some(file) => self.client_certificate = Some(file),
                None => self.push_gap(word, shown, NOT_ONE_FILE),
            },
            "crl-file" => self.push_gap(word, shown, NO_SERVER_CRL),
            "sni" => self.sni(word, value, shown),
            "verifyhost" if is_verifiable_name(value) => self.verify_host = Some(value.to_owned()),
            "verifyhost" => self.push_gap(word, shown, NOT_A_SERVER_NAME),
            "no-verifyhost" => self.verify_host = None,
            "alpn" => self.alpn = Some(value.to_owned()),
            "no-alpn" => self.alpn = None,
            "proto" => self.proto = Some(value.to_owned()),
            "check-ssl" => self.check_ssl = Some(true),
            "no-check-ssl" => self.check_ssl = Some(false),
            "check-sni" => self.check_sni = Some(value.to_owned()),
            "check-alpn" => self.check_alpn = Some(value.to_owned()),
            name if IGNORED_PARAMS.contains(&name) => {
                self.push_note(word, shown, HAPROXY_ONLY, false)
            }
            name => self.read_version(name, value, word, shown),
        }
    }

    fn read_version(&mut self, name: &str, value: &str, word: &HaproxyWord, shown: &str) {
        let mut own = TlsVersionRange::default();
        if own.read_param(name, value) {
            for what in own.unsupported() {
                self.push_note(word, shown, what, false);
            }
            self.versions = own.with_defaults(self.versions);
        }
    }

    /// `sni EXPRESSION`.
    fn sni(&mut self, word: &HaproxyWord, value: &str, shown: &str) {
        let fixed = value
            .strip_prefix("str(")
            .and_then(|rest| rest.strip_suffix(')'));
        if let Some(name) = fixed {
            if is_verifiable_name(name) {
                self.sni = Some(SniSource::Fixed(name.to_owned()));
            } else {
                self.push_gap(word, shown, NOT_A_SERVER_NAME);
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
            self.push_note(word, shown, SNI_IS_CLIENT_HOST, false);
        }
        if host || bare == "ssl_fc_sni" {
            self.sni = Some(SniSource::ClientHost);
        } else {
            self.push_gap(word, shown, SNI_UNSUPPORTED);
        }
    }

    fn push_gap(&mut self, word: &HaproxyWord, shown: &str, why: &'static str) {
        self.push_note(word, shown, why, true);
    }

    fn push_note(&mut self, word: &HaproxyWord, shown: &str, why: &'static str, gap: bool) {
        self.pending_notes.push(PendingNote {
            span: word.span,
            text: shown.to_owned(),
            reason: why,
            is_gap: gap,
        });
    }

    /// Probes are not made like requests.
    fn probes_differ(&self, name: &SniSource) -> bool {
        let ssl = self.check_ssl.is_some_and(|probed| probed != self.ssl);
        let protocols = self.check_alpn.is_some() && self.check_alpn != self.alpn;
        let named = match (&self.check_sni, name) {
            (Some(probed), SniSource::Fixed(name)) => probed != name,
            (Some(_), SniSource::Address) => true,
            (_, SniSource::ClientHost) | (None, _) => false,
        };
        ssl || (self.ssl && (protocols || named))
    }

    fn verifies(&self, global: &GlobalTls) -> bool {
        self.verify
            .map_or(!global.skip_server_verify, |(verifies, _)| verifies)
    }

    fn sni_source(&self, verifies: bool) -> SniSource {
        match (&self.verify_host, &self.sni) {
            (Some(name), _) if verifies => SniSource::Fixed(name.clone()),
            (_, Some(name)) => name.clone(),
            _ => SniSource::Address,
        }
    }

    fn transport(&self, global: &GlobalTls) -> ServerTransport {
        let tls = self.ssl.then(|| {
            let verify = self.verifies(global);
            let ca = match &self.ca {
                Some(CaSource::File(file)) if verify => Some(file.clone()),
                _ => None,
            };
            TlsOriginationDraft {
                server_name: None,
                ca,
                client_certificate: self
                    .client_certificate
                    .clone()
                    .map(|file| (file.clone(), file)),
                min_version: self.versions.min_version(),
                verify,
            }
        });
        ServerTransport {
            tls,
            protocol: self.protocol(),
        }
    }

    fn protocol(&self) -> Option<&'static str> {
        let offered = self.alpn.as_deref().unwrap_or_default();
        let mut offered = offered.split(',');
        let h2 = offered.clone().any(|name| name == "h2");
        match self.proto.as_deref() {
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
pub(super) fn apply_to_upstream(
    said: ServerTlsParams,
    server: &mut BackendServer,
    line: &HaproxyLine,
    global_tls: &GlobalTls,
    backend: &mut BackendDraft,
    notes: &Notes<'_>,
) {
    if !server.used {
        return;
    }
    let asked = said.transport(global_tls);
    let verifies = said.verifies(global_tls);
    server.sni = said.sni_source(verifies);
    match &backend.transport {
        None => {
            let comments = transport_remarks(&said, line, global_tls, notes);
            backend.upstream.comments.extend(comments);
            backend.upstream.tls.clone_from(&asked.tls);
            backend.upstream.protocol = asked.protocol;
            backend.transport = Some(asked);
        }
        Some(first) if *first == asked => {}
        Some(_) => {
            let comment = notes.gap(line.span, &line.text(), SAME_TRANSPORT);
            server.peer.comments.push(comment);
        }
    }
    if said.probes_differ(&server.sni) {
        let comment = notes.gap(line.span, &line.text(), PROBES_LIKE_REQUESTS);
        server.peer.comments.push(comment);
    }
    if !said.ssl {
        return;
    }
    if server.sni == SniSource::ClientHost && backend.check_sni.is_none() {
        backend.check_sni.clone_from(&said.check_sni);
    }
    if verifies
        && matches!((&said.verify_host, &said.sni), (Some(one), Some(other)) if SniSource::Fixed(one.clone()) != *other)
    {
        let comment = notes.gap(line.span, &line.text(), SNI_AND_VERIFYHOST);
        server.peer.comments.push(comment);
    }
    emit_notes(
        said.pending_notes,
        &mut server.peer.comments,
        &mut backend.upstream.comments,
        notes,
    );
}

/// What a server's parameters lead to is told beside it, what all have in common above them.
fn emit_notes(
    all: Vec<PendingNote>,
    beside: &mut Vec<String>,
    above: &mut Vec<String>,
    notes: &Notes<'_>,
) {
    for told in all {
        let comment = if told.is_gap {
            notes.gap(told.span, &told.text, told.reason)
        } else {
            notes.remark(told.span, &told.text, told.reason)
        };
        if told.reason == HAPROXY_ONLY {
            continue;
        }
        if told.text.starts_with("default-server ") {
            above.push(comment);
        } else {
            beside.push(comment);
        }
    }
}

/// What is worth knowing of how all servers are spoken to.
fn transport_remarks(
    said: &ServerTlsParams,
    line: &HaproxyLine,
    global_tls: &GlobalTls,
    notes: &Notes<'_>,
) -> Vec<String> {
    let mut comments = Vec::new();
    if !said.ssl {
        return comments;
    }
    let shown = line.text();
    if !said.verifies(global_tls) {
        let place = said.verify.map_or(line.span, |(_, place)| place);
        comments.push(notes.remark(place, &shown, UNVERIFIED));
        if said.ca.is_some() {
            comments.push(notes.remark(place, &shown, CA_UNUSED));
        }
    } else if said.ca.is_none() {
        comments.push(notes.remark(line.span, &shown, SYSTEM_CA));
    }
    if said.protocol() == Some("auto") {
        comments.push(notes.remark(line.span, &shown, HTTP1_FALLBACK));
    }
    comments
}
