//! TLS and HTTP/2 to servers.
//!
//! All servers of an upstream share TLS and protocol; only the name that is verified may differ.

use super::backend_draft::{BackendDraft, BackendServer, ServerTransport, SniSource};
use super::syntax::{HaproxyLine, HaproxyWord};
use super::tls::{GlobalTls, HAPROXY_ONLY, TlsVersionRange, is_internal_param};
use crate::migrate::notes::Notes;
use crate::migrate::source::SourceSpan;
use crate::migrate::tls::{TlsOriginationDraft, is_verifiable_name};

const SAME_TRANSPORT: &str = "all servers of an upstream share one `tls` and `protocol`; put this one into an upstream of its own";
const UNVERIFIED: &str = "the server's certificate is not verified, as before; an attacker on the path can read and change all traffic";
const SYSTEM_CA: &str = "no `ca-file` is given; the CAs of the system are used";
const CA_UNUSED: &str = "the CA file is left out, since certificates are not verified";
const SNI_UNSUPPORTED: &str = "the SNI name is fixed or the client's `Host`; write `server_name`";
const SNI_AND_VERIFYHOST: &str =
    "the SNI name is also the name that is verified; that of `verifyhost` is written";
const SNI_IS_CLIENT_HOST: &str = "the SNI name is the client's `Host`";
const NOT_A_SERVER_NAME: &str = "this is not a valid server name; write `server_name`";
const NOT_ONE_FILE: &str = "name one file";
const CA_NOT_ONE_FILE: &str = "name one file; the CAs of the system are used until then";
const NO_SERVER_CRL: &str = "Clockwise does not check the certificates of servers against a CRL";
const HTTP1_FALLBACK: &str = "Clockwise uses HTTP/1.1 with a server that does not choose HTTP/2";
const PROBES_LIKE_REQUESTS: &str = "a probe uses the TLS and protocol of requests";

/// Parameters that only a server has, and that are internal to the TLS of `HAProxy`.
const IGNORED_PARAMS: &[&str] = &["no-renegotiate", "no-ssl-reuse", "renegotiate", "ssl-reuse"];

/// The TLS parameters of a server.
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
    /// SNI and ALPN of probes.
    check_sni: Option<String>,
    check_alpn: Option<String>,
    /// Notes that are emitted if the server uses TLS.
    pending_notes: Vec<PendingNote>,
}

/// The CAs that verify the server.
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

    /// Reads a parameter; `subject` is its text for notes.
    pub(super) fn read_param(
        &mut self,
        word: &HaproxyWord,
        value: &str,
        subject: &str,
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
                    self.push_gap(word, subject, CA_NOT_ONE_FILE);
                }
                self.ca = file.or(Some(CaSource::System));
            }
            "crt" => match global.crt_path(value) {
                Some(file) => self.client_certificate = Some(file),
                None => self.push_gap(word, subject, NOT_ONE_FILE),
            },
            "crl-file" => self.push_gap(word, subject, NO_SERVER_CRL),
            "sni" => self.sni(word, value, subject),
            "verifyhost" if is_verifiable_name(value) => self.verify_host = Some(value.to_owned()),
            "verifyhost" => self.push_gap(word, subject, NOT_A_SERVER_NAME),
            "no-verifyhost" => self.verify_host = None,
            "alpn" => self.alpn = Some(value.to_owned()),
            "no-alpn" => self.alpn = None,
            "proto" => self.proto = Some(value.to_owned()),
            "check-ssl" => self.check_ssl = Some(true),
            "no-check-ssl" => self.check_ssl = Some(false),
            "check-sni" => self.check_sni = Some(value.to_owned()),
            "check-alpn" => self.check_alpn = Some(value.to_owned()),
            name if is_internal_param(name) || IGNORED_PARAMS.contains(&name) => {
                self.push_note(word, subject, HAPROXY_ONLY, false);
            }
            name => self.read_version(name, value, word, subject),
        }
    }

    fn read_version(&mut self, name: &str, value: &str, word: &HaproxyWord, subject: &str) {
        let mut own = TlsVersionRange::default();
        if own.read_param(name, value) {
            for what in own.unsupported() {
                self.push_note(word, subject, what, false);
            }
            self.versions = own.with_defaults(self.versions);
        }
    }

    /// `sni EXPRESSION`.
    fn sni(&mut self, word: &HaproxyWord, value: &str, subject: &str) {
        let fixed = value
            .strip_prefix("str(")
            .and_then(|rest| rest.strip_suffix(')'));
        if let Some(name) = fixed {
            if is_verifiable_name(name) {
                self.sni = Some(SniSource::Fixed(name.to_owned()));
            } else {
                self.push_gap(word, subject, NOT_A_SERVER_NAME);
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
            self.push_note(word, subject, SNI_IS_CLIENT_HOST, false);
        }
        if host || bare == "ssl_fc_sni" {
            self.sni = Some(SniSource::ClientHost);
        } else {
            self.push_gap(word, subject, SNI_UNSUPPORTED);
        }
    }

    fn push_gap(&mut self, word: &HaproxyWord, subject: &str, why: &'static str) {
        self.push_note(word, subject, why, true);
    }

    fn push_note(&mut self, word: &HaproxyWord, subject: &str, why: &'static str, gap: bool) {
        self.pending_notes.push(PendingNote {
            span: word.span,
            text: subject.to_owned(),
            reason: why,
            is_gap: gap,
        });
    }

    /// Whether probes use another TLS, SNI or ALPN than requests.
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

/// The first server sets TLS and protocol of the upstream; a server that differs is noted.
pub(super) fn apply_to_upstream(
    params: ServerTlsParams,
    server: &mut BackendServer,
    line: &HaproxyLine,
    global_tls: &GlobalTls,
    backend: &mut BackendDraft,
    notes: &Notes<'_>,
) {
    if !server.used {
        return;
    }
    let transport = params.transport(global_tls);
    let verifies = params.verifies(global_tls);
    server.sni = params.sni_source(verifies);
    match &backend.transport {
        None => {
            let comments = transport_remarks(&params, line, global_tls, notes);
            backend.upstream.comments.extend(comments);
            backend.upstream.tls.clone_from(&transport.tls);
            backend.upstream.protocol = transport.protocol;
            backend.transport = Some(transport);
        }
        Some(first) if *first == transport => {}
        Some(_) => {
            let comment = notes.gap(line.span, &line.text(), SAME_TRANSPORT);
            server.peer.comments.push(comment);
        }
    }
    if params.probes_differ(&server.sni) {
        let comment = notes.gap(line.span, &line.text(), PROBES_LIKE_REQUESTS);
        server.peer.comments.push(comment);
    }
    if !params.ssl {
        return;
    }
    if server.sni == SniSource::ClientHost && backend.check_sni.is_none() {
        backend.check_sni.clone_from(&params.check_sni);
    }
    if verifies
        && matches!((&params.verify_host, &params.sni), (Some(one), Some(other)) if SniSource::Fixed(one.clone()) != *other)
    {
        let comment = notes.gap(line.span, &line.text(), SNI_AND_VERIFYHOST);
        server.peer.comments.push(comment);
    }
    emit_notes(
        params.pending_notes,
        &mut server.peer.comments,
        &mut backend.upstream.comments,
        notes,
    );
}

/// Puts notes on a server's own parameters next to the server, and those on `default-server` next to the upstream.
fn emit_notes(
    all: Vec<PendingNote>,
    beside: &mut Vec<String>,
    above: &mut Vec<String>,
    notes: &Notes<'_>,
) {
    for note in all {
        let comment = if note.is_gap {
            notes.gap(note.span, &note.text, note.reason)
        } else {
            notes.remark(note.span, &note.text, note.reason)
        };
        if note.reason == HAPROXY_ONLY {
            continue;
        }
        if note.text.starts_with("default-server ") {
            above.push(comment);
        } else {
            beside.push(comment);
        }
    }
}

/// Remarks on the TLS of all servers.
fn transport_remarks(
    params: &ServerTlsParams,
    line: &HaproxyLine,
    global_tls: &GlobalTls,
    notes: &Notes<'_>,
) -> Vec<String> {
    let mut comments = Vec::new();
    if !params.ssl {
        return comments;
    }
    let subject = line.text();
    if !params.verifies(global_tls) {
        let span = params.verify.map_or(line.span, |(_, span)| span);
        comments.push(notes.remark(span, &subject, UNVERIFIED));
        if params.ca.is_some() {
            comments.push(notes.remark(span, &subject, CA_UNUSED));
        }
    } else if params.ca.is_none() {
        comments.push(notes.remark(line.span, &subject, SYSTEM_CA));
    }
    if params.protocol() == Some("auto") {
        comments.push(notes.remark(line.span, &subject, HTTP1_FALLBACK));
    }
    comments
}
