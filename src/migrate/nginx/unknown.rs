//! Directives without a counterpart.

use super::syntax::Directive;
use crate::migrate::notes::Notes;
use crate::migrate::unsupported::nginx::{IGNORED, reason};

/// Notes a directive without a counterpart; one that is internal to nginx gets no comment in the YAML.
pub(super) fn note_unknown(directive: &Directive, comments: &mut Vec<String>, notes: &Notes<'_>) {
    let name = directive.name.text.as_str();
    if IGNORED.contains(&name) {
        notes.remark(directive.span(), name, "left out; it is internal to nginx");
        return;
    }
    comments.push(notes.gap(directive.span(), name, reason(name)));
}
