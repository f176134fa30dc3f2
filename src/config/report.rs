//! Problems and how they are told: all at once, each with its place, a frame of code and advice.
//!
//! A message is lower case, without a full stop, the offending value in backticks; the help says
//! what to do. The first [`MAX_PROBLEMS`] are kept: nobody reads more, and a hostile file must not
//! cost more than a broken one.

use std::cell::RefCell;
use std::fmt;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

use super::raw::Span;

/// More than this many are cut off.
pub const MAX_PROBLEMS: usize = 100;
/// A frame with a longer line helps nobody.
const MAX_LINE: usize = 400;
/// Two places further apart than this are shown in two frames.
const MAX_FRAME: usize = 4096;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, and probably does not do what was meant.
    Warning,
}

/// One problem with its place counted out, for programs to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Located {
    /// How bad it is.
    pub severity: Severity,
    /// The name of the file as it was given.
    pub file: String,
    /// From 1; `None` where the problem is the file itself.
    pub line: Option<usize>,
    /// In characters, from 1; `None` where the problem is the file itself.
    pub column: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

/// All problems of one file. [`fmt::Display`] shows them without colour.
#[derive(Clone, Debug)]
pub struct Report {
    name: String,
    text: String,
    problems: Vec<Problem>,
}

/// One problem. The builders read like the report: message, place, second place, help.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    severity: Severity,
    message: String,
    span: Option<Span>,
    also: Option<(Span, &'static str)>,
    help: Option<String>,
}

/// Where the problems of one run are put.
///
/// Shared, since every part of a configuration is read on its own and all report here.
#[derive(Debug, Default)]
pub(super) struct Problems(RefCell<Vec<Problem>>);

impl Report {
    pub(super) fn new(name: &str, text: &str, problems: Problems) -> Self {
        let mut problems = problems.0.into_inner();
        problems.sort_by_key(|problem| problem.span.map(|span| span.start));
        // An alias repeats the problems of its anchor.
        problems.dedup_by(|a, b| a.span == b.span && a.message == b.message);
        Self {
            name: name.to_owned(),
            text: text.to_owned(),
            problems,
        }
    }

    /// Whether the configuration cannot be used.
    pub fn has_errors(&self) -> bool {
        self.count(Severity::Error) > 0
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// All problems in the order of the text.
    pub fn problems(&self) -> Vec<Located> {
        self.problems
            .iter()
            .map(|problem| self.locate(problem))
            .collect()
    }

    /// All problems as frames of code, then a line that counts them; empty where there are none.
    pub fn render(&self, color: bool) -> String {
        if self.is_empty() {
            return String::new();
        }
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        let frames = self
            .problems
            .iter()
            .map(|problem| self.frame(problem, &renderer));
        frames
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
        format!("{}: {counts}{cut}", self.name)
    }

    fn locate(&self, problem: &Problem) -> Located {
        let place = problem.span.map(|span| self.line_and_column(span.start));
        Located {
            severity: problem.severity,
            file: self.name.clone(),
            line: place.map(|(line, _)| line),
            column: place.map(|(_, column)| column),
            message: problem.message.clone(),
            help: problem.help.clone(),
        }
    }

    /// Both from 1, the column in characters.
    fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count();
        (
            before.bytes().filter(|byte| *byte == b'\n').count() + 1,
            column + 1,
        )
    }

    fn frame(&self, problem: &Problem, renderer: &Renderer) -> String {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let group = Group::with_title(level.primary_title(problem.message.as_str()));
        let group = self.code(problem, group);
        let help = problem
            .help
            .as_deref()
            .map(|help| Level::HELP.message(help));
        renderer.render(&[group.elements(help)])
    }

    fn code<'a>(&'a self, problem: &'a Problem, group: Group<'a>) -> Group<'a> {
        let Some(span) = problem.span else {
            return group.element(Origin::path(self.name.as_str()));
        };
        let primary = self.mark(span, AnnotationKind::Primary, None);
        let Some((other, label)) = problem.also else {
            return self.snippets(group, [primary]);
        };
        let second = self.mark(other, AnnotationKind::Context, Some(label));
        self.snippets(group, [primary, second])
    }

    fn mark(&self, span: Span, kind: AnnotationKind, label: Option<&'static str>) -> Mark {
        Mark {
            span: self.first_line(span),
            kind,
            label,
        }
    }

    fn snippets<'a, const N: usize>(&'a self, group: Group<'a>, marks: [Mark; N]) -> Group<'a> {
        let start = marks
            .iter()
            .map(|mark| mark.span.start)
            .min()
            .unwrap_or_default();
        let end = marks
            .iter()
            .map(|mark| mark.span.end)
            .max()
            .unwrap_or_default();
        if end - start <= MAX_FRAME {
            return self.snippet(group, Span { start, end }, &marks);
        }
        marks
            .into_iter()
            .fold(group, |group, mark| self.snippet(group, mark.span, &[mark]))
    }

    /// The lines of `span` with the marks on them; only where they are if a line is too long.
    fn snippet<'a>(&'a self, group: Group<'a>, span: Span, marks: &[Mark]) -> Group<'a> {
        let lines = self.lines(span);
        let text = self.text.get(lines.range()).unwrap_or_default();
        let (line, _) = self.line_and_column(lines.start);
        if text.lines().any(|line| line.len() > MAX_LINE) {
            let (line, column) = self.line_and_column(marks.first().map_or(0, |m| m.span.start));
            let origin = Origin::path(self.name.as_str())
                .line(line)
                .char_column(column);
            return group.element(origin);
        }
        let snippet = Snippet::source(text)
            .line_start(line)
            .path(self.name.as_str());
        group.element(snippet.annotations(marks.iter().map(|mark| {
            let range = mark.span.start - lines.start..mark.span.end - lines.start;
            mark.kind.span(range).label(mark.label)
        })))
    }

    /// `span` up to the end of its first line: a frame with ten marked lines hides the point.
    fn first_line(&self, span: Span) -> Span {
        let start = self.floor(span.start);
        let end = self.floor(span.end).max(start);
        let text = self.text.get(start..end).unwrap_or_default();
        let line = text.lines().next().unwrap_or_default().trim_end();
        Span {
            start,
            end: start + line.len(),
        }
    }

    /// The whole lines that `span` touches.
    fn lines(&self, span: Span) -> Span {
        let before = self.text.get(..span.start).unwrap_or_default();
        let after = self.text.get(span.end..).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let end = span.end + after.find('\n').unwrap_or(after.len());
        Span { start, end }
    }

    fn floor(&self, offset: usize) -> usize {
        let offset = offset.min(self.text.len());
        (0..=offset)
            .rev()
            .find(|at| self.text.is_char_boundary(*at))
            .unwrap_or(0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for Report {}

/// A place in the frame.
#[derive(Clone, Copy)]
struct Mark {
    span: Span,
    kind: AnnotationKind,
    label: Option<&'static str>,
}

impl Problem {
    /// Something that must be put right at `span`.
    pub(super) fn error(message: impl Into<String>, span: Span) -> Self {
        Self {
            span: Some(span),
            ..Self::whole(message)
        }
    }

    /// Something that should be looked at, at `span`.
    pub(super) fn warning(message: impl Into<String>, span: Span) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(message, span)
        }
    }

    /// Something wrong with the file as a whole.
    pub(super) fn whole(message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            severity: Severity::Error,
            message,
            span: None,
            also: None,
            help: None,
        }
    }

    /// A second place, and what it is.
    pub(super) fn also(self, span: Span, label: &'static str) -> Self {
        Self {
            also: Some((span, label)),
            ..self
        }
    }

    /// What to do.
    pub(super) fn help(self, help: impl Into<String>) -> Self {
        Self {
            help: Some(help.into()),
            ..self
        }
    }
}

impl Problems {
    pub(super) fn add(&self, problem: impl Into<Box<Problem>>) {
        let mut problems = self.0.borrow_mut();
        if problems.len() < MAX_PROBLEMS {
            problems.push(*problem.into());
        }
    }

    /// Whether looking for more is in vain.
    pub(super) fn is_full(&self) -> bool {
        self.0.borrow().len() >= MAX_PROBLEMS
    }

    pub(super) fn has_errors(&self) -> bool {
        self.0
            .borrow()
            .iter()
            .any(|problem| problem.severity == Severity::Error)
    }
}

/// A value in backticks, cut short and without control characters: it goes to a terminal.
pub(super) fn quote(text: &str) -> String {
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

fn plural(count: usize, word: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {word}")),
        _ => Some(format!("{count} {word}s")),
    }
}
