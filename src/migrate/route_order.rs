//! Translates the routes of systems that try rules in order. In Clockwise the most specific route wins.
//!
//! If an earlier rule and a later one overlap, the earlier one takes the overlap. A route for the overlap is
//! added if neither rule is exactly the overlap; if the later rule is, it gets no requests and is dropped.

use super::draft::RouteDraft;
use super::notes::Notes;
use crate::route::{HostPattern, PathPrefix};

/// Routes above this number are not compared: the cost is quadratic.
const MAX_COMPARED_ROUTES: usize = 1000;

const ROUTES_ADDED: &str = "the most specific route wins, not the first one; routes were added for the requests that an earlier rule takes";

/// Routes that send the same requests to the same upstreams, whatever their order.
pub(super) fn by_specificity(
    routes: Vec<RouteDraft>,
    notes: &Notes<'_>,
    comments: &mut Vec<String>,
) -> Vec<RouteDraft> {
    let mut ordered: Vec<RouteDraft> = Vec::new();
    let mut added = false;
    for route in routes {
        if ordered.len() >= MAX_COMPARED_ROUTES {
            ordered.push(route);
            continue;
        }
        let mut overlaps: Vec<RouteDraft> = Vec::new();
        let mut shadow = None;
        for earlier in &ordered {
            let Some((host, path)) = overlap(earlier, &route) else {
                continue;
            };
            if (&host, &path) == (&route.host, &route.path) {
                shadow.get_or_insert(earlier.span);
            } else if earlier.upstream != route.upstream {
                let comments = Vec::new();
                overlaps.push(RouteDraft {
                    host,
                    path,
                    comments,
                    ..earlier.clone()
                });
            }
        }
        if shadow.is_some() {
            let what = format!("host {}, path {}", route.host, route.path);
            let why = "an earlier rule takes all these requests";
            comments.push(notes.remark(route.span, &what, why));
            continue;
        }
        for overlap in overlaps {
            let known =
                |other: &&RouteDraft| (&other.host, &other.path) == (&overlap.host, &overlap.path);
            if ordered.iter().find(known).is_none() {
                if !added {
                    comments.push(notes.remark(route.span, &route.upstream, ROUTES_ADDED));
                }
                added = true;
                ordered.push(overlap);
            }
        }
        ordered.push(route);
    }
    ordered
}

fn overlap(a: &RouteDraft, b: &RouteDraft) -> Option<(HostPattern, PathPrefix)> {
    Some((
        host_overlap(&a.host, &b.host)?,
        path_overlap(&a.path, &b.path)?,
    ))
}

/// The hosts that both patterns match.
fn host_overlap(a: &HostPattern, b: &HostPattern) -> Option<HostPattern> {
    match (a, b) {
        (HostPattern::Any, other) | (other, HostPattern::Any) => Some(other.clone()),
        (HostPattern::Suffix(_), HostPattern::Exact(_)) => host_overlap(b, a),
        (HostPattern::Exact(a), HostPattern::Exact(_)) => {
            (a == host_name(b)).then(|| HostPattern::Exact(a.clone()))
        }
        (HostPattern::Exact(name), HostPattern::Suffix(parent)) => {
            is_subdomain(name, parent).then(|| HostPattern::Exact(name.clone()))
        }
        (HostPattern::Suffix(one), HostPattern::Suffix(other)) => {
            if one == other || is_subdomain(one, other) {
                return Some(a.clone());
            }
            is_subdomain(other, one).then(|| b.clone())
        }
    }
}

fn host_name(host: &HostPattern) -> &str {
    match host {
        HostPattern::Exact(name) | HostPattern::Suffix(name) => name,
        HostPattern::Any => "",
    }
}

fn is_subdomain(name: &str, parent: &str) -> bool {
    let rest = name.strip_suffix(parent);
    rest.is_some_and(|rest| rest.ends_with('.') && rest.len() > 1)
}

/// The paths that both prefixes match.
fn path_overlap(a: &PathPrefix, b: &PathPrefix) -> Option<PathPrefix> {
    if a.matches(&b.to_string()) {
        return Some(b.clone());
    }
    b.matches(&a.to_string()).then(|| a.clone())
}
