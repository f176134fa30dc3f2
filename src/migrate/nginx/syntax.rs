//! nginx's syntax: words, `;`, blocks in braces, and includes.
//!
//! Bounds: at most [`MAX_WORDS`] words, [`MAX_DEPTH`] levels and [`MAX_FILES`] files. A file that includes
//! itself ends at the bound of levels.

use crate::config::Report;
use crate::migrate::source::{IncludeResolver, SourceMap, SourceSpan};

/// 100,000 servers are about 400,000 words.
const MAX_WORDS: usize = 1_000_000;
/// A meaningful configuration has at most six levels.
const MAX_DEPTH: usize = 64;
const MAX_FILES: usize = 10_000;

/// One word and its span.
#[derive(Clone, Debug, Default)]
pub(super) struct NginxWord {
    pub(super) text: String,
    pub(super) span: SourceSpan,
}

/// `name argument argument;` or `name argument { … }`.
#[derive(Clone, Debug, Default)]
pub(super) struct Directive {
    pub(super) name: NginxWord,
    pub(super) arguments: Vec<NginxWord>,
    pub(super) block: Option<Vec<Self>>,
}

/// A configuration with all its files.
#[derive(Debug, Default)]
pub(in crate::migrate) struct DirectiveTree {
    pub(super) directives: Vec<Directive>,
    /// Includes that could not be read: span, pattern, reason.
    pub(super) failed_includes: Vec<(SourceSpan, String, String)>,
}

impl Directive {
    pub(super) fn span(&self) -> SourceSpan {
        self.name.span
    }

    /// The text of an argument; empty if it is missing.
    pub(super) fn argument(&self, index: usize) -> &str {
        self.arguments.get(index).map_or("", |word| &word.text)
    }

    pub(super) fn children(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// Its text without its block.
    pub(super) fn text(&self) -> String {
        let words = std::iter::once(&self.name).chain(&self.arguments);
        words
            .map(|word| word.text.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// Parses a file and all files that it includes.
pub(in crate::migrate) fn parse(
    sources: &mut SourceMap,
    file: usize,
    include: &IncludeResolver<'_>,
) -> Result<DirectiveTree, Report> {
    let mut parser = NginxParser {
        sources,
        include,
        words: 0,
        failed_includes: Vec::new(),
    };
    let directives = parser.parse_file(file, 0)?;
    Ok(DirectiveTree {
        directives,
        failed_includes: parser.failed_includes,
    })
}

struct NginxParser<'a> {
    sources: &'a mut SourceMap,
    include: &'a IncludeResolver<'a>,
    words: usize,
    failed_includes: Vec<(SourceSpan, String, String)>,
}

type NginxResult<T> = Result<T, Report>;

enum NginxToken {
    Word(NginxWord),
    Semicolon,
    OpenBrace(SourceSpan),
    CloseBrace(SourceSpan),
}

impl NginxParser<'_> {
    fn parse_file(&mut self, file: usize, depth: usize) -> NginxResult<Vec<Directive>> {
        self.sources.refuse_binary(file)?;
        let text = self.sources.text(file).to_owned();
        let mut tokens = NginxTokenizer {
            text: &text,
            offset: 0,
            file,
        };
        self.parse_block(&mut tokens, None, depth)
    }

    /// Directives up to the end of the file, or of the block that `open` begins.
    fn parse_block(
        &mut self,
        tokens: &mut NginxTokenizer<'_>,
        open: Option<SourceSpan>,
        depth: usize,
    ) -> NginxResult<Vec<Directive>> {
        let mut directives = Vec::new();
        loop {
            match (self.next_token(tokens)?, open) {
                (None, None) | (Some(NginxToken::CloseBrace(_)), Some(_)) => return Ok(directives),
                (None, Some(open)) => return Err(self.unclosed_block(open)),
                (Some(NginxToken::CloseBrace(span)), None) => {
                    let help = "remove it, or add the missing `{`";
                    return Err(self
                        .sources
                        .error_at(span, "this `}` closes no block", help));
                }
                (Some(NginxToken::Semicolon), _) => {}
                (Some(NginxToken::OpenBrace(span)), _) => {
                    let help = "name the block, as in `server {`";
                    return Err(self.sources.error_at(span, "this block has no name", help));
                }
                (Some(NginxToken::Word(name)), _) => {
                    let directive = self.parse_directive(name, tokens, depth)?;
                    self.push_or_include(directive, &mut directives, depth)?;
                }
            }
        }
    }

    fn parse_directive(
        &mut self,
        name: NginxWord,
        tokens: &mut NginxTokenizer<'_>,
        depth: usize,
    ) -> NginxResult<Directive> {
        let raw = name.text.ends_with("_by_lua_block");
        let mut directive = Directive {
            name,
            ..Directive::default()
        };
        loop {
            match self.next_token(tokens)? {
                Some(NginxToken::Word(word)) => directive.arguments.push(word),
                Some(NginxToken::Semicolon) => return Ok(directive),
                Some(NginxToken::OpenBrace(open)) if raw => {
                    tokens
                        .skip_block()
                        .ok_or_else(|| self.unclosed_block(open))?;
                    return Ok(directive);
                }
                Some(NginxToken::OpenBrace(open)) => {
                    self.refuse_depth(open, depth)?;
                    directive.block = Some(self.parse_block(tokens, Some(open), depth + 1)?);
                    return Ok(directive);
                }
                Some(NginxToken::CloseBrace(_)) | None => {
                    return Err(self.missing_semicolon(&directive));
                }
            }
        }
    }

    /// Adds a directive, or the directives of the files that it includes.
    fn push_or_include(
        &mut self,
        directive: Directive,
        into: &mut Vec<Directive>,
        depth: usize,
    ) -> NginxResult<()> {
        if directive.name.text != "include" || directive.block.is_some() {
            into.push(directive);
            return Ok(());
        }
        let span = directive.span();
        self.refuse_depth(span, depth)?;
        let pattern = directive.argument(0).to_owned();
        match (self.include)(&pattern) {
            Err(why) => self.failed_includes.push((span, pattern, why)),
            Ok(files) => {
                for file in files {
                    self.refuse_files(span)?;
                    let file = self.sources.add(file);
                    into.extend(self.parse_file(file, depth + 1)?);
                }
            }
        }
        Ok(())
    }

    fn next_token(&mut self, tokens: &mut NginxTokenizer<'_>) -> NginxResult<Option<NginxToken>> {
        let token = tokens.next().map_err(|(span, message)| {
            self.sources
                .error_at(span, message, "add the closing quote")
        })?;
        self.words += 1;
        if self.words > MAX_WORDS {
            let message = format!(
                "the configuration has more than {MAX_WORDS} words, included files counted"
            );
            let help = "check that this is one configuration, or split it";
            return Err(self.sources.file_error(tokens.file, &message, help));
        }
        Ok(token)
    }

    fn refuse_depth(&self, span: SourceSpan, depth: usize) -> NginxResult<()> {
        if depth < MAX_DEPTH {
            return Ok(());
        }
        let message = format!("blocks and included files nest more than {MAX_DEPTH} levels deep");
        let help = "look for a brace that is not closed, or a file that includes itself";
        Err(self.sources.error_at(span, &message, help))
    }

    fn refuse_files(&self, span: SourceSpan) -> NginxResult<()> {
        if self.sources.len() < MAX_FILES {
            return Ok(());
        }
        let message = format!("the configuration includes more than {MAX_FILES} files");
        Err(self
            .sources
            .error_at(span, &message, "look for a file that includes itself"))
    }

    fn unclosed_block(&self, open: SourceSpan) -> Report {
        self.sources
            .error_at(open, "this `{` is not closed", "add the closing `}`")
    }

    fn missing_semicolon(&self, directive: &Directive) -> Report {
        let last = directive.arguments.last().unwrap_or(&directive.name);
        self.sources.error_at(
            last.span,
            "`;` is missing after this",
            "end the directive with `;`",
        )
    }
}

struct NginxTokenizer<'a> {
    text: &'a str,
    offset: usize,
    file: usize,
}

impl NginxTokenizer<'_> {
    fn next(&mut self) -> Result<Option<NginxToken>, (SourceSpan, &'static str)> {
        self.skip_space();
        let start = self.offset;
        let Some(first) = self.peek() else {
            return Ok(None);
        };
        let span = SourceSpan {
            file: self.file,
            start,
            end: start + 1,
        };
        let token = match first {
            ';' => NginxToken::Semicolon,
            '{' => NginxToken::OpenBrace(span),
            '}' => NginxToken::CloseBrace(span),
            '"' | '\'' => return self.quoted(first),
            _ => return Ok(Some(self.word())),
        };
        self.offset += 1;
        Ok(Some(token))
    }

    fn skip_space(&mut self) {
        while let Some(c) = self.peek() {
            if c == '#' {
                let rest = self.rest();
                self.offset += rest.find('\n').unwrap_or(rest.len());
            } else if c.is_whitespace() {
                self.offset += c.len_utf8();
            } else {
                return;
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Result<Option<NginxToken>, (SourceSpan, &'static str)> {
        let start = self.offset;
        self.offset += 1;
        let mut text = String::new();
        while let Some(c) = self.bump() {
            if c == quote {
                let span = self.span_from(start);
                return Ok(Some(NginxToken::Word(NginxWord { text, span })));
            }
            self.push_unescaped(c, &mut text);
        }
        let span = SourceSpan {
            file: self.file,
            start,
            end: start + 1,
        };
        Err((span, "this quote is not closed"))
    }

    /// A word up to a space, `;` or a brace; the braces of `${name}` belong to it.
    fn word(&mut self) -> NginxToken {
        let start = self.offset;
        let mut text = String::new();
        while let Some(c) = self.peek() {
            let variable = c == '{' && text.ends_with('$');
            if c.is_whitespace() || c == ';' || (c == '{' && !variable) {
                break;
            }
            let closes = |text: &str| {
                let open = text.rsplit_once("${");
                open.is_none_or(|(_, name)| name.contains('}'))
            };
            if c == '}' && closes(&text) {
                break;
            }
            self.bump();
            self.push_unescaped(c, &mut text);
        }
        NginxToken::Word(NginxWord {
            text,
            span: self.span_from(start),
        })
    }

    /// Removes the backslash before a quote, a backslash or a space, and keeps it before other characters.
    fn push_unescaped(&mut self, c: char, text: &mut String) {
        if c != '\\' {
            text.push(c);
            return;
        }
        match self.bump() {
            Some(next) if matches!(next, '"' | '\'' | '\\' | ' ') => text.push(next),
            Some(next) => text.extend(['\\', next]),
            None => text.push('\\'),
        }
    }

    /// Skips a block of Lua: its strings and comments may contain braces.
    fn skip_block(&mut self) -> Option<()> {
        let mut depth = 1;
        while depth > 0 {
            match self.bump()? {
                '{' => depth += 1,
                '}' => depth -= 1,
                '-' if self.peek() == Some('-') => while self.bump()? != '\n' {},
                quote @ ('"' | '\'') => self.skip_text(quote)?,
                _ => {}
            }
        }
        Some(())
    }

    fn skip_text(&mut self, quote: char) -> Option<()> {
        loop {
            match self.bump()? {
                '\\' => self.bump().map(|_| ())?,
                c if c == quote => return Some(()),
                _ => {}
            }
        }
    }

    fn rest(&self) -> &str {
        self.text.get(self.offset..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.offset += c.len_utf8();
        Some(c)
    }

    fn span_from(&self, start: usize) -> SourceSpan {
        SourceSpan {
            file: self.file,
            start,
            end: self.offset,
        }
    }
}
