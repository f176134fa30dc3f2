//! `rewrite` and `set $args`, which change a request before nginx hashes it.

use super::syntax::Directive;
use super::variables;
use crate::migrate::draft::ConfigDraft;
use crate::migrate::notes::Notes;
use crate::migrate::rewritten_key::{HashedUpstreams, KeyPart, ReachedKeys, RequestChange};

/// Adds a note for each directive that changes a part of a key. The draft has the upstreams of the `upstream` blocks only.
pub(super) fn note_differences(all: &[&Directive], draft: &mut ConfigDraft, notes: &Notes<'_>) {
    let hashed = hashed_upstreams(all, draft);
    let servers = all.iter().filter(|found| found.name.text == "server");
    for server in servers {
        let mut names = Vec::new();
        collect_passes(server, &mut names);
        let rewrites = ServerRewrites {
            hashed: &hashed,
            reached: hashed.reached(names),
            notes,
        };
        rewrites.note(server, None, draft);
    }
}

/// The rewrites of one server.
struct ServerRewrites<'a, 'n> {
    hashed: &'a HashedUpstreams,
    /// The keys of all upstreams of the server.
    reached: ReachedKeys,
    notes: &'a Notes<'n>,
}

impl ServerRewrites<'_, '_> {
    /// `own`: the keys of the upstream of the location that contains the block.
    fn note(&self, block: &Directive, own: Option<&ReachedKeys>, draft: &mut ConfigDraft) {
        let pass = block.children().iter().find_map(passed_upstream);
        let is_location = block.name.text == "location";
        let passed = (is_location || pass.is_some()).then(|| self.hashed.reached(pass));
        let own = passed.as_ref().or(own);
        for directive in block.children() {
            if directive.block.is_some() {
                self.note(directive, own, draft);
            } else if let Some((parts, stays)) = changed_parts(directive) {
                let change = RequestChange {
                    span: directive.span(),
                    subject: directive.text(),
                    parts,
                };
                let reached = own.filter(|_| stays).unwrap_or(&self.reached);
                reached.note(&change, draft, self.notes);
            }
        }
    }
}

/// The upstreams with `hash … consistent`, and what their keys contain of the changeable parts.
fn hashed_upstreams(all: &[&Directive], draft: &ConfigDraft) -> HashedUpstreams {
    let mut hashed = HashedUpstreams::new("nginx");
    let blocks = all.iter().filter(|found| found.name.text == "upstream");
    for (index, (block, upstream)) in blocks.zip(&draft.upstreams).enumerate() {
        let mut directives = block.children().iter();
        let hash = directives.rfind(|found| found.name.text == "hash");
        if let Some(hash) = hash.filter(|_| upstream.ring.is_some()) {
            let names = variables::variable_names(hash.argument(0)).unwrap_or_default();
            let parts = names.iter().filter_map(|name| key_part(name)).collect();
            hashed.insert(&upstream.name, index, parts);
        }
    }
    hashed
}

/// The part that a variable contains; `$request_uri` is what the client sent.
fn key_part(variable: &str) -> Option<KeyPart> {
    match variable {
        "uri" | "document_uri" => Some(KeyPart::Path),
        "args" | "query_string" => Some(KeyPart::Query),
        _ if variable.starts_with("arg_") => Some(KeyPart::Query),
        _ => None,
    }
}

/// The parts that a directive changes, and whether the request stays in its location.
fn changed_parts(directive: &Directive) -> Option<(Vec<KeyPart>, bool)> {
    let replacement = directive.argument(1);
    match directive.name.text.as_str() {
        "rewrite" => {
            let flag = directive.argument(2);
            let mut redirects = ["http://", "https://", "$scheme"].into_iter();
            if matches!(flag, "redirect" | "permanent")
                || redirects.any(|begin| replacement.starts_with(begin))
            {
                return None;
            }
            let mut parts = vec![KeyPart::Path];
            parts.extend(replacement.contains('?').then_some(KeyPart::Query));
            Some((parts, flag == "break"))
        }
        "set" if directive.argument(0) == "$args" => Some((vec![KeyPart::Query], true)),
        _ => None,
    }
}

fn collect_passes<'a>(block: &'a Directive, names: &mut Vec<&'a str>) {
    for directive in block.children() {
        names.extend(passed_upstream(directive));
        collect_passes(directive, names);
    }
}

/// The upstream that `proxy_pass` or `grpc_pass` names.
fn passed_upstream(directive: &Directive) -> Option<&str> {
    if !matches!(directive.name.text.as_str(), "proxy_pass" | "grpc_pass") {
        return None;
    }
    let target = directive.argument(0);
    let authority = target.split_once("://").map_or(target, |(_, rest)| rest);
    authority.split('/').next()
}
