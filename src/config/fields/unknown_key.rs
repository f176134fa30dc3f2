//! The advice for a key that its section does not have: a misspelling, a key of another section or of another proxy.

use std::collections::BTreeSet;

use crate::config::report::quote;
use crate::config::schema::{SectionSchema, nearest, unsupported};

/// Keys of other proxies: theirs, ours.
const FOREIGN_KEYS: &[(&str, &str)] = &[
    ("accept-proxy", "proxy_protocol"),
    ("accept_proxy", "proxy_protocol"),
    ("acme_ca", "directory"),
    ("backend", "upstream"),
    ("backends", "upstreams"),
    ("balance", "key"),
    ("bind", "address"),
    ("hash-balance-factor", "bounded_load"),
    ("hash_balance_factor", "bounded_load"),
    ("slowstart", "slow_start"),
    ("ssl", "tls"),
    ("ssl_certificate", "cert"),
    ("ssl_certificate_key", "key"),
    ("caserver", "directory"),
    ("ca-file", "ca"),
    ("cacert", "ca"),
    ("certificate", "cert"),
    ("proxy_ssl_name", "server_name"),
    ("sni", "server_name"),
    ("cluster", "upstream"),
    ("clusters", "upstreams"),
    ("domain", "host"),
    ("eab", "external_account"),
    ("email", "contact"),
    ("endpoints", "peers"),
    ("file", "path"),
    ("frontends", "listeners"),
    ("hash", "key"),
    ("hash_key", "key"),
    ("health_check", "health"),
    ("healthcheck", "health"),
    ("keytype", "key_type"),
    ("listen", "listeners"),
    ("locations", "routes"),
    ("log", "access_log"),
    ("log_level", "error_log"),
    ("members", "peers"),
    ("name", "label"),
    ("nodes", "peers"),
    ("prefix", "path"),
    ("proxy_pass", "upstream"),
    ("retries", "retry"),
    ("rules", "routes"),
    ("send-proxy", "proxy_protocol"),
    ("send_proxy", "proxy_protocol"),
    ("server", "address"),
    ("servers", "peers"),
    ("shutdown_timeout", "drain_timeout"),
    ("target", "upstream"),
    ("targets", "peers"),
    ("timeout", "timeouts"),
    ("uri", "path"),
    ("url", "address"),
    ("workers", "threads"),
];

/// The advice for a key that `section` does not have, and the key of `section` that was probably meant. `root`: the top level
/// of the file.
pub(super) fn unknown_key_advice(
    key: &str,
    section: &SectionSchema,
    root: &'static SectionSchema,
) -> (String, Option<&'static str>) {
    if key == "<<" {
        return (
            "merge keys are not part of YAML 1.2; write the keys out".to_owned(),
            None,
        );
    }
    if let Some(advice) = unsupported(key) {
        return (format!("{advice}; remove the line"), None);
    }
    if let Some(near) = nearest(key, section.keys.iter().copied()) {
        return (format!("did you mean `{near}`?"), Some(near));
    }
    let mut foreign = FOREIGN_KEYS.iter();
    let foreign = foreign.find(|(theirs, _)| key.eq_ignore_ascii_case(theirs));
    // The same word may be a key of a distant section, too.
    if let Some((_, ours)) = foreign.filter(|(_, ours)| section.keys.contains(ours)) {
        return foreign_key_advice(key, ours, section, root);
    }
    let homes = sections_with_key(key, root);
    if !homes.is_empty() {
        return (format!("`{key}` belongs in {}", homes.join(" or ")), None);
    }
    match foreign {
        Some((_, ours)) => foreign_key_advice(key, ours, section, root),
        None => (list_keys(section), None),
    }
}

/// The places of all sections that have exactly this key.
fn sections_with_key(key: &str, root: &'static SectionSchema) -> Vec<String> {
    let with_key = root
        .with_nested()
        .filter(|section| section.keys.contains(&key));
    with_key
        .map(section_location)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect()
}

fn section_location(section: &SectionSchema) -> String {
    match section.path {
        "" => "the top level of the file".to_owned(),
        path if section.title.starts_with('`') => format!("`{path}`"),
        path => format!("{} (`{path}`)", section.title),
    }
}

fn foreign_key_advice(
    key: &str,
    ours: &'static str,
    section: &SectionSchema,
    root: &'static SectionSchema,
) -> (String, Option<&'static str>) {
    let message = format!("{} is called `{ours}` here", quote(key));
    if section.keys.contains(&ours) {
        return (message, Some(ours));
    }
    (
        format!(
            "{message}, in {}",
            sections_with_key(ours, root).join(" or ")
        ),
        None,
    )
}

fn list_keys(section: &SectionSchema) -> String {
    let keys = section
        .keys
        .iter()
        .map(|key| format!("`{key}`"))
        .collect::<Vec<_>>()
        .join(", ");
    format!("the keys of {} are {keys}", section.title)
}
