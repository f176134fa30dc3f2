//! `bind`: listeners, and TLS at them.

use super::address::listen_address;
use super::syntax::{HaproxyLine, HaproxyWord};
use super::tls::{GlobalTls, HAPROXY_ONLY, TlsVersionRange};
use crate::migrate::draft::ListenerDraft;
use crate::migrate::notes::Notes;
use crate::migrate::source::SourceSpan;
use crate::migrate::tls::{CertificateDraft, ClientAuthDraft, TlsTerminationDraft};

const CERTIFICATE_FILES: &str = "a certificate is one file with its key here; name each in `certificates` of the listener's `tls`";
const CA_REQUIRED: &str = "say whose certificates count, in one file: `client_auth` of the listener's `tls` has `ca`; until then the listener is left out";
const NO_CA: &str =
    "say whose certificates count, in one file: `client_auth` of the listener's `tls` has `ca`";
const HTTP1_ALWAYS: &str = "HTTP/1.1 is spoken beside HTTP/2 here";
const H2C: &str = "add `h2c: true` to the listener; it speaks HTTP/1.1, too";
const IGNORED_WITHOUT_SSL: &str = "nothing of TLS is read where no `ssl` is said";

/// Parameters that are followed by a value.
const PARAMS_WITH_VALUE: &[&str] = &[
    "accept-netscaler-cip",
    "alpn",
    "backlog",
    "ca-file",
    "ca-ignore-err",
    "ca-sign-file",
    "ca-sign-pass",
    "ca-verify-file",
    "cc",
    "ciphers",
    "ciphersuites",
    "client-sigalgs",
    "crl-file",
    "crt",
    "crt-ignore-err",
    "crt-list",
    "curves",
    "default-crt",
    "ecdhe",
    "expose-fd",
    "gid",
    "group",
    "guid-prefix",
    "id",
    "idle-ping",
    "interface",
    "label",
    "level",
    "maxconn",
    "mode",
    "mss",
    "name",
    "namespace",
    "nbconn",
    "nice",
    "npn",
    "ocsp-update",
    "process",
    "proto",
    "severity-output",
    "shards",
    "sigalgs",
    "ssl-max-ver",
    "ssl-min-ver",
    "tcp-md5sig",
    "tcp-ut",
    "thread",
    "tls-ticket-keys",
    "uid",
    "user",
    "verify",
];

/// What only says how `HAProxy` or its TLS works.
const IGNORED_PARAMS: &[&str] = &[
    "allow-0rtt",
    "ciphers",
    "ciphersuites",
    "client-sigalgs",
    "curves",
    "defer-accept",
    "ecdhe",
    "expose-fd",
    "gid",
    "group",
    "guid-prefix",
    "id",
    "label",
    "level",
    "mode",
    "mss",
    "name",
    "nice",
    "no-ca-names",
    "no-strict-sni",
    "no-tls-tickets",
    "npn",
    "prefer-client-ciphers",
    "process",
    "severity-output",
    "shards",
    "sigalgs",
    "tcp-ut",
    "tfo",
    "thread",
    "tls-ticket-keys",
    "tls-tickets",
    "uid",
    "user",
    "v4v6",
];

/// A listener, and what it asks of clients.
pub(super) struct BindListener {
    pub(super) listener: ListenerDraft,
    /// Nobody gets through who shows no certificate.
    pub(super) requires_client_cert: bool,
}

/// What one `bind` says of TLS.
#[derive(Default)]
struct BindTlsParams<'a> {
    ssl: bool,
    /// Something of it stands there.
    has_tls_params: bool,
    /// Where one is that could not be translated.
    has_untranslated_certificate: bool,
    certificates: Vec<CertificateDraft>,
    /// What `alpn` names, or `no-alpn`, which names nothing.
    alpn: Option<&'a HaproxyWord>,
    /// `proto`.
    proto: Option<&'a HaproxyWord>,
    versions: TlsVersionRange,
    /// Whether clients must show a certificate, or may.
    verify: Option<(bool, &'a HaproxyWord)>,
    ca: Option<String>,
    crl: Option<String>,
}

/// A `bind` while it is read.
struct BindParser<'a> {
    bind: BindListener,
    tls_params: BindTlsParams<'a>,
    global_tls: &'a GlobalTls,
    notes: &'a Notes<'a>,
}

/// The listeners of a `bind`; an address without one gets a comment.
pub(super) fn bind(
    line: &HaproxyLine,
    global_tls: &GlobalTls,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Vec<BindListener> {
    let mut listeners = Vec::new();
    for text in line.word(1).split(',') {
        let Some(address) = listen_address(text) else {
            let why = "listeners have an IP address and one port";
            comments.push(notes.gap(line.span, &format!("bind {text}"), why));
            continue;
        };
        let mut parser = BindParser {
            bind: BindListener {
                listener: ListenerDraft::new(address),
                requires_client_cert: false,
            },
            tls_params: BindTlsParams::default(),
            global_tls,
            notes,
        };
        let mut words = line.tail(2).iter();
        while let Some(word) = words.next() {
            let valued = PARAMS_WITH_VALUE.contains(&word.text.as_str());
            let value = if valued { words.next() } else { None };
            parser.read_param(word, value);
        }
        listeners.push(parser.finish(line.span));
    }
    listeners
}

impl<'a> BindParser<'a> {
    fn read_param(&mut self, word: &'a HaproxyWord, value: Option<&'a HaproxyWord>) {
        let text = value.map_or("", |value| value.text.as_str());
        let listener = &mut self.bind.listener;
        match word.text.as_str() {
            "accept-proxy" => {
                let everybody = ["0.0.0.0/0", "::/0"].map(str::to_owned);
                listener.accept_proxy_from = Some(everybody.to_vec());
                let what = "everybody is believed, as there; name the networks of those in front";
                self.remark(word, "", what);
            }
            "v6only" => listener.ipv6_only = listener.address.starts_with('['),
            "backlog" => {
                let number = text.parse().ok();
                listener.backlog = number.filter(|number| (1..=65_535).contains(number));
            }
            "proto" => self.tls_params.proto = value,
            _ if self.read_tls_param(word, value) => self.tls_params.has_tls_params = true,
            name if IGNORED_PARAMS.contains(&name) => self.remark(word, text, HAPROXY_ONLY),
            name => self.gap(word, text, param_advice(name)),
        }
    }

    /// Takes in what is about TLS; `false` if it is about something else.
    fn read_tls_param(&mut self, word: &'a HaproxyWord, value: Option<&'a HaproxyWord>) -> bool {
        let text = value.map_or("", |value| value.text.as_str());
        let said = &mut self.tls_params;
        match word.text.as_str() {
            "ssl" => said.ssl = true,
            "crt" | "default-crt" => self.add_certificate(word, text),
            "crt-list" => {
                said.has_untranslated_certificate = true;
                self.gap(word, text, CERTIFICATE_FILES);
            }
            "alpn" => said.alpn = value,
            "no-alpn" => said.alpn = Some(word),
            "verify" => said.verify = (text != "none").then_some((text == "required", word)),
            "ca-file" => self.tls_params.ca = self.ca_file(word, text),
            "crl-file" => self.tls_params.crl = self.ca_file(word, text),
            name => return said.versions.read_param(name, text),
        }
        true
    }

    fn add_certificate(&mut self, word: &HaproxyWord, text: &str) {
        let Some(file) = self.global_tls.crt_path(text) else {
            self.tls_params.has_untranslated_certificate = true;
            self.gap(word, text, CERTIFICATE_FILES);
            return;
        };
        // HAProxy has both in one file.
        let certificate = CertificateDraft {
            cert: file.clone(),
            key: file,
            ocsp: None,
        };
        let certificates = &mut self.tls_params.certificates;
        if word.text == "default-crt" {
            certificates.insert(0, certificate);
        } else {
            certificates.push(certificate);
        }
    }

    fn ca_file(&mut self, word: &HaproxyWord, text: &str) -> Option<String> {
        let file = self.global_tls.ca_path(text);
        if file.is_none() {
            self.gap(word, text, "name one file");
        }
        file
    }

    fn finish(mut self, place: SourceSpan) -> BindListener {
        let protocol = self.tls_params.proto.filter(|word| word.text == "h2");
        if self.tls_params.ssl {
            self.set_termination(place, protocol);
        } else {
            if self.tls_params.has_tls_params {
                let shown = format!("bind {}", self.bind.listener.address);
                self.notes.remark(place, &shown, IGNORED_WITHOUT_SSL);
            }
            if let Some(word) = protocol {
                let shown = format!("bind {} proto h2", self.bind.listener.address);
                let comment = self.notes.gap(word.span, &shown, H2C);
                self.bind.listener.comments.push(comment);
            }
        }
        self.bind
    }

    /// What there is of TLS.
    fn set_termination(&mut self, place: SourceSpan, protocol: Option<&HaproxyWord>) {
        let clients = self.client_auth();
        let http2 = self.http2(protocol);
        let versions = self.tls_params.versions;
        for what in versions.unsupported() {
            self.add_remark(place, "", what);
        }
        if self.tls_params.certificates.is_empty() && !self.tls_params.has_untranslated_certificate
        {
            let shown = format!("bind {} ssl", self.bind.listener.address);
            let why = "no certificate is named; the listener is left out";
            let comment = self.notes.gap(place, &shown, why);
            self.bind.listener.comments.push(comment);
        }
        self.bind.listener.tls = Some(TlsTerminationDraft {
            certificates: std::mem::take(&mut self.tls_params.certificates),
            min_version: versions.with_defaults(self.global_tls.bind).min_version(),
            http2,
            hsts: None,
            client_auth: clients,
        });
    }

    fn client_auth(&mut self) -> Option<ClientAuthDraft> {
        let (required, word) = self.tls_params.verify?;
        self.bind.requires_client_cert = required;
        let Some(ca) = self.tls_params.ca.take() else {
            let (mode, why) = if required {
                // Nobody gets in who did not before.
                self.tls_params.certificates.clear();
                self.tls_params.has_untranslated_certificate = true;
                ("required", CA_REQUIRED)
            } else {
                ("optional", NO_CA)
            };
            self.gap(word, mode, why);
            return None;
        };
        let crl = self.tls_params.crl.take();
        Some(ClientAuthDraft { required, ca, crl })
    }

    fn http2(&mut self, protocol: Option<&HaproxyWord>) -> Option<bool> {
        if let Some(word) = protocol {
            self.add_remark(word.span, " proto h2", HTTP1_ALWAYS);
            return Some(true);
        }
        let offered = self.tls_params.alpn?;
        let mut names = offered.text.split(',');
        let http2 = names.clone().any(|name| name == "h2");
        if http2 && !names.any(|name| name == "http/1.1") {
            self.add_remark(
                offered.span,
                &format!(" alpn {}", offered.text),
                HTTP1_ALWAYS,
            );
        }
        Some(http2)
    }

    fn gap(&mut self, word: &HaproxyWord, value: &str, why: &str) {
        let shown = self.param_text(word, value);
        let comment = self.notes.gap(word.span, &shown, why);
        self.bind.listener.comments.push(comment);
    }

    fn remark(&mut self, word: &HaproxyWord, value: &str, what: &str) {
        let shown = self.param_text(word, value);
        let comment = self.notes.remark(word.span, &shown, what);
        // What only concerned HAProxy says nothing about the listener.
        if what != HAPROXY_ONLY {
            self.bind.listener.comments.push(comment);
        }
    }

    fn add_remark(&mut self, place: SourceSpan, rest: &str, what: &str) {
        let shown = format!("bind {}{rest}", self.bind.listener.address);
        let comment = self.notes.remark(place, &shown, what);
        self.bind.listener.comments.push(comment);
    }

    fn param_text(&self, word: &HaproxyWord, value: &str) -> String {
        let address = &self.bind.listener.address;
        let shown = format!("bind {address} {} {value}", word.text);
        shown.trim_end().to_owned()
    }
}

fn param_advice(name: &str) -> &'static str {
    match name {
        "strict-sni" => "a client that asks for another name is shown the first certificate",
        "ca-verify-file" => "put its certificates into the file of `ca`",
        "ca-ignore-err" | "crt-ignore-err" => {
            "nothing that is wrong with a client's certificate is overlooked"
        }
        "ca-sign-file" | "ca-sign-pass" | "generate-certificates" => {
            "no certificates are made here; name each file, or see `acme`"
        }
        "ocsp-update" => "responses are not fetched here; give the file of one as `ocsp`",
        "maxconn" => "see `downstream.max_connections`, for all listeners together",
        _ => "there is nothing like it here",
    }
}
