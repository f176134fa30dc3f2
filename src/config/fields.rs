//! Typed access to the raw tree, by key. Whatever is not as it should be becomes a problem with its
//! place, and the reading goes on with the default: one mistake must not hide the next.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::raw::{Entry, Node, Span, Value};
use super::report::{Problem, Problems, quote};
use super::schema::{Section, advice, nearest};
use super::values::{self, Fault};

/// A map of which every key is known.
pub(super) struct Fields<'a> {
    /// For the problems that only the section itself can see.
    pub(super) problems: &'a Problems,
    section: &'static Section,
    node: &'a Node,
    entries: HashMap<&'a str, &'a Entry>,
}

impl<'a> Fields<'a> {
    /// `None` if `node` is not a map. Reports unknown and duplicate keys.
    pub(super) fn open(
        node: &'a Node,
        section: &'static Section,
        problems: &'a Problems,
    ) -> Option<Self> {
        let help = || format!("write keys and values, as in `{}`", section.example);
        let entries = entries(node, section.title, help, problems)?;
        let mut fields = Self {
            problems,
            section,
            node,
            entries,
        };
        written(node).iter().for_each(|entry| fields.check(entry));
        Some(fields)
    }

    /// Reports a key that is not known. Where another was meant, the value is read as its value:
    /// so that one is not missing, and problems in the value come up at once.
    fn check(&mut self, entry: &'a Entry) {
        if self.section.keys.contains(&entry.key.as_str()) {
            return;
        }
        let message = format!(
            "unknown key {} in {}",
            quote(&entry.key),
            self.section.title
        );
        let (help, meant) = advice(self.section, &entry.key);
        self.problems
            .add(Problem::error(message, entry.key_span).help(help));
        if let Some(meant) = meant {
            self.entries.entry(meant).or_insert(entry);
        }
    }

    /// The value of `key`, if it is there.
    pub(super) fn get(&self, key: &'static str) -> Option<&'a Node> {
        debug_assert!(
            self.section.keys.contains(&key),
            "`{key}` is not in the schema"
        );
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// The value of `key`; a problem with this advice if it is missing or empty.
    pub(super) fn require(&self, key: &'static str, help: &str) -> Option<&'a Node> {
        let found = self.get(key);
        match found {
            Some(node) if !node.is_null() => return found,
            Some(node) => self.error(node, format!("`{key}` is empty"), help),
            None => self.problems.add(self.missing(key).help(help)),
        }
        None
    }

    fn missing(&self, key: &str) -> Problem {
        let message = format!("{} needs `{key}`", self.section.title);
        match self.section.path {
            "" => Problem::whole(message),
            _ => Problem::error(message, self.node.head()),
        }
    }

    /// Where the section begins, for what is missing in it.
    pub(super) fn head(&self) -> Span {
        self.node.head()
    }

    pub(super) fn error(&self, node: &Node, message: impl Into<String>, help: impl Into<String>) {
        self.problems
            .add(Problem::error(message, node.place()).help(help));
    }

    pub(super) fn number<T: TryFrom<u64>>(
        &self,
        key: &'static str,
        default: T,
        bounds: RangeInclusive<u64>,
    ) -> T {
        self.read(key, |node| narrow(values::number(key, node, &bounds)?))
            .unwrap_or(default)
    }

    pub(super) fn duration(
        &self,
        key: &'static str,
        default: Duration,
        bounds: RangeInclusive<Duration>,
    ) -> Duration {
        self.read(key, |node| values::duration(node, &bounds))
            .unwrap_or(default)
    }

    pub(super) fn size(&self, key: &'static str, default: u64, bounds: RangeInclusive<u64>) -> u64 {
        self.read(key, |node| values::size(node, &bounds))
            .unwrap_or(default)
    }

    pub(super) fn flag(&self, key: &'static str, default: bool) -> bool {
        self.read(key, values::flag).unwrap_or(default)
    }

    /// One of some words, by what it stands for.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, default: T, words: &[(&str, T)]) -> T {
        self.read(key, |node| choose(node, words))
            .unwrap_or(default)
    }

    /// `off`, or what `read` makes of the value; `None` stands for `off`.
    pub(super) fn or_off<T>(
        &self,
        key: &'static str,
        default: Option<T>,
        read: impl FnOnce(&'a Node) -> Result<T, Fault>,
    ) -> Option<T> {
        let off = |node: &'a Node| {
            if node.is_word("off") {
                Ok(None)
            } else {
                read(node).map(Some)
            }
        };
        self.read(key, |node| {
            off(node).map_err(|fault| mention_off(node, fault))
        })
        .unwrap_or(default)
    }

    /// A section that `off` turns off. `Err` is `off`, `Ok(None)` not given or not usable.
    pub(super) fn section_or_off(
        &self,
        key: &'static str,
        section: &'static Section,
    ) -> Result<Option<Fields<'a>>, Off> {
        let Some(node) = self.get(key) else {
            return Ok(None);
        };
        if node.is_word("off") {
            return Err(Off);
        }
        if looks_off(node) {
            let help = format!("write `{key}: off`, or remove the line for the defaults");
            self.error(
                node,
                format!("`{key}` cannot be {}", values::shown(node)),
                help,
            );
            return Ok(None);
        }
        Ok(Fields::open(node, section, self.problems))
    }

    /// A section that may be left out.
    pub(super) fn section(
        &self,
        key: &'static str,
        section: &'static Section,
    ) -> Option<Fields<'a>> {
        Fields::open(self.get(key)?, section, self.problems)
    }

    /// What `read` makes of the value; `None` if it is not there or not right, which is reported.
    pub(super) fn read<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&'a Node) -> Result<T, Fault>,
    ) -> Option<T> {
        let node = self.get(key)?;
        if node.is_null() {
            self.error(
                node,
                format!("`{key}` is empty"),
                "give it a value, or remove the line",
            );
            return None;
        }
        accept(node, self.problems, read)
    }
}

/// The section is turned off.
pub(super) struct Off;

/// The value if `read` finds it right; else its fault becomes a problem at `node`.
pub(super) fn accept<'a, T>(
    node: &'a Node,
    problems: &Problems,
    read: impl FnOnce(&'a Node) -> Result<T, Fault>,
) -> Option<T> {
    match read(node) {
        Ok(value) => Some(value),
        Err((message, help)) => {
            problems.add(Problem::error(message, node.place()).help(help));
            None
        }
    }
}

/// The entries of a map by their key, the first where a key is given twice.
pub(super) fn entries<'a>(
    node: &'a Node,
    title: &str,
    help: impl FnOnce() -> String,
    problems: &Problems,
) -> Option<HashMap<&'a str, &'a Entry>> {
    if !matches!(node.value, Value::Map(_)) {
        let message = format!("expected a map for {title}, found {}", values::shown(node));
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
pub(super) fn written(node: &Node) -> &[Entry] {
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
pub(super) fn items<'a>(node: &'a Node, help: &str, problems: &Problems) -> &'a [Node] {
    let message = match &node.value {
        Value::List(items) if !items.is_empty() => return items,
        Value::List(_) => "the list is empty".to_owned(),
        _ => format!("expected a list, found {}", values::shown(node)),
    };
    problems.add(Problem::error(message, node.place()).help(help));
    &[]
}

/// The items of a list; anything else is a list of one.
pub(super) fn items_or_one(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(items) => items,
        Value::Scalar(_) | Value::Map(_) => std::slice::from_ref(node),
    }
}

/// `each` of `items`, stopping where nobody would read further problems.
pub(super) fn collect<'a, T>(
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
pub(super) fn text<'a>(node: &'a Node, what: &str) -> Result<&'a str, Fault> {
    node.text().ok_or_else(|| {
        let help = match &node.value {
            Value::List(_) => "give exactly one; remove the brackets or the `-`".to_owned(),
            Value::Map(_) => format!("write {what} directly, without keys below it"),
            Value::Scalar(_) => format!("write {what}"),
        };
        (
            format!("expected {what}, found {}", values::shown(node)),
            help,
        )
    })
}

fn choose<T: Copy>(node: &Node, words: &[(&str, T)]) -> Result<T, Fault> {
    let found = node
        .text()
        .and_then(|text| words.iter().find(|(word, _)| *word == text));
    found.map(|(_, value)| *value).ok_or_else(|| {
        let names = words.iter().map(|(word, _)| *word);
        let help = match nearest(node.text().unwrap_or_default(), names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("use {}", alternatives(words)),
        };
        (format!("{} is not known here", values::shown(node)), help)
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

fn narrow<T: TryFrom<u64>>(number: u64) -> Result<T, Fault> {
    T::try_from(number).map_err(|_| {
        (
            format!("`{number}` is out of range"),
            "use a smaller number".to_owned(),
        )
    })
}

/// The words by which others turn things off.
fn looks_off(node: &Node) -> bool {
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

fn mention_off(node: &Node, (message, help): Fault) -> Fault {
    let help = if looks_off(node) {
        "write `off`, without quotes".to_owned()
    } else {
        or(help, "`off`")
    };
    (message, help)
}

/// Advice that lists what is possible, and one thing more; other advice stays as it is.
pub(super) fn or(help: String, more: &str) -> String {
    if help.starts_with("use ") || help.starts_with("write ") {
        format!("{help}, or {more}")
    } else {
        help
    }
}
