//! Maps, lists and texts: a node as the shape that is expected of it.

use std::collections::HashMap;

use crate::config::raw::{Entry, Node, Value};
use crate::config::report::{Problem, Problems, quote};
use crate::config::values::{Fault, shown};

/// The entries of a map by their key, the first where a key is given twice.
pub(in crate::config) fn entries<'a>(
    node: &'a Node,
    title: &str,
    help: impl FnOnce() -> String,
    problems: &Problems,
) -> Option<HashMap<&'a str, &'a Entry>> {
    if !matches!(node.value, Value::Map(_)) {
        let message = format!("expected a map for {title}, found {}", shown(node));
        problems.add(Problem::error(message, node.place()).help(help()));
        return None;
    }
    let mut entries = HashMap::new();
    for entry in written(node) {
        if let Some(first) = entries.get(entry.key.as_str()).copied() {
            problems.add(duplicate(entry, first));
        } else {
            entries.insert(entry.key.as_str(), entry);
        }
    }
    Some(entries)
}

/// The entries of a map in the order of the text, duplicates included.
pub(in crate::config) fn written(node: &Node) -> &[Entry] {
    match &node.value {
        Value::Map(entries) => entries,
        Value::Scalar(_) | Value::List(_) => &[],
    }
}

fn duplicate(entry: &Entry, first: &Entry) -> Problem {
    Problem::error(
        format!("duplicate key {}", quote(&entry.key)),
        entry.key_span,
    )
    .also(first.key_span, "first here")
    .help("keep one of the two")
}

/// The items of a list; a problem if it is something else or empty.
pub(in crate::config) fn items<'a>(node: &'a Node, help: &str, problems: &Problems) -> &'a [Node] {
    let message = match &node.value {
        Value::List(items) if !items.is_empty() => return items,
        Value::List(_) => "the list is empty".to_owned(),
        _ => format!("expected a list, found {}", shown(node)),
    };
    problems.add(Problem::error(message, node.place()).help(help));
    &[]
}

/// The items of a list; anything else is a list of one.
pub(in crate::config) fn items_or_one(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(items) => items,
        Value::Scalar(_) | Value::Map(_) => std::slice::from_ref(node),
    }
}

/// `each` of `items`, stopping where nobody would read further problems.
pub(in crate::config) fn collect<'a, T>(
    items: &'a [Node],
    problems: &Problems,
    each: impl FnMut(&'a Node) -> Option<T>,
) -> Vec<T> {
    items
        .iter()
        .take_while(|_| !problems.is_full())
        .filter_map(each)
        .collect()
}

/// The text of a scalar.
pub(in crate::config) fn text<'a>(node: &'a Node, what: &str) -> Result<&'a str, Fault> {
    node.text().ok_or_else(|| {
        let help = match &node.value {
            Value::List(_) => "give exactly one; remove the brackets or the `-`".to_owned(),
            Value::Map(_) => format!("write {what} directly, without keys below it"),
            Value::Scalar(_) => format!("write {what}"),
        };
        (format!("expected {what}, found {}", shown(node)), help)
    })
}
