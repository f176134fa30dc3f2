//! The raw configuration: a mirror of the YAML text, every piece with the place it was written at.
//!
//! It knows maps, lists and scalars, and nothing about what they mean. Duplicate keys are kept (the
//! [`super::fields`] layer reports them with both places); aliases are already replaced by what
//! they stand for, within the budgets of [`yaml`].

mod syntax;
mod yaml;

pub(super) use yaml::read;

use std::ops::Range;

/// A stretch of the text, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) span: Span,
    /// The key whose value this is; `None` for an item of a list and for the whole file.
    pub(super) name: Option<Span>,
}

/// What YAML can say.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// One word, number or text; what it means is for the reader to say.
#[derive(Clone, Debug)]
pub(crate) struct Scalar {
    pub(crate) text: String,
    /// Written without quotes, so that it may be a number, a flag or nothing.
    pub(super) plain: bool,
}

/// One `key: value` of a map.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_span: Span,
    pub(crate) value: Node,
}

impl Span {
    pub(super) fn range(self) -> Range<usize> {
        self.start..self.end
    }
}

impl Node {
    /// Where a reader should look: the value, or its key where the value is empty.
    pub(super) fn place(&self) -> Span {
        match self.name {
            Some(name) if self.span.start >= self.span.end || self.is_null() => name,
            _ => self.span,
        }
    }

    /// Where to look for what is missing inside: the key that introduces this value.
    pub(super) fn head(&self) -> Span {
        self.name.unwrap_or(self.span)
    }

    pub(super) fn scalar(&self) -> Option<&Scalar> {
        match &self.value {
            Value::Scalar(scalar) => Some(scalar),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// The text of a scalar, quoted or not; `None` for nothing, lists and maps.
    pub(crate) fn text(&self) -> Option<&str> {
        self.scalar()
            .filter(|scalar| !scalar.is_null())
            .map(|scalar| scalar.text.as_str())
    }

    pub(super) fn is_mapping(&self) -> bool {
        matches!(self.value, Value::Map(_))
    }

    pub(super) fn is_null(&self) -> bool {
        self.scalar().is_some_and(Scalar::is_null)
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

impl Scalar {
    /// What YAML's core schema calls null.
    fn is_null(&self) -> bool {
        self.plain && matches!(self.text.as_str(), "" | "~" | "null" | "Null" | "NULL")
    }
}
