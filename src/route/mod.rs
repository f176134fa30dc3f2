//! Finds the route of a request.
//!
//! A route matches a request if its host, its path and its methods all match. The most specific route
//! wins: the host decides first (exact, then the longer suffix, then any), then the longer path,
//! then a route that names the method before one for any method. Two routes that are equally
//! specific are an error when the table is built, so their order never matters.
//!
//! The caller gives the path in its normal form ([`request_target`](crate::request_target)), so `/%61dmin` and
//! `/x/../admin` match the route `/admin`; with `normalize_path: off` it is the path as sent.
//!
//! Invariants: [`RouteTable::find`] does not allocate, and its result is that of a search through all
//! routes. Its cost does not depend on the number of hosts, and grows with the logarithm of the
//! number of paths of one host.

mod host;
mod path_prefix;
mod upgrades;

use std::collections::BTreeMap;
use std::fmt;

use http::Method;

pub(crate) use host::{HostPattern, host_name};
pub(crate) use path_prefix::PathPrefix;
pub(crate) use upgrades::{InvalidProtocol, UpgradeProtocols};

use host::{HostMap, LowercaseHost};
use path_prefix::PathMap;

/// The requests that a route is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    /// The hosts.
    pub host: HostPattern,
    /// The paths.
    pub path: PathPrefix,
    /// The methods, compared exactly (`GET` does not include `HEAD`); empty: any.
    pub methods: Vec<Method>,
}

impl RouteMatch {
    /// Whether some request matches both, and neither is more specific for it.
    pub fn conflicts_with(&self, other: &Self) -> bool {
        self.host == other.host
            && self.path == other.path
            && methods_conflict(&self.methods, &other.methods)
    }
}

impl fmt::Display for RouteMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host {}, path {}", self.host, self.path)?;
        for (index, method) in self.methods.iter().enumerate() {
            let before = if index == 0 { ", " } else { "|" };
            write!(f, "{before}{method}")?;
        }
        Ok(())
    }
}

fn methods_conflict(a: &[Method], b: &[Method]) -> bool {
    if a.is_empty() || b.is_empty() {
        return a.is_empty() && b.is_empty();
    }
    a.iter().any(|method| b.contains(method))
}

/// Two routes that are equally specific for some request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("routes {first} and {second} (counted from 0) match the same requests")]
pub(crate) struct RouteConflict {
    /// The index of the earlier route in the given list, from 0.
    pub first: usize,
    /// The index of the later route.
    pub second: usize,
}

/// Why no route was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteError {
    /// No route matches the host and path.
    NoRoute,
    /// Routes match the host and path, but not the method; see [`RouteTable::allowed_methods`].
    MethodNotAllowed,
}

/// All routes, each with a value, indexed for [`find`](Self::find).
#[derive(Debug)]
pub(crate) struct RouteTable<T> {
    hosts: HostMap<PathMap<Vec<MethodRule<T>>>>,
}

/// The methods of one route, below its host and path.
#[derive(Debug)]
struct MethodRule<T> {
    index: usize,
    methods: Vec<Method>,
    value: T,
}

impl<T> RouteTable<T> {
    /// Builds the table. The order of `routes` does not matter.
    pub(crate) fn new(
        routes: impl IntoIterator<Item = (RouteMatch, T)>,
    ) -> Result<Self, RouteConflict> {
        let mut hosts: BTreeMap<HostPattern, BTreeMap<PathPrefix, Vec<MethodRule<T>>>> =
            BTreeMap::new();
        for (index, (route, value)) in routes.into_iter().enumerate() {
            let paths = hosts.entry(route.host).or_default();
            let rule = MethodRule {
                index,
                methods: route.methods,
                value,
            };
            insert_rule(paths.entry(route.path).or_default(), rule)?;
        }
        let hosts = hosts
            .into_iter()
            .map(|(host, paths)| (host, PathMap::new(paths)));
        Ok(Self {
            hosts: HostMap::new(hosts),
        })
    }

    /// Finds the value of a request's route. `host` is that of the `Host` field or `:authority` (case,
    /// port and a trailing dot are ignored), `path` is without the query.
    pub(crate) fn find(&self, host: &str, path: &str, method: &Method) -> Result<&T, RouteError> {
        let name = LowercaseHost::new(host);
        let mut error = RouteError::NoRoute;
        for rules in self.matching_rules(&name, path) {
            match select_by_method(rules, method) {
                Some(value) => return Ok(value),
                None => error = RouteError::MethodNotAllowed,
            }
        }
        Err(error)
    }

    /// The methods that [`find`](Self::find) accepts for this host and path, sorted, for the `Allow` field
    /// of a 405 response (RFC 9110 §15.5.6). Empty if no route matches, or if one takes any method.
    pub(crate) fn allowed_methods(&self, host: &str, path: &str) -> Vec<&Method> {
        let name = LowercaseHost::new(host);
        let rules: Vec<_> = self.matching_rules(&name, path).flatten().collect();
        if rules.iter().any(|rule| rule.methods.is_empty()) {
            return Vec::new();
        }
        let mut methods: Vec<_> = rules.iter().flat_map(|rule| &rule.methods).collect();
        methods.sort_unstable_by_key(|method| method.as_str());
        methods.dedup();
        methods
    }

    /// The rules for this host and path, the most specific host and path first.
    fn matching_rules<'table>(
        &'table self,
        name: &LowercaseHost,
        path: &str,
    ) -> impl Iterator<Item = &'table Vec<MethodRule<T>>> {
        self.hosts
            .matches(name)
            .flat_map(move |paths| paths.matches(path))
    }
}

fn insert_rule<T>(
    rules: &mut Vec<MethodRule<T>>,
    rule: MethodRule<T>,
) -> Result<(), RouteConflict> {
    let conflicts = |other: &&MethodRule<T>| methods_conflict(&other.methods, &rule.methods);
    if let Some(other) = rules.iter().find(conflicts) {
        return Err(RouteConflict {
            first: other.index,
            second: rule.index,
        });
    }
    rules.push(rule);
    Ok(())
}

fn select_by_method<'a, T>(rules: &'a [MethodRule<T>], method: &Method) -> Option<&'a T> {
    let named = rules.iter().find(|rule| rule.methods.contains(method));
    let rule = named.or_else(|| rules.iter().find(|rule| rule.methods.is_empty()))?;
    Some(&rule.value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn route(host: &str, path: &str, methods: &[Method]) -> RouteMatch {
        RouteMatch {
            host: HostPattern::parse(host).unwrap(),
            path: PathPrefix::parse(path).unwrap(),
            methods: methods.to_vec(),
        }
    }

    fn table(routes: &[(&str, &str, &[Method])]) -> RouteTable<usize> {
        let routes = routes
            .iter()
            .map(|(host, path, methods)| route(host, path, methods));
        RouteTable::new(routes.zip(0..)).unwrap()
    }

    #[test]
    fn route_host_takes_precedence_over_path() {
        let table = table(&[
            ("any", "/a/b/c", &[]),
            ("*.com", "/a/b", &[]),
            ("*.example.com", "/a", &[]),
            ("www.example.com", "/", &[]),
        ]);
        let find = |host| table.find(host, "/a/b/c", &Method::GET);
        assert_eq!(find("www.example.com"), Ok(&3));
        assert_eq!(find("WWW.Example.com.:8080"), Ok(&3));
        assert_eq!(find("img.example.com"), Ok(&2));
        assert_eq!(find("x.y.example.com"), Ok(&2));
        assert_eq!(find("example.com"), Ok(&1));
        assert_eq!(find("example.org"), Ok(&0));
        assert_eq!(find(""), Ok(&0));
    }

    #[test]
    fn route_host_without_a_matching_path_falls_back_to_the_next_host() {
        let table = table(&[
            ("www.example.com", "/api", &[]),
            ("*.example.com", "/img", &[]),
            ("any", "/", &[]),
        ]);
        let find = |path| table.find("www.example.com", path, &Method::GET);
        assert_eq!(find("/api/x"), Ok(&0));
        assert_eq!(find("/img"), Ok(&1));
        assert_eq!(find("/apix"), Ok(&2));
    }

    #[test]
    fn route_with_method_takes_precedence_over_any_method() {
        let table = table(&[
            ("any", "/", &[]),
            ("any", "/", &[Method::GET, Method::HEAD]),
        ]);
        assert_eq!(table.find("h", "/", &Method::HEAD), Ok(&1));
        assert_eq!(table.find("h", "/", &Method::POST), Ok(&0));
        assert!(table.allowed_methods("h", "/").is_empty());
    }

    #[test]
    fn route_miss_distinguishes_wrong_method_from_no_route() {
        let table = table(&[
            ("any", "/a", &[Method::PUT, Method::GET]),
            ("any", "/a/b", &[Method::DELETE, Method::GET]),
        ]);
        assert_eq!(
            table.find("h", "/a/b", &Method::POST),
            Err(RouteError::MethodNotAllowed)
        );
        assert_eq!(
            table.find("h", "/b", &Method::POST),
            Err(RouteError::NoRoute)
        );
        assert_eq!(table.find("h", "/a/b", &Method::PUT), Ok(&0));
        assert_eq!(
            table.allowed_methods("h", "/a/b"),
            [&Method::DELETE, &Method::GET, &Method::PUT]
        );
    }

    #[test]
    fn routes_with_equal_match_are_an_error() {
        let same = |a: &[Method], b: &[Method]| {
            RouteTable::new([
                (route("other", "/api", &[]), ()),
                (route("A.example", "/api", a), ()),
                (route("a.example.", "/api/", b), ()),
            ])
        };
        let conflict = Some(RouteConflict {
            first: 1,
            second: 2,
        });
        assert_eq!(same(&[], &[]).err(), conflict);
        assert_eq!(
            same(&[Method::GET, Method::PUT], &[Method::PUT]).err(),
            conflict
        );
        assert_eq!(same(&[], &[Method::PUT]).err(), None);
        assert_eq!(same(&[Method::GET], &[Method::PUT]).err(), None);
    }

    #[test]
    fn route_display_shows_host_path_and_methods() {
        let shown = route("*.Example.com", "/api/", &[Method::GET, Method::PUT]).to_string();
        assert_eq!(shown, "host *.example.com, path /api, GET|PUT");
        assert_eq!(route("any", "/", &[]).to_string(), "host any, path /");
    }

    /// The definition of a match, as a search through all routes.
    fn linear_search(
        routes: &[RouteMatch],
        host: &str,
        path: &str,
        method: &Method,
    ) -> Result<usize, RouteError> {
        let is_match =
            |route: &RouteMatch| host_matches(&route.host, host) && route.path.matches(path);
        routes
            .iter()
            .enumerate()
            .filter(|(_, route)| is_match(route))
            .filter(|(_, route)| route.methods.is_empty() || route.methods.contains(method))
            .max_by_key(|(_, route)| {
                (
                    host_rank(&route.host),
                    route.path.to_string().len(),
                    !route.methods.is_empty(),
                )
            })
            .map(|(index, _)| index)
            .ok_or(if routes.iter().any(is_match) {
                RouteError::MethodNotAllowed
            } else {
                RouteError::NoRoute
            })
    }

    fn host_matches(pattern: &HostPattern, host: &str) -> bool {
        match pattern {
            HostPattern::Any => true,
            HostPattern::Exact(name) => name == host,
            HostPattern::Suffix(name) => host.ends_with(&format!(".{name}")),
        }
    }

    fn host_rank(pattern: &HostPattern) -> (u8, usize) {
        match pattern {
            HostPattern::Any => (0, 0),
            HostPattern::Suffix(name) => (1, name.len()),
            HostPattern::Exact(_) => (2, 0),
        }
    }

    fn some_route() -> impl Strategy<Value = RouteMatch> {
        let host = prop_oneof![
            Just("any".to_owned()),
            "[ab](\\.[ab]){0,2}",
            "\\*(\\.[ab]){1,2}"
        ];
        let path = prop_oneof![Just("/".to_owned()), "(/[a-]{1,2}){1,3}"];
        let methods = proptest::sample::subsequence(vec![Method::GET, Method::PUT], 0..=2);
        (host, path, methods).prop_map(|(host, path, methods)| route(&host, &path, &methods))
    }

    proptest! {
        #[test]
        fn route_table_lookup_equals_a_linear_search(
            candidates in prop::collection::vec(some_route(), 0..24),
            host in "[ab](\\.[ab]){0,3}",
            path in "(/[a-]{0,2}){0,4}",
            put in any::<bool>(),
        ) {
            let mut routes: Vec<RouteMatch> = Vec::new();
            for route in candidates {
                if !routes.iter().any(|other| other.conflicts_with(&route)) {
                    routes.push(route);
                }
            }
            let table = RouteTable::new(routes.iter().cloned().zip(0..)).unwrap();
            let method = if put { Method::PUT } else { Method::GET };
            let found = table.find(&host, &path, &method).copied();
            prop_assert_eq!(found, linear_search(&routes, &host, &path, &method));
        }

        #[test]
        fn route_table_refuses_exactly_the_conflicting_lists(
            routes in prop::collection::vec(some_route(), 0..6),
        ) {
            let naive = routes.iter().enumerate()
                .any(|(at, route)| routes.iter().take(at).any(|other| other.conflicts_with(route)));
            prop_assert_eq!(RouteTable::new(routes.into_iter().zip(0..)).is_err(), naive);
        }

        #[test]
        fn route_lookup_with_random_input_does_not_panic(host in any::<String>(), path in any::<String>()) {
            let table = table(&[("*.b", "/a", &[]), ("[::1]", "/", &[])]);
            let _ = table.find(&host, &path, &Method::GET);
        }
    }
}
