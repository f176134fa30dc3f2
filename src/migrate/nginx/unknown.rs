//! Directives without a counterpart.

use super::syntax::Directive;
use crate::migrate::notes::Notes;
use crate::migrate::unsupported::nginx::{IGNORED, reason};

/// A directive that we have no counterpart of: in silence if it only concerns nginx itself.
pub(super) fn note_unknown(directive: &Directive, comments: &mut Vec<String>, notes: &Notes<'_>) {
    let name = directive.name.text.as_str();
    if IGNORED.contains(&name) {
        notes.remark(
            directive.span(),
            name,
            "left out: it only concerns nginx itself",
        );
        return;
    }
    comments.push(notes.gap(directive.span(), name, reason(name)));
}
