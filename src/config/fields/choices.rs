//! Values that are words: one of several alternatives, and `off` with its common misspellings.

use crate::config::raw::YamlNode;
use crate::config::schema::{nearest, unsupported};
use crate::config::values::{InvalidValue, describe_node};

/// The value that the word at `node` means; `key` is for messages.
pub(in crate::config) fn choose<T: Copy>(
    key: &str,
    node: &YamlNode,
    words: &[(&str, T)],
) -> Result<T, InvalidValue> {
    let is_word = |word: &str| node.is_word(word) || word == "off" && node.is_off();
    let found = words.iter().find(|(word, _)| is_word(word));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names = words.iter().map(|(word, _)| *word);
        let text = node.text().unwrap_or_default();
        let help = match (unsupported(text), nearest(text, names)) {
            (Some(advice), _) => format!("{advice}; use {}", alternatives(words)),
            (None, Some(near)) => format!("did you mean `{near}`?"),
            (None, None) => format!("use {}", alternatives(words)),
        };
        (unknown_value(key, node), help)
    })
}

/// The message for a value that is not among the alternatives.
pub(in crate::config) fn unknown_value(key: &str, node: &YamlNode) -> String {
    format!("unknown value {} for `{key}`", describe_node(node))
}

fn alternatives<T>(words: &[(&str, T)]) -> String {
    let names = words
        .iter()
        .map(|(word, _)| format!("`{word}`"))
        .collect::<Vec<_>>();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// Common misspellings of `off`; `"false"` with quotes is one.
const LIKE_OFF: &[&str] = &[
    "false",
    "no",
    "none",
    "never",
    "disabled",
    "unlimited",
    "infinite",
    "Off",
    "OFF",
];

/// Whether the value is empty, or a common misspelling of `off`.
pub(super) fn is_off_like(node: &YamlNode) -> bool {
    node.is_null() || node.text().is_some_and(|text| LIKE_OFF.contains(&text))
}

/// Whether a name or path is probably meant as a switch: `true`, `off` or another word for on and off.
pub(in crate::config) fn is_switch(text: &str) -> bool {
    matches!(text, "off" | "true" | "yes" | "on" | "On" | "ON") || LIKE_OFF.contains(&text)
}

/// Adds `off` to the help text of a value that can be turned off.
pub(super) fn mention_off(node: &YamlNode, (message, help): InvalidValue) -> InvalidValue {
    let help = if is_off_like(node) {
        "write `off`".to_owned()
    } else {
        with_alternative(help, "`off`")
    };
    (message, help)
}

/// Adds an alternative to a help text that lists the possible values; others are unchanged.
pub(in crate::config) fn with_alternative(help: String, more: &str) -> String {
    if help.starts_with("use ") || help.starts_with("write ") {
        format!("{help}, or {more}")
    } else {
        help
    }
}
