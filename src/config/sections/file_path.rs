//! Paths of certificate and key files.

use std::path::PathBuf;

use crate::config::credential_loader::SpannedPath;
use crate::config::fields::{Fields, text};
use crate::config::raw::YamlNode;
use crate::config::values::{InvalidValue, describe_node};

/// The path of a file with its span.
pub(super) fn path_with_span(fields: &Fields<'_>, key: &'static str) -> Option<SpannedPath> {
    let path = fields.read(key, file_path)?;
    let span = fields.get(key)?.error_span();
    Some(SpannedPath { path, span })
}

/// Whether `path` can be the path of a file.
pub(crate) fn is_file_path(path: &str) -> bool {
    !path.is_empty() && !path.ends_with('/')
}

fn file_path(node: &YamlNode) -> Result<PathBuf, InvalidValue> {
    match text(node, "the path of a file")? {
        path if !is_file_path(path) => {
            let message = format!("expected the path of a file, found {}", describe_node(node));
            Err((
                message,
                "write a path, as in `/etc/clockwise/tls/server.crt`".to_owned(),
            ))
        }
        path => Ok(PathBuf::from(path)),
    }
}
