//! What the old system does and we do not, each with its place.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use serde::Serialize;

use super::source::{SourceMap, SourceSpan};
use crate::config::quote;

/// More notes than this are counted, and not kept.
pub const MAX_NOTES: usize = 1000;

/// How much a note matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NoteKind {
    /// Something that the old system does and the YAML does not.
    NotTranslated,
    /// It is translated, and something about it is worth knowing.
    Note,
}

/// What somebody who moves over should know about one place of the old configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Note {
    /// Whether something is missing.
    pub kind: NoteKind,
    /// The name of the file.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// What it is about and what to do.
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

const SHARED_LISTENERS: &str = "what only it served can be reached at the other listeners too, as routes hold for all of them here";

/// Where notes are put while a configuration is translated.
///
/// Shared, since every part is translated on its own and all report here.
pub(super) struct Notes<'a> {
    sources: &'a SourceMap,
    notes: RefCell<Vec<Note>>,
    gaps: Cell<usize>,
    /// Hashes of what was said: what is inherited is looked at more than once.
    seen: RefCell<HashSet<u64>>,
}

impl<'a> Notes<'a> {
    pub(super) fn new(sources: &'a SourceMap) -> Self {
        Self {
            sources,
            notes: RefCell::default(),
            gaps: Cell::new(0),
            seen: RefCell::default(),
        }
    }

    /// `subject` is not translated, and why or what to do instead. Gives the comment for the YAML.
    pub(super) fn gap(&self, place: SourceSpan, subject: &str, why: &str) -> String {
        let message = format!("{} is not translated: {why}", quote(subject));
        self.add(NoteKind::NotTranslated, place, message)
    }

    /// `subject` is translated, but `what` is worth knowing. Gives the comment for the YAML.
    pub(super) fn remark(&self, place: SourceSpan, subject: &str, what: &str) -> String {
        self.add(NoteKind::Note, place, format!("{}: {what}", quote(subject)))
    }

    /// `subject` is translated, but more gets through than before: as bad as a gap. Gives the comment for
    /// the YAML.
    pub(super) fn wider_access(&self, place: SourceSpan, subject: &str, what: &str) -> String {
        let message = format!("{}: {what}", quote(subject));
        self.add(NoteKind::NotTranslated, place, message)
    }

    /// What `subject` leads to had listeners of its own, and is not the only one here.
    pub(super) fn shared_listeners(&self, place: SourceSpan, subject: &str) -> String {
        self.wider_access(place, subject, SHARED_LISTENERS)
    }

    /// All that was said, by place, and the number of gaps.
    pub(super) fn into_inner(self) -> (Vec<Note>, usize) {
        let mut notes = self.notes.into_inner();
        notes.sort_by_key(|note| note.position);
        (notes, self.gaps.get())
    }

    fn add(&self, kind: NoteKind, place: SourceSpan, message: String) -> String {
        let (line, column) = self.sources.line_and_column(place);
        let file = self.sources.name(place.file).to_owned();
        let comment = format!("{file}:{line}: {message}");
        let at = (place.file, place.start);
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one((at, &message));
        if !self.seen.borrow_mut().insert(hash) {
            return comment;
        }
        self.gaps
            .set(self.gaps.get() + usize::from(kind == NoteKind::NotTranslated));
        let mut kept = self.notes.borrow_mut();
        if kept.len() < MAX_NOTES {
            kept.push(Note {
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
