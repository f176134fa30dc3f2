//! Nodes as maps, lists and texts, with a problem if the shape is another one.

use std::collections::HashMap;

use crate::config::raw::{YamlEntry, YamlNode, YamlValue};
use crate::config::report::{Problem, Problems, quote};
use crate::config::values::{InvalidValue, describe_node};

/// The entries of a map by key; reports duplicates, of which the first counts.
pub(in crate::config) fn entries<'a>(
    node: &'a YamlNode,
    title: &str,
    help: impl FnOnce() -> String,
    problems: &Problems,
) -> Option<HashMap<&'a str, &'a YamlEntry>> {
    if !matches!(node.value, YamlValue::Map(_)) {
        let message = format!("expected a map for {title}, found {}", describe_node(node));
        problems.add(Problem::error(message, node.error_span()).help(help()));
        return None;
    }
    let mut entries = HashMap::new();
    for entry in entries_in_order(node) {
        if let Some(first) = entries.get(entry.key.as_str()).copied() {
            problems.add(duplicate(entry, first));
        } else {
            entries.insert(entry.key.as_str(), entry);
        }
    }
    Some(entries)
}

/// The entries of a map in the order of the text, duplicates included.
pub(in crate::config) fn entries_in_order(node: &YamlNode) -> &[YamlEntry] {
    match &node.value {
        YamlValue::Map(entries) => entries,
        YamlValue::Scalar(_) | YamlValue::List(_) => &[],
    }
}

fn duplicate(entry: &YamlEntry, first: &YamlEntry) -> Problem {
    Problem::error(
        format!("duplicate key {}", quote(&entry.key)),
        entry.key_span,
    )
    .secondary(first.key_span, "first here")
    .help("keep one of the two")
}

/// The items of a list; a problem if it is something else or empty.
pub(in crate::config) fn items<'a>(
    node: &'a YamlNode,
    help: &str,
    problems: &Problems,
) -> &'a [YamlNode] {
    let message = match &node.value {
        YamlValue::List(items) if !items.is_empty() => return items,
        YamlValue::List(_) => "the list is empty".to_owned(),
        _ => format!("expected a list, found {}", describe_node(node)),
    };
    problems.add(Problem::error(message, node.error_span()).help(help));
    &[]
}

/// The items of a list; any other value is a list of one item.
pub(in crate::config) fn items_or_one(node: &YamlNode) -> &[YamlNode] {
    match &node.value {
        YamlValue::List(items) => items,
        YamlValue::Scalar(_) | YamlValue::Map(_) => std::slice::from_ref(node),
    }
}

/// Applies `each` to the items, until the list of problems is full.
pub(in crate::config) fn collect_until_full<'a, T>(
    items: &'a [YamlNode],
    problems: &Problems,
    each: impl FnMut(&'a YamlNode) -> Option<T>,
) -> Vec<T> {
    items
        .iter()
        .take_while(|_| !problems.is_full())
        .filter_map(each)
        .collect()
}

/// The text of a scalar.
pub(in crate::config) fn text<'a>(node: &'a YamlNode, what: &str) -> Result<&'a str, InvalidValue> {
    node.text().ok_or_else(|| {
        let help = match &node.value {
            YamlValue::List(_) => "write exactly one; remove the brackets or the `-`".to_owned(),
            YamlValue::Map(_) => format!("write {what} directly, without keys below it"),
            YamlValue::Scalar(_) => format!("write {what}"),
        };
        (
            format!("expected {what}, found {}", describe_node(node)),
            help,
        )
    })
}
