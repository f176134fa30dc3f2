//! `use_backend` and `default_backend`: routes.

use super::acl::{self, Acl};
use super::syntax::HaproxyLine;
use crate::migrate::draft::RouteDraft;
use crate::migrate::notes::Notes;

const PATHS_END_AT_SLASH: &str =
    "paths are matched up to a `/` here: with `/a` also `/a/b`, but not `/ab`";

/// The routes of `use_backend NAME if CONDITION`.
pub(super) fn use_backend(
    line: &HaproxyLine,
    acls: &[Acl],
    file_comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Vec<RouteDraft> {
    let (name, shown) = (line.word(1), line.text());
    let regions = match line.word(2) {
        _ if name.contains("%[") => Err("an upstream is a fixed name".to_owned()),
        "" => acl::parse_condition(&[], acls),
        "if" => acl::parse_condition(line.tail(3), acls),
        _ => Err("routes cannot say what is not meant".to_owned()),
    };
    let regions = match regions {
        Ok(regions) => regions,
        Err(why) => {
            file_comments.push(notes.gap(line.span, &shown, &why));
            return Vec::new();
        }
    };
    let mut comments = Vec::new();
    if regions
        .iter()
        .any(|region| region.paths.iter().any(|path| path.to_string() != "/"))
    {
        comments.push(notes.remark(line.span, &shown, PATHS_END_AT_SLASH));
    }
    let mut routes = Vec::new();
    for region in regions {
        for (host, path) in region
            .hosts
            .iter()
            .flat_map(|host| region.paths.iter().map(move |path| (host, path)))
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
