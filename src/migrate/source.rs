//! The files that are translated, and positions in them.

use crate::config::Report;

/// One file: its name in messages, and its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SourceFile {
    /// The name in messages, as in `nginx.conf:12:5`.
    pub name: String,
    /// The whole text.
    pub text: String,
}

/// Reads the files that the pattern of an `include` names, in order; `Err` says why it cannot. A pattern with
/// wildcards may match no file.
pub(crate) type IncludeResolver<'a> = dyn Fn(&str) -> Result<Vec<SourceFile>, String> + 'a;

/// A range of bytes in one of the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SourceSpan {
    pub(super) file: usize,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// All files of one configuration; the first is the main file.
#[derive(Debug, Default)]
pub(super) struct SourceMap(Vec<IndexedFile>);

#[derive(Debug)]
struct IndexedFile {
    file: SourceFile,
    /// Byte offset of each line.
    line_starts: Vec<usize>,
}

impl SourceMap {
    /// Adds a file without its byte order mark, and returns its index.
    pub(super) fn add(&mut self, mut file: SourceFile) -> usize {
        if file.text.starts_with('\u{feff}') {
            file.text.remove(0);
        }
        let ends = file.text.match_indices('\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(ends).collect();
        self.0.push(IndexedFile {
            file,
            line_starts: lines,
        });
        self.0.len() - 1
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn text(&self, file: usize) -> &str {
        self.0.get(file).map_or("", |source| &source.file.text)
    }

    pub(super) fn name(&self, file: usize) -> &str {
        self.0.get(file).map_or("", |source| &source.file.name)
    }

    /// Line and column of the start of `span`, both from 1; the column counts characters.
    pub(super) fn line_and_column(&self, span: SourceSpan) -> (usize, usize) {
        let Some(source) = self.0.get(span.file) else {
            return (1, 1);
        };
        let line = source
            .line_starts
            .partition_point(|start| *start <= span.start);
        let start = line
            .checked_sub(1)
            .and_then(|index| source.line_starts.get(index));
        let before = source
            .file
            .text
            .get(start.copied().unwrap_or(0)..span.start);
        (line.max(1), before.unwrap_or_default().chars().count() + 1)
    }

    /// An error at `span`, which ends the translation.
    pub(super) fn error_at(&self, span: SourceSpan, message: &str, help: &str) -> Report {
        let range = span.start..span.end;
        let (name, text) = (self.name(span.file), self.text(span.file));
        Report::error(name, text, Some(&range), message, help)
    }

    /// An error about a whole file.
    pub(super) fn file_error(&self, file: usize, message: &str, help: &str) -> Report {
        Report::error(self.name(file), "", None, message, help)
    }

    /// Refuses control characters: no configuration has them, and messages would print them to a terminal.
    pub(super) fn refuse_binary(&self, file: usize) -> Result<(), Report> {
        let binary = |c: char| c.is_control() && !matches!(c, '\n' | '\r' | '\t' | '\u{c}');
        match self.text(file).char_indices().find(|(_, c)| binary(*c)) {
            None => Ok(()),
            Some((at, _)) => {
                let (line, column) = self.line_and_column(SourceSpan {
                    file,
                    start: at,
                    end: at,
                });
                let message = format!(
                    "this is not a text file; it has a control character at {line}:{column}"
                );
                Err(self.file_error(file, &message, "give the path of a configuration file"))
            }
        }
    }
}
