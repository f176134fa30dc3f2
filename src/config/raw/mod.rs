//! The raw configuration: a mirror of the YAML text, every piece with the place it was written at.
//!
//! It knows maps, lists and scalars, and nothing about what they mean. Duplicate keys are kept (the
//! [`super::fields`] layer reports them with both places); aliases are already replaced by what
//! they stand for, within the budgets of [`yaml`].

mod syntax_errors;
mod yaml;

pub(super) use yaml::read;

use crate::config::span::Span;

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct YamlNode {
    pub(crate) value: YamlValue,
    pub(crate) span: Span,
    /// The key whose value this is; `None` for an item of a list and for the whole file.
    pub(super) key_span: Option<Span>,
}

/// What YAML can say.
#[derive(Clone, Debug)]
pub(crate) enum YamlValue {
    Scalar(YamlScalar),
    List(Vec<YamlNode>),
    Map(Vec<YamlEntry>),
}

/// One word, number or text; what it means is for the reader to say.
#[derive(Clone, Debug)]
pub(crate) struct YamlScalar {
    pub(crate) text: String,
    /// Written without quotes, so that it may be a number, a flag or nothing.
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
    /// Where a reader should look: the value, or its key where the value is empty.
    pub(super) fn error_span(&self) -> Span {
        match self.key_span {
            Some(name) if self.span.start >= self.span.end || self.is_null() => name,
            _ => self.span,
        }
    }

    /// Where to look for what is missing inside: the key that introduces this value.
    pub(super) fn header_span(&self) -> Span {
        self.key_span.unwrap_or(self.span)
    }

    pub(super) fn scalar(&self) -> Option<&YamlScalar> {
        match &self.value {
            YamlValue::Scalar(scalar) => Some(scalar),
            YamlValue::List(_) | YamlValue::Map(_) => None,
        }
    }

    /// The text of a scalar, quoted or not; `None` for nothing, lists and maps.
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

    /// Written without quotes as exactly this word.
    pub(super) fn is_word(&self, word: &str) -> bool {
        self.plain().is_some_and(|text| text == word)
    }

    /// The text of an unquoted scalar.
    pub(super) fn plain(&self) -> Option<&str> {
        self.scalar()
            .filter(|scalar| scalar.plain)
            .map(|scalar| scalar.text.as_str())
    }
}

impl YamlScalar {
    /// What YAML's core schema calls null.
    fn is_null(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}
