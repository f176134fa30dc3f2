//! Explanations of YAML syntax errors, without terms of the YAML grammar.

use std::net::Ipv6Addr;

use serde_saphyr::granit_parser::{ErrorKind, ScanError};

use crate::config::report::{Problem, quote};
use crate::config::span::Span;

/// The problem for a syntax error in `text`; the parser's own message if there is no explanation for it.
pub(super) fn explain(error: &ScanError, text: &str) -> Problem {
    let start = error.marker().byte_offset().unwrap_or_default();
    let at = Span { start, end: start };
    let kind = error.kind();
    let source = unquoted_ipv6(text, start).or_else(|| indenting_tab(text, start, kind));
    if let Some(problem) = source {
        return problem;
    }
    let character = || match kind {
        ErrorKind::UnexpectedCharacter { character } => Some(explain_character(*character)),
        _ => None,
    };
    let known = || explain_flow(kind).or_else(|| explain_layout(kind));
    let known = known().map(|(message, help)| (message.to_owned(), help));
    let (message, help) = known.or_else(character).unwrap_or_else(|| {
        (
            kind.to_string(),
            "see the YAML 1.2 syntax; text with special characters needs quotes",
        )
    });
    Problem::error(message, at).help(help)
}

/// Brackets, quotes and aliases: errors within one value.
fn explain_flow(kind: &ErrorKind) -> Option<(&'static str, &'static str)> {
    Some(match kind {
        ErrorKind::UnknownAnchor => (
            "an alias without an anchor",
            "write the value out; a text that begins with `*` needs quotes: `\"*.example.com\"`",
        ),
        ErrorKind::UnclosedQuotedScalar => ("a quote is not closed", "add the closing quote"),
        ErrorKind::UnclosedFlowCollection { .. }
        | ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnexpectedEofFlowMapping => {
            ("a bracket is not closed", "add the closing `]` or `}`")
        }
        ErrorKind::ExpectedFlowMappingSeparator => (
            "`,` or `}` is missing here",
            "separate entries by `, ` and close the map with `}`",
        ),
        ErrorKind::ExpectedFlowSequenceSeparator => (
            "`,` or `]` is missing here",
            "separate items by `, ` and close the list with `]`",
        ),
        ErrorKind::MisplacedFlowCollectionEnd => (
            "this bracket closes nothing",
            "remove it, or open it before",
        ),
        ErrorKind::MismatchedFlowCollectionEnd { .. } => (
            "this bracket is closed by one of the other kind",
            "`[` needs `]`, `{` needs `}`",
        ),
        ErrorKind::InvalidColonPlacement => (
            "a new key inside brackets that are still open",
            "close the `[` or `{` above",
        ),
        _ => return None,
    })
}

/// Keys, items and indentation: errors between values.
fn explain_layout(kind: &ErrorKind) -> Option<(&'static str, &'static str)> {
    Some(match kind {
        kind if is_tab(kind) => (TAB_MESSAGE, TAB_HELP),
        ErrorKind::MappingValueNotAllowed => (
            "a key is not allowed here",
            "if it belongs to the key before, put it on a line of its own and indent it; \
             if the line above has `key:value`, put a space after its colon",
        ),
        ErrorKind::SimpleKeyExpected => (
            "`:` is missing after a key",
            "write `key: value`, with a space after the colon",
        ),
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::InvalidIndentation => (
            "the indentation matches no line above",
            "keys of one map begin in the same column, and list items in theirs",
        ),
        ErrorKind::ExpectedBlockSequenceEntry | ErrorKind::BlockSequenceEntryNotAllowed => (
            "a list item is out of place",
            "items of one list begin with `- ` in the same column",
        ),
        _ => return None,
    })
}

fn explain_character(character: char) -> (String, &'static str) {
    let shown = quote(&character.to_string());
    if character.is_control() {
        return (format!("the character {shown} is not allowed"), "remove it");
    }
    (
        format!("a value cannot begin with {shown}"),
        "put quotes around the text",
    )
}

const TAB_MESSAGE: &str = "a tab in the indentation";
const TAB_HELP: &str = "indent with spaces";

fn is_tab(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabInPlainScalar
            | ErrorKind::TabAtBlockScalarStart
    )
}

/// The problem for a tab that the parser has met. Its marker is the end of the value before, which may be lines above; after a
/// tab at the start of the file it does not name tabs at all.
fn indenting_tab(text: &str, marker: usize, kind: &ErrorKind) -> Option<Problem> {
    let before = text.get(..marker)?;
    let from = match kind {
        kind if is_tab(kind) => before.rfind('\n').map_or(0, |newline| newline + 1),
        // Before the first key.
        ErrorKind::ExpectedDocumentStart => 0,
        _ => return None,
    };
    let mut start = from;
    for line in text.get(from..)?.split_inclusive('\n') {
        let content = line.trim_start_matches([' ', '\t']);
        let indentation = line.get(..line.len() - content.len())?;
        let is_empty = content.trim_end().is_empty() || content.starts_with('#');
        if let (false, Some(tab)) = (is_empty, indentation.find('\t')) {
            let start = start + tab;
            let end = start + 1;
            return Some(Problem::error(TAB_MESSAGE, Span { start, end }).help(TAB_HELP));
        }
        start += line.len();
    }
    None
}

/// The problem for an address as `[::]:80` without quotes, in the line of `marker` or in the one before it: to YAML
/// the bracket opens a list, and what follows it is out of place.
pub(super) fn unquoted_ipv6(text: &str, marker: usize) -> Option<Problem> {
    let before = text.get(..marker)?;
    let line = before.rfind('\n').map_or(0, |newline| newline + 1);
    // The parser sees the error only at the next key.
    let previous = text.get(..line.saturating_sub(1))?;
    let previous = previous.rfind('\n').map_or(0, |newline| newline + 1);
    let address = [line, previous].into_iter().find_map(|start| {
        let line = text.get(start..)?.lines().next()?;
        let line = line.split(" #").next()?;
        let mut brackets = line.match_indices('[');
        brackets.find_map(|(at, _)| {
            let length = address_length(line.get(at..)?)?;
            let quoted = line.get(..at)?.ends_with(['"', '\'']);
            let start = start + at;
            (!quoted).then_some(Span {
                start,
                end: start + length,
            })
        })
    })?;
    let shown = text.get(address.range())?;
    let problem = Problem::error("an address with brackets needs quotes", address);
    Some(problem.help(format!("write `\"{shown}\"`")))
}

/// The length of the address with a port that `text` begins with.
fn address_length(text: &str) -> Option<usize> {
    let (address, rest) = text.strip_prefix('[')?.split_once("]:")?;
    let port = rest.bytes().take_while(u8::is_ascii_digit).count();
    let is_address = address.parse::<Ipv6Addr>().is_ok();
    (is_address && port > 0).then_some(address.len() + "[]:".len() + port)
}
