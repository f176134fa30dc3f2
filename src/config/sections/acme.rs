//! `acme`: certificates that are ordered from an authority (ACME, RFC 8555). [`acme`](crate::acme) orders and stores them.
//!
//! Rejects what no authority issues, or not with the configured challenge: failed orders count towards the rate limits
//! of the authority.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;

use super::domain_names::is_dns_label;
use super::file_path::path_with_span;
use super::{CertificateSource, DomainNames, ListenerConfig, TlsConfig};
use crate::config::credential_loader::CredentialLoader;
use crate::config::fields::{
    Fields, SectionOff, collect_until_full, items_or_one, parse_or_report, text,
};
use crate::config::raw::YamlNode;
use crate::config::report::{Problem, Problems, quote};
use crate::config::schema::SectionSchema;
use crate::config::span::Span;
use crate::config::values::{InvalidValue, describe_node, duration, percentage_within};
use crate::policy::cert_renewal::RenewBefore;

/// Settings of ACME.
#[derive(Clone, Debug, PartialEq)]
pub struct AcmeConfig {
    /// URL of the authority's directory (RFC 8555 §7.1.1); always `https`.
    pub directory: String,
    /// Contacts for the authority, as `mailto:…`; may be empty.
    pub contact: Vec<String>,
    /// Directory for the account and the certificates; readable by the process's user only.
    pub storage: PathBuf,
    /// The kind of key in the certificates.
    pub key_type: KeyType,
    /// An existing account that the authority requires; `None`: not required.
    pub external_account: Option<ExternalAccountBinding>,
    /// PEM: issuers that are trusted for the connection to the authority; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// How long before its expiry a certificate is renewed.
    pub renew_before: RenewBefore,
    /// The kind of challenge by which the authority verifies the names.
    pub challenge: AcmeChallenge,
}

impl AcmeConfig {
    /// The files that are read when the configuration is loaded.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let account = self.external_account.as_ref();
        let key = account.map(|account| account.hmac_key_file.as_path());
        self.ca.as_deref().into_iter().chain(key)
    }
}

/// A kind of key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
}

/// A kind of challenge, by which the authority verifies that a name is served here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcmeChallenge {
    /// A request on port 80 (RFC 8555 §8.3).
    Http01,
    /// A TLS handshake on port 443 (RFC 8737).
    TlsAlpn01,
}

/// An account with the authority outside of ACME (RFC 8555 §7.3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalAccountBinding {
    /// The key identifier from the authority.
    pub id: String,
    /// The file of its HMAC key, base64url; the content is in
    /// [`Credentials`](super::Credentials::external_account).
    pub hmac_key_file: PathBuf,
}

const DEFAULT_STORAGE: &str = "/var/lib/clockwise/acme";
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
const SECTION_HELP: &str =
    "write `acme: {directory: letsencrypt, contact: [mailto:ops@example.org]}` at the top level";
const DIRECTORY_HELP: &str = "use `letsencrypt`, `letsencrypt-staging` or a URL with `https`";

/// Short times are for tests; no authority issues for longer than two years.
const RENEW_BEFORE_BOUNDS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(2 * 365 * 86_400);

const KEY_TYPES: &[(&str, KeyType)] = &[("p256", KeyType::P256), ("p384", KeyType::P384)];

const CHALLENGES: &[(&str, AcmeChallenge)] = &[
    ("http-01", AcmeChallenge::Http01),
    ("tls-alpn-01", AcmeChallenge::TlsAlpn01),
];

pub(super) static ACME: SectionSchema = SectionSchema {
    title: "`acme`",
    path: "acme",
    example: "{directory: letsencrypt, contact: [mailto:ops@example.org]}",
    keys: &[
        "directory",
        "contact",
        "storage",
        "key_type",
        "external_account",
        "ca",
        "renew_before",
        "challenge",
    ],
    nested: &[&EXTERNAL_ACCOUNT],
    ..SectionSchema::EMPTY
};

/// `None`: `acme` is off, or invalid.
pub(super) fn read(
    root: &Fields<'_>,
    listeners: &[(ListenerConfig, Span)],
    loader: &mut CredentialLoader,
) -> Option<AcmeConfig> {
    let fields = match root.section_or_off("acme", &ACME) {
        Ok(Some(fields)) => fields,
        Ok(None) if root.get("acme").is_some() => return None,
        Ok(None) | Err(SectionOff) => {
            refuse_names_without_acme(listeners, root.problems);
            return None;
        }
    };
    let acme = AcmeConfig {
        directory: fields
            .read("directory", directory)
            .unwrap_or_else(|| LETS_ENCRYPT.to_owned()),
        contact: contact(&fields),
        storage: fields
            .read("storage", storage)
            .unwrap_or_else(|| PathBuf::from(DEFAULT_STORAGE)),
        key_type: fields.choice("key_type", KeyType::P256, KEY_TYPES),
        external_account: external_account(&fields, loader),
        ca: ca(&fields, loader),
        renew_before: fields
            .read("renew_before", renew_before)
            .unwrap_or(RenewBefore::DEFAULT),
        challenge: fields.choice("challenge", AcmeChallenge::Http01, CHALLENGES),
    };
    check_listeners(&acme, &fields, listeners);
    Some(acme)
}

fn directory(node: &YamlNode) -> Result<String, InvalidValue> {
    let written = text(node, "the URL of an ACME directory")?;
    let url = match written {
        "letsencrypt" => return Ok(LETS_ENCRYPT.to_owned()),
        "letsencrypt-staging" => return Ok(STAGING.to_owned()),
        other => other,
    };
    let parsed: Option<Uri> = url.parse().ok();
    match parsed
        .as_ref()
        .and_then(|uri| Some((uri.scheme_str()?, uri.authority()?)))
    {
        Some(("https", authority)) if !authority.as_str().contains('@') => Ok(url.to_owned()),
        Some(("http", _)) => {
            let message = format!("{} is not encrypted", quote(url));
            Err((message, "use `https` (RFC 8555, 6.1)".to_owned()))
        }
        _ => Err((
            format!("{} is not the URL of an ACME directory", quote(url)),
            DIRECTORY_HELP.to_owned(),
        )),
    }
}

fn contact(fields: &Fields<'_>) -> Vec<String> {
    let nodes = fields.get("contact").map_or(&[][..], items_or_one);
    collect_until_full(nodes, fields.problems, |node| {
        parse_or_report(node, fields.problems, mailto)
    })
}

fn mailto(node: &YamlNode) -> Result<String, InvalidValue> {
    let written = text(node, "an address like `mailto:ops@example.org`")?;
    let (scheme, address) = written.split_once(':').unwrap_or(("mailto", written));
    match address.split_once('@') {
        Some((user, host))
            if scheme == "mailto"
                && !user.is_empty()
                && host.split('.').all(is_dns_label)
                && written
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && !b",?".contains(&byte)) =>
        {
            Ok(format!("mailto:{address}"))
        }
        _ => Err((
            format!("{} is not a mail address", quote(written)),
            "write it as in `mailto:ops@example.org`".to_owned(),
        )),
    }
}

fn storage(node: &YamlNode) -> Result<PathBuf, InvalidValue> {
    match text(node, "a directory")? {
        "" | "/" | "off" | "none" | "false" => Err((
            format!("expected a directory, found {}", describe_node(node)),
            format!(
                "use a directory of its own, as in `{DEFAULT_STORAGE}`: it keeps certificates across restarts"
            ),
        )),
        path => Ok(PathBuf::from(path)),
    }
}

static EXTERNAL_ACCOUNT: SectionSchema = SectionSchema {
    title: "`external_account`",
    path: "acme.external_account",
    example: "{id: my-account, hmac_key_file: /etc/clockwise/eab.key}",
    keys: &["id", "hmac_key_file"],
    ..SectionSchema::EMPTY
};

fn external_account(
    fields: &Fields<'_>,
    loader: &mut CredentialLoader,
) -> Option<ExternalAccountBinding> {
    let help = "write `external_account: {id: ID, hmac_key_file: FILE}`";
    let problems = fields.problems;
    let fields = fields.section("external_account", &EXTERNAL_ACCOUNT)?;
    let (id, file) = (
        fields.require("id", help),
        fields.require("hmac_key_file", help),
    );
    let (_, _) = (id?, file?);
    let id = fields.read("id", |node| {
        text(node, "the account's id").map(str::to_owned)
    })?;
    let file = path_with_span(&fields, "hmac_key_file")?;
    loader.load_account_key(&file, problems);
    Some(ExternalAccountBinding {
        id,
        hmac_key_file: file.path,
    })
}

fn ca(fields: &Fields<'_>, loader: &mut CredentialLoader) -> Option<PathBuf> {
    let file = path_with_span(fields, "ca")?;
    loader.load_trust_anchors(&file, fields.problems);
    Some(file.path)
}

/// A duration, or a share of the certificate's lifetime.
fn renew_before(node: &YamlNode) -> Result<RenewBefore, InvalidValue> {
    if node.text().is_some_and(|text| text.ends_with('%')) {
        return percentage_within(node, (1.0, 50.0)).map(RenewBefore::Share);
    }
    duration(node, &RENEW_BEFORE_BOUNDS).map(RenewBefore::Time)
}

/// Checks `acme` and the listeners against each other.
fn check_listeners(acme: &AcmeConfig, fields: &Fields<'_>, listeners: &[(ListenerConfig, Span)]) {
    let problems = fields.problems;
    refuse_same_primary_name(listeners, problems);
    let orders = || acme_certificates(listeners);
    if orders().next().is_none() && !problems.has_errors() {
        let problem = Problem::warning(
            "`acme` is configured, but no listener uses it",
            fields.header_span(),
        );
        problems.add(problem.help("add `tls: {acme: [NAME]}` to a listener, or remove `acme`"));
    }
    match acme.challenge {
        AcmeChallenge::Http01 if orders().next().is_some() => {
            require_plain_listener(fields, listeners);
        }
        AcmeChallenge::Http01 => {}
        AcmeChallenge::TlsAlpn01 => refuse_required_client_auth(listeners, problems),
    }
}

/// The certificates to order, with the spans of their listeners.
fn acme_certificates(
    listeners: &[(ListenerConfig, Span)],
) -> impl Iterator<Item = (&TlsConfig, &DomainNames, Span)> {
    listeners.iter().flat_map(|(listener, span)| {
        let tls = listener.tls.iter();
        tls.flat_map(move |tls| {
            let names = tls.certificates.iter().filter_map(|source| match source {
                CertificateSource::Acme(names) => Some(names),
                CertificateSource::Files(_) => None,
            });
            names.map(move |names| (tls, names, *span))
        })
    })
}

fn refuse_names_without_acme(listeners: &[(ListenerConfig, Span)], problems: &Problems) {
    for (_, names, span) in acme_certificates(listeners) {
        let message = format!(
            "the certificate for {} is ordered by ACME, but `acme` is off",
            quote(names.primary())
        );
        problems.add(Problem::error(message, span).help(SECTION_HELP));
    }
}

/// The primary name identifies a certificate in files and in the status.
fn refuse_same_primary_name(listeners: &[(ListenerConfig, Span)], problems: &Problems) {
    let mut seen = BTreeMap::new();
    for (_, names, span) in acme_certificates(listeners) {
        let (first, first_span) = *seen.entry(names.primary()).or_insert((names, span));
        if first != names {
            let message = format!(
                "two different certificates begin with the name {}",
                quote(names.primary())
            );
            let problem = Problem::error(message, span).secondary(first_span, "first here");
            problems.add(
                problem
                    .help("use the same names in both, or put another name first in one of them"),
            );
        }
    }
}

fn require_plain_listener(fields: &Fields<'_>, listeners: &[(ListenerConfig, Span)]) {
    if listeners.is_empty() || listeners.iter().any(|(listener, _)| listener.tls.is_none()) {
        return;
    }
    let at = fields
        .get("challenge")
        .map_or_else(|| fields.header_span(), YamlNode::error_span);
    let problem = Problem::error("the challenge `http-01` needs a listener without TLS", at);
    fields.problems.add(problem.help(
        "add `{address: 0.0.0.0:80, https_redirect: 443}` to the listeners, or set `challenge: tls-alpn-01`",
    ));
}

fn refuse_required_client_auth(listeners: &[(ListenerConfig, Span)], problems: &Problems) {
    let strict = |tls: &TlsConfig| tls.client_auth.as_ref().is_some_and(|auth| auth.required);
    for (_, names, span) in acme_certificates(listeners).filter(|(tls, ..)| strict(tls)) {
        let message = format!(
            "the authority cannot verify {} here: it has no client certificate",
            quote(names.primary())
        );
        problems.add(Problem::error(message, span).help("set `challenge: http-01` in `acme`"));
    }
}
