//! Reading messages by field name, and telling of the fields that nobody read.

use std::cell::RefCell;
use std::time::Duration;

use crate::config::{YamlEntry, YamlNode, YamlValue};
use crate::migrate::notes::Notes;
use crate::migrate::reasons;
use crate::migrate::source::Place;

/// A value of the file, with the file's number.
#[derive(Clone, Copy)]
pub(super) struct Element<'a> {
    node: &'a YamlNode,
    file: usize,
}

/// A message whose fields are read one by one.
pub(super) struct Fields<'a> {
    element: Element<'a>,
    seen: RefCell<Vec<&'a str>>,
}

impl<'a> Element<'a> {
    pub(super) fn new(node: &'a YamlNode, file: usize) -> Self {
        Self { node, file }
    }

    pub(super) fn place(self) -> Place {
        Place {
            file: self.file,
            start: self.node.span.start,
            end: self.node.span.end,
        }
    }

    /// The text of a scalar; empty for all else.
    pub(super) fn text(self) -> &'a str {
        self.node.text().unwrap_or_default()
    }

    /// A duration as protobuf writes it: `5s`, `0.25s`.
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

impl<'a> Fields<'a> {
    pub(super) fn of(element: Element<'a>) -> Self {
        Self {
            element,
            seen: RefCell::default(),
        }
    }

    pub(super) fn place(&self) -> Place {
        self.element.place()
    }

    /// Where a field is; where it is missing, where the message is.
    pub(super) fn place_of(&self, name: &'static str) -> Place {
        self.get(name).map_or_else(|| self.place(), Element::place)
    }

    pub(super) fn get(&self, name: &'static str) -> Option<Element<'a>> {
        self.seen.borrow_mut().push(name);
        let found = self
            .element
            .entries()
            .iter()
            .find(|entry| entry.key == name);
        found.map(|entry| Element::new(&entry.value, self.element.file))
    }

    /// The message in a field.
    pub(super) fn map(&self, name: &'static str) -> Option<Self> {
        self.get(name).map(Self::of)
    }

    pub(super) fn text(&self, name: &'static str) -> Option<&'a str> {
        self.get(name).map(Element::text)
    }

    /// Which extension it is: the type of its `typed_config`, or else its name, in small letters.
    pub(super) fn kind(&self) -> String {
        let name = self.text("name").unwrap_or_default();
        let config = self.map("typed_config");
        let kind = config.and_then(|config| config.text("@type"));
        kind.unwrap_or(name).to_ascii_lowercase().replace('_', "")
    }

    /// Whether a flag is set.
    pub(super) fn flag(&self, name: &'static str) -> bool {
        self.text(name) == Some("true")
    }

    /// The items of a field; none where it is missing.
    pub(super) fn list(&self, name: &'static str) -> Vec<Element<'a>> {
        let Some(element) = self.get(name) else {
            return Vec::new();
        };
        match &element.node.value {
            YamlValue::List(items) => items
                .iter()
                .map(|item| Element::new(item, element.file))
                .collect(),
            YamlValue::Map(_) | YamlValue::Scalar(_) => Vec::new(),
        }
    }

    /// These only concern Envoy itself.
    pub(super) fn leave(&self, names: &[&'static str]) {
        self.seen.borrow_mut().extend(names);
        self.seen
            .borrow_mut()
            .extend(["name", "@type", "alt_stat_name"]);
    }

    /// Tells of all fields that nobody read.
    pub(super) fn tell_rest(&self, comments: &mut Vec<String>, notes: &Notes<'_>) {
        let seen = self.seen.borrow();
        for entry in self.element.entries() {
            if !seen.contains(&entry.key.as_str()) {
                let (start, end) = (entry.key_span.start, entry.key_span.end);
                let place = Place {
                    file: self.element.file,
                    start,
                    end,
                };
                comments.push(notes.gap(place, &entry.key, reasons::envoy(&entry.key)));
            }
        }
    }
}
