//! `use_backend` and `default_backend`: routes.

use super::acl;
use super::proxy::Proxy;
use super::syntax::Line;
use crate::migrate::model::Route;
use crate::migrate::notes::Notes;

const SEGMENTS: &str = "paths are matched up to a `/` here: with `/a` also `/a/b`, but not `/ab`";

/// The routes of `use_backend NAME if CONDITION`.
pub(super) fn use_backend(line: &Line, proxy: &mut Proxy, notes: &Notes<'_>) {
    let (name, shown) = (line.word(1), line.shown());
    let regions = match line.word(2) {
        _ if name.contains("%[") => Err("an upstream is a fixed name".to_owned()),
        "" => acl::regions(&[], &proxy.acls),
        "if" => acl::regions(line.tail(3), &proxy.acls),
        _ => Err("routes cannot say what is not meant".to_owned()),
    };
    let regions = match regions {
        Ok(regions) => regions,
        Err(why) => {
            proxy.top.push(notes.gap(line.place, &shown, &why));
            return;
        }
    };
    let mut comments = Vec::new();
    if regions
        .iter()
        .any(|region| region.paths.iter().any(|path| path.to_string() != "/"))
    {
        comments.push(notes.remark(line.place, &shown, SEGMENTS));
    }
    for region in regions {
        for (host, path) in region
            .hosts
            .iter()
            .flat_map(|host| region.paths.iter().map(move |path| (host, path)))
        {
            proxy.routes.push(Route {
                host: host.clone(),
                path: path.clone(),
                comments: std::mem::take(&mut comments),
                ..Route::all(name, line.place)
            });
        }
    }
}
