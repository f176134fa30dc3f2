//! nginx: its syntax and its directives.
//!
//! Directives are inherited as in nginx, from `http` to `server` to `location`; the innermost wins. Timeouts
//! and `Host` belong to an upstream in Clockwise, so the first location that uses an upstream sets them, and
//! each other location with different values gets a note.

mod global_settings;
mod http;
mod listen;
mod proxy_settings;
mod real_ip;
mod rewrites;
mod server;
mod server_merge;
mod syntax;
mod tls;
mod units;
mod unknown;
mod upstream;
mod variables;

pub(super) use syntax::parse;

use self::syntax::{Directive, DirectiveTree};
use self::unknown::note_unknown;
use super::draft::ConfigDraft;
use super::notes::Notes;
use super::{clamp, unsupported};

/// Translates the whole tree.
pub(super) fn translate(tree: &DirectiveTree, notes: &Notes<'_>) -> ConfigDraft {
    let mut draft = ConfigDraft::default();
    for (span, pattern, why) in &tree.failed_includes {
        let comment = notes.gap(*span, &format!("include {pattern}"), why);
        draft.comments.push(comment);
    }
    // A file of `conf.d` has directives of `http` at its top level.
    let inner = tree
        .directives
        .iter()
        .filter(|directive| is_http(directive));
    let inner: Vec<&Directive> = inner.collect();
    for directive in tree
        .directives
        .iter()
        .filter(|directive| !is_http(directive))
    {
        main_directive(directive, &mut draft, notes);
    }
    let sections = tree
        .directives
        .iter()
        .filter(|directive| directive.name.text == "http");
    let inside = sections
        .filter_map(|section| section.block.as_ref())
        .flatten();
    let all: Vec<&Directive> = inside.chain(inner).collect();
    http::translate(&all, &mut draft, notes);
    draft
}

/// Whether a top-level directive belongs to `http`.
fn is_http(directive: &Directive) -> bool {
    !matches!(
        directive.name.text.as_str(),
        "http" | "stream" | "mail" | "events" | "error_log"
    ) && !unsupported::nginx::IGNORED.contains(&directive.name.text.as_str())
        && !directive.name.text.starts_with("worker_")
}

fn main_directive(directive: &Directive, draft: &mut ConfigDraft, notes: &Notes<'_>) {
    let argument = directive.argument(0);
    match directive.name.text.as_str() {
        "http" | "events" => {}
        "worker_processes" => draft.threads = clamp::threads(argument),
        "worker_shutdown_timeout" => draft.drain_timeout = units::duration(argument),
        "error_log" => global_settings::error_log(directive, draft, notes),
        _ => note_unknown(directive, &mut draft.comments, notes),
    }
}
