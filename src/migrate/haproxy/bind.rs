//! `bind`: listeners and their TLS.

use super::address::listen_address;
use super::syntax::{HaproxyLine, HaproxyWord, takes_value};
use super::tls::{GlobalTls, HAPROXY_ONLY, TlsVersionRange, is_internal_param};
use crate::migrate::draft::ListenerDraft;
use crate::migrate::notes::Notes;
use crate::migrate::source::SourceSpan;
use crate::migrate::tls::{CertificateDraft, ClientAuthDraft, TlsTerminationDraft};

const CERTIFICATE_FILES: &str = "a certificate is one file that also has its key; name each in `certificates` of the listener's `tls`";
const CA_REQUIRED: &str = "no CA file for client certificates is given; the listener is left out until `client_auth` of its `tls` has a `ca`";
const NO_CA: &str = "no CA file for client certificates is given; write `ca` of `client_auth` of the listener's `tls`";
const HTTP1_ALWAYS: &str = "the listener accepts HTTP/1.1 as well as HTTP/2";
const H2C: &str = "write `h2c: true` for the listener, which then accepts HTTP/1.1 as well";
const IGNORED_WITHOUT_SSL: &str = "its TLS parameters are ignored, since it has no `ssl`";

/// Parameters that only a `bind` has, and that are internal to `HAProxy` or its TLS.
const IGNORED_PARAMS: &[&str] = &[
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
    "prefer-client-ciphers",
    "process",
    "severity-output",
    "shards",
    "tcp-ut",
    "tfo",
    "thread",
    "tls-ticket-keys",
    "uid",
    "user",
    "v4v6",
];

/// A listener, and whether it requires a client certificate.
pub(super) struct BindListener {
    pub(super) listener: ListenerDraft,
    /// Every client needs a certificate.
    pub(super) requires_client_cert: bool,
}

/// The TLS parameters of one `bind`.
#[derive(Default)]
struct BindTlsParams<'a> {
    ssl: bool,
    /// It has parameters of TLS.
    has_tls_params: bool,
    /// It has a certificate that could not be translated.
    has_untranslated_certificate: bool,
    certificates: Vec<CertificateDraft>,
    /// The value of `alpn`, or the word `no-alpn`.
    alpn: Option<&'a HaproxyWord>,
    /// `proto`.
    proto: Option<&'a HaproxyWord>,
    versions: TlsVersionRange,
    /// `verify`: whether a client certificate is required.
    verify: Option<(bool, &'a HaproxyWord)>,
    ca: Option<String>,
    crl: Option<String>,
}

/// Reads one `bind`.
struct BindParser<'a> {
    bind: BindListener,
    tls_params: BindTlsParams<'a>,
    global_tls: &'a GlobalTls,
    notes: &'a Notes<'a>,
}

/// The listeners of a `bind` line; `comments` gets the addresses that cannot be one.
pub(super) fn bind(
    line: &HaproxyLine,
    global_tls: &GlobalTls,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Vec<BindListener> {
    let mut listeners = Vec::new();
    for text in line.word(1).split(',') {
        let Some(address) = listen_address(text) else {
            let why = "a listener has an IP address and one port";
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
            let valued = takes_value(&word.text);
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
                let all_networks = ["0.0.0.0/0", "::/0"].map(str::to_owned);
                listener.accept_proxy_from = Some(all_networks.to_vec());
                let what = "every source is trusted, as before; list the networks of the load balancers in `from`";
                self.remark(word, "", what);
            }
            "v6only" => listener.ipv6_only = listener.address.starts_with('['),
            "backlog" => {
                let number = text.parse().ok();
                listener.backlog = number.filter(|number| (1..=65_535).contains(number));
            }
            "proto" => self.tls_params.proto = value,
            _ if self.read_tls_param(word, value) => self.tls_params.has_tls_params = true,
            name if is_internal_param(name) || IGNORED_PARAMS.contains(&name) => {
                self.remark(word, text, HAPROXY_ONLY);
            }
            name => self.gap(word, text, param_advice(name)),
        }
    }

    /// Reads a TLS parameter; `false` if it is another one.
    fn read_tls_param(&mut self, word: &'a HaproxyWord, value: Option<&'a HaproxyWord>) -> bool {
        let text = value.map_or("", |value| value.text.as_str());
        let params = &mut self.tls_params;
        match word.text.as_str() {
            "ssl" => params.ssl = true,
            "crt" | "default-crt" => self.add_certificate(word, text),
            "crt-list" => {
                params.has_untranslated_certificate = true;
                self.gap(word, text, CERTIFICATE_FILES);
            }
            "alpn" => params.alpn = value,
            "no-alpn" => params.alpn = Some(word),
            "verify" => params.verify = (text != "none").then_some((text == "required", word)),
            "ca-file" => self.tls_params.ca = self.ca_file(word, text),
            "crl-file" => self.tls_params.crl = self.ca_file(word, text),
            name => return params.versions.read_param(name, text),
        }
        true
    }

    fn add_certificate(&mut self, word: &HaproxyWord, text: &str) {
        let Some(file) = self.global_tls.crt_path(text) else {
            self.tls_params.has_untranslated_certificate = true;
            self.gap(word, text, CERTIFICATE_FILES);
            return;
        };
        // HAProxy stores both in one file.
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

    fn finish(mut self, span: SourceSpan) -> BindListener {
        let protocol = self.tls_params.proto.filter(|word| word.text == "h2");
        if self.tls_params.ssl {
            self.set_termination(span, protocol);
        } else {
            if self.tls_params.has_tls_params {
                let subject = format!("bind {}", self.bind.listener.address);
                self.notes.remark(span, &subject, IGNORED_WITHOUT_SSL);
            }
            if let Some(word) = protocol {
                let subject = format!("bind {} proto h2", self.bind.listener.address);
                let comment = self.notes.gap(word.span, &subject, H2C);
                self.bind.listener.comments.push(comment);
            }
        }
        self.bind
    }

    /// Sets the listener's TLS.
    fn set_termination(&mut self, span: SourceSpan, protocol: Option<&HaproxyWord>) {
        let clients = self.client_auth();
        let http2 = self.http2(protocol);
        let versions = self.tls_params.versions;
        for what in versions.unsupported() {
            self.add_remark(span, "", what);
        }
        if self.tls_params.certificates.is_empty() && !self.tls_params.has_untranslated_certificate
        {
            let subject = format!("bind {} ssl", self.bind.listener.address);
            let why = "it has no certificate; the listener is left out";
            let comment = self.notes.gap(span, &subject, why);
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
                // Without a CA the listener is dropped, so that no client gets access without a certificate.
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
        let subject = self.param_text(word, value);
        let comment = self.notes.gap(word.span, &subject, why);
        self.bind.listener.comments.push(comment);
    }

    fn remark(&mut self, word: &HaproxyWord, value: &str, what: &str) {
        let subject = self.param_text(word, value);
        let comment = self.notes.remark(word.span, &subject, what);
        // Notes on internal parameters do not belong into the YAML.
        if what != HAPROXY_ONLY {
            self.bind.listener.comments.push(comment);
        }
    }

    fn add_remark(&mut self, span: SourceSpan, rest: &str, what: &str) {
        let subject = format!("bind {}{rest}", self.bind.listener.address);
        let comment = self.notes.remark(span, &subject, what);
        self.bind.listener.comments.push(comment);
    }

    fn param_text(&self, word: &HaproxyWord, value: &str) -> String {
        let address = &self.bind.listener.address;
        let subject = format!("bind {address} {} {value}", word.text);
        subject.trim_end().to_owned()
    }
}

fn param_advice(name: &str) -> &'static str {
    match name {
        "strict-sni" => "a client with another SNI name gets the first certificate",
        "ca-verify-file" => "put these certificates into the file of `ca`",
        "ca-ignore-err" | "crt-ignore-err" => "Clockwise ignores no error of a client certificate",
        "ca-sign-file" | "ca-sign-pass" | "generate-certificates" => {
            "Clockwise does not generate certificates; name each file, or see `acme`"
        }
        "ocsp-update" => {
            "Clockwise does not fetch OCSP responses; name the file of a response as `ocsp`"
        }
        "maxconn" => {
            "see `downstream.max_connections`, which counts the connections of all listeners"
        }
        _ => "Clockwise has no counterpart",
    }
}
