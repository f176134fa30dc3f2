//! `use_backend` and `default_backend`: routes.

use super::acl;
use super::proxy_section::ProxySection;
use super::syntax::HaproxyLine;
use crate::migrate::draft::RouteDraft;
use crate::migrate::notes::Notes;

const PATHS_END_AT_SLASH: &str =
    "paths are matched up to a `/` here: with `/a` also `/a/b`, but not `/ab`";

/// The routes of `use_backend NAME if CONDITION`.
pub(super) fn use_backend(line: &HaproxyLine, proxy: &mut ProxySection, notes: &Notes<'_>) {
    let (name, shown) = (line.word(1), line.text());
    let regions = match line.word(2) {
        _ if name.contains("%[") => Err("an upstream is a fixed name".to_owned()),
        "" => acl::parse_condition(&[], &proxy.acls),
        "if" => acl::parse_condition(line.tail(3), &proxy.acls),
        _ => Err("routes cannot say what is not meant".to_owned()),
    };
    let regions = match regions {
        Ok(regions) => regions,
        Err(why) => {
            proxy.file_comments.push(notes.gap(line.span, &shown, &why));
            return;
        }
    };
    let mut comments = Vec::new();
    if regions
        .iter()
        .any(|region| region.paths.iter().any(|path| path.to_string() != "/"))
    {
        comments.push(notes.remark(line.span, &shown, PATHS_END_AT_SLASH));
    }
    for region in regions {
        for (host, path) in region
            .hosts
            .iter()
            .flat_map(|host| region.paths.iter().map(move |path| (host, path)))
        {
            proxy.routes.push(RouteDraft {
                host: host.clone(),
                path: path.clone(),
                comments: std::mem::take(&mut comments),
                ..RouteDraft::catch_all(name, line.span)
            });
        }
    }
}
