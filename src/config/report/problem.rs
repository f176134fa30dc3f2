//! A problem, and the list of problems of one run.

use std::cell::RefCell;

use serde::Serialize;

use crate::config::schema::SectionSchema;
use crate::config::span::Span;

/// Problems after this many are dropped.
pub(crate) const MAX_PROBLEMS: usize = 100;

/// The severity of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// The configuration can be used, but probably does not do what was intended.
    Warning,
}

/// One problem. The builders follow the order of the report: message, span, second span, help.
#[derive(Clone, Debug)]
pub(in crate::config) struct Problem {
    pub(super) severity: Severity,
    pub(super) message: String,
    pub(super) span: Option<Span>,
    pub(super) secondary: Option<(Span, &'static str)>,
    pub(super) help: Option<String>,
}

/// The problems of one run. Shared by the parsers of all sections, hence the [`RefCell`].
#[derive(Debug)]
pub(in crate::config) struct Problems {
    /// The top level of the file, for advice about a key in the wrong section; empty if no section is read.
    pub(in crate::config) root: &'static SectionSchema,
    found: RefCell<Vec<Problem>>,
}

impl Problem {
    /// An error at `span`.
    pub(in crate::config) fn error(message: impl Into<String>, span: Span) -> Self {
        Self {
            span: Some(span),
            ..Self::for_file(message)
        }
    }

    /// A warning at `span`.
    pub(in crate::config) fn warning(message: impl Into<String>, span: Span) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(message, span)
        }
    }

    /// An error of the whole file.
    pub(in crate::config) fn for_file(message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            severity: Severity::Error,
            message,
            span: None,
            secondary: None,
            help: None,
        }
    }

    /// Adds a second place with a label.
    pub(in crate::config) fn secondary(self, span: Span, label: &'static str) -> Self {
        Self {
            secondary: Some((span, label)),
            ..self
        }
    }

    /// Adds what to write instead.
    pub(in crate::config) fn help(self, help: impl Into<String>) -> Self {
        Self {
            help: Some(help.into()),
            ..self
        }
    }
}

impl Problems {
    /// No problem yet, in a file with this top level.
    pub(in crate::config) fn with_schema(root: &'static SectionSchema) -> Self {
        Self {
            root,
            found: RefCell::default(),
        }
    }

    pub(in crate::config) fn add(&self, problem: impl Into<Box<Problem>>) {
        let mut problems = self.found.borrow_mut();
        if problems.len() < MAX_PROBLEMS {
            problems.push(*problem.into());
        }
    }

    /// Whether further problems would be dropped.
    pub(in crate::config) fn is_full(&self) -> bool {
        self.found.borrow().len() >= MAX_PROBLEMS
    }

    pub(super) fn into_inner(self) -> Vec<Problem> {
        self.found.into_inner()
    }

    pub(in crate::config) fn has_errors(&self) -> bool {
        let found = self.found.borrow();
        found
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }
}

impl Default for Problems {
    fn default() -> Self {
        Self::with_schema(&SectionSchema::EMPTY)
    }
}

/// A value in backticks, shortened, with control characters escaped: it may reach a terminal.
pub(crate) fn quote(text: &str) -> String {
    const MAX: usize = 60;
    let shown = text
        .chars()
        .take(MAX)
        .flat_map(char::escape_debug)
        .collect::<String>();
    let shown = shown.replace("\\\"", "\"").replace("\\'", "'");
    let dots = if text.chars().nth(MAX).is_some() {
        "…"
    } else {
        ""
    };
    format!("`{shown}{dots}`")
}
