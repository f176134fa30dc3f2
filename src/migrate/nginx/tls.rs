//! `ssl_…`, `http2` and `Strict-Transport-Security`, and the TLS that servers are spoken to in.

use super::syntax::{Directive, NginxWord};
use crate::migrate::draft::ListenerDraft;
use crate::migrate::notes::Notes;
use crate::migrate::source::SourceSpan;
use crate::migrate::tls::{
    CertificateDraft, ClientAuthDraft, HstsDraft, TlsOriginationDraft, TlsTerminationDraft,
    is_verifiable_name,
};

/// What holds for clients at one place; `server` has it from `http`.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerSsl {
    certificates: Vec<NginxWord>,
    keys: Vec<NginxWord>,
    /// `ssl_stapling_file`.
    stapling_file: Option<String>,
    min_version: Option<&'static str>,
    http2: bool,
    hsts: Option<HstsDraft>,
    /// Whether clients are asked for certificates, and must show one.
    verify_client: Option<bool>,
    ca: Option<NginxWord>,
    /// `ssl_trusted_certificate`: clients are believed by it, too.
    trusted: Option<NginxWord>,
    crl: Option<String>,
}

impl ServerSsl {
    /// What holds inside a block with these directives, before they are applied: certificates are
    /// only inherited where a block has none.
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

    /// Takes a directive in if it is one of these; `false` if not.
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
                _ => gap("what nobody has verified is not believed; write `client_auth`"),
            },
            "http2" => self.http2 = argument == "on",
            "add_header" if is_hsts(directive) => {
                self.hsts = HstsDraft::parse(directive.argument(1))
            }
            _ => return false,
        }
        true
    }

    /// Whether every client must show a certificate.
    pub(super) fn requires_client_certificate(&self) -> bool {
        self.verify_client == Some(true) && self.ca().is_some()
    }

    /// Writes it into a `listen … ssl`.
    pub(super) fn write_to(&self, listener: &mut ListenerDraft, http2: bool, notes: &Notes<'_>) {
        let at = listener.span;
        let shown = format!("listen {} ssl", listener.address);
        let ending = TlsTerminationDraft {
            certificates: self.certificate_pairs(&mut listener.comments, notes),
            min_version: self.min_version,
            http2: Some(self.http2 || http2),
            hsts: self.hsts,
            client_auth: self.client_auth(),
        };
        if ending.certificates.is_empty() {
            let why = "no certificate with its key is said for it that could be translated";
            listener.comments.push(notes.gap(at, &shown, why));
        }
        if self.verify_client.is_some() && ending.client_auth.is_none() {
            let what = "clients are asked for certificates, and by whose is not said (`ssl_client_certificate`): none are asked for";
            let comment = notes.wider_access(at, &shown, what);
            listener.comments.push(comment);
        }
        listener.tls = Some(ending);
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

    /// The first certificate: nginx has one of each kind of key for the same names.
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
            let shown = format!("ssl_certificate {}", cert.text);
            let why = if !is_file(cert) || !is_file(key) || key.text.starts_with("engine:") {
                "certificates and keys are files"
            } else if found.is_some() {
                "there is one certificate for a name; the first is written"
            } else {
                found = Some(CertificateDraft {
                    cert: cert.text.clone(),
                    key: key.text.clone(),
                    ocsp: self.stapling_file.clone(),
                });
                continue;
            };
            comments.push(notes.gap(cert.span, &shown, why));
        }
        found.into_iter().collect()
    }
}

const STAPLING: &str =
    "nothing is fetched from the certificate's issuer; a response in a file is sent along (`ocsp`)";

/// Whether a directive is what [`Ssl::apply`] takes for `Strict-Transport-Security`.
fn is_hsts(directive: &Directive) -> bool {
    let name = directive.argument(0);
    name.eq_ignore_ascii_case("strict-transport-security")
}

/// The oldest version that is asked for and spoken here.
fn min_version(directive: &Directive, notes: &Notes<'_>) -> Option<&'static str> {
    let said = |version: &str| directive.arguments.iter().any(|word| word.text == version);
    if ["SSLv2", "SSLv3", "TLSv1", "TLSv1.1"].into_iter().any(said) {
        let what = "nothing older than TLS 1.2 is spoken here";
        notes.remark(directive.span(), &directive.text(), what);
    }
    if said("TLSv1.2") {
        Some("1.2")
    } else {
        said("TLSv1.3").then_some("1.3")
    }
}

/// What `proxy_ssl_…` or `grpc_ssl_…` says of TLS to servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ProxySsl {
    verify: bool,
    /// Servers are told whom the client wants (SNI).
    send_sni: bool,
    ssl_name: Option<String>,
    ca: Option<String>,
    cert: Option<String>,
    key: Option<String>,
    min_version: Option<&'static str>,
}

impl ProxySsl {
    /// Takes a directive in, whose name goes on like this; `false` if it is none of these.
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

    /// The TLS to servers that are called `named` where they are passed to; what could not be said
    /// goes to `comments`.
    pub(super) fn tls_origination(
        &self,
        named: &str,
        place: SourceSpan,
        comments: &mut Vec<String>,
        notes: &Notes<'_>,
    ) -> TlsOriginationDraft {
        const BLIND: &str = "nginx verifies no certificate of a server without `proxy_ssl_verify on`, and so it is here (`verify: false`)";
        let subject = format!("TLS to {named}");
        if !self.verify {
            comments.push(notes.remark(place, &subject, BLIND));
        }
        let mut tls = TlsOriginationDraft {
            server_name: self.server_name(named),
            ca: self.ca.clone().filter(|_| self.verify),
            client_certificate: self.cert.clone().zip(self.key.clone()),
            min_version: self.min_version,
            verify: self.verify,
        };
        let bad = |name: &String| name != "host" && !is_verifiable_name(name);
        if let Some(name) = tls.server_name.take_if(|name| bad(name)) {
            let why = "no server can be asked for this name; write `server_name`";
            comments.push(notes.gap(place, &format!("{subject} as {name}"), why));
        }
        tls
    }

    fn server_name(&self, named: &str) -> Option<String> {
        // Where nothing is verified and nobody told, there is no name.
        if !self.verify && !self.send_sni {
            return None;
        }
        let host = named.rsplit_once(':').map_or(named, |(host, _)| host);
        Some(match self.ssl_name.as_deref() {
            Some("$host" | "$http_host" | "$ssl_server_name") => "host".to_owned(),
            None | Some("$proxy_host") => host.to_owned(),
            Some(name) => name.to_owned(),
        })
    }
}
