//! `normalize_path`: paths that differ from their normal form.

use crate::config::fields::Fields;

/// What happens to a path that differs from its normal form (RFC 3986 §6.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormalizePath {
    /// Routes and access rules see the normal form; the key and the peer get the path as sent.
    Match,
    /// Routes, access rules, the key and the peer get the normal form.
    Rewrite,
    /// The request is refused.
    Reject,
    /// Nothing: routes and access rules see the path as sent.
    Off,
}

const CHOICES: &[(&str, NormalizePath)] = &[
    ("match", NormalizePath::Match),
    ("rewrite", NormalizePath::Rewrite),
    ("reject", NormalizePath::Reject),
    ("off", NormalizePath::Off),
];

pub(super) fn read(root: &Fields<'_>) -> NormalizePath {
    root.choice("normalize_path", NormalizePath::Match, CHOICES)
}
