//! The problems of a configuration, all at once: each with its place, a code snippet and help.
//!
//! A message is lower case, without a full stop, the offending value in backticks; the help says what
//! to write instead. Only the first [`MAX_PROBLEMS`] are kept, which bounds the cost of a hostile file.

mod problem;
mod snippet;
mod source;

use std::fmt;
use std::ops::Range;

use serde::Serialize;

pub(crate) use problem::quote;
pub(crate) use problem::{MAX_PROBLEMS, Severity};
pub(super) use problem::{Problem, Problems};
use snippet::SnippetRenderer;
use source::SourceText;

use crate::config::span::Span;

/// A problem with line and column, for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// The name of the file as it was given.
    pub file: String,
    /// From 1; `None` if the problem is the file itself.
    pub line: Option<usize>,
    /// In characters, from 1; `None` if the problem is the file itself.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// One line, for a log.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, message, .. } = self;
        write!(f, "{file}")?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {message}")?;
        self.help.iter().try_for_each(|help| write!(f, "; {help}"))
    }
}

/// All problems of one file. [`fmt::Display`] shows them without colour.
#[derive(Clone, Debug)]
pub struct Report {
    source: SourceText,
    problems: Vec<Problem>,
}

impl Report {
    pub(super) fn new(name: &str, text: &str, problems: Problems) -> Self {
        let mut problems = problems.into_inner();
        problems.sort_by_key(|problem| problem.span.map(|span| span.start));
        // An alias repeats the problems of its anchor.
        problems.dedup_by(|a, b| a.span == b.span && a.message == b.message);
        let source = SourceText {
            name: name.to_owned(),
            text: text.to_owned(),
        };
        Self { source, problems }
    }

    /// A report of one error in a file of another program; without `span` it is about the whole file.
    pub(crate) fn error(
        name: &str,
        text: &str,
        span: Option<&Range<usize>>,
        message: &str,
        help: &str,
    ) -> Self {
        let problem = match span {
            Some(&Range { start, end }) => Problem::error(message, Span { start, end }),
            None => Problem::for_file(message),
        };
        let problems = Problems::default();
        problems.add(problem.help(help));
        Self::new(name, text, problems)
    }

    /// Adds a warning about a valid value; without a place it is about the whole file.
    pub(crate) fn add_warning(&mut self, place: Option<Span>, message: String, help: &str) {
        if self.problems.len() >= MAX_PROBLEMS {
            return;
        }
        let warning = Problem {
            severity: Severity::Warning,
            span: place,
            ..Problem::for_file(message)
        };
        self.problems.push(warning.help(help));
        self.problems
            .sort_by_key(|problem| problem.span.map(|span| span.start));
    }

    /// Whether the configuration cannot be used.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// Whether there are neither errors nor warnings.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// All problems in the order of the text.
    pub fn diagnostics(&self) -> Vec<Diagnostic> {
        self.problems
            .iter()
            .map(|problem| self.diagnostic(problem))
            .collect()
    }

    /// All problems with code snippets, then a line with their number; empty if there are none.
    pub fn render(&self, color: bool) -> String {
        if self.is_empty() {
            return String::new();
        }
        let renderer = SnippetRenderer::new(&self.source, color);
        let snippets = self.problems.iter().map(|problem| renderer.render(problem));
        snippets
            .chain([self.summary()])
            .collect::<Vec<_>>()
            .join("\n\n")
    }

    fn count(&self, severity: Severity) -> usize {
        self.problems
            .iter()
            .filter(|problem| problem.severity == severity)
            .count()
    }

    fn summary(&self) -> String {
        let errors = plural(self.count(Severity::Error), "error");
        let warnings = plural(self.count(Severity::Warning), "warning");
        let cut = if self.problems.len() < MAX_PROBLEMS {
            ""
        } else {
            "; the rest is not shown"
        };
        let counts = [errors, warnings]
            .into_iter()
            .flatten()
            .collect::<Vec<_>>()
            .join(", ");
        format!("{}: {counts}{cut}", self.source.name)
    }

    fn diagnostic(&self, problem: &Problem) -> Diagnostic {
        let place = problem
            .span
            .map(|span| self.source.line_and_column(span.start));
        Diagnostic {
            severity: problem.severity,
            file: self.source.name.clone(),
            line: place.map(|(line, _)| line),
            column: place.map(|(_, column)| column),
            message: problem.message.clone(),
            help: problem.help.clone(),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

fn plural(count: usize, word: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {word}")),
        _ => Some(format!("{count} {word}s")),
    }
}
