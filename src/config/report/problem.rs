//! One problem, and where problems are put while a configuration is read.

use std::cell::RefCell;

use serde::Serialize;

use crate::config::span::Span;

/// More than this many are cut off.
pub const MAX_PROBLEMS: usize = 100;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, and probably does not do what was meant.
    Warning,
}

/// One problem. The builders read like the report: message, place, second place, help.
#[derive(Clone, Debug)]
pub(in crate::config) struct Problem {
    pub(super) severity: Severity,
    pub(super) message: String,
    pub(super) span: Option<Span>,
    pub(super) secondary: Option<(Span, &'static str)>,
    pub(super) help: Option<String>,
}

/// Where the problems of one run are put.
///
/// Shared, since every part of a configuration is read on its own and all report here.
#[derive(Debug, Default)]
pub(in crate::config) struct Problems(RefCell<Vec<Problem>>);

impl Problem {
    /// Something that must be put right at `span`.
    pub(in crate::config) fn error(message: impl Into<String>, span: Span) -> Self {
        Self {
            span: Some(span),
            ..Self::for_file(message)
        }
    }

    /// Something that should be looked at, at `span`.
    pub(in crate::config) fn warning(message: impl Into<String>, span: Span) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(message, span)
        }
    }

    /// Something wrong with the file as a whole.
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

    /// A second place, and what it is.
    pub(in crate::config) fn secondary(self, span: Span, label: &'static str) -> Self {
        Self {
            secondary: Some((span, label)),
            ..self
        }
    }

    /// What to do.
    pub(in crate::config) fn help(self, help: impl Into<String>) -> Self {
        Self {
            help: Some(help.into()),
            ..self
        }
    }
}

impl Problems {
    pub(in crate::config) fn add(&self, problem: impl Into<Box<Problem>>) {
        let mut problems = self.0.borrow_mut();
        if problems.len() < MAX_PROBLEMS {
            problems.push(*problem.into());
        }
    }

    /// Whether looking for more is in vain.
    pub(in crate::config) fn is_full(&self) -> bool {
        self.0.borrow().len() >= MAX_PROBLEMS
    }

    pub(super) fn into_inner(self) -> Vec<Problem> {
        self.0.into_inner()
    }

    pub(in crate::config) fn has_errors(&self) -> bool {
        self.0
            .borrow()
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }
}

/// A value in backticks, cut short and without control characters: it goes to a terminal.
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
