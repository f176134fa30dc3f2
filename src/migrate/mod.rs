//! Configurations of nginx, `HAProxy` and Envoy in our words: text in, YAML and notes out.
//!
//! ```text
//! nginx.conf ──► nginx   ┐
//! haproxy.cfg ─► haproxy ├──► model (what the old system does) ──► write (our YAML)
//! envoy.yaml ──► envoy   ┘          │
//!                                   └──► notes (what it does and we do not, by line)
//! ```
//!
//! Each language has a parser that keeps places, and a translation into the one [`model`]. Nothing is
//! dropped in silence: what has no counterpart becomes a [`Note`], and a comment in the YAML beside
//! what it belonged to. Every key stays on its server where the old system hashes consistently; where
//! that cannot be, a note says so.
//!
//! It is not a validator of the old system's files: what the old system would refuse may pass. Nothing
//! here looks at the world outside; included files come through a function of the caller's. Whatever
//! the text, the work is bounded.

mod clamp;
mod draft;
mod envoy;
mod haproxy;
mod nginx;
mod notes;
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

pub use notes::{MAX_NOTES, Note, NoteKind};
pub use source::{IncludeResolver, SourceFile};

use notes::Notes;
use source::SourceMap;

/// Whose configuration it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// `nginx.conf`, or a part of one: what stands in `http` may stand alone.
    Nginx,
    /// `haproxy.cfg`.
    Haproxy,
    /// `envoy.yaml`, with `static_resources`.
    Envoy,
}

impl Language {
    /// What the name of a file tells: the program's name in it, or else what it ends in.
    pub fn from_path(path: &Path) -> Option<Self> {
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

/// What became of a configuration.
#[derive(Clone, Debug)]
pub struct Translation {
    /// The configuration in our words.
    pub yaml: String,
    /// What is different from before, in the order of the text; at most [`MAX_NOTES`].
    pub notes: Vec<Note>,
    /// How many places were not translated, those above [`MAX_NOTES`] included.
    pub gaps: usize,
}

/// The configuration in `file` in our words.
///
/// # Errors
///
/// The file is not in its language, or there is nothing in it that can be translated.
pub fn translate(
    language: Language,
    file: SourceFile,
    include: &IncludeResolver<'_>,
) -> Result<Translation, Report> {
    let name = file.name.clone();
    let mut sources = SourceMap::default();
    let main = sources.add(file);
    sources.refuse_binary(main)?;
    let (setup, notes) = match language {
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
    let setup = setup
        .complete(&notes)
        .ok_or_else(|| nothing_to_translate(&sources, main, language))?;
    let (notes, gaps) = notes.into_inner();
    Ok(Translation {
        yaml: write::yaml(&name, &setup),
        notes,
        gaps,
    })
}

fn nothing_to_translate(sources: &SourceMap, file: usize, language: Language) -> Report {
    let (what, help) = match language {
        Language::Nginx => (
            "there is no server here that requests are passed to",
            "give the file that has `upstream` or `proxy_pass`, or the one that includes it",
        ),
        Language::Haproxy => (
            "there is no server here that requests are passed to",
            "give the file that has `backend` or `listen` with `server`",
        ),
        Language::Envoy => (
            "there is no cluster here with endpoints of its own",
            "only `static_resources` can be translated; what comes by xDS is not in the file",
        ),
    };
    sources.file_error(file, what, help)
}
