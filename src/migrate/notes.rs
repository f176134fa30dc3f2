//! Notes to the operator: what is not translated or differs, by line.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use serde::Serialize;

use super::source::{SourceMap, SourceSpan};
use crate::config::quote;

/// Notes above this number are counted only.
pub(crate) const MAX_NOTES: usize = 1000;

/// Whether something is missing in the YAML.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum NoteKind {
    /// The old system does something that the YAML does not.
    NotTranslated,
    /// It is translated, with a difference or a remark.
    Note,
}

/// One remark to the operator about one place of the old configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Note {
    /// Whether something is missing in the YAML.
    pub kind: NoteKind,
    /// Name of the file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What differs, and what to do.
    pub message: String,
    #[serde(skip)]
    position: (usize, usize),
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match self.kind {
            NoteKind::NotTranslated => "",
            NoteKind::Note => "note: ",
        };
        let Self {
            file,
            line,
            column,
            message,
            ..
        } = self;
        write!(f, "{file}:{line}:{column}: {kind}{message}")
    }
}

const SHARED_LISTENERS: &str =
    "its routes can now be reached at every listener, since routes are not bound to a listener";

/// Collects notes while a configuration is translated; shared by all parts of the translation.
pub(super) struct Notes<'a> {
    sources: &'a SourceMap,
    entries: RefCell<Vec<Note>>,
    gaps: Cell<usize>,
    /// Hashes of the notes: a line that several sections inherit is translated once for each.
    seen: RefCell<HashSet<u64>>,
}

impl<'a> Notes<'a> {
    pub(super) fn new(sources: &'a SourceMap) -> Self {
        Self {
            sources,
            entries: RefCell::default(),
            gaps: Cell::new(0),
            seen: RefCell::default(),
        }
    }

    /// `subject` is not translated; `why` gives the reason or the alternative. Returns the comment for the
    /// YAML.
    pub(super) fn gap(&self, span: SourceSpan, subject: &str, why: &str) -> String {
        let message = format!("{} is not translated: {why}", quote(subject));
        self.add(NoteKind::NotTranslated, span, message)
    }

    /// `subject` is translated, with the difference `what`. Returns the comment for the YAML.
    pub(super) fn remark(&self, span: SourceSpan, subject: &str, what: &str) -> String {
        self.add(NoteKind::Note, span, format!("{}: {what}", quote(subject)))
    }

    /// `subject` is translated, but admits more requests than before; counts as a gap. Returns the comment for
    /// the YAML.
    pub(super) fn wider_access(&self, span: SourceSpan, subject: &str, what: &str) -> String {
        let message = format!("{}: {what}", quote(subject));
        self.add(NoteKind::NotTranslated, span, message)
    }

    /// The routes of `subject` had listeners of their own; in the YAML all listeners reach them.
    pub(super) fn shared_listeners(&self, span: SourceSpan, subject: &str) -> String {
        self.wider_access(span, subject, SHARED_LISTENERS)
    }

    /// The notes in the order of the text, and the number of gaps.
    pub(super) fn into_inner(self) -> (Vec<Note>, usize) {
        let mut notes = self.entries.into_inner();
        notes.sort_by_key(|note| note.position);
        (notes, self.gaps.get())
    }

    fn add(&self, kind: NoteKind, span: SourceSpan, message: String) -> String {
        let (line, column) = self.sources.line_and_column(span);
        let file = self.sources.name(span.file).to_owned();
        let comment = format!("{file}:{line}: {message}");
        let at = (span.file, span.start);
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((at, &message));
        if !self.seen.borrow_mut().insert(hash) {
            return comment;
        }
        self.gaps
            .set(self.gaps.get() + usize::from(kind == NoteKind::NotTranslated));
        let mut stored = self.entries.borrow_mut();
        if stored.len() < MAX_NOTES {
            stored.push(Note {
                kind,
                file,
                line,
                column,
                message,
                position: at,
            });
        }
        comment
    }
}
