//! Typed access to the raw tree, by key. Whatever is not as it should be becomes a problem with its
//! place, and the reading goes on with the default: one mistake must not hide the next.

mod shape;
mod words;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::raw::{Entry, Node, Span};
use super::report::{Problem, Problems, quote};
use super::schema::{Section, advice};
use super::values::{self, Fault};
pub(super) use shape::{collect, entries, items, items_or_one, text, written};
pub(super) use words::{choose, or};
use words::{looks_off, mention_off};

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
        for entry in written(node) {
            fields.check(entry);
        }
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
    ) -> Result<Option<Self>, Off> {
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
    pub(super) fn section(&self, key: &'static str, section: &'static Section) -> Option<Self> {
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

fn narrow<T: TryFrom<u64>>(number: u64) -> Result<T, Fault> {
    T::try_from(number).map_err(|_| {
        (
            format!("`{number}` is out of range"),
            "use a smaller number".to_owned(),
        )
    })
}
