//! Lines without a counterpart.

use super::syntax::HaproxyLine;
use super::tls::HAPROXY_ONLY;
use crate::migrate::notes::Notes;
use crate::migrate::unsupported::haproxy::{IGNORED, reason};

/// A line that we have no counterpart of: in silence if it only concerns `HAProxy` itself.
pub(super) fn note_unknown(line: &HaproxyLine, comments: &mut Vec<String>, notes: &Notes<'_>) {
    let shown = line.text();
    if IGNORED.contains(&line.keyword()) {
        notes.remark(line.span, &shown, HAPROXY_ONLY);
        return;
    }
    comments.push(notes.gap(line.span, &shown, reason(&shown)));
}
