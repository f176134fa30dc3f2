//! `http-request` rules that change a request before `HAProxy` hashes it.

use super::syntax::{HaproxyLine, HaproxySection};
use crate::migrate::draft::ConfigDraft;
use crate::migrate::notes::Notes;
use crate::migrate::rewritten_key::{HashedUpstreams, KeyPart, RequestChange};

/// Adds a note for each rule that changes a part of a key.
pub(super) fn note_differences(
    sections: &[HaproxySection],
    draft: &mut ConfigDraft,
    notes: &Notes<'_>,
) {
    let hashed = HashedUpstreams::from_draft("HAProxy", &draft.upstreams);
    let mut defaults = Vec::new();
    for section in sections {
        match section.kind.as_str() {
            "defaults" => defaults.push(section),
            "frontend" | "backend" | "listen" => {
                let inherited = section.inherited_lines(&defaults);
                note_section(section, inherited, &hashed, draft, notes);
            }
            _ => {}
        }
    }
}

fn note_section(
    section: &HaproxySection,
    inherited: &[HaproxyLine],
    hashed: &HashedUpstreams,
    draft: &mut ConfigDraft,
    notes: &Notes<'_>,
) {
    let lines = || inherited.iter().chain(&section.lines);
    let mode = lines().rfind(|line| line.keyword() == "mode");
    if mode.is_none_or(|line| line.word(1) != "http") {
        return;
    }
    let backends =
        lines().filter(|line| matches!(line.keyword(), "use_backend" | "default_backend"));
    let own = (section.kind != "frontend").then_some(section.name.as_str());
    let reached = hashed.reached(own.into_iter().chain(backends.map(|line| line.word(1))));
    for line in lines().filter(|line| line.keyword() == "http-request") {
        let change = RequestChange {
            span: line.span,
            subject: line.text(),
            parts: changed_parts(line, section.kind == "backend"),
        };
        reached.note(&change, draft, notes);
    }
}

/// The parts of a request that a rule changes.
fn changed_parts(line: &HaproxyLine, is_backend: bool) -> Vec<KeyPart> {
    let argument = line.word(2);
    match line.word(1) {
        "set-path" | "replace-path" => vec![KeyPart::Path],
        "set-pathq" | "replace-pathq" | "set-uri" | "replace-uri" => {
            vec![KeyPart::Path, KeyPart::Query]
        }
        "set-query" => vec![KeyPart::Query],
        "normalize-uri" if argument == "query-sort-by-name" => vec![KeyPart::Query],
        // In other sections it becomes `normalize_path`.
        "normalize-uri" if is_backend => vec![KeyPart::Path],
        "set-src" => vec![KeyPart::ClientAddress],
        "set-header" | "add-header" | "del-header" | "replace-header" | "replace-value" => {
            vec![KeyPart::of_header(argument)]
        }
        _ => Vec::new(),
    }
}
