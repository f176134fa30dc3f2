//! `acme`, and the certificates of listeners that are ordered by it.
//!
//! What no authority would issue, or could not issue by the challenge that is set, is refused here: an
//! order that must fail costs the operator's share of the authority's patience.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use super::tls::placed;
use crate::config::acme::{Acme, Challenge, ExternalAccount, KeyType, Names};
use crate::config::fields::{Fields, Off, accept, collect, items_or_one, text};
use crate::config::files::Files;
use crate::config::raw::{Node, Span};
use crate::config::report::{Problem, Problems, quote};
use crate::config::schema;
use crate::config::settings::{CertificateSource, Listener, Tls};
use crate::config::values::{Fault, duration, percentage, shown};
use crate::policy::cert_renewal::RenewBefore;

const STORAGE: &str = "/var/lib/clockwise/acme";
const LETS_ENCRYPT: &str = "https://acme-v02.api.letsencrypt.org/directory";
const STAGING: &str = "https://acme-staging-v02.api.letsencrypt.org/directory";
const SECTION: &str =
    "write `acme: {directory: letsencrypt, contact: [mailto:ops@example.org]}` at the top level";
const NAMES: &str = "list names, as in `acme: [example.org, www.example.org]`";
const DIRECTORY: &str = "write `letsencrypt`, `letsencrypt-staging` or a URL with `https`";

/// RFC 1035, 2.3.4.
const LABEL: usize = 63;
const NAME: usize = 253;

/// An hour is for tests; nobody issues for longer than two years.
const RENEW_BEFORE: (Duration, Duration) = (
    Duration::from_secs(1),
    Duration::from_secs(2 * 365 * 86_400),
);

const KEYS: &[(&str, KeyType)] = &[("p256", KeyType::P256), ("p384", KeyType::P384)];
const CHALLENGES: &[(&str, Challenge)] = &[
    ("http-01", Challenge::Http01),
    ("tls-alpn-01", Challenge::TlsAlpn01),
];

/// `None`: nothing is ordered.
pub(super) fn read(
    root: &Fields<'_>,
    listeners: &[(Listener, Span)],
    files: &mut Files,
) -> Option<Acme> {
    let fields = match root.section_or_off("acme", &schema::ACME) {
        Ok(Some(fields)) => fields,
        Ok(None) if root.get("acme").is_some() => return None,
        Ok(None) | Err(Off) => {
            refuse_orders(listeners, root.problems);
            return None;
        }
    };
    let acme = Acme {
        directory: fields
            .read("directory", directory)
            .unwrap_or_else(|| LETS_ENCRYPT.to_owned()),
        contact: contact(&fields),
        storage: fields
            .read("storage", storage)
            .unwrap_or_else(|| PathBuf::from(STORAGE)),
        key_type: fields.choice("key_type", KeyType::P256, KEYS),
        external_account: external_account(&fields, files),
        ca: ca(&fields, files),
        renew_before: fields
            .read("renew_before", before)
            .unwrap_or(RenewBefore::DEFAULT),
        challenge: fields.choice("challenge", Challenge::Http01, CHALLENGES),
    };
    look_across(&acme, &fields, listeners);
    Some(acme)
}

/// The names of a certificate that is to be ordered.
pub(super) fn names(certificate: &Fields<'_>) -> Option<Names> {
    let node = certificate.get("acme")?;
    let problems = certificate.problems;
    let files = ["cert", "key", "ocsp"];
    if let Some(file) = files.iter().find_map(|key| certificate.get(key)) {
        let problem = Problem::error("a file for a certificate that is ordered", file.head());
        let problem = problem.also(node.head(), "ordered here");
        problems.add(problem.help("keep one: the files, or the names"));
    }
    let nodes = items_or_one(node);
    if nodes.is_empty() || node.is_null() {
        certificate.error(node, "a certificate needs a name", NAMES);
        return None;
    }
    if nodes.len() > Names::MAX {
        let message = format!("{} names in one certificate", nodes.len());
        let help = format!(
            "at most {} are issued; order several certificates",
            Names::MAX
        );
        certificate.error(node, message, help);
    }
    let mut seen = HashMap::new();
    let names = collect(nodes, problems, |node| {
        let name = accept(node, problems, name)?;
        if let Some(first) = seen.insert(name.clone(), node.place()) {
            let problem = Problem::error(format!("{} twice", quote(&name)), node.place());
            problems.add(problem.also(first, "first here").help("remove one"));
        }
        Some(name)
    });
    Names::new(names)
}

/// A name that can be asked for, in lower case.
fn name(node: &Node) -> Result<String, Fault> {
    let name = text(node, "a name like `example.org`")?.to_ascii_lowercase();
    let fault =
        |message: &str, help: &str| Err((format!("{} {message}", quote(&name)), help.to_owned()));
    let address = name.trim_start_matches('[').trim_end_matches(']');
    if name.starts_with("*.") {
        return fault(
            "cannot be ordered: wildcards need the challenge dns-01, which is not done here",
            "list the names one by one, or give a certificate by `cert` and `key`",
        );
    }
    if address.parse::<IpAddr>().is_ok() {
        return fault(
            "is an address, not a name",
            "give the name that clients ask for",
        );
    }
    if !name.is_ascii() {
        return fault(
            "is not ASCII",
            "write it as DNS has it, as in `xn--bcher-kva.example` (`idn2 NAME` tells)",
        );
    }
    if name.len() > NAME || !name.split('.').all(is_label) {
        return fault(
            "is no host name",
            "give a name like `example.org`, without a port",
        );
    }
    Ok(name)
}

/// RFC 1123, 2.1.
fn is_label(label: &str) -> bool {
    let of_label = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=LABEL).contains(&label.len())
        && label.bytes().all(of_label)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn directory(node: &Node) -> Result<String, Fault> {
    let written = text(node, "an authority's directory")?;
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
            let message = format!(
                "{} is not encrypted: anybody on the way could answer",
                quote(url)
            );
            Err((
                message,
                "use `https`; RFC 8555, 6.1 knows nothing else".to_owned(),
            ))
        }
        _ => Err((
            format!("{} is not an authority's directory", quote(url)),
            DIRECTORY.to_owned(),
        )),
    }
}

fn contact(fields: &Fields<'_>) -> Vec<String> {
    let nodes = fields.get("contact").map_or(&[][..], items_or_one);
    collect(nodes, fields.problems, |node| {
        accept(node, fields.problems, mail)
    })
}

fn mail(node: &Node) -> Result<String, Fault> {
    let written = text(node, "an address like `mailto:ops@example.org`")?;
    let (scheme, address) = written.split_once(':').unwrap_or(("mailto", written));
    match address.split_once('@') {
        Some((user, host))
            if scheme == "mailto"
                && !user.is_empty()
                && host.split('.').all(is_label)
                && written
                    .bytes()
                    .all(|byte| byte.is_ascii_graphic() && !b",?".contains(&byte)) =>
        {
            Ok(format!("mailto:{address}"))
        }
        _ => Err((
            format!("{} is no address to write to", quote(written)),
            "write one as in `mailto:ops@example.org`".to_owned(),
        )),
    }
}

fn storage(node: &Node) -> Result<PathBuf, Fault> {
    match text(node, "a directory")? {
        "" | "/" | "off" | "none" | "false" => Err((
            format!("expected a directory, found {}", shown(node)),
            format!(
                "write one of its own, as in `{STORAGE}`: without it each start would order anew"
            ),
        )),
        path => Ok(PathBuf::from(path)),
    }
}

fn external_account(fields: &Fields<'_>, files: &mut Files) -> Option<ExternalAccount> {
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
    let file = placed(&fields, "hmac_key_file")?;
    files.account_key(&file, problems);
    Some(ExternalAccount {
        id,
        hmac_key_file: file.path,
    })
}

fn ca(fields: &Fields<'_>, files: &mut Files) -> Option<PathBuf> {
    let file = placed(fields, "ca")?;
    files.anchors(&file, fields.problems);
    Some(file.path)
}

/// A duration, or a share of the certificate's life.
fn before(node: &Node) -> Result<RenewBefore, Fault> {
    if node.text().is_some_and(|text| text.ends_with('%')) {
        let share = percentage(node)?;
        return match share {
            0.01..=0.5 => Ok(RenewBefore::Share(share)),
            _ => Err((
                format!("{} of its life is too little or too much", shown(node)),
                "use `1%` to `50%`, as in `33%`".to_owned(),
            )),
        };
    }
    let (least, most) = RENEW_BEFORE;
    duration(node, &(least..=most)).map(RenewBefore::Time)
}

/// What `acme` and the listeners only show together.
fn look_across(acme: &Acme, fields: &Fields<'_>, listeners: &[(Listener, Span)]) {
    let problems = fields.problems;
    refuse_namesakes(listeners, problems);
    let orders = || orders(listeners);
    if orders().next().is_none() && !problems.has_errors() {
        let problem = Problem::warning("no listener orders a certificate", fields.head());
        problems.add(problem.help("give one `tls: {acme: [NAME]}`, or remove `acme`"));
    }
    match acme.challenge {
        Challenge::Http01 if orders().next().is_some() => need_plain(fields, listeners),
        Challenge::Http01 => {}
        Challenge::TlsAlpn01 => refuse_strict(listeners, problems),
    }
}

/// The certificates to be ordered, with the listeners' places.
fn orders(listeners: &[(Listener, Span)]) -> impl Iterator<Item = (&Tls, &Names, Span)> {
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

fn refuse_orders(listeners: &[(Listener, Span)], problems: &Problems) {
    for (_, names, span) in orders(listeners) {
        let message = format!(
            "who issues the certificate for {} is not said",
            quote(names.first())
        );
        problems.add(Problem::error(message, span).help(SECTION));
    }
}

/// The first name is what operators and files call a certificate.
fn refuse_namesakes(listeners: &[(Listener, Span)], problems: &Problems) {
    let mut seen = BTreeMap::new();
    for (_, names, span) in orders(listeners) {
        let (first, place) = *seen.entry(names.first()).or_insert((names, span));
        if first != names {
            let message = format!("two certificates are called {}", quote(names.first()));
            let problem = Problem::error(message, span).also(place, "first here");
            problems
                .add(problem.help("list the same names in both, or begin one with another name"));
        }
    }
}

fn need_plain(fields: &Fields<'_>, listeners: &[(Listener, Span)]) {
    if listeners.is_empty() || listeners.iter().any(|(listener, _)| listener.tls.is_none()) {
        return;
    }
    let at = fields
        .get("challenge")
        .map_or_else(|| fields.head(), Node::place);
    let problem = Problem::error(
        "http-01 is asked for in plain HTTP, and no listener speaks it",
        at,
    );
    fields.problems.add(problem.help(
        "add `{address: 0.0.0.0:80, https_redirect: 443}` to the listeners, or set `challenge: tls-alpn-01`",
    ));
}

fn refuse_strict(listeners: &[(Listener, Span)], problems: &Problems) {
    let strict = |tls: &Tls| tls.client_auth.as_ref().is_some_and(|auth| auth.required);
    for (_, names, span) in orders(listeners).filter(|(tls, ..)| strict(tls)) {
        let message = format!(
            "the authority cannot look at {} here: it has no client certificate",
            quote(names.first())
        );
        problems.add(Problem::error(message, span).help("set `challenge: http-01` in `acme`"));
    }
}
