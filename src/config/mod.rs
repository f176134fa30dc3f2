//! The configuration: YAML text → `raw` tree with places → [`Config`], every problem at once.
//!
//! ```text
//! file ──► raw (what was written, where) ──► fields (typed, by key) ──► resolve (what it means)
//!                      └──────────────── problems ────────────────────────┘ ──► Report
//! ```
//!
//! Whatever the text, the answer is a [`Config`] or a [`Report`], in bounded time and memory. A
//! [`Config`] is whole: every default is filled in, every reference inside it leads somewhere.
//! Nothing here looks at the world outside but [`load`] and [`check`], which read the file and those
//! that it names for TLS.

mod acme;
mod fields;
mod file;
mod files;
mod link;
mod raw;
mod report;
mod resolve;
mod schema;
mod settings;
mod values;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use crate::clock;
use files::Files;

pub use acme::{Acme, Challenge, ExternalAccount, KeyType, Names, Secret};
pub use link::{H2, Link, PeerTls, Protocol};
pub(crate) use raw::{Entry, Node, Value};
pub(crate) use report::quote;
pub use report::{Located, MAX_PROBLEMS, Report, Severity};
pub(crate) use resolve::{
    MAX_HSTS, is_address, is_cookie_name, is_file, is_host, is_probe_path, is_query_name,
};
pub use settings::{
    AccessLog, Account, Admin, BoundedLoad, CertificateFiles, CertificateSource, ClientAuth,
    Config, Credentials, Downstream, ErrorLog, Forwarding, Health, HostHeader, Hsts, Introduction,
    Introductions, ListenAddress, Listener, MissingKey, MovedStreams, Passive, Peer, PeerAddress,
    PerClient, Probe, Retry, Route, SessionDrain, SocketAccess, SocketOptions, StateFile, Tell,
    Timeouts, Tls, TlsVersion, TunnelTimes, Upstream,
};

/// The configuration in the file at `path`.
///
/// # Errors
///
/// All problems, if one of them is an error. Warnings alone are dropped; [`check`] keeps them.
pub fn load(path: &Path) -> Result<Config, Report> {
    let (config, report) = check(path);
    config.ok_or(report)
}

/// The same, and its warnings, a line each; without those that time brings ([`Credentials::concerns`]).
///
/// # Errors
///
/// As [`load`].
pub fn load_warned(path: &Path) -> Result<(Config, Vec<String>), Report> {
    let (config, report) = check(path);
    let config = config.ok_or_else(|| report.clone())?;
    let now = clock::wall().as_second();
    let concerns: Vec<_> = config.credentials.concerns(now).collect();
    let concerns: Vec<_> = concerns
        .iter()
        .map(|(_, concern)| concern.to_string())
        .collect();
    let mut warnings = report.problems();
    warnings.retain(|warning| !concerns.contains(&warning.message));
    let warnings = warnings.iter().map(ToString::to_string).collect();
    Ok((config, warnings))
}

/// The configuration in `text`; `name` stands for the file in the report.
///
/// # Errors
///
/// All problems, if one of them is an error.
pub fn parse(name: &str, text: &str) -> Result<Config, Report> {
    let (config, report) = check_text(name, text);
    config.ok_or(report)
}

/// The configuration in the file at `path` if it has no error, and all there is to tell about it.
pub fn check(path: &Path) -> (Option<Config>, Report) {
    match file::text(path) {
        Ok(text) => check_with(&path.display().to_string(), &text, Files::read_now()),
        Err(report) => (None, report),
    }
}

/// The YAML of another program as a tree with places.
///
/// # Errors
///
/// What is wrong with it as YAML.
pub(crate) fn tree(name: &str, text: &str) -> Result<Node, Report> {
    let problems = report::Problems::default();
    raw::read(text, &problems).ok_or_else(|| Report::new(name, text, problems))
}

/// The control socket that the file at `path` names, whatever else is wrong with it: an operator who
/// has just broken the file must still reach the instance that runs. `None` where it names none, or
/// cannot be read.
pub fn control(path: &Path) -> Option<PathBuf> {
    let text = file::text(path).ok()?;
    let root = raw::read(&text, &report::Problems::default())?;
    let Value::Map(entries) = &root.value else {
        return None;
    };
    let control = entries.iter().find(|entry| entry.key == "control")?;
    control.value.scalar().map(|path| PathBuf::from(&path.text))
}

/// The configuration in `text` if it has no error, and all there is to tell about it.
/// The files that it names are not looked at.
pub fn check_text(name: &str, text: &str) -> (Option<Config>, Report) {
    check_with(name, text, Files::unread())
}

fn check_with(name: &str, text: &str, files: Files) -> (Option<Config>, Report) {
    // Without its byte order mark, so that columns are what an editor shows.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let problems = report::Problems::default();
    let config =
        raw::read(text, &problems).and_then(|root| resolve::config(&root, files, &problems));
    let config = config.filter(|_| !problems.has_errors());
    (config, Report::new(name, text, problems))
}
