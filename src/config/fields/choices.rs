//! Words that stand for something: alternatives, and `off` in the many forms people give it.

use crate::config::raw::YamlNode;
use crate::config::schema::nearest;
use crate::config::values::{InvalidValue, describe_node};

/// What one of some words stands for.
pub(in crate::config) fn choose<T: Copy>(
    node: &YamlNode,
    words: &[(&str, T)],
) -> Result<T, InvalidValue> {
    let found = node
        .text()
        .and_then(|text| words.iter().find(|(word, _)| *word == text));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names = words.iter().map(|(word, _)| *word);
        let help = match nearest(node.text().unwrap_or_default(), names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("use {}", alternatives(words)),
        };
        (format!("{} is not known here", describe_node(node)), help)
    })
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

/// The words by which others turn things off.
pub(super) fn is_off_like(node: &YamlNode) -> bool {
    let words = [
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
    node.is_null()
        || node
            .text()
            .is_some_and(|text| words.contains(&text) || text == "off")
}

pub(super) fn mention_off(node: &YamlNode, (message, help): InvalidValue) -> InvalidValue {
    let help = if is_off_like(node) {
        "write `off`, without quotes".to_owned()
    } else {
        with_alternative(help, "`off`")
    };
    (message, help)
}

/// Advice that lists what is possible, and one thing more; other advice stays as it is.
pub(in crate::config) fn with_alternative(help: String, more: &str) -> String {
    if help.starts_with("use ") || help.starts_with("write ") {
        format!("{help}, or {more}")
    } else {
        help
    }
}
