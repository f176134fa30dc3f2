//! `acme`, and the certificates of listeners that are ordered by it.
//!
//! Rejects names that no authority issues certificates for, or not with the configured challenge:
//! failed orders count towards the rate limits of the authority.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use super::file_path::path_with_span;
use crate::config::credential_loader::CredentialLoader;
use crate::config::fields::{
    Fields, SectionOff, collect_until_full, items_or_one, parse_or_report, text,
};
use crate::config::raw::YamlNode;
use crate::config::report::{Problem, Problems, quote};
use crate::config::schema;
use crate::config::settings::{
    AcmeChallenge, AcmeConfig, DomainNames, ExternalAccountBinding, KeyType,
};
use crate::config::settings::{CertificateSource, ListenerConfig, TlsConfig};
use crate::config::span::Span;
use crate::config::values::{InvalidValue, describe_node, duration, percentage_within};
use crate::policy::cert_renewal::RenewBefore;

const DEFAULT_STORAGE: &str = "/var/lib/clockwise/acme";
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
const SECTION_HELP: &str =
    "write `acme: {directory: letsencrypt, contact: [mailto:ops@example.org]}` at the top level";
const NAMES_HELP: &str = "list names, as in `acme: [example.org, www.example.org]`";
const DIRECTORY_HELP: &str = "use `letsencrypt`, `letsencrypt-staging` or a URL with `https`";

/// RFC 1035, 2.3.4.
const MAX_LABEL: usize = 63;
const MAX_NAME: usize = 253;

/// Short times are for tests; no authority issues for longer than two years.
const RENEW_BEFORE_BOUNDS: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(2 * 365 * 86_400);

const KEY_TYPES: &[(&str, KeyType)] = &[("p256", KeyType::P256), ("p384", KeyType::P384)];
const CHALLENGES: &[(&str, AcmeChallenge)] = &[
    ("http-01", AcmeChallenge::Http01),
    ("tls-alpn-01", AcmeChallenge::TlsAlpn01),
];

/// `None`: `acme` is off, or invalid.
pub(super) fn read(
    root: &Fields<'_>,
    listeners: &[(ListenerConfig, Span)],
    loader: &mut CredentialLoader,
) -> Option<AcmeConfig> {
    let fields = match root.section_or_off("acme", &schema::ACME) {
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

/// The names of a certificate with `acme`.
pub(super) fn names(certificate: &Fields<'_>) -> Option<DomainNames> {
    let node = certificate.get("acme")?;
    let problems = certificate.problems;
    let files = ["cert", "key", "ocsp"];
    if let Some(file) = files.iter().find_map(|key| certificate.get(key)) {
        let problem = Problem::error(
            "a certificate has both files and `acme`",
            file.header_span(),
        );
        let problem = problem.secondary(node.header_span(), "names here");
        problems.add(problem.help("keep one of the two"));
    }
    let nodes = items_or_one(node);
    if nodes.is_empty() || node.is_null() {
        certificate.error(node, "a certificate needs a name", NAMES_HELP);
        return None;
    }
    if nodes.len() > DomainNames::MAX {
        let message = format!("{} names are too many for one certificate", nodes.len());
        let help = format!(
            "use at most {}, and several certificates for more",
            DomainNames::MAX
        );
        certificate.error(node, message, help);
    }
    let mut seen = HashMap::new();
    let names = collect_until_full(nodes, problems, |node| {
        let name = parse_or_report(node, problems, domain_name)?;
        if let Some(first) = seen.insert(name.clone(), node.error_span()) {
            let problem = Problem::error(
                format!("duplicate name {}", quote(&name)),
                node.error_span(),
            );
            problems.add(problem.secondary(first, "first here").help("remove one"));
        }
        Some(name)
    });
    DomainNames::new(names)
}

/// A name that an authority may issue a certificate for, in lower case.
fn domain_name(node: &YamlNode) -> Result<String, InvalidValue> {
    let name = text(node, "a name like `example.org`")?.to_ascii_lowercase();
    let error =
        |message: &str, help: &str| Err((format!("{} {message}", quote(&name)), help.to_owned()));
    let address = name.trim_start_matches('[').trim_end_matches(']');
    if name.starts_with("*.") {
        return error(
            "cannot be ordered: wildcards need the challenge dns-01, which is not supported",
            "list the names one by one, or use certificate files, `cert` and `key`",
        );
    }
    if address.parse::<IpAddr>().is_ok() {
        return error(
            "is an IP address, not a host name",
            "use the host name in the URLs of clients",
        );
    }
    if !name.is_ascii() {
        return error(
            "is not ASCII",
            "write its ASCII form, as in `xn--bcher-kva.example` (`idn2 NAME` shows it)",
        );
    }
    if name.len() > MAX_NAME || !name.split('.').all(is_dns_label) {
        return error(
            "is not a host name",
            "use a name like `example.org`, without a port",
        );
    }
    Ok(name)
}

/// RFC 1123, 2.1.
fn is_dns_label(label: &str) -> bool {
    let of_label = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=MAX_LABEL).contains(&label.len())
        && label.bytes().all(of_label)
        && !label.starts_with('-')
        && !label.ends_with('-')
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

fn external_account(
    fields: &Fields<'_>,
    loader: &mut CredentialLoader,
) -> Option<ExternalAccountBinding> {
    let help = "write `external_account: {id: ID, hmac_key_file: FILE}`";
    let problems = fields.problems;
    let fields = fields.section("external_account", &schema::EXTERNAL_ACCOUNT)?;
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
