//! nginx: its syntax, and what its directives mean to us.
//!
//! Directives are inherited as nginx does it: from `http` to `server` to `location`, the innermost
//! wins. Our time-outs and the `Host` that is sent belong to an upstream, so the first location that
//! uses an upstream decides for it, and a note tells where another one differs.

mod global_settings;
mod http;
mod listen;
mod proxy_settings;
mod real_ip;
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

/// What the whole tree says.
pub(super) fn translate(tree: &DirectiveTree, notes: &Notes<'_>) -> ConfigDraft {
    let mut setup = ConfigDraft::default();
    for (place, pattern, why) in &tree.failed_includes {
        let comment = notes.gap(*place, &format!("include {pattern}"), why);
        setup.comments.push(comment);
    }
    // A file of `conf.d` holds what stands in `http`.
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
        main_directive(directive, &mut setup, notes);
    }
    let sections = tree
        .directives
        .iter()
        .filter(|directive| directive.name.text == "http");
    let inside = sections
        .filter_map(|section| section.block.as_ref())
        .flatten();
    let all: Vec<&Directive> = inside.chain(inner).collect();
    http::translate(&all, &mut setup, notes);
    setup
}

/// Whether a directive of the top level belongs into `http`.
fn is_http(directive: &Directive) -> bool {
    !matches!(
        directive.name.text.as_str(),
        "http" | "stream" | "mail" | "events" | "error_log"
    ) && !unsupported::nginx::IGNORED.contains(&directive.name.text.as_str())
        && !directive.name.text.starts_with("worker_")
}

fn main_directive(directive: &Directive, setup: &mut ConfigDraft, notes: &Notes<'_>) {
    let argument = directive.argument(0);
    match directive.name.text.as_str() {
        "http" | "events" => {}
        "worker_processes" => setup.threads = clamp::threads(argument),
        "worker_shutdown_timeout" => setup.drain_timeout = units::duration(argument),
        "error_log" => global_settings::error_log(directive, setup, notes),
        _ => note_unknown(directive, &mut setup.comments, notes),
    }
}
