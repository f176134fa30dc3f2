//! `empty` of a key source: the meaning of an empty value.

use crate::config::fields::Fields;
use crate::key::EmptyValue;

const WORDS: &[(&str, EmptyValue)] = &[
    ("missing", EmptyValue::Missing),
    ("value", EmptyValue::Value),
];

/// The meaning of an empty value.
pub(super) fn read(source: &Fields<'_>) -> EmptyValue {
    source.choice("empty", EmptyValue::Missing, WORDS)
}
