//! Keys that contain a part of the request that the old system changes before it hashes it.
//!
//! Clockwise hashes a request as the client sent it, so such keys move.

use std::collections::HashMap;

use super::draft::{ConfigDraft, KeySourceDraft, UpstreamDraft};
use super::notes::Notes;
use super::source::SourceSpan;

/// A part of a request that keys contain.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum KeyPart {
    Path,
    Query,
    Host,
    ClientAddress,
    /// In lower case.
    Header(String),
}

/// A setting of the old system that changes parts of a request.
pub(super) struct RequestChange {
    pub(super) span: SourceSpan,
    /// Its text in the note.
    pub(super) subject: String,
    pub(super) parts: Vec<KeyPart>,
}

/// The upstreams with the ring of the old system.
pub(super) struct HashedUpstreams {
    system: &'static str,
    by_name: HashMap<String, HashedUpstream>,
}

struct HashedUpstream {
    /// Its index in the draft.
    index: usize,
    parts: Vec<KeyPart>,
}

/// The parts of the keys of some upstreams.
pub(super) struct ReachedKeys {
    system: &'static str,
    /// The index of the only upstream with the part in its key; `None`: there are several.
    upstreams: HashMap<KeyPart, Option<usize>>,
}

impl HashedUpstreams {
    /// `system` is the name of the old system.
    pub(super) fn new(system: &'static str) -> Self {
        Self {
            system,
            by_name: HashMap::new(),
        }
    }

    /// The upstreams with a ring, and the parts that their keys in the draft contain.
    pub(super) fn from_draft(system: &'static str, upstreams: &[UpstreamDraft]) -> Self {
        let mut hashed = Self::new(system);
        for (index, upstream) in upstreams.iter().enumerate() {
            if upstream.ring.is_some() {
                let mut parts = Vec::new();
                for source in &upstream.key {
                    add_parts(source, &mut parts);
                }
                hashed.insert(&upstream.name, index, parts);
            }
        }
        hashed
    }

    /// Adds the upstream with this index in the draft.
    pub(super) fn insert(&mut self, name: &str, index: usize, parts: Vec<KeyPart>) {
        let upstream = HashedUpstream { index, parts };
        self.by_name.insert(name.to_owned(), upstream);
    }

    /// The keys of the upstreams with these names.
    pub(super) fn reached<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> ReachedKeys {
        let mut upstreams = HashMap::new();
        for HashedUpstream { index, parts } in
            names.into_iter().filter_map(|name| self.by_name.get(name))
        {
            for part in parts {
                let only = upstreams.entry(part.clone()).or_insert(Some(*index));
                *only = only.filter(|only| only == index);
            }
        }
        ReachedKeys {
            system: self.system,
            upstreams,
        }
    }
}

impl ReachedKeys {
    /// Adds a note if a key contains a part that `change` changes. The comment goes to the upstream with this key, or if
    /// there are several to the top of the file.
    pub(super) fn note(&self, change: &RequestChange, draft: &mut ConfigDraft, notes: &Notes<'_>) {
        let mut parts = change.parts.iter();
        let Some((part, only)) = parts.find_map(|part| self.upstreams.get_key_value(part)) else {
            return;
        };
        let comment = notes.remark(change.span, &change.subject, &part.advice(self.system));
        let upstream = only.and_then(|index| draft.upstreams.get_mut(index));
        upstream
            .map_or(&mut draft.comments, |upstream| &mut upstream.comments)
            .push(comment);
    }
}

impl KeyPart {
    /// The part that a header field is, by its name.
    pub(super) fn of_header(name: &str) -> Self {
        match name.to_ascii_lowercase().as_str() {
            "host" | ":authority" => Self::Host,
            ":path" => Self::Path,
            name => Self::Header(name.to_owned()),
        }
    }

    fn advice(&self, system: &str) -> String {
        let part = match self {
            Self::Path => "the path",
            Self::Query => "the query",
            Self::Host => "the host",
            Self::ClientAddress => {
                return format!(
                    "{system} hashes the client's address after this change, and keys will move unless Clockwise finds the same address; write `trusted_proxies`, with which it reads `X-Forwarded-For`"
                );
            }
            Self::Header(name) => {
                return format!(
                    "{system} hashes `{name}` after this change, and Clockwise as the client sent it, so keys will move; to keep them, write the source of the new value as `key`, or make the change in a proxy in front of Clockwise"
                );
            }
        };
        format!(
            "{system} hashes {part} after this change, and Clockwise as the client sent it, so keys will move; to keep them, make the change in a proxy in front of Clockwise"
        )
    }
}

fn add_parts(source: &KeySourceDraft, parts: &mut Vec<KeyPart>) {
    match source {
        KeySourceDraft::ClientIp
        | KeySourceDraft::ClientIpBinary
        | KeySourceDraft::ClientNetwork { .. } => parts.push(KeyPart::ClientAddress),
        KeySourceDraft::Header(name)
        | KeySourceDraft::HeaderElement(name, _)
        | KeySourceDraft::HeaderLines(name, _) => parts.push(KeyPart::of_header(name)),
        KeySourceDraft::Cookie(_) | KeySourceDraft::CookieOrEmpty(_) => {
            parts.push(KeyPart::of_header("cookie"));
        }
        KeySourceDraft::Query(_) | KeySourceDraft::QueryOrEmpty(_) => parts.push(KeyPart::Query),
        KeySourceDraft::Path | KeySourceDraft::NormalizedPath => parts.push(KeyPart::Path),
        KeySourceDraft::PathAndQuery => parts.extend([KeyPart::Path, KeyPart::Query]),
        KeySourceDraft::Host => parts.push(KeyPart::Host),
        KeySourceDraft::Any(sources, _) => {
            for source in sources {
                add_parts(source, parts);
            }
        }
    }
}
