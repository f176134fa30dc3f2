//! nginx's syntax: words, `;`, blocks in braces, and files that are included.
//!
//! Bounded: at most [`MAX_WORDS`] words, [`MAX_DEPTH`] levels and [`MAX_FILES`] files. A file that
//! includes itself ends at the bound of levels.

use crate::config::Report;
use crate::migrate::Include;
use crate::migrate::source::{Place, Sources};

/// A hundred thousand servers are some 400,000 words.
const MAX_WORDS: usize = 1_000_000;
/// The deepest configuration that means anything has six levels.
const MAX_DEPTH: usize = 64;
const MAX_FILES: usize = 10_000;

/// One word and where it stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) place: Place,
}

/// `name argument argument;` or `name argument { … }`.
#[derive(Clone, Debug, Default)]
pub(super) struct Directive {
    pub(super) name: Word,
    pub(super) arguments: Vec<Word>,
    pub(super) block: Option<Vec<Self>>,
}

/// A configuration with all its files.
#[derive(Debug, Default)]
pub(in crate::migrate) struct Tree {
    pub(super) directives: Vec<Directive>,
    /// Includes that could not be read: where, which, why.
    pub(super) unread: Vec<(Place, String, String)>,
}

impl Directive {
    pub(super) fn place(&self) -> Place {
        self.name.place
    }

    /// The text of an argument; empty if there is none.
    pub(super) fn argument(&self, index: usize) -> &str {
        self.arguments.get(index).map_or("", |word| &word.text)
    }

    pub(super) fn inside(&self) -> &[Self] {
        self.block.as_deref().unwrap_or_default()
    }

    /// As it is written, without its block.
    pub(super) fn shown(&self) -> String {
        let words = std::iter::once(&self.name).chain(&self.arguments);
        words
            .map(|word| word.text.as_str())
            .collect::<Vec<_>>()
            .join(" ")
    }
}

/// Reads the file with everything that it includes.
pub(in crate::migrate) fn parse(
    sources: &mut Sources,
    file: usize,
    include: &Include<'_>,
) -> Result<Tree, Report> {
    let mut reader = Reader {
        sources,
        include,
        words: 0,
        unread: Vec::new(),
    };
    let directives = reader.file(file, 0)?;
    Ok(Tree {
        directives,
        unread: reader.unread,
    })
}

struct Reader<'a> {
    sources: &'a mut Sources,
    include: &'a Include<'a>,
    words: usize,
    unread: Vec<(Place, String, String)>,
}

type Parsed<T> = Result<T, Report>;

enum Token {
    Word(Word),
    End,
    Open(Place),
    Close(Place),
}

impl Reader<'_> {
    fn file(&mut self, file: usize, depth: usize) -> Parsed<Vec<Directive>> {
        self.sources.refuse_binary(file)?;
        let text = self.sources.text(file).to_owned();
        let mut tokens = Tokens {
            text: &text,
            at: 0,
            file,
        };
        self.block(&mut tokens, None, depth)
    }

    /// Directives up to the end of the file, or of the block that was opened at `open`.
    fn block(
        &mut self,
        tokens: &mut Tokens<'_>,
        open: Option<Place>,
        depth: usize,
    ) -> Parsed<Vec<Directive>> {
        let mut directives = Vec::new();
        loop {
            match (self.next(tokens)?, open) {
                (None, None) | (Some(Token::Close(_)), Some(_)) => return Ok(directives),
                (None, Some(open)) => return Err(self.unclosed(open)),
                (Some(Token::Close(place)), None) => {
                    let help = "remove it, or open a block before";
                    return Err(self.sources.error(place, "this `}` closes nothing", help));
                }
                (Some(Token::End), _) => {}
                (Some(Token::Open(place)), _) => {
                    let help = "name the block, as in `server {`";
                    return Err(self.sources.error(place, "a block without a name", help));
                }
                (Some(Token::Word(name)), _) => {
                    let directive = self.directive(name, tokens, depth)?;
                    self.take(directive, &mut directives, depth)?;
                }
            }
        }
    }

    fn directive(
        &mut self,
        name: Word,
        tokens: &mut Tokens<'_>,
        depth: usize,
    ) -> Parsed<Directive> {
        let raw = name.text.ends_with("_by_lua_block");
        let mut directive = Directive {
            name,
            ..Directive::default()
        };
        loop {
            match self.next(tokens)? {
                Some(Token::Word(word)) => directive.arguments.push(word),
                Some(Token::End) => return Ok(directive),
                Some(Token::Open(open)) if raw => {
                    tokens.skip_block().ok_or_else(|| self.unclosed(open))?;
                    return Ok(directive);
                }
                Some(Token::Open(open)) => {
                    self.refuse_depth(open, depth)?;
                    directive.block = Some(self.block(tokens, Some(open), depth + 1)?);
                    return Ok(directive);
                }
                Some(Token::Close(_)) | None => return Err(self.unended(&directive)),
            }
        }
    }

    /// Adds a directive, or what it includes.
    fn take(
        &mut self,
        directive: Directive,
        into: &mut Vec<Directive>,
        depth: usize,
    ) -> Parsed<()> {
        if directive.name.text != "include" || directive.block.is_some() {
            into.push(directive);
            return Ok(());
        }
        let place = directive.place();
        self.refuse_depth(place, depth)?;
        let pattern = directive.argument(0).to_owned();
        match (self.include)(&pattern) {
            Err(why) => self.unread.push((place, pattern, why)),
            Ok(files) => {
                for file in files {
                    self.refuse_files(place)?;
                    let file = self.sources.add(file);
                    into.extend(self.file(file, depth + 1)?);
                }
            }
        }
        Ok(())
    }

    fn next(&mut self, tokens: &mut Tokens<'_>) -> Parsed<Option<Token>> {
        let token = tokens.next().map_err(|(place, message)| {
            self.sources.error(place, message, "add the closing quote")
        })?;
        self.words += 1;
        if self.words > MAX_WORDS {
            let message = format!("more than {MAX_WORDS} words, included files counted");
            let help = "split the configuration; is it one?";
            return Err(self.sources.whole(tokens.file, &message, help));
        }
        Ok(token)
    }

    fn refuse_depth(&self, place: Place, depth: usize) -> Parsed<()> {
        if depth < MAX_DEPTH {
            return Ok(());
        }
        let message = format!("more than {MAX_DEPTH} levels of blocks and included files");
        let help = "look for braces that are not closed, and for a file that includes itself";
        Err(self.sources.error(place, &message, help))
    }

    fn refuse_files(&self, place: Place) -> Parsed<()> {
        if self.sources.len() < MAX_FILES {
            return Ok(());
        }
        let message = format!("more than {MAX_FILES} files");
        Err(self
            .sources
            .error(place, &message, "look for a file that includes itself"))
    }

    fn unclosed(&self, open: Place) -> Report {
        self.sources
            .error(open, "this `{` is not closed", "add the closing `}`")
    }

    fn unended(&self, directive: &Directive) -> Report {
        let last = directive.arguments.last().unwrap_or(&directive.name);
        self.sources.error(
            last.place,
            "`;` is missing behind this",
            "end the directive with `;`",
        )
    }
}

struct Tokens<'a> {
    text: &'a str,
    at: usize,
    file: usize,
}

impl Tokens<'_> {
    fn next(&mut self) -> Result<Option<Token>, (Place, &'static str)> {
        self.skip_space();
        let start = self.at;
        let Some(first) = self.peek() else {
            return Ok(None);
        };
        let place = Place {
            file: self.file,
            start,
            end: start + 1,
        };
        let token = match first {
            ';' => Token::End,
            '{' => Token::Open(place),
            '}' => Token::Close(place),
            '"' | '\'' => return self.quoted(first),
            _ => return Ok(Some(self.word())),
        };
        self.at += 1;
        Ok(Some(token))
    }

    fn skip_space(&mut self) {
        while let Some(c) = self.peek() {
            if c == '#' {
                let rest = self.rest();
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else if c.is_whitespace() {
                self.at += c.len_utf8();
            } else {
                return;
            }
        }
    }

    fn quoted(&mut self, quote: char) -> Result<Option<Token>, (Place, &'static str)> {
        let start = self.at;
        self.at += 1;
        let mut text = String::new();
        while let Some(c) = self.bump() {
            if c == quote {
                let place = self.place(start);
                return Ok(Some(Token::Word(Word { text, place })));
            }
            self.push(c, &mut text);
        }
        let place = Place {
            file: self.file,
            start,
            end: start + 1,
        };
        Err((place, "this quote is not closed"))
    }

    /// Up to a space or a mark; the braces of `${name}` belong to the word.
    fn word(&mut self) -> Token {
        let start = self.at;
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
            self.push(c, &mut text);
        }
        Token::Word(Word {
            text,
            place: self.place(start),
        })
    }

    /// A backslash takes its meaning from a quote, a space, a brace or a semicolon; others keep it.
    fn push(&mut self, c: char, text: &mut String) {
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

    /// Past the brace that closes a block of Lua, in which texts and comments may have braces.
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
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    fn place(&self, start: usize) -> Place {
        Place {
            file: self.file,
            start,
            end: self.at,
        }
    }
}
