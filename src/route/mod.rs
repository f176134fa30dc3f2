//! Which route a request takes.
//!
//! A route matches a request when its host, its path and its methods all match. Of the routes that
//! match, the most specific wins: the host decides first (exact, then the longer suffix, then any),
//! then the longer path, then a route that names the method before one for any method. Routes
//! that match alike are refused when the table is built, so their order never decides.
//!
//! This is not access control. Paths are compared as they were sent, so `/%61dmin` does not take the
//! route of `/admin`: a peer must protect itself.
//!
//! Invariants: [`RouteTable::find`] allocates nothing, and gives what a search through the whole list
//! would give. Its cost does not grow with the number of hosts, and only with the logarithm of the
//! number of paths of one host.

mod host;
mod path;

use std::collections::BTreeMap;
use std::fmt;

use http::Method;

pub use host::{HostPattern, host_name};
pub use path::PathPrefix;

use host::{HostMap, LowercaseHost};
use path::PathMap;

/// What a request must look like to take a route.
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
    /// Whether some request matches both, and neither of them is the more specific.
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

/// A host or a path of a route that cannot be used; the text is advice for who wrote it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The host is an empty text.
    #[error("the host is empty; leave `host` out to match any host")]
    EmptyHost,
    /// A `*` anywhere but as the whole first label, or with nothing behind it.
    #[error("`*` can only stand in front of a name, as in `*.example.com`")]
    HostWildcard,
    /// The host has a port.
    #[error("hosts are matched without their port; remove `:{0}`")]
    HostPort(String),
    /// A part between two dots is empty, longer than 63 bytes, or has a character no host name has.
    #[error(
        "`{0}` is not part of a host name: 1 to 63 letters, digits, `-` or `_`; \
         write an international name in its `xn--` form"
    )]
    HostLabel(String),
    /// The name is longer than DNS allows.
    #[error("the host is {0} bytes long; at most 253 are allowed")]
    HostLength(usize),
    /// The text in brackets is no IPv6 address.
    #[error("`{0}` is not an IPv6 address in brackets")]
    HostIpv6(String),
    /// The path does not begin with a slash.
    #[error("a path begins with `/`")]
    PathStart,
    /// The path has a character that no path of a request has.
    #[error("`{0}` cannot be in the path of a request; percent-encode it as the client does")]
    PathCharacter(char),
    /// The path has an empty segment, `.` or `..`.
    #[error("the path has the segment `{0}`, which clients remove before they send it")]
    PathSegment(String),
    /// The path ends in `/*`.
    #[error("a path is a prefix as it is; remove the `*`")]
    PathWildcard,
}

/// Two routes that match alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("routes {first} and {second} (counted from 0) match the same requests")]
pub struct RouteConflict {
    /// The earlier one's place in the list that was given, from 0.
    pub first: usize,
    /// The later one's.
    pub second: usize,
}

/// Why no route was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteError {
    /// No route is for this host and path.
    NoRoute,
    /// Routes are for this host and path, none for this method; see [`RouteTable::allowed`].
    MethodNotAllowed,
}

/// All routes, ready to be searched.
#[derive(Debug)]
pub struct RouteTable<T> {
    hosts: HostMap<PathMap<Vec<MethodRule<T>>>>,
}

/// What is left of a route where its host and path are known.
#[derive(Debug)]
struct MethodRule<T> {
    index: usize,
    methods: Vec<Method>,
    value: T,
}

impl<T> RouteTable<T> {
    /// Builds the table; the order of `routes` has no meaning.
    pub fn new(routes: impl IntoIterator<Item = (RouteMatch, T)>) -> Result<Self, RouteConflict> {
        let mut hosts: BTreeMap<HostPattern, BTreeMap<PathPrefix, Vec<MethodRule<T>>>> =
            BTreeMap::new();
        for (
            index,
            (
                RouteMatch {
                    host,
                    path,
                    methods,
                },
                value,
            ),
        ) in routes.into_iter().enumerate()
        {
            let rules = hosts.entry(host).or_default().entry(path).or_default();
            insert_rule(
                rules,
                MethodRule {
                    index,
                    methods,
                    value,
                },
            )?;
        }
        let hosts = hosts
            .into_iter()
            .map(|(host, paths)| (host, PathMap::new(paths)));
        Ok(Self {
            hosts: HostMap::new(hosts),
        })
    }

    /// The route of a request: `host` as in its `Host` or authority (case, port and a dot at the end
    /// do not matter), `path` as sent, without the query.
    pub fn find(&self, host: &str, path: &str, method: &Method) -> Result<&T, RouteError> {
        let name = LowercaseHost::new(host);
        let mut miss = RouteError::NoRoute;
        for rules in self.matching_rules(&name, path) {
            match select_by_method(rules, method) {
                Some(value) => return Ok(value),
                None => miss = RouteError::MethodNotAllowed,
            }
        }
        Err(miss)
    }

    /// The methods that [`find`](Self::find) accepts for this host and path, sorted, for the `Allow` field of a 405
    /// (RFC 9110 §15.5.6). Empty where no route is for them, or where one takes any method.
    pub fn allowed_methods(&self, host: &str, path: &str) -> Vec<&Method> {
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
    let alike = |other: &&MethodRule<T>| methods_conflict(&other.methods, &rule.methods);
    if let Some(other) = rules.iter().find(alike) {
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
    fn routes_with_equal_match_are_refused() {
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

    /// The definition, by search through the whole list.
    fn oracle(
        routes: &[RouteMatch],
        host: &str,
        path: &str,
        method: &Method,
    ) -> Result<usize, RouteError> {
        let here = |route: &RouteMatch| host_matches(&route.host, host) && route.path.matches(path);
        routes
            .iter()
            .enumerate()
            .filter(|(_, route)| here(route))
            .filter(|(_, route)| route.methods.is_empty() || route.methods.contains(method))
            .max_by_key(|(_, route)| {
                (
                    host_rank(&route.host),
                    route.path.to_string().len(),
                    !route.methods.is_empty(),
                )
            })
            .map(|(index, _)| index)
            .ok_or(if routes.iter().any(here) {
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
            wanted in prop::collection::vec(some_route(), 0..24),
            host in "[ab](\\.[ab]){0,3}",
            path in "(/[a-]{0,2}){0,4}",
            put in any::<bool>(),
        ) {
            let mut routes: Vec<RouteMatch> = Vec::new();
            for route in wanted {
                if !routes.iter().any(|other| other.conflicts_with(&route)) {
                    routes.push(route);
                }
            }
            let table = RouteTable::new(routes.iter().cloned().zip(0..)).unwrap();
            let method = if put { Method::PUT } else { Method::GET };
            let found = table.find(&host, &path, &method).copied();
            prop_assert_eq!(found, oracle(&routes, &host, &path, &method));
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
