//! Reads messages by field name, and notes the fields that were not read.

use std::cell::RefCell;
use std::time::Duration;

use crate::config::{YamlEntry, YamlNode, YamlValue};
use crate::migrate::notes::Notes;
use crate::migrate::source::SourceSpan;
use crate::migrate::unsupported;

/// A value of the file, with the index of the file.
#[derive(Clone, Copy)]
pub(super) struct FieldValue<'a> {
    node: &'a YamlNode,
    file: usize,
}

/// A message, with the names of the fields that were read.
pub(super) struct MessageFields<'a> {
    value: FieldValue<'a>,
    read_names: RefCell<Vec<&'a str>>,
}

impl<'a> FieldValue<'a> {
    pub(super) fn new(node: &'a YamlNode, file: usize) -> Self {
        Self { node, file }
    }

    pub(super) fn span(self) -> SourceSpan {
        SourceSpan {
            file: self.file,
            start: self.node.span.start,
            end: self.node.span.end,
        }
    }

    /// The text of a scalar; empty for a map or a list.
    pub(super) fn text(self) -> &'a str {
        self.node.text().unwrap_or_default()
    }

    /// A duration in protobuf's JSON: `5s`, `0.25s`.
    pub(super) fn duration(self) -> Option<Duration> {
        let seconds = self.text().strip_suffix('s')?.parse::<f64>().ok()?;
        let bounded = Some(seconds).filter(|seconds| (0.001..=1e8).contains(seconds))?;
        Duration::try_from_secs_f64(bounded).ok()
    }

    pub(super) fn number(self) -> Option<u64> {
        self.text().parse().ok()
    }

    fn entries(self) -> &'a [YamlEntry] {
        match &self.node.value {
            YamlValue::Map(entries) => entries,
            YamlValue::List(_) | YamlValue::Scalar(_) => &[],
        }
    }
}

impl<'a> MessageFields<'a> {
    pub(super) fn of(element: FieldValue<'a>) -> Self {
        Self {
            value: element,
            read_names: RefCell::default(),
        }
    }

    pub(super) fn span(&self) -> SourceSpan {
        self.value.span()
    }

    /// The span of a field, or of the message if it is missing.
    pub(super) fn span_of(&self, name: &'static str) -> SourceSpan {
        self.get(name).map_or_else(|| self.span(), FieldValue::span)
    }

    pub(super) fn get(&self, name: &'static str) -> Option<FieldValue<'a>> {
        self.read_names.borrow_mut().push(name);
        let found = self.value.entries().iter().find(|entry| entry.key == name);
        found.map(|entry| FieldValue::new(&entry.value, self.value.file))
    }

    /// The message of a field.
    pub(super) fn message(&self, name: &'static str) -> Option<Self> {
        self.get(name).map(Self::of)
    }

    pub(super) fn text(&self, name: &'static str) -> Option<&'a str> {
        self.get(name).map(FieldValue::text)
    }

    /// The type of `typed_config`, or else the name, in lower case without `_`.
    pub(super) fn extension_type(&self) -> String {
        let name = self.text("name").unwrap_or_default();
        let config = self.message("typed_config");
        let kind = config.and_then(|config| config.text("@type"));
        kind.unwrap_or(name).to_ascii_lowercase().replace('_', "")
    }

    /// Whether a flag is set.
    pub(super) fn flag(&self, name: &'static str) -> bool {
        self.text(name) == Some("true")
    }

    /// The items of a field; empty if it is missing.
    pub(super) fn list(&self, name: &'static str) -> Vec<FieldValue<'a>> {
        let Some(element) = self.get(name) else {
            return Vec::new();
        };
        match &element.node.value {
            YamlValue::List(items) => items
                .iter()
                .map(|item| FieldValue::new(item, element.file))
                .collect(),
            YamlValue::Map(_) | YamlValue::Scalar(_) => Vec::new(),
        }
    }

    /// Marks fields as read that are internal to Envoy.
    pub(super) fn ignore(&self, names: &[&'static str]) {
        self.read_names.borrow_mut().extend(names);
        self.read_names
            .borrow_mut()
            .extend(["name", "@type", "alt_stat_name"]);
    }

    /// Notes all fields that were not read.
    pub(super) fn note_unread(&self, comments: &mut Vec<String>, notes: &Notes<'_>) {
        let seen = self.read_names.borrow();
        for entry in self.value.entries() {
            if !seen.contains(&entry.key.as_str()) {
                let (start, end) = (entry.key_span.start, entry.key_span.end);
                let span = SourceSpan {
                    file: self.value.file,
                    start,
                    end,
                };
                comments.push(notes.gap(span, &entry.key, unsupported::envoy::reason(&entry.key)));
            }
        }
    }
}
