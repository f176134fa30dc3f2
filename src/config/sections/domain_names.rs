//! `tls.acme`: the names of a certificate that is ordered by ACME.
//!
//! Rejects names that no authority issues certificates for: failed orders count towards its rate limits.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::fields::{Fields, collect_until_full, items_or_one, parse_or_report, text};
use crate::config::raw::YamlNode;
use crate::config::report::{Problem, quote};
use crate::config::values::InvalidValue;

/// The names of one certificate: at least one, in lower case. The first is the primary name, which
/// identifies the certificate; the order of the others is irrelevant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainNames(Arc<[String]>);

impl DomainNames {
    /// The most that public authorities put in one certificate.
    pub const MAX: usize = 100;

    /// `None` if `names` is empty.
    pub fn new(mut names: Vec<String>) -> Option<Self> {
        let (_, others) = names.split_first_mut()?;
        others.sort_unstable();
        Some(Self(names.into()))
    }

    /// The name that identifies the certificate in logs, files and the status.
    pub fn primary(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// All names, the primary one first.
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }
}

const NAMES_HELP: &str = "list names, as in `acme: [example.org, www.example.org]`";

/// RFC 1035 §2.3.4.
const MAX_LABEL: usize = 63;

const MAX_NAME: usize = 253;

/// The names of a certificate with `acme`.
pub(super) fn read(certificate: &Fields<'_>) -> Option<DomainNames> {
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

/// RFC 1123 §2.1.
pub(super) fn is_dns_label(label: &str) -> bool {
    let of_label = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=MAX_LABEL).contains(&label.len())
        && label.bytes().all(of_label)
        && !label.starts_with('-')
        && !label.ends_with('-')
}
