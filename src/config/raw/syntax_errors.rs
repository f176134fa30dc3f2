//! Explanations of YAML syntax errors, without terms of the YAML grammar.

use serde_saphyr::granit_parser::{ErrorKind, ScanError};

use crate::config::report::{Problem, quote};
use crate::config::span::Span;

/// The problem for a syntax error; the parser's own message if there is no explanation for it.
pub(super) fn explain(error: &ScanError) -> Problem {
    let start = error.marker().byte_offset().unwrap_or_default();
    let at = Span { start, end: start };
    let kind = error.kind();
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
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInPlainScalar
        | ErrorKind::TabAtBlockScalarStart => ("a tab in the indentation", "indent with spaces"),
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
