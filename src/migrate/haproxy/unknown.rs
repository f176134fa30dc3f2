//! Lines without a counterpart.

use super::syntax::HaproxyLine;
use super::tls::HAPROXY_ONLY;
use crate::migrate::notes::Notes;
use crate::migrate::unsupported::haproxy::{IGNORED, reason};

/// Notes a line without a counterpart; one that is internal to `HAProxy` gets no comment in the YAML.
pub(super) fn note_unknown(line: &HaproxyLine, comments: &mut Vec<String>, notes: &Notes<'_>) {
    let subject = line.text();
    if IGNORED.contains(&line.keyword()) {
        notes.remark(line.span, &subject, HAPROXY_ONLY);
        return;
    }
    comments.push(notes.gap(line.span, &subject, reason(&subject)));
}
