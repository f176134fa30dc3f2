//! The configuration file: from YAML text to a [`Config`], reporting every problem at once.
//!
//! ```text
//! text ──► raw (tree with spans) ──► fields (typed values, by key) ──► sections ──► Config
//!                    └───────────────────── problems ───────────────────┘ ──► Report
//! ```
//!
//! Any text gives a [`Config`] or a [`Report`] in bounded time and memory. A [`Config`] is complete:
//! every default is filled in, every name that it refers to exists. Only functions that take a path
//! do I/O: they read the file, and [`load`] and [`check`] also the TLS files that it names.
//!
//! To add a setting: its name, its value and how it is read in the file of its section in `sections/`, its
//! documentation in `conf/clockwise.yaml` (a test compares them). A request finds the settings of its route in
//! `snapshot::RouteTarget`.

mod bounded_file;
mod config_file;
mod credential_loader;
mod discovered;
mod fields;
mod peer_changes;
mod peer_list;
mod raw;
mod report;
mod runtime_peers;
mod schema;
mod sections;
mod span;
mod values;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use crate::clock;
use credential_loader::CredentialLoader;
use raw::EmptyDocument;

pub(crate) use discovered::{DiscoveredPeers, LeftOutPeer};
pub(crate) use peer_changes::{OperatorChange, PeerChange, PeerChanges};
#[cfg(feature = "etcd")]
pub(crate) use peer_list::parse_single_peer;
pub(crate) use peer_list::{
    PeerListError, PeerListRules, parse_peer, parse_peer_list, parse_peer_weight,
    read_peer_list_file,
};
pub(crate) use raw::{YamlEntry, YamlNode, YamlValue};
#[cfg(test)]
use report::Diagnostic;
pub(crate) use report::{Report, quote};
pub(crate) use runtime_peers::{LeavingPeer, RuntimePeers};
pub(crate) use sections::*; // what other modules use of the sections is listed there
pub(crate) use span::Span;

/// Loads the file at `path`.
///
/// # Errors
///
/// All problems, if one of them is an error. Warnings are dropped; [`check`] returns them.
pub fn load(path: &Path) -> Result<Config, Report> {
    let (config, report) = check(path);
    config.ok_or(report)
}

/// Loads the file at `path` and returns its warnings, one line each, except those that depend on the
/// time ([`Credentials::warnings`]).
///
/// # Errors
///
/// As [`load`].
pub(crate) fn load_with_warnings(path: &Path) -> Result<(Config, Vec<String>), Report> {
    let (config, report) = check(path);
    let config = config.ok_or_else(|| report.clone())?;
    let now = clock::wall().as_second();
    let timed: Vec<_> = config
        .credentials
        .warnings(now)
        .map(|(_, warning)| warning.to_string())
        .collect();
    let mut warnings = report.diagnostics();
    warnings.retain(|warning| !timed.contains(&warning.message));
    let warnings = warnings.iter().map(ToString::to_string).collect();
    Ok((config, warnings))
}

/// Parses `text`; `name` is the file's name in the report.
///
/// # Errors
///
/// All problems, if one of them is an error.
pub(crate) fn parse(name: &str, text: &str) -> Result<Config, Report> {
    let (config, report) = check_text(name, text);
    config.ok_or(report)
}

/// Checks the file at `path`: the configuration unless there is an error, and all problems.
pub(crate) fn check(path: &Path) -> (Option<Config>, Report) {
    let (checked, report) = check_with_places(path);
    (checked.map(|checked| checked.config), report)
}

/// A configuration without errors, and the places of its values that depend on the machine.
#[derive(Debug)]
pub(crate) struct CheckedConfig {
    pub(crate) config: Config,
    pub(crate) places: HostPlaces,
}

/// Like [`check`], with the places of values.
pub(crate) fn check_with_places(path: &Path) -> (Option<CheckedConfig>, Report) {
    match config_file::read_text(path) {
        Ok(text) => {
            let name = path.display().to_string();
            check_text_with(&name, &text, CredentialLoader::load_now())
        }
        Err(report) => (None, report),
    }
}

/// Checks the file at `path`, without reading the files that it names.
///
/// # Errors
///
/// All problems, if one of them is an error.
pub(crate) fn check_file_text(path: &Path) -> Result<(), Report> {
    let text = config_file::read_text(path)?;
    parse(&path.display().to_string(), &text).map(drop)
}

/// Parses YAML of another program into a tree with spans.
///
/// # Errors
///
/// The first syntax error.
pub(crate) fn parse_yaml(name: &str, text: &str) -> Result<YamlNode, Report> {
    let problems = report::Problems::default();
    raw::read(text, &EMPTY_FILE, &problems).ok_or_else(|| Report::new(name, text, problems))
}

/// The control socket in the file at `path`; `None` if it has none or cannot be read.
///
/// Ignores all other problems: commands must reach the running process even if the file has just been
/// broken.
pub(crate) fn control_socket(path: &Path) -> Option<PathBuf> {
    let text = config_file::read_text(path).ok()?;
    let root = raw::read(&text, &EMPTY_FILE, &report::Problems::default())?;
    let YamlValue::Map(entries) = &root.value else {
        return None;
    };
    let control = entries.iter().find(|entry| entry.key == "control")?;
    control.value.text().map(PathBuf::from)
}

/// Checks `text` as [`check`] does, without reading the files that it names.
pub(crate) fn check_text(name: &str, text: &str) -> (Option<Config>, Report) {
    check_with(name, text, CredentialLoader::disabled())
}

fn check_with(name: &str, text: &str, files: CredentialLoader) -> (Option<Config>, Report) {
    let (checked, report) = check_text_with(name, text, files);
    (checked.map(|checked| checked.config), report)
}

fn check_text_with(
    name: &str,
    text: &str,
    files: CredentialLoader,
) -> (Option<CheckedConfig>, Report) {
    // Without the byte order mark, so that columns are those of an editor.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let problems = report::Problems::with_schema(&ROOT);
    let root = raw::read(text, &EMPTY_FILE, &problems);
    let read = root.and_then(|root| read_config(&root, files, &problems));
    let checked = read
        .filter(|_| !problems.has_errors())
        .map(|(config, places)| CheckedConfig { config, places });
    (checked, Report::new(name, text, problems))
}

const EMPTY_FILE: EmptyDocument = EmptyDocument {
    message: "the configuration is empty",
    help: "at least `listeners`, `routes` and `upstreams` are needed",
};
