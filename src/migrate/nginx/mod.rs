//! nginx: its syntax, and what its directives mean to us.
//!
//! Directives are inherited as nginx does it: from `http` to `server` to `location`, the innermost
//! wins. Our time-outs and the `Host` that is sent belong to an upstream, so the first location that
//! uses an upstream decides for it, and a note tells where another one differs.

mod http;
mod inherit;
mod listen;
mod server;
mod syntax;
mod tls;
mod units;
mod upstream;
mod variables;

pub(super) use syntax::parse;

use self::syntax::{Directive, Tree};
use super::model::Setup;
use super::notes::Notes;
use super::{bounds, reasons};

/// What the whole tree says.
pub(super) fn translate(tree: &Tree, notes: &Notes<'_>) -> Setup {
    let mut setup = Setup::default();
    for (place, pattern, why) in &tree.unread {
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
        main(directive, &mut setup, notes);
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
    ) && !reasons::NGINX_OWN.contains(&directive.name.text.as_str())
        && !directive.name.text.starts_with("worker_")
}

fn main(directive: &Directive, setup: &mut Setup, notes: &Notes<'_>) {
    let argument = directive.argument(0);
    match directive.name.text.as_str() {
        "http" | "events" => {}
        "worker_processes" => setup.threads = bounds::threads(argument),
        "worker_shutdown_timeout" => setup.drain_timeout = units::duration(argument),
        "error_log" => http::error_log(directive, setup, notes),
        _ => unknown(directive, &mut setup.comments, notes),
    }
}

/// A directive that we have no counterpart of: in silence if it only concerns nginx itself.
fn unknown(directive: &Directive, comments: &mut Vec<String>, notes: &Notes<'_>) {
    let name = directive.name.text.as_str();
    if reasons::NGINX_OWN.contains(&name) {
        notes.remark(
            directive.place(),
            name,
            "left out: it only concerns nginx itself",
        );
        return;
    }
    comments.push(notes.gap(directive.place(), name, reasons::nginx(name)));
}
