//! `routes`: which requests go to which upstream.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashSet};

use http::Method;

use super::normalize_path::NormalizePath;
use super::upstreams::Upstreams;
use crate::config::fields::{
    Fields, collect_until_full, items, items_or_one, parse_or_report, text,
};
use crate::config::raw::{YamlNode, YamlValue};
use crate::config::report::{Problem, Problems, quote};
use crate::config::schema::{SectionSchema, nearest};
use crate::config::span::Span;
use crate::config::values::{InvalidValue, size};
use crate::request_target::decode_unreserved;
use crate::route::{HostPattern, InvalidProtocol, PathPrefix, RouteMatch, UpgradeProtocols};

/// Sends the requests that match to an upstream.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteConfig {
    /// Host, path and methods.
    pub matches: RouteMatch,
    /// The name of an upstream in the same configuration.
    pub upstream: String,
    /// Overrides [`DownstreamConfig::max_body_size`](super::DownstreamConfig::max_body_size); outer `None`:
    /// not set, inner `None`: no limit.
    #[expect(
        clippy::option_option,
        reason = "not set, off, and a limit are three values"
    )]
    pub max_body_size: Option<Option<u64>>,
    /// Whether a request needs a verified client certificate, on every listener.
    pub client_cert: bool,
    /// The protocols to which clients may switch.
    pub upgrades: UpgradeProtocols,
}

const CLIENT_CERT: &[(&str, bool)] = &[("required", true), ("off", false)];
const HELP: &str =
    "write `- upstream: NAME`, with `host`, `path` or `methods` to match fewer requests";

/// The routes with their spans; each refers to an existing upstream.
pub(super) fn read(
    root: &Fields<'_>,
    normalize_path: NormalizePath,
    upstreams: &Upstreams<'_>,
) -> Vec<(RouteConfig, Span)> {
    let Some(node) = root.require("routes", "write `routes: [{upstream: NAME}]`") else {
        return Vec::new();
    };
    let problems = root.problems;
    let names = upstreams
        .names
        .iter()
        .map(|(name, _)| *name)
        .collect::<BTreeSet<_>>();
    let each = |item| route(item, normalize_path, &names, problems);
    let routes = collect_until_full(items(node, HELP, problems), problems, each);
    refuse_conflicts(&routes, problems);
    routes
}

pub(super) static ROUTE: SectionSchema = SectionSchema {
    title: "a route",
    path: "routes[]",
    example: "{path: /, upstream: app}",
    keys: &[
        "host",
        "path",
        "methods",
        "upstream",
        "max_body_size",
        "client_cert",
        "upgrade",
    ],
    ..SectionSchema::EMPTY
};

fn route(
    node: &YamlNode,
    normalize_path: NormalizePath,
    upstreams: &BTreeSet<&str>,
    problems: &Problems,
) -> Option<(RouteConfig, Span)> {
    let fields = Fields::open(node, &ROUTE, problems)?;
    let host = fields
        .read("host", host)
        .or_else(|| default_if_absent(&fields, "host", HostPattern::Any));
    let path = fields
        .read("path", |node| path(node, normalize_path))
        .or_else(|| default_if_absent(&fields, "path", PathPrefix::ROOT));
    let methods = fields
        .get("methods")
        .map(|node| methods(node, problems))
        .unwrap_or_default();
    let max_body_size = fields
        .get("max_body_size")
        .map(|_| max_body_size(&fields, None));
    let client_cert = fields.choice("client_cert", false, CLIENT_CERT);
    let upgrades = fields
        .get("upgrade")
        .map_or_else(UpgradeProtocols::default, |node| upgrades(node, problems));
    let upstream = fields.require(
        "upstream",
        "add the name of an upstream, as in `upstream: app`",
    )?;
    let upstream = parse_or_report(upstream, problems, |node| known_upstream(node, upstreams))?;
    let matches = RouteMatch {
        host: host?,
        path: path?,
        methods,
    };
    Some((
        RouteConfig {
            matches,
            upstream,
            max_body_size,
            client_cert,
            upgrades,
        },
        node.error_span(),
    ))
}

/// The default of a key that is absent. Not of an invalid one: a route with an invalid host does not
/// match every host, and must not be reported to conflict with a route that does.
fn default_if_absent<T>(fields: &Fields<'_>, key: &'static str, default: T) -> Option<T> {
    fields.get(key).is_none().then_some(default)
}

/// `max_body_size` of a route or of `downstream`.
pub(super) fn max_body_size(fields: &Fields<'_>, default: Option<u64>) -> Option<u64> {
    fields.or_off("max_body_size", default, |node| size(node, &(0..=1 << 50)))
}

fn host(node: &YamlNode) -> Result<HostPattern, InvalidValue> {
    let text = text(node, "a host")?;
    HostPattern::parse(text).map_err(|why| {
        let url = text.contains("://") || text.contains('/');
        let help = if url {
            "write only the host name, without scheme and path".to_owned()
        } else {
            why.to_string()
        };
        (format!("{} is not a host", quote(text)), help)
    })
}

/// The path in the form in which paths of requests are compared with it.
fn path(node: &YamlNode, normalize_path: NormalizePath) -> Result<PathPrefix, InvalidValue> {
    let text = text(node, "a path")?;
    let compared = match normalize_path {
        NormalizePath::Off => Cow::Borrowed(text),
        _ => decode_unreserved(text),
    };
    PathPrefix::parse(&compared).map_err(|why| {
        let help = match text.chars().find(|c| ['?', '#'].contains(c)) {
            Some('?') => {
                "routes do not match the query; remove the `?` and the text after it".to_owned()
            }
            Some(_) => {
                "clients never send a fragment; remove the `#` and the text after it".to_owned()
            }
            None if !text.starts_with('/') => format!("{why}: {}", quote(&format!("/{text}"))),
            None => why.to_string(),
        };
        (format!("{} is not a path", quote(text)), help)
    })
}

fn methods(node: &YamlNode, problems: &Problems) -> Vec<Method> {
    let list = match node.text() {
        Some(_) => items_or_one(node),
        None => items(
            node,
            "write `[GET, POST]`, or remove `methods` to match any",
            problems,
        ),
    };
    let mut seen = HashSet::new();
    collect_until_full(list, problems, |item| {
        let method = parse_or_report(item, problems, method)?;
        if seen.insert(method.clone()) {
            return Some(method);
        }
        let message = format!("method `{method}` is given twice");
        problems.add(Problem::error(message, item.error_span()).help("keep one of the two"));
        None
    })
}

/// A list of protocols; empty, or `off`: none.
fn upgrades(node: &YamlNode, problems: &Problems) -> UpgradeProtocols {
    let mut upgrades = UpgradeProtocols::none();
    let is_empty = matches!(&node.value, YamlValue::List(items) if items.is_empty());
    if node.is_off() || is_empty {
        return upgrades;
    }
    let list = match node.text() {
        Some(_) => items_or_one(node),
        None => items(node, "write `[websocket]`, or `off` for none", problems),
    };
    let added = collect_until_full(list, problems, |item| {
        parse_or_report(item, problems, |node| upgrade(node, &mut upgrades))
    });
    drop(added);
    upgrades
}

fn upgrade(node: &YamlNode, upgrades: &mut UpgradeProtocols) -> Result<(), InvalidValue> {
    let text = text(node, "a protocol")?;
    if node.is_off() {
        let help = "write `upgrade: off` for none";
        return Err((format!("{} is no protocol", quote(text)), help.to_owned()));
    }
    match upgrades.add(text) {
        Ok(true) => Ok(()),
        Ok(false) => Err((
            format!("protocol {} is given twice", quote(text)),
            "keep one of the two".to_owned(),
        )),
        Err(InvalidProtocol::Malformed) => Err((
            format!("{} is not the name of a protocol", quote(text)),
            "write a name like `websocket`, as the clients send it in `Upgrade`".to_owned(),
        )),
        Err(InvalidProtocol::CarriesHttp) => Err((
            format!("a route cannot switch to {}", quote(text)),
            "requests in such a tunnel would pass no route; for HTTP/2 write `h2c: true` at the listener, `protocol: h2c` at the upstream".to_owned(),
        )),
    }
}

fn method(node: &YamlNode) -> Result<Method, InvalidValue> {
    let text = text(node, "a method")?;
    let error = |help: &str| (format!("{} is not a method", quote(text)), help.to_owned());
    if text.contains([',', ' ', '|']) {
        return Err(error("write several as a list: `[GET, POST]`"));
    }
    if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
        let help = format!(
            "methods are upper case: {}",
            quote(&text.to_ascii_uppercase())
        );
        return Err(error(&help));
    }
    if ["ANY", "ALL", "*"].contains(&text) {
        return Err(error("remove `methods` to match any method"));
    }
    Method::from_bytes(text.as_bytes()).map_err(|_| error("use a name like `GET`"))
}

fn known_upstream(node: &YamlNode, upstreams: &BTreeSet<&str>) -> Result<String, InvalidValue> {
    let name = text(node, "the name of an upstream")?;
    // If there are none, `upstreams` has a problem already.
    if upstreams.is_empty() || upstreams.contains(name) {
        return Ok(name.to_owned());
    }
    let help = match nearest(name, upstreams.iter().copied()) {
        Some(near) => format!("did you mean {}?", quote(near)),
        None => format!(
            "add it to `upstreams`, or use an existing one: {}",
            list_upstreams(upstreams)
        ),
    };
    Err((format!("unknown upstream {}", quote(name)), help))
}

fn list_upstreams(names: &BTreeSet<&str>) -> String {
    const MAX: usize = 5;
    let shown = names
        .iter()
        .take(MAX)
        .map(|name| quote(name))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > MAX {
        format!("{shown}, …")
    } else {
        shown
    }
}

/// Refuses conflicting routes. Only routes with the same host and path can conflict.
fn refuse_conflicts(routes: &[(RouteConfig, Span)], problems: &Problems) {
    let mut alike: BTreeMap<_, Vec<&(RouteConfig, Span)>> = BTreeMap::new();
    for route in routes {
        let matches = &route.0.matches;
        let group = alike.entry((&matches.host, &matches.path)).or_default();
        let conflict = group
            .iter()
            .find(|first| first.0.matches.conflicts_with(matches));
        match conflict {
            Some((_, first)) => problems.add(conflict_problem(route, *first)),
            None => group.push(route),
        }
        if problems.is_full() {
            return;
        }
    }
}

fn conflict_problem((route, span): &(RouteConfig, Span), first: Span) -> Problem {
    Problem::error(
        format!("two routes match the same requests: {}", route.matches),
        *span,
    )
    .secondary(first, "first here")
    .help("the order of routes does not matter; change `host`, `path` or `methods` of one")
}
