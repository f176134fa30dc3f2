//! Translates configurations of nginx, `HAProxy` and Envoy: text in, YAML and notes out.
//!
//! ```text
//! nginx.conf ──► nginx   ┐
//! haproxy.cfg ─► haproxy ├──► draft (the configuration so far) ──► write (Clockwise's YAML)
//! envoy.yaml ──► envoy   ┘          │
//!                                   └──► notes (what is not translated or differs, by line)
//! ```
//!
//! Each language has a parser that keeps spans, and a translation into one `draft`. Nothing is dropped
//! silently: a setting without a counterpart becomes a [`Note`] and a comment in the YAML next to the part that
//! it belonged to. If the old configuration uses consistent hashing, the translation keeps each key on its
//! server; if Clockwise cannot do that, a note is added.
//!
//! It does not validate the old configuration. It does no I/O: the caller resolves includes. Limits
//! bound the work for every input: words, files, nesting, compared routes, notes.

mod clamp;
mod draft;
mod envoy;
mod haproxy;
mod nginx;
mod notes;
mod rewritten_key;
mod route_order;
mod source;
mod tls;
mod unsupported;
mod validate_tls;
mod write;

#[cfg(test)]
mod tests;

use std::path::Path;

use crate::config::Report;

pub(crate) use notes::{MAX_NOTES, Note};
pub(crate) use source::{IncludeResolver, SourceFile};

use notes::Notes;
use source::SourceMap;

/// The language of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    /// `nginx.conf`, or a file with directives of `http` alone.
    Nginx,
    /// `haproxy.cfg`.
    Haproxy,
    /// `envoy.yaml`, with `static_resources`.
    Envoy,
}

impl Language {
    /// Guesses from the file name: a program's name in it, else its extension.
    pub(crate) fn from_path(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
        let named = [
            ("nginx", Self::Nginx),
            ("haproxy", Self::Haproxy),
            ("envoy", Self::Envoy),
        ];
        let found = named.iter().find(|(program, _)| name.contains(program));
        found
            .map(|(_, language)| *language)
            .or_else(|| Self::from_extension(path))
    }

    fn from_extension(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "conf" => Some(Self::Nginx),
            "cfg" => Some(Self::Haproxy),
            "yaml" | "yml" | "json" => Some(Self::Envoy),
            _ => None,
        }
    }
}

/// A translated configuration.
#[derive(Clone, Debug)]
pub(crate) struct Translation {
    /// The configuration as Clockwise's YAML.
    pub yaml: String,
    /// What differs from the old configuration, in the order of its text; at most [`MAX_NOTES`].
    pub notes: Vec<Note>,
    /// Number of places that were not translated, those above [`MAX_NOTES`] included.
    pub gaps: usize,
}

/// Translates the configuration in `file`.
///
/// # Errors
///
/// The file is not valid in its language, or has nothing that can be translated.
pub(crate) fn translate(
    language: Language,
    file: SourceFile,
    include: &IncludeResolver<'_>,
) -> Result<Translation, Report> {
    let name = file.name.clone();
    let mut sources = SourceMap::default();
    let main = sources.add(file);
    sources.refuse_binary(main)?;
    let (draft, notes) = match language {
        Language::Nginx => {
            let tree = nginx::parse(&mut sources, main, include)?;
            let notes = Notes::new(&sources);
            (nginx::translate(&tree, &notes), notes)
        }
        Language::Haproxy => {
            let sections = haproxy::parse(&sources, main)?;
            let notes = Notes::new(&sources);
            (haproxy::translate(&sections, &notes), notes)
        }
        Language::Envoy => {
            let root = envoy::parse(&sources, main)?;
            let notes = Notes::new(&sources);
            (envoy::translate(&root, &notes), notes)
        }
    };
    let draft = draft
        .complete(&notes)
        .ok_or_else(|| nothing_to_translate(&sources, main, language))?;
    let (notes, gaps) = notes.into_inner();
    Ok(Translation {
        yaml: write::yaml(&name, &draft),
        notes,
        gaps,
    })
}

fn nothing_to_translate(sources: &SourceMap, file: usize, language: Language) -> Report {
    let (what, help) = match language {
        Language::Nginx => (
            "no server is found to pass requests to",
            "give the file that has `upstream` or `proxy_pass`, or the one that includes it",
        ),
        Language::Haproxy => (
            "no server is found to pass requests to",
            "give the file that has `backend` or `listen` with `server`",
        ),
        Language::Envoy => (
            "no cluster with endpoints is found",
            "only `static_resources` can be translated; resources from xDS are not in the file",
        ),
    };
    sources.file_error(file, what, help)
}
