//! The YAML text as a tree of maps, lists and scalars with their spans, without any meaning.
//!
//! Duplicate keys are kept; [`super::fields`] reports them with both spans. Aliases are replaced by
//! copies of their anchors, within the limits of [`yaml`].

mod syntax_errors;
mod yaml;

pub(super) use yaml::{EmptyDocument, read};

use crate::config::span::Span;

/// A value and its span.
#[derive(Clone, Debug)]
pub(crate) struct YamlNode {
    pub(crate) value: YamlValue,
    pub(crate) span: Span,
    /// The span of its key; `None` for an item of a list and for the whole file.
    pub(super) key_span: Option<Span>,
}

/// The three kinds of YAML values.
#[derive(Clone, Debug)]
pub(crate) enum YamlValue {
    Scalar(YamlScalar),
    List(Vec<YamlNode>),
    Map(Vec<YamlEntry>),
}

/// A word, number or text, not yet interpreted.
#[derive(Clone, Debug)]
pub(crate) struct YamlScalar {
    pub(crate) text: String,
    /// Whether it has no quotes, so that it may be a number, a flag or null.
    pub(super) plain: bool,
}

/// One `key: value` of a map.
#[derive(Clone, Debug)]
pub(crate) struct YamlEntry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) value: YamlNode,
}

impl YamlNode {
    /// The span for a problem with the value: the value, or its key if the value is empty.
    pub(super) fn error_span(&self) -> Span {
        match self.key_span {
            Some(key) if self.span.start >= self.span.end || self.is_null() => key,
            _ => self.span,
        }
    }

    /// The span for something that is missing inside: the key, or the value if it has no key.
    pub(super) fn header_span(&self) -> Span {
        self.key_span.unwrap_or(self.span)
    }

    pub(super) fn scalar(&self) -> Option<&YamlScalar> {
        match &self.value {
            YamlValue::Scalar(scalar) => Some(scalar),
            YamlValue::List(_) | YamlValue::Map(_) => None,
        }
    }

    /// The text of a scalar, quoted or not; `None` for null, lists and maps.
    pub(crate) fn text(&self) -> Option<&str> {
        self.scalar()
            .filter(|scalar| !scalar.is_null())
            .map(|scalar| scalar.text.as_str())
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.value, YamlValue::Map(_))
    }

    pub(super) fn is_null(&self) -> bool {
        self.scalar().is_some_and(YamlScalar::is_null)
    }

    /// Whether this is exactly `word`. Quotes do not matter: tools that write YAML and JSON add them.
    pub(super) fn is_word(&self, word: &str) -> bool {
        self.text() == Some(word)
    }

    /// Whether this is exactly `text`, without quotes: for flags and numbers.
    pub(super) fn is_plain(&self, text: &str) -> bool {
        self.plain() == Some(text)
    }

    /// Whether the value turns a feature off: `off`, or the flag `false`.
    ///
    /// `off` may have quotes: Helm writes them, and JSON has no other form. YAML 1.1 reads a bare `off` as a
    /// flag, so that tools write it back as `false`. Each key that can be off reads it with this function.
    pub(super) fn is_off(&self) -> bool {
        self.is_word("off") || self.is_plain("false")
    }

    /// The text of an unquoted scalar.
    pub(super) fn plain(&self) -> Option<&str> {
        self.scalar()
            .filter(|scalar| scalar.plain)
            .map(|scalar| scalar.text.as_str())
    }
}

impl YamlScalar {
    /// Null, by the core schema of YAML 1.2 (§10.3.2).
    fn is_null(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}
