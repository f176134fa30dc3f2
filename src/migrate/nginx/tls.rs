//! `ssl_…`, `http2` and `Strict-Transport-Security` for clients; `proxy_ssl_…` for servers.

use super::syntax::{Directive, NginxWord};
use crate::migrate::draft::ListenerDraft;
use crate::migrate::notes::Notes;
use crate::migrate::source::SourceSpan;
use crate::migrate::tls::{
    CertificateDraft, ClientAuthDraft, HstsDraft, TlsOriginationDraft, TlsTerminationDraft,
    is_verifiable_name,
};

/// TLS for clients in one block; `server` inherits it from `http`.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerSsl {
    certificates: Vec<NginxWord>,
    keys: Vec<NginxWord>,
    /// `ssl_stapling_file`.
    stapling_file: Option<String>,
    min_version: Option<&'static str>,
    http2: bool,
    hsts: Option<HstsDraft>,
    /// `ssl_verify_client`: whether a client certificate is required; `None` is `off`.
    verify_client: Option<bool>,
    ca: Option<NginxWord>,
    /// `ssl_trusted_certificate`, which verifies clients as well.
    trusted: Option<NginxWord>,
    crl: Option<String>,
}

impl ServerSsl {
    /// The settings that a block with these directives inherits. Certificates are inherited only if it has
    /// none.
    pub(super) fn for_block(&self, directives: &[Directive]) -> Self {
        let has = |name: &str| directives.iter().any(|found| found.name.text == name);
        let mut inner = self.clone();
        if has("ssl_certificate") {
            inner.certificates.clear();
        }
        if has("ssl_certificate_key") {
            inner.keys.clear();
        }
        if has("add_header") {
            inner.hsts = None;
        }
        inner
    }

    /// Applies a directive; `false` if it is another one.
    pub(super) fn apply(
        &mut self,
        directive: &Directive,
        comments: &mut Vec<String>,
        notes: &Notes<'_>,
    ) -> bool {
        let word = directive.arguments.first().cloned();
        let argument = directive.argument(0);
        let mut gap = |why: &str| {
            comments.push(notes.gap(directive.span(), &directive.text(), why));
        };
        match directive.name.text.as_str() {
            "ssl_certificate" => self.certificates.extend(word),
            "ssl_certificate_key" => self.keys.extend(word),
            "ssl_stapling_file" => self.stapling_file = word.map(|word| word.text),
            "ssl_stapling" if argument == "on" => {
                notes.remark(directive.span(), &directive.text(), STAPLING);
            }
            "ssl_protocols" => self.min_version = min_version(directive, notes),
            "ssl_client_certificate" => self.ca = word,
            "ssl_trusted_certificate" => self.trusted = word,
            "ssl_crl" => self.crl = word.map(|word| word.text),
            "ssl_verify_client" => match argument {
                "on" => self.verify_client = Some(true),
                "optional" => self.verify_client = Some(false),
                "off" => self.verify_client = None,
                _ => gap(
                    "Clockwise does not accept unverified client certificates; write `client_auth`",
                ),
            },
            "http2" => self.http2 = argument == "on",
            "add_header" if is_hsts(directive) => {
                self.hsts = HstsDraft::parse(directive.argument(1));
            }
            _ => return false,
        }
        true
    }

    /// Whether every client needs a certificate.
    pub(super) fn requires_client_certificate(&self) -> bool {
        self.verify_client == Some(true) && self.ca().is_some()
    }

    /// Sets the TLS of a `listen … ssl`.
    pub(super) fn write_to(&self, listener: &mut ListenerDraft, http2: bool, notes: &Notes<'_>) {
        let at = listener.span;
        let subject = format!("listen {} ssl", listener.address);
        let termination = TlsTerminationDraft {
            certificates: self.certificate_pairs(&mut listener.comments, notes),
            min_version: self.min_version,
            http2: Some(self.http2 || http2),
            hsts: self.hsts,
            client_auth: self.client_auth(),
        };
        if termination.certificates.is_empty() {
            let why = "it has no certificate and key that could be translated";
            listener.comments.push(notes.gap(at, &subject, why));
        }
        if self.verify_client.is_some() && termination.client_auth.is_none() {
            let what = "no CA for client certificates is given (`ssl_client_certificate`); clients are not asked for certificates";
            let comment = notes.wider_access(at, &subject, what);
            listener.comments.push(comment);
        }
        listener.tls = Some(termination);
    }

    fn ca(&self) -> Option<&NginxWord> {
        self.ca.as_ref().or(self.trusted.as_ref())
    }

    fn client_auth(&self) -> Option<ClientAuthDraft> {
        let (required, ca) = self.verify_client.zip(self.ca())?;
        Some(ClientAuthDraft {
            required,
            ca: ca.text.clone(),
            crl: self.crl.clone(),
        })
    }

    /// The first certificate: nginx allows one for each key type, Clockwise one for a name.
    fn certificate_pairs(
        &self,
        comments: &mut Vec<String>,
        notes: &Notes<'_>,
    ) -> Vec<CertificateDraft> {
        let mut pairs = self.certificates.iter().zip(&self.keys);
        let is_file =
            |word: &NginxWord| !word.text.contains('$') && !word.text.starts_with("data:");
        let mut found = None;
        for (cert, key) in pairs.by_ref() {
            let subject = format!("ssl_certificate {}", cert.text);
            let why = if !is_file(cert) || !is_file(key) || key.text.starts_with("engine:") {
                "Clockwise reads certificates and keys from files"
            } else if found.is_some() {
                "a name has one certificate; the first is written"
            } else {
                found = Some(CertificateDraft {
                    cert: cert.text.clone(),
                    key: key.text.clone(),
                    ocsp: self.stapling_file.clone(),
                });
                continue;
            };
            comments.push(notes.gap(cert.span, &subject, why));
        }
        found.into_iter().collect()
    }
}

const STAPLING: &str =
    "Clockwise does not fetch OCSP responses; name the file of a response as `ocsp`";

/// Whether a header is `Strict-Transport-Security`.
fn is_hsts(directive: &Directive) -> bool {
    let name = directive.argument(0);
    name.eq_ignore_ascii_case("strict-transport-security")
}

/// The oldest enabled version that Clockwise speaks.
fn min_version(directive: &Directive, notes: &Notes<'_>) -> Option<&'static str> {
    let has = |version: &str| directive.arguments.iter().any(|word| word.text == version);
    if ["SSLv2", "SSLv3", "TLSv1", "TLSv1.1"].into_iter().any(has) {
        let what = "Clockwise speaks TLS 1.2 and 1.3 only";
        notes.remark(directive.span(), &directive.text(), what);
    }
    if has("TLSv1.2") {
        Some("1.2")
    } else {
        has("TLSv1.3").then_some("1.3")
    }
}

/// TLS to servers: `proxy_ssl_…` and `grpc_ssl_…`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProxySsl {
    verify: bool,
    /// `proxy_ssl_server_name`: SNI is sent.
    send_sni: bool,
    ssl_name: Option<String>,
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    min_version: Option<&'static str>,
}

impl ProxySsl {
    /// Applies a directive by its name after `proxy_ssl_`; `false` if it is another one.
    pub(super) fn apply(&mut self, name: &str, directive: &Directive, notes: &Notes<'_>) -> bool {
        let argument = directive.argument(0);
        let text = Some(argument.to_owned()).filter(|text| !text.is_empty());
        match name {
            "verify" => self.verify = argument == "on",
            "server_name" => self.send_sni = argument == "on",
            "name" => self.ssl_name = text,
            "trusted_certificate" => self.ca = text,
            "certificate" => self.cert = text,
            "certificate_key" => self.key = text,
            "protocols" => self.min_version = min_version(directive, notes),
            _ => return false,
        }
        true
    }

    /// TLS to the servers of a `proxy_pass` to `authority`.
    pub(super) fn tls_origination(
        &self,
        authority: &str,
        span: SourceSpan,
        comments: &mut Vec<String>,
        notes: &Notes<'_>,
    ) -> TlsOriginationDraft {
        const BLIND: &str = "without `proxy_ssl_verify on`, nginx does not verify the server's certificate; `verify: false` is written";
        let subject = format!("TLS to {authority}");
        if !self.verify {
            comments.push(notes.remark(span, &subject, BLIND));
        }
        let mut tls = TlsOriginationDraft {
            server_name: self.server_name(authority),
            ca: self.ca.clone().filter(|_| self.verify),
            client_certificate: self.cert.clone().zip(self.key.clone()),
            min_version: self.min_version,
            verify: self.verify,
        };
        let bad = |name: &String| name != "host" && !is_verifiable_name(name);
        if let Some(name) = tls.server_name.take_if(|name| bad(name)) {
            let why = "this is not a valid server name; write `server_name`";
            comments.push(notes.gap(span, &format!("{subject} as {name}"), why));
        }
        tls
    }

    fn server_name(&self, authority: &str) -> Option<String> {
        // Without SNI and verification, no name is used.
        if !self.verify && !self.send_sni {
            return None;
        }
        let host = authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host);
        Some(match self.ssl_name.as_deref() {
            Some("$host" | "$http_host" | "$ssl_server_name") => "host".to_owned(),
            None | Some("$proxy_host") => host.to_owned(),
            Some(name) => name.to_owned(),
        })
    }
}
