//! Typed access to the values of a map, by key. An invalid value is reported with its span and replaced
//! by the default, so that one mistake does not hide the next.

mod choices;
mod shape;
mod unknown_key;

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::raw::{YamlEntry, YamlNode};
use super::report::{Problem, Problems, quote};
use super::schema::SectionSchema;
use super::values::{self, InvalidValue};
use crate::config::span::Span;
pub(super) use choices::{choose, is_switch, unknown_value, with_alternative};
use choices::{is_off_like, mention_off};
pub(super) use shape::{collect_until_full, entries, entries_in_order, items, items_or_one, text};
use unknown_key::unknown_key_advice;

/// A map with the keys of one section.
pub(super) struct Fields<'a> {
    /// For problems that only the section's own code can detect.
    pub(super) problems: &'a Problems,
    section: &'static SectionSchema,
    node: &'a YamlNode,
    entries: HashMap<&'a str, &'a YamlEntry>,
}

impl<'a> Fields<'a> {
    /// Reports unknown and duplicate keys; `None` if `node` is not a map.
    pub(super) fn open(
        node: &'a YamlNode,
        section: &'static SectionSchema,
        problems: &'a Problems,
    ) -> Option<Self> {
        debug_assert!(
            problems
                .root
                .with_nested()
                .any(|known| std::ptr::eq(known, section)),
            "{} is in `nested` of no section of the file",
            section.title
        );
        let help = || format!("write keys and values, as in `{}`", section.example);
        let entries = entries(node, section.title, help, problems)?;
        let mut fields = Self {
            problems,
            section,
            node,
            entries,
        };
        for entry in entries_in_order(node) {
            fields.check_known_key(entry);
        }
        Some(fields)
    }

    /// Reports an unknown key. If it is clear which key was meant, the value is read under that key: then
    /// that key is not reported as missing, and problems of the value are reported at once.
    fn check_known_key(&mut self, entry: &'a YamlEntry) {
        if self.section.keys.contains(&entry.key.as_str()) {
            return;
        }
        let (message, help, meant) = if let Some(new) = self.section.new_name(&entry.key) {
            let message = format!("`{}` is now `{new}`", entry.key);
            (message, "rename the key".to_owned(), Some(new))
        } else {
            let title = self.section.title;
            let message = format!("unknown key {} in {title}", quote(&entry.key));
            let (help, meant) = unknown_key_advice(&entry.key, self.section, self.problems.root);
            (message, help, meant)
        };
        self.problems
            .add(Problem::error(message, entry.key_span).help(help));
        if let Some(meant) = meant {
            self.entries.entry(meant).or_insert(entry);
        }
    }

    /// The value of `key`; `None` if it is absent.
    pub(super) fn get(&self, key: &'static str) -> Option<&'a YamlNode> {
        debug_assert!(
            self.section.keys.contains(&key),
            "`{key}` is not a key of {}",
            self.section.title
        );
        self.entries.get(key).map(|entry| &entry.value)
    }

    /// Whether the map has this key, known or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// The value of `key`; reports a problem with this help if it is missing or empty.
    pub(super) fn require(&self, key: &'static str, help: &str) -> Option<&'a YamlNode> {
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
            "" => Problem::for_file(message),
            _ => Problem::error(message, self.node.header_span()),
        }
    }

    /// The start of the section, for problems with something that is missing in it.
    pub(super) fn header_span(&self) -> Span {
        self.node.header_span()
    }

    pub(super) fn error(
        &self,
        node: &YamlNode,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        self.problems
            .add(Problem::error(message, node.error_span()).help(help));
    }

    /// Reports "`key` {why}" at `key`, if it is present.
    pub(super) fn refuse_key(&self, key: &'static str, why: &str, help: &str) {
        if let Some(node) = self.get(key) {
            self.error(node, format!("`{key}` {why}"), help);
        }
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

    /// The value that belongs to one of `words`.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, default: T, words: &[(&str, T)]) -> T {
        self.read(key, |node| match self.renamed_value(key, node) {
            Some(renamed) => Err(renamed),
            None => choose(key, node, words),
        })
        .unwrap_or(default)
    }

    /// The error for a value that has been renamed.
    fn renamed_value(&self, key: &str, node: &YamlNode) -> Option<InvalidValue> {
        let old = format!("{key}: {}", node.text()?);
        let new = self.section.new_name(&old)?;
        Some((format!("`{old}` is now `{new}`"), format!("write `{new}`")))
    }

    /// A value that `off` turns off, which is `None`.
    pub(super) fn or_off<T>(
        &self,
        key: &'static str,
        default: Option<T>,
        read: impl FnOnce(&'a YamlNode) -> Result<T, InvalidValue>,
    ) -> Option<T> {
        let off = |node: &'a YamlNode| {
            if node.is_off() {
                Ok(None)
            } else {
                read(node).map(Some)
            }
        };
        self.read(key, |node| {
            off(node).map_err(|error| mention_off(node, error))
        })
        .unwrap_or(default)
    }

    /// A section that `off` turns off (`Err`); `Ok(None)`: absent or invalid.
    pub(super) fn section_or_off(
        &self,
        key: &'static str,
        section: &'static SectionSchema,
    ) -> Result<Option<Self>, SectionOff> {
        let Some(node) = self.get(key) else {
            return Ok(None);
        };
        if node.is_off() {
            return Err(SectionOff);
        }
        if is_off_like(node) {
            let help = format!("write `{key}: off`, or remove the line for the defaults");
            let message = if node.is_null() {
                format!("`{key}` is empty")
            } else {
                format!("`{key}` cannot be {}", values::describe_node(node))
            };
            self.error(node, message, help);
            return Ok(None);
        }
        Ok(Fields::open(node, section, self.problems))
    }

    /// A section; `None`: absent or invalid.
    pub(super) fn section(
        &self,
        key: &'static str,
        section: &'static SectionSchema,
    ) -> Option<Self> {
        Fields::open(self.get(key)?, section, self.problems)
    }

    /// The value of `key`, parsed by `read`; `None`: absent, or invalid, which is reported.
    pub(super) fn read<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&'a YamlNode) -> Result<T, InvalidValue>,
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
        parse_or_report(node, self.problems, read)
    }
}

/// The value of a section is `off`.
pub(super) struct SectionOff;

/// Parses the value at `node`; reports the error of `read` there.
pub(super) fn parse_or_report<'a, T>(
    node: &'a YamlNode,
    problems: &Problems,
    read: impl FnOnce(&'a YamlNode) -> Result<T, InvalidValue>,
) -> Option<T> {
    match read(node) {
        Ok(value) => Some(value),
        Err((message, help)) => {
            problems.add(Problem::error(message, node.error_span()).help(help));
            None
        }
    }
}

fn narrow<T: TryFrom<u64>>(number: u64) -> Result<T, InvalidValue> {
    T::try_from(number).map_err(|_| {
        (
            format!("`{number}` is out of range"),
            "use a smaller number".to_owned(),
        )
    })
}
