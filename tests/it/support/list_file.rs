//! A file with a list of peers, as a source of an upstream.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::edge::ConfigBuilder;
use super::origin::Origin;

/// A list of peers in a directory of its own.
pub(crate) struct ListFile {
    directory: TempDir,
}

impl ListFile {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        Self { directory }
    }

    pub(crate) fn with(peers: &[String]) -> Self {
        let file = Self::new();
        file.replace(peers);
        file
    }

    pub(crate) fn folder(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("peers.yaml")
    }

    /// Replaces the list by a rename.
    pub(crate) fn replace(&self, peers: &[String]) {
        self.replace_text(&list(peers));
    }

    pub(crate) fn replace_text(&self, text: &str) {
        let new = self.directory.path().join("new");
        fs::write(&new, text).expect("writable");
        fs::rename(new, self.path()).expect("renamed");
    }

    /// One upstream with only this source. Changes come into force without a long wait.
    pub(crate) fn site(&self) -> ConfigBuilder {
        let source = format!("{{file: \"{}\"}}", self.path().display());
        ConfigBuilder::of([source]).app("discovery", "{settle: 10ms}")
    }
}

/// The text of a list of these items.
pub(crate) fn list(peers: &[String]) -> String {
    let peers = peers.iter().map(|peer| format!("- {peer}\n"));
    let text = peers.collect::<String>();
    if text.is_empty() {
        "[]\n".to_owned()
    } else {
        text
    }
}

/// The address of each origin as an item.
pub(crate) fn quoted(origins: &[Origin]) -> Vec<String> {
    let label = |origin: &Origin| format!("\"{}\"", origin.label());
    origins.iter().map(label).collect()
}

/// An item with this label and the address of an origin.
pub(crate) fn labelled(label: &str, origin: &Origin) -> String {
    format!("{{label: {label}, address: \"{}\"}}", origin.label())
}
