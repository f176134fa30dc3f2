//! Renders problems with snippets of the configuration.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::source::SourceText;
use super::{Problem, Severity};
use crate::config::span::Span;

/// A snippet with a longer line is not shown, only its place.
const MAX_LINE: usize = 400;
/// Two places further apart than this, in bytes, are shown in two snippets.
const MAX_SNIPPET: usize = 4096;

/// Renders the problems of one text.
pub(super) struct SnippetRenderer<'a> {
    source: &'a SourceText,
    renderer: Renderer,
}

/// A marked place of a snippet.
#[derive(Clone, Copy)]
struct SnippetMark {
    span: Span,
    kind: AnnotationKind,
    label: Option<&'static str>,
}

impl<'a> SnippetRenderer<'a> {
    pub(super) fn new(source: &'a SourceText, color: bool) -> Self {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        Self { source, renderer }
    }

    pub(super) fn render(&self, problem: &Problem) -> String {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let group = Group::with_title(level.primary_title(problem.message.as_str()));
        let help = problem
            .help
            .as_deref()
            .map(|help| Level::HELP.message(help));
        let group = self.add_snippets(problem, group).elements(help);
        self.renderer.render(&[group])
    }

    fn add_snippets<'g>(&self, problem: &Problem, group: Group<'g>) -> Group<'g>
    where
        'a: 'g,
    {
        let Some(span) = problem.span else {
            return group.element(Origin::path(self.source.name.as_str()));
        };
        let primary = self.mark(span, AnnotationKind::Primary, None);
        match problem.secondary {
            None => self.snippets(group, &[primary]),
            Some((other, label)) => {
                let second = self.mark(other, AnnotationKind::Context, Some(label));
                self.snippets(group, &[primary, second])
            }
        }
    }

    fn mark(&self, span: Span, kind: AnnotationKind, label: Option<&'static str>) -> SnippetMark {
        let span = self.source.first_line_span(span);
        SnippetMark { span, kind, label }
    }

    /// One snippet for all marks, or one for each if they are far apart.
    fn snippets<'g>(&self, group: Group<'g>, marks: &[SnippetMark]) -> Group<'g>
    where
        'a: 'g,
    {
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
        if end - start <= MAX_SNIPPET {
            return self.snippet(group, Span { start, end }, marks);
        }
        let each = marks.chunks(1).zip(marks);
        each.fold(group, |group, (alone, mark)| {
            self.snippet(group, mark.span, alone)
        })
    }

    /// The lines of `span` with their marks; only the place if a line is too long.
    fn snippet<'g>(&self, group: Group<'g>, span: Span, marks: &[SnippetMark]) -> Group<'g>
    where
        'a: 'g,
    {
        let lines = self.source.line_span(span);
        let text = self.source.slice(lines);
        if text.lines().any(|line| line.len() > MAX_LINE) {
            return group.element(self.origin(marks));
        }
        let (line, _) = self.source.line_and_column(lines.start);
        let snippet = Snippet::source(text)
            .line_start(line)
            .path(self.source.name.as_str());
        group.element(snippet.annotations(marks.iter().map(|mark| {
            let range = mark.span.start - lines.start..mark.span.end - lines.start;
            mark.kind.span(range).label(mark.label)
        })))
    }

    fn origin(&self, marks: &[SnippetMark]) -> Origin<'a> {
        let at = marks.first().map_or(0, |mark| mark.span.start);
        let (line, column) = self.source.line_and_column(at);
        Origin::path(self.source.name.as_str())
            .line(line)
            .char_column(column)
    }
}
