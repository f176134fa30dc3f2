//! `use_backend` and `default_backend`: routes.

use super::acl::{self, Acl};
use super::syntax::HaproxyLine;
use crate::migrate::draft::RouteDraft;
use crate::migrate::notes::Notes;

const PATHS_END_AT_SLASH: &str =
    "a path matches whole segments only; `/a` matches `/a/b`, but not `/ab`";

/// The routes of `use_backend NAME if CONDITION`.
pub(super) fn use_backend(
    line: &HaproxyLine,
    acls: &[Acl],
    file_comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Vec<RouteDraft> {
    let (name, subject) = (line.word(1), line.text());
    let alternatives = match line.word(2) {
        _ if name.contains("%[") => Err("an upstream is a fixed name".to_owned()),
        "" => acl::parse_condition(&[], acls),
        "if" => acl::parse_condition(line.tail(3), acls),
        _ => Err("a route cannot express a negated condition".to_owned()),
    };
    let alternatives = match alternatives {
        Ok(alternatives) => alternatives,
        Err(why) => {
            file_comments.push(notes.gap(line.span, &subject, &why));
            return Vec::new();
        }
    };
    let mut comments = Vec::new();
    if alternatives
        .iter()
        .any(|alternative| alternative.paths.iter().any(|path| path.to_string() != "/"))
    {
        comments.push(notes.remark(line.span, &subject, PATHS_END_AT_SLASH));
    }
    let mut routes = Vec::new();
    for alternative in alternatives {
        for (host, path) in alternative
            .hosts
            .iter()
            .flat_map(|host| alternative.paths.iter().map(move |path| (host, path)))
        {
            routes.push(RouteDraft {
                host: host.clone(),
                path: path.clone(),
                comments: std::mem::take(&mut comments),
                ..RouteDraft::catch_all(name, line.span)
            });
        }
    }
    routes
}
