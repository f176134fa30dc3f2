//! The text of a source of peers: the items of `peers`, in YAML or JSON, or a map with only `peers`; or one peer.
//!
//! It is read by the reader of the configuration, so that its problems have their place and their help, too. A list with
//! an error is refused as a whole: a part of it would move keys by mistake.

use std::fmt;
use std::io;
use std::path::Path;

use serde_json::{Map, Value};

use super::bounded_file::{self, ReadError};
use super::config_file::not_utf8;
use super::raw::{self, EmptyDocument, YamlNode, YamlScalar, YamlValue};
use super::report::{Problems, Report};
use super::sections::{self, PeerConfig, PeerTlsConfig, UpstreamConfig};
use super::span::Span;
use crate::ring::{Dialect, Weight};

const EMPTY_LIST_FILE: EmptyDocument = EmptyDocument {
    message: "the file is empty",
    help: "list the peers, as in `- 10.0.0.1:8080`; `[]` is a list without peers",
};

/// The properties of an upstream that its peers have to fit.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PeerListRules {
    dialect: Dialect,
    tls: Option<PeerTlsConfig>,
}

impl UpstreamConfig {
    /// What a list of peers for this upstream has to fit.
    pub(crate) fn peer_list_rules(&self) -> PeerListRules {
        PeerListRules {
            dialect: self.dialect,
            tls: self.transport.tls.clone(),
        }
    }
}

impl PeerListRules {
    /// The own server name of a peer on this host, if its source knows the host.
    pub(crate) fn name_of_host(&self, host: Option<&str>) -> Option<String> {
        self.tls.as_ref()?.name_of_host(host?)
    }
}

/// Why a source yields no list of peers. Its text is one line.
#[derive(Clone, Debug)]
pub(crate) enum PeerListError {
    /// The file is missing or cannot be read, or no name server has answered.
    Unreadable {
        /// The path as configured, or the source as text.
        file: String,
        /// The reason.
        reason: String,
    },
    /// The list has errors.
    Invalid(Box<Report>),
}

impl fmt::Display for PeerListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, reason } => write!(f, "`{file}`: {reason}"),
            Self::Invalid(report) => {
                let problems = report.diagnostics();
                if let Some(first) = problems.first() {
                    first.fmt(f)?;
                }
                match problems.len() {
                    0 | 1 => Ok(()),
                    count => write!(
                        f,
                        " (the first of {count} problems; `clockwise check` lists all)"
                    ),
                }
            }
        }
    }
}

/// Reads the text of the file of a source.
///
/// # Errors
/// It cannot be read, is not a regular file, is larger than 16 MiB, or is not UTF-8.
pub(crate) fn read_peer_list_file(path: &Path) -> Result<String, PeerListError> {
    let file = path.display().to_string();
    let (bytes, _) = bounded_file::read(path).map_err(|error| PeerListError::Unreadable {
        reason: unreadable(&error),
        file: file.clone(),
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let problems = Problems::default();
        problems.add(not_utf8(at));
        let text = String::from_utf8_lossy(error.as_bytes());
        PeerListError::Invalid(Box::new(Report::new(&file, &text, problems)))
    })
}

/// Parses the text of the file at `path`.
///
/// # Errors
/// All problems of the list.
pub(crate) fn parse_peer_list(
    path: &Path,
    text: &str,
    rules: &PeerListRules,
) -> Result<Vec<PeerConfig>, PeerListError> {
    // Without the byte order mark, so that columns are those of an editor.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let problems = Problems::with_schema(&sections::PEER_LIST);
    let read = raw::read(text, &EMPTY_LIST_FILE, &problems);
    let peers = read
        .map(|root| sections::read_peer_list(&root, rules.dialect, rules.tls.as_ref(), &problems));
    peers.filter(|_| !problems.has_errors()).ok_or_else(|| {
        let report = Report::new(&path.display().to_string(), text, problems);
        PeerListError::Invalid(Box::new(report))
    })
}

/// Parses one peer with the keys of a peer of the configuration. A name that TLS gives it is not in its `server_name`.
///
/// # Errors
/// All problems, in one line.
pub(crate) fn parse_peer(
    fields: &Map<String, Value>,
    rules: &PeerListRules,
) -> Result<PeerConfig, String> {
    // JSON is YAML: an error names the value, and its place in this text is of no use.
    let text = Value::Array(vec![Value::Object(fields.clone())]).to_string();
    let problems = Problems::with_schema(&sections::PEER_LIST);
    let peers = raw::read(&text, &EMPTY_LIST_FILE, &problems)
        .map(|root| sections::read_peer_list(&root, rules.dialect, rules.tls.as_ref(), &problems));
    let peer = peers.and_then(|mut peers| peers.pop());
    let peer = peer.filter(|_| !problems.has_errors());
    let peer = peer.ok_or_else(|| one_line(&Report::new("", &text, problems)))?;
    let server_name = peer
        .server_name
        .filter(|_| fields.contains_key("server_name"));
    Ok(PeerConfig {
        server_name,
        ..peer
    })
}

/// Parses the weight of a peer.
///
/// # Errors
/// The problem, in one line.
pub(crate) fn parse_peer_weight(weight: &Value, rules: &PeerListRules) -> Result<Weight, String> {
    let (text, problems) = (weight.to_string(), Problems::default());
    let weight = raw::read(&text, &EMPTY_LIST_FILE, &problems)
        .and_then(|node| sections::read_peer_weight(&node, rules.dialect, &problems));
    weight.ok_or_else(|| one_line(&Report::new("", &text, problems)))
}

/// The problems without their places.
fn one_line(report: &Report) -> String {
    let problems = report.diagnostics().into_iter();
    let lines = problems.map(|problem| match problem.help {
        Some(help) => format!("{}; {help}", problem.message),
        None => problem.message,
    });
    lines.collect::<Vec<_>>().join("; ")
}

/// Parses the text of one peer: an address, or a map as in `peers`, in JSON. `place` names the text in errors, `name` is the
/// label of a peer without one.
///
/// # Errors
/// All problems of the peer.
pub(crate) fn parse_single_peer(
    place: &str,
    text: &str,
    name: &str,
    rules: &PeerListRules,
) -> Result<PeerConfig, PeerListError> {
    let problems = Problems::with_schema(&sections::PEER_LIST);
    let item = match text.trim_start().chars().next() {
        None | Some('{' | '"') => raw::read(text, &EMPTY_PEER, &problems),
        Some(_) => Some(address_node(text)),
    };
    let peer = item.and_then(|item| {
        sections::read_single_peer(&item, name, rules.dialect, rules.tls.as_ref(), &problems)
    });
    let peer = peer.filter(|_| !problems.has_errors());
    peer.ok_or_else(|| PeerListError::Invalid(Box::new(Report::new(place, text, problems))))
}

/// An address is no YAML: that of IPv6 begins with a bracket.
fn address_node(text: &str) -> YamlNode {
    let address = text.trim();
    let start = text.len() - text.trim_start().len();
    YamlNode {
        value: YamlValue::Scalar(YamlScalar {
            text: address.to_owned(),
            plain: false,
        }),
        span: Span {
            start,
            end: start + address.len(),
        },
        key_span: None,
    }
}

const EMPTY_PEER: EmptyDocument = EmptyDocument {
    message: "the value is empty",
    help: "write an address, as in `10.0.0.1:8080`",
};

fn unreadable(error: &ReadError) -> String {
    let help = match error {
        ReadError::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            "allow the user that runs clockwise to read it"
        }
        ReadError::Io(_) => "create it, or correct `file` in `peers`",
        ReadError::Directory | ReadError::NotRegular => "use the path of a file",
        ReadError::TooLarge => "10,000 peers take about 1 MiB: check the path",
    };
    format!("{error}; {help}")
}
