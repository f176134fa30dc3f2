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

mod config_file;
mod credential_loader;
mod fields;
mod raw;
mod report;
mod resolve;
mod schema;
mod settings;
mod span;
mod values;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use crate::clock;
use credential_loader::CredentialLoader;

pub(crate) use raw::{YamlEntry, YamlNode, YamlValue};
pub(crate) use report::quote;
pub use report::{Diagnostic, MAX_PROBLEMS, Report, Severity};
pub(crate) use resolve::{
    MAX_HSTS_AGE, is_address, is_cookie_name, is_file_path, is_host, is_probe_path, is_query_name,
};
pub use settings::{
    AcceptProxyConfig, AccessLogConfig, AcmeChallenge, AcmeConfig, AdminConfig, BoundedLoadConfig,
    CertificateFiles, CertificateSource, ClientAuthConfig, Config, Credentials, DomainNames,
    DownstreamConfig, ErrorLogConfig, ExternalAccountBinding, ForwardingConfig, H2Config,
    HealthConfig, HostHeader, HotKeysConfig, HstsConfig, KeyType, ListenAddress, ListenerConfig,
    MissingKey, MovedStreamsConfig, OutlierDetectionConfig, PeerAddress, PeerConfig, PeerTlsConfig,
    PerClientLimitConfig, ProbeConfig, RetryConfig, RouteConfig, Secret, SendProxyConfig,
    SessionDrainConfig, SlowStartConfig, SocketAccess, SocketOptions, StateFileConfig,
    TimeoutsConfig, TlsConfig, TlsVersion, TlvKind, TransportConfig, TunnelTimeoutsConfig,
    UnixAccount, UpstreamConfig, UpstreamProtocol,
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
pub fn load_with_warnings(path: &Path) -> Result<(Config, Vec<String>), Report> {
    let (config, report) = check(path);
    let config = config.ok_or_else(|| report.clone())?;
    let now = clock::wall().as_second();
    let concerns: Vec<_> = config.credentials.warnings(now).collect();
    let concerns: Vec<_> = concerns
        .iter()
        .map(|(_, concern)| concern.to_string())
        .collect();
    let mut warnings = report.diagnostics();
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
    match config_file::read_text(path) {
        Ok(text) => check_with(
            &path.display().to_string(),
            &text,
            CredentialLoader::load_now(),
        ),
        Err(report) => (None, report),
    }
}

/// The YAML of another program as a tree with places.
///
/// # Errors
///
/// What is wrong with it as YAML.
pub(crate) fn parse_yaml(name: &str, text: &str) -> Result<YamlNode, Report> {
    let problems = report::Problems::default();
    raw::read(text, &problems).ok_or_else(|| Report::new(name, text, problems))
}

/// The control socket that the file at `path` names, whatever else is wrong with it: an operator who
/// has just broken the file must still reach the instance that runs. `None` where it names none, or
/// cannot be read.
pub fn control_socket(path: &Path) -> Option<PathBuf> {
    let text = config_file::read_text(path).ok()?;
    let root = raw::read(&text, &report::Problems::default())?;
    let YamlValue::Map(entries) = &root.value else {
        return None;
    };
    let control = entries.iter().find(|entry| entry.key == "control")?;
    control.value.scalar().map(|path| PathBuf::from(&path.text))
}

/// The configuration in `text` if it has no error, and all there is to tell about it.
/// The files that it names are not looked at.
pub fn check_text(name: &str, text: &str) -> (Option<Config>, Report) {
    check_with(name, text, CredentialLoader::disabled())
}

fn check_with(name: &str, text: &str, files: CredentialLoader) -> (Option<Config>, Report) {
    // Without its byte order mark, so that columns are what an editor shows.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let problems = report::Problems::default();
    let config =
        raw::read(text, &problems).and_then(|root| resolve::config(&root, files, &problems));
    let config = config.filter(|_| !problems.has_errors());
    (config, Report::new(name, text, problems))
}
