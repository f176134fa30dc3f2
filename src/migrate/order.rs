//! Routes that are tried in order, made into routes of which the most specific wins.
//!
//! Where the requests of an earlier route and of a later one overlap, the earlier has them. If neither
//! says exactly the overlap, a route for it is added; if the later one does, nothing is left for it.

use super::model::Route;
use super::notes::Notes;
use crate::route::{HostPattern, PathPrefix};

/// More routes than this are not compared: each is with each before it.
const MAX: usize = 1000;

const ADDED: &str = "rules are tried in order there, here the most specific wins: routes were added for what an earlier rule takes";

/// The same requests to the same upstreams, whatever the order.
pub(super) fn by_specificity(
    routes: Vec<Route>,
    notes: &Notes<'_>,
    comments: &mut Vec<String>,
) -> Vec<Route> {
    let mut kept: Vec<Route> = Vec::new();
    let mut added = false;
    for route in routes {
        if kept.len() >= MAX {
            kept.push(route);
            continue;
        }
        let mut overlaps: Vec<Route> = Vec::new();
        let mut shadow = None;
        for earlier in &kept {
            let Some((host, path)) = overlap(earlier, &route) else {
                continue;
            };
            if (&host, &path) == (&route.host, &route.path) {
                shadow.get_or_insert(earlier.place);
            } else if earlier.upstream != route.upstream {
                let comments = Vec::new();
                overlaps.push(Route {
                    host,
                    path,
                    comments,
                    ..earlier.clone()
                });
            }
        }
        if shadow.is_some() {
            let what = format!("host {}, path {}", route.host, route.path);
            let why = "an earlier rule takes all of these requests";
            comments.push(notes.remark(route.place, &what, why));
            continue;
        }
        for overlap in overlaps {
            let known =
                |other: &&Route| (&other.host, &other.path) == (&overlap.host, &overlap.path);
            if kept.iter().find(known).is_none() {
                if !added {
                    comments.push(notes.remark(route.place, &route.upstream, ADDED));
                }
                added = true;
                kept.push(overlap);
            }
        }
        kept.push(route);
    }
    kept
}

fn overlap(a: &Route, b: &Route) -> Option<(HostPattern, PathPrefix)> {
    Some((hosts(&a.host, &b.host)?, paths(&a.path, &b.path)?))
}

/// The hosts that both match.
fn hosts(a: &HostPattern, b: &HostPattern) -> Option<HostPattern> {
    match (a, b) {
        (HostPattern::Any, other) | (other, HostPattern::Any) => Some(other.clone()),
        (HostPattern::Suffix(_), HostPattern::Exact(_)) => hosts(b, a),
        (HostPattern::Exact(a), HostPattern::Exact(_)) => {
            (a == exact(b)).then(|| HostPattern::Exact(a.clone()))
        }
        (HostPattern::Exact(name), HostPattern::Suffix(parent)) => {
            below(name, parent).then(|| HostPattern::Exact(name.clone()))
        }
        (HostPattern::Suffix(one), HostPattern::Suffix(other)) => {
            if one == other || below(one, other) {
                return Some(a.clone());
            }
            below(other, one).then(|| b.clone())
        }
    }
}

fn exact(host: &HostPattern) -> &str {
    match host {
        HostPattern::Exact(name) | HostPattern::Suffix(name) => name,
        HostPattern::Any => "",
    }
}

fn below(name: &str, parent: &str) -> bool {
    let rest = name.strip_suffix(parent);
    rest.is_some_and(|rest| rest.ends_with('.') && rest.len() > 1)
}

/// The paths that both match.
fn paths(a: &PathPrefix, b: &PathPrefix) -> Option<PathPrefix> {
    if a.matches(&b.to_string()) {
        return Some(b.clone());
    }
    b.matches(&a.to_string()).then(|| a.clone())
}
