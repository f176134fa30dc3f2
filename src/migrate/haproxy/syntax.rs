//! `HAProxy`'s syntax: lines of words, grouped by sections.
//!
//! Bound: at most [`MAX_WORDS`] words. Nothing nests.

use crate::config::{Report, quote};
use crate::migrate::source::{SourceMap, SourceSpan};

/// 100,000 servers are about a million words.
const MAX_WORDS: usize = 2_000_000;

const SECTIONS: &[&str] = &[
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "peers",
    "resolvers",
    "userlist",
    "mailers",
    "program",
    "http-errors",
    "ring",
    "log-forward",
    "log-profile",
    "cache",
    "fcgi-app",
    "crt-store",
    "traces",
    "acme",
];

/// Parameters of `bind` and `server` with a value. A parameter of both has one in both.
const PARAMS_WITH_VALUE: &[&str] = &[
    "accept-netscaler-cip",
    "addr",
    "agent-addr",
    "agent-inter",
    "agent-port",
    "agent-send",
    "alpn",
    "backlog",
    "ca-file",
    "ca-ignore-err",
    "ca-sign-file",
    "ca-sign-pass",
    "ca-verify-file",
    "cc",
    "check-alpn",
    "check-proto",
    "check-sni",
    "ciphers",
    "ciphersuites",
    "client-sigalgs",
    "cookie",
    "crl-file",
    "crt",
    "crt-ignore-err",
    "crt-list",
    "curves",
    "default-crt",
    "downinter",
    "ecdhe",
    "error-limit",
    "expose-fd",
    "fall",
    "fastinter",
    "gid",
    "group",
    "guid",
    "guid-prefix",
    "hash-key",
    "id",
    "idle-ping",
    "init-addr",
    "inter",
    "interface",
    "label",
    "level",
    "log-proto",
    "max-reuse",
    "maxconn",
    "maxqueue",
    "minconn",
    "mode",
    "mss",
    "name",
    "namespace",
    "nbconn",
    "nice",
    "npn",
    "observe",
    "ocsp-update",
    "on-error",
    "on-marked-down",
    "on-marked-up",
    "pool-low-conn",
    "pool-max-conn",
    "pool-purge-delay",
    "port",
    "process",
    "proto",
    "proxy-v2-options",
    "redir",
    "resolve-net",
    "resolve-opts",
    "resolve-prefer",
    "resolvers",
    "rise",
    "severity-output",
    "shards",
    "sigalgs",
    "slowstart",
    "sni",
    "socks4",
    "source",
    "ssl-max-ver",
    "ssl-min-ver",
    "tcp-md5sig",
    "tcp-ut",
    "thread",
    "tls-ticket-keys",
    "track",
    "uid",
    "user",
    "usesrc",
    "verify",
    "verifyhost",
    "weight",
    "ws",
];

/// One word and its span.
#[derive(Clone, Debug)]
pub(super) struct HaproxyWord {
    pub(super) text: String,
    pub(super) span: SourceSpan,
}

/// One line with at least one word.
#[derive(Clone, Debug)]
pub(super) struct HaproxyLine {
    pub(super) words: Vec<HaproxyWord>,
    pub(super) span: SourceSpan,
}

/// A section with its lines.
#[derive(Debug)]
pub(in crate::migrate) struct HaproxySection {
    pub(super) kind: String,
    pub(super) name: String,
    /// The `defaults` section that it names with `from`.
    pub(super) defaults: Option<String>,
    pub(super) lines: Vec<HaproxyLine>,
    pub(super) span: SourceSpan,
}

impl HaproxyLine {
    pub(super) fn keyword(&self) -> &str {
        self.word(0)
    }

    /// The text of a word; empty if it is missing.
    pub(super) fn word(&self, index: usize) -> &str {
        self.words.get(index).map_or("", |word| &word.text)
    }

    /// The words from `index` on.
    pub(super) fn tail(&self, index: usize) -> &[HaproxyWord] {
        self.words.get(index..).unwrap_or_default()
    }

    pub(super) fn text(&self) -> String {
        let words = self.words.iter().map(|word| word.text.as_str());
        words.collect::<Vec<_>>().join(" ")
    }
}

impl HaproxySection {
    /// The lines of the `defaults` that this section names, or of the last one before it.
    pub(super) fn inherited_lines<'a>(&self, defaults: &[&'a Self]) -> &'a [HaproxyLine] {
        let named = defaults
            .iter()
            .find(|found| self.defaults.is_some() && Some(&found.name) == self.defaults.as_ref());
        named
            .or(defaults.last())
            .map_or(&[], |found| found.lines.as_slice())
    }

    pub(super) fn text(&self) -> String {
        format!("{} {}", self.kind, self.name).trim_end().to_owned()
    }
}

/// Whether the next word is the value of this parameter of `bind` or `server`.
pub(super) fn takes_value(parameter: &str) -> bool {
    PARAMS_WITH_VALUE.contains(&parameter)
}

/// Parses one file.
pub(in crate::migrate) fn parse(
    sources: &SourceMap,
    file: usize,
) -> Result<Vec<HaproxySection>, Report> {
    let mut sections: Vec<HaproxySection> = Vec::new();
    let (mut start, mut count) = (0, 0);
    for text in sources.text(file).split_inclusive('\n') {
        let words = split_words(text, file, start).map_err(|span| {
            sources.error_at(
                span,
                "this quote is not closed",
                "add the closing quote on the same line",
            )
        })?;
        start += text.len();
        count += words.len();
        if count > MAX_WORDS {
            let message = format!("the configuration has more than {MAX_WORDS} words");
            return Err(sources.file_error(
                file,
                &message,
                "check that this is one configuration, or split it",
            ));
        }
        let Some(first) = words.first() else { continue };
        if SECTIONS.contains(&first.text.as_str()) && !is_nested_keyword(&sections, &words) {
            sections.push(parse_section(words));
        } else if let Some(section) = sections.last_mut() {
            section.lines.push(HaproxyLine {
                span: first.span,
                words,
            });
        } else {
            return Err(outside_section(first, sources));
        }
    }
    Ok(sections)
}

/// Some section keywords also begin lines of a section, with another number of words.
fn is_nested_keyword(sections: &[HaproxySection], words: &[HaproxyWord]) -> bool {
    let Some(first) = words.first() else {
        return false;
    };
    let ambiguous = matches!(
        first.text.as_str(),
        "ring" | "cache" | "peers" | "resolvers" | "acme"
    );
    ambiguous && !sections.is_empty() && words.len() != 2
}

fn parse_section(words: Vec<HaproxyWord>) -> HaproxySection {
    let span = words.first().map(|word| word.span).unwrap_or_default();
    let mut texts = words.into_iter().map(|word| word.text);
    let kind = texts.next().unwrap_or_default();
    let rest: Vec<String> = texts.collect();
    let name = rest
        .first()
        .filter(|word| *word != "from")
        .cloned()
        .unwrap_or_default();
    let mut pairs = rest.windows(2);
    let from = pairs.find_map(|pair| match pair {
        [word, name] if word == "from" => Some(name.clone()),
        _ => None,
    });
    HaproxySection {
        kind,
        name,
        defaults: from,
        lines: Vec::new(),
        span,
    }
}

fn outside_section(word: &HaproxyWord, sources: &SourceMap) -> Report {
    let message = format!("{} does not begin a section of HAProxy", quote(&word.text));
    let help = "a file begins with `global`, `defaults`, `frontend`, `backend` or `listen`";
    sources.error_at(word.span, &message, help)
}

/// Splits one line, which begins at byte `start`; `Err` is the span of an unclosed quote.
fn split_words(line: &str, file: usize, start: usize) -> Result<Vec<HaproxyWord>, SourceSpan> {
    let mut words = Vec::new();
    let mut text: Option<(usize, String)> = None;
    let mut quoted: Option<(char, usize)> = None;
    let mut characters = line.char_indices();
    let at = |from: usize, to: usize| SourceSpan {
        file,
        start: start + from,
        end: start + to,
    };
    let mut end = line.len();
    while let Some((index, c)) = characters.next() {
        if quoted.is_none() && c == '#' {
            end = index;
            break;
        }
        if quoted.is_none() && c.is_whitespace() {
            words.extend(text.take().map(|(from, text)| HaproxyWord {
                text,
                span: at(from, index),
            }));
            continue;
        }
        let word = &mut text.get_or_insert((index, String::new())).1;
        match (quoted, c) {
            (Some((quote, _)), c) if c == quote => quoted = None,
            (None, '"' | '\'') => quoted = Some((c, index)),
            (None | Some(('"', _)), '\\') => {
                word.extend(unescape(characters.next().map(|(_, c)| c)));
            }
            (_, c) => word.push(c),
        }
    }
    if let Some((_, index)) = quoted {
        return Err(at(index, index + 1));
    }
    words.extend(text.map(|(from, text)| HaproxyWord {
        text,
        span: at(from, end),
    }));
    Ok(words)
}

fn unescape(c: Option<char>) -> Option<char> {
    match c {
        Some('n') => Some('\n'),
        Some('r') => Some('\r'),
        Some('t') => Some('\t'),
        other => other.filter(|c| *c != '\n'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &str) -> Option<Vec<String>> {
        let words = split_words(line, 0, 0).ok()?;
        Some(words.into_iter().map(|word| word.text).collect())
    }

    #[test]
    fn haproxy_words_support_quotes_escapes_and_comments() {
        let of = |line| texts(line).unwrap_or_default().join("|");
        assert_eq!(of("  server a 10.0.0.1:80 # x"), "server|a|10.0.0.1:80");
        assert_eq!(of(r#"a "b c" 'd # e' f\ g"#), "a|b c|d # e|f g");
        assert_eq!(of("\n"), "");
        assert_eq!(texts("a \"b"), None);
    }
}
