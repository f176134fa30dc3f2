//! `tls` of a listener: certificates, versions, client authentication, HSTS.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::file_path::path_with_span;
use super::{CertificateSource, domain_names};
use crate::config::credential_loader::CredentialLoader;
use crate::config::fields::{Fields, collect_until_full, items};
use crate::config::raw::YamlNode;
use crate::config::report::Problem;
use crate::config::schema::SectionSchema;
use crate::config::values::DURATION_BOUNDS;

/// TLS of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificates, chosen by server name (SNI); at least one, the first is the default.
    pub certificates: Vec<CertificateSource>,
    /// The oldest version that is accepted.
    pub min_version: TlsVersion,
    /// Limit for the whole handshake; above zero.
    pub handshake_timeout: Duration,
    /// Whether HTTP/2 is offered by ALPN.
    pub http2: bool,
    /// Client certificates; `None`: not requested.
    pub client_auth: Option<ClientAuthConfig>,
    /// `Strict-Transport-Security` (RFC 6797) of every response; `None`: the peers' header is passed on.
    pub hsts: Option<HstsConfig>,
}

impl TlsConfig {
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
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

/// Values of the `Strict-Transport-Security` header (RFC 6797).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HstsConfig {
    /// How long a browser uses HTTPS only, counted from each response; zero ends it.
    pub max_age: Duration,
    /// `includeSubDomains`.
    pub subdomains: bool,
    /// `preload`.
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

/// Client certificates: which are requested, and how they are verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthConfig {
    /// Whether a handshake without a certificate fails.
    pub required: bool,
    /// PEM: the issuers that are trusted.
    pub ca: PathBuf,
    /// PEM: their revocation lists; `None`: revocation is not checked.
    pub crl: Option<PathBuf>,
}

const HELP: &str = "write `tls: {cert: FILE, key: FILE}`";
const LIST_HELP: &str = "list them, as in `certificates: [{cert: FILE, key: FILE}]`";
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
pub(super) const VERSIONS: &[(&str, TlsVersion)] =
    &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
const CLIENT_AUTH_MODES: &[(&str, bool)] = &[("required", true), ("optional", false)];

pub(super) static TLS: SectionSchema = SectionSchema {
    title: "`tls`",
    path: "listeners[].tls",
    example: "{cert: server.crt, key: server.key}",
    keys: &[
        "cert",
        "key",
        "ocsp",
        "acme",
        "certificates",
        "min_version",
        "handshake_timeout",
        "client_auth",
        "http2",
        "hsts",
    ],
    nested: &[&CERTIFICATE, &CLIENT_AUTH, &HSTS],
    ..SectionSchema::EMPTY
};

/// `None`: the listener has no TLS.
pub(super) fn read(listener: &Fields<'_>, loader: &mut CredentialLoader) -> Option<TlsConfig> {
    let fields = listener.section_or_off("tls", &TLS).ok()??;
    let tls = TlsConfig {
        certificates: certificates(&fields, loader),
        min_version: fields.choice("min_version", TlsVersion::Tls12, VERSIONS),
        handshake_timeout: fields.duration("handshake_timeout", HANDSHAKE_TIMEOUT, DURATION_BOUNDS),
        http2: fields.flag("http2", true),
        client_auth: client_auth(&fields, loader),
        hsts: hsts(&fields),
    };
    Some(tls)
}

static CERTIFICATE: SectionSchema = SectionSchema {
    title: "a certificate",
    path: "listeners[].tls.certificates[]",
    example: "{cert: server.crt, key: server.key}",
    keys: &["cert", "key", "ocsp", "acme"],
    ..SectionSchema::EMPTY
};

/// A list, or in short form one certificate in the keys of `tls` itself.
fn certificates(fields: &Fields<'_>, loader: &mut CredentialLoader) -> Vec<CertificateSource> {
    let Some(list) = fields.get("certificates") else {
        return certificate(fields, loader).into_iter().collect();
    };
    let short = ["cert", "key", "ocsp", "acme"];
    if let Some(one) = short.iter().find_map(|key| fields.get(key)) {
        let problem = Problem::error("a certificate outside of `certificates`", one.header_span());
        let problem = problem.secondary(list.header_span(), "the list");
        fields.problems.add(problem.help("move it into the list"));
    }
    let problems = fields.problems;
    let listed = collect_until_full(items(list, LIST_HELP, problems), problems, |item| {
        let fields = Fields::open(item, &CERTIFICATE, problems)?;
        let at = fields
            .get("cert")
            .map_or_else(|| fields.header_span(), YamlNode::error_span);
        Some((certificate(&fields, loader)?, at))
    });
    loader.warn_duplicate_names(&listed, problems);
    listed.into_iter().map(|(files, _)| files).collect()
}

fn certificate(fields: &Fields<'_>, loader: &mut CredentialLoader) -> Option<CertificateSource> {
    if fields.get("acme").is_some() {
        return domain_names::read(fields).map(CertificateSource::Acme);
    }
    let cert = fields.require("cert", HELP);
    let key = fields.require("key", HELP);
    let ocsp = path_with_span(fields, "ocsp");
    let (_, _) = (cert?, key?);
    let (cert, key) = (
        path_with_span(fields, "cert")?,
        path_with_span(fields, "key")?,
    );
    let files = loader.load_certificate(cert, key, ocsp, fields.problems);
    Some(CertificateSource::Files(files))
}

static CLIENT_AUTH: SectionSchema = SectionSchema {
    title: "`client_auth`",
    path: "listeners[].tls.client_auth",
    example: "{mode: required, ca: clients.crt}",
    keys: &["mode", "ca", "crl"],
    ..SectionSchema::EMPTY
};

fn client_auth(fields: &Fields<'_>, loader: &mut CredentialLoader) -> Option<ClientAuthConfig> {
    let help = "write `client_auth: {mode: required, ca: FILE}`";
    let problems = fields.problems;
    let fields = fields.section_or_off("client_auth", &CLIENT_AUTH).ok()??;
    fields.require("mode", help);
    fields.require("ca", help)?;
    let ca = path_with_span(&fields, "ca")?;
    let crl = path_with_span(&fields, "crl");
    let auth = ClientAuthConfig {
        required: fields.choice("mode", true, CLIENT_AUTH_MODES),
        ca: ca.path.clone(),
        crl: crl.as_ref().map(|crl| crl.path.clone()),
    };
    loader.load_client_auth(auth.required, &ca, crl.as_ref(), problems);
    Some(auth)
}

/// Preload lists of browsers require one or two years; ten years are forever.
pub(crate) const MAX_HSTS_AGE: Duration = Duration::from_secs(10 * 365 * 86_400);

static HSTS: SectionSchema = SectionSchema {
    title: "`hsts`",
    path: "listeners[].tls.hsts",
    example: "{max_age: 8760h}",
    keys: &["max_age", "subdomains", "preload"],
    ..SectionSchema::EMPTY
};

fn hsts(fields: &Fields<'_>) -> Option<HstsConfig> {
    let fields = fields.section_or_off("hsts", &HSTS).ok()??;
    fields.require("max_age", "write `hsts: {max_age: 8760h}`")?;
    Some(HstsConfig {
        max_age: fields.duration("max_age", Duration::ZERO, Duration::ZERO..=MAX_HSTS_AGE),
        subdomains: fields.flag("subdomains", false),
        preload: fields.flag("preload", false),
    })
}
