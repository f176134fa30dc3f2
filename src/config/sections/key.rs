//! `key`: the sources of a request's key.

use http::HeaderName;

use super::{cookie, empty_value};
use crate::config::fields::{Fields, collect_until_full, items_or_one, parse_or_report, text};
use crate::config::raw::{YamlNode, YamlValue};
use crate::config::report::{Problem, Problems, quote};
use crate::config::schema::{SectionSchema, nearest};
use crate::config::values::{InvalidValue, describe_node};
use crate::key::{AddressForm, CompositeKey, HeaderValues, KeySource, ListEnd};
use crate::ring::KEY_PART_SEPARATOR;

const HELP: &str = "use `client_ip`, `path`, `path_and_query`, `host`, `client_cert`, `{header: NAME}`, `{cookie: NAME}`, \
                    `{query: NAME}`, `{path: normalized}`, `{path_segment: N}`, `{all: [..]}` or `{any: [..]}`";

/// Sources without arguments.
const SIMPLE_SOURCES: &[(&str, KeySource)] = &[
    ("client_ip", KeySource::CLIENT_IP),
    ("path", KeySource::Path),
    ("path_and_query", KeySource::PathAndQuery),
    ("host", KeySource::Host),
    ("client_cert", KeySource::ClientCert),
];

/// The default sources.
pub(super) fn default() -> Vec<KeySource> {
    vec![KeySource::CLIENT_IP]
}

/// A list of sources, or one.
pub(super) fn read(node: &YamlNode, problems: &Problems) -> Vec<KeySource> {
    let list = items_or_one(node);
    if list.is_empty() {
        problems.add(Problem::error("the list is empty", node.error_span()).help(HELP));
    }
    let sources = collect_until_full(list, problems, |item| {
        Some((source(item, problems, false)?, item))
    });
    cookie::check_generated_is_last(&sources, problems);
    warn_unreachable(&sources, problems);
    sources.into_iter().map(|(source, _)| source).collect()
}

/// Warns of sources after one that every request has.
fn warn_unreachable(sources: &[(KeySource, &YamlNode)], problems: &Problems) {
    let Some(always) = sources
        .iter()
        .position(|(source, _)| is_always_present(source))
    else {
        return;
    };
    if let Some((_, after)) = sources.get(always + 1) {
        let first = sources.get(always).map_or("", |(source, _)| source.name());
        let message = format!("this source is never used: every request has `{first}`");
        let help = "move it before that one, or use `{all: [..]}` to combine them";
        problems.add(Problem::warning(message, after.error_span()).help(help));
    }
}

fn is_always_present(source: &KeySource) -> bool {
    match source {
        KeySource::ClientIp { .. }
        | KeySource::Path
        | KeySource::NormalizedPath
        | KeySource::PathAndQuery => true,
        KeySource::All(parts) => parts.sources.iter().all(is_always_present),
        KeySource::Any(parts) => parts.sources.iter().any(is_always_present),
        _ => false,
    }
}

fn source(node: &YamlNode, problems: &Problems, inside: bool) -> Option<KeySource> {
    match &node.value {
        YamlValue::Scalar(_) => parse_or_report(node, problems, simple_source),
        _ => map_source(node, problems, inside),
    }
}

fn simple_source(node: &YamlNode) -> Result<KeySource, InvalidValue> {
    let name = text(node, "a key source")?;
    if let Some((_, source)) = SIMPLE_SOURCES.iter().find(|(word, _)| *word == name) {
        return Ok(source.clone());
    }
    let help = match name {
        "header" | "cookie" | "query" => format!("write `{{{name}: NAME}}`"),
        "path_segment" => "write `{path_segment: 1}` for the first segment".to_owned(),
        "ip" | "source" | "source_ip" | "remote_addr" | "client" => {
            "did you mean `client_ip`?".to_owned()
        }
        "uri" | "url" | "request_uri" => "did you mean `path_and_query`?".to_owned(),
        _ => suggest_source(name),
    };
    Err((format!("unknown key source {}", quote(name)), help))
}

fn suggest_source(name: &str) -> String {
    let words = SIMPLE_SOURCES.iter().map(|(word, _)| *word);
    nearest(name, words).map_or_else(|| HELP.to_owned(), |near| format!("did you mean `{near}`?"))
}

pub(super) static KEY_SOURCE: SectionSchema = SectionSchema {
    title: "a key source",
    path: "upstreams.NAME.key[]",
    example: "{cookie: sid}",
    keys: &[
        "client_ip",
        "header",
        "cookie",
        "query",
        "path",
        "path_segment",
        "all",
        "any",
        "separator",
    ],
    nested: &[&CLIENT_IP, &HEADER, &cookie::COOKIE, &QUERY],
    ..SectionSchema::EMPTY
};

fn map_source(node: &YamlNode, problems: &Problems, inside: bool) -> Option<KeySource> {
    let fields = Fields::open(node, &KEY_SOURCE, problems)?;
    let sources = KEY_SOURCE
        .keys
        .iter()
        .filter(|key| **key != "separator" && fields.get(key).is_some());
    if sources.count() > 1 {
        fields.error(
            node,
            "more than one source in a map",
            "write `[{..}, {..}]` to try one after the other, `{all: [..]}` to combine them",
        );
        return None;
    }
    if let Some(list) = fields.get("all") {
        return Some(KeySource::All(combination(
            list,
            &fields,
            inside,
            CompositeKey::SEPARATOR,
        )?));
    }
    if let Some(list) = fields.get("any") {
        let separator = char::from(KEY_PART_SEPARATOR).to_string();
        return Some(KeySource::Any(combination(
            list, &fields, inside, &separator,
        )?));
    }
    if let Some(separator) = fields.get("separator") {
        fields.error(
            separator,
            "`separator` is for `all` and `any` only",
            "remove it, or write `{all: [host, path], separator: \"\"}`",
        );
    }
    if let Some(prefixes) = fields.get("client_ip") {
        return client_ip(prefixes, problems);
    }
    if let Some(node) = fields
        .get("cookie")
        .filter(|node| matches!(node.value, YamlValue::Map(_)))
    {
        return cookie::read(node, problems, inside);
    }
    if let Some(node) = fields
        .get("header")
        .filter(|node| matches!(node.value, YamlValue::Map(_)))
    {
        return header(node, problems);
    }
    if let Some(node) = fields
        .get("query")
        .filter(|node| matches!(node.value, YamlValue::Map(_)))
    {
        return query(node, problems);
    }
    named_source(&fields)
}

/// The sources of `all` or `any`, and their separator.
fn combination(
    node: &YamlNode,
    fields: &Fields<'_>,
    inside: bool,
    separator: &str,
) -> Option<CompositeKey> {
    let list = items_or_one(node);
    if inside || list.is_empty() {
        let message = if inside {
            "`all` and `any` cannot be nested"
        } else {
            "the list is empty"
        };
        fields.error(
            node,
            message,
            "list the sources to combine, as in `{all: [host, path]}`",
        );
        return None;
    }
    let sources = collect_until_full(list, fields.problems, |item| {
        source(item, fields.problems, true)
    });
    let given = fields.read("separator", |node| text(node, "a text"));
    (sources.len() == list.len()).then(|| CompositeKey {
        sources,
        separator: given.unwrap_or(separator).to_owned(),
    })
}

static CLIENT_IP: SectionSchema = SectionSchema {
    title: "`client_ip`",
    path: "upstreams.NAME.key[].client_ip",
    example: "{v4: 24, v6: 64}",
    keys: &["v4", "v6", "form"],
    ..SectionSchema::EMPTY
};

fn client_ip(node: &YamlNode, problems: &Problems) -> Option<KeySource> {
    const FORMS: &[(&str, AddressForm)] =
        &[("text", AddressForm::Text), ("binary", AddressForm::Binary)];
    let fields = Fields::open(node, &CLIENT_IP, problems)?;
    Some(KeySource::ClientIp {
        v4: fields.number("v4", 32, 0..=32),
        v6: fields.number("v6", 128, 0..=128),
        form: fields.choice("form", AddressForm::Text, FORMS),
    })
}

static HEADER: SectionSchema = SectionSchema {
    title: "`header`",
    path: "upstreams.NAME.key[].header",
    example: "{name: x-forwarded-for, element: last}",
    keys: &["name", "element", "values", "empty"],
    ..SectionSchema::EMPTY
};

/// A header with more keys than a name.
fn header(node: &YamlNode, problems: &Problems) -> Option<KeySource> {
    const ENDS: &[(&str, ListEnd)] = &[("first", ListEnd::First), ("last", ListEnd::Last)];
    const VALUES: &[(&str, HeaderValues)] = &[
        ("first", HeaderValues::First),
        ("joined", HeaderValues::Joined),
        ("sorted", HeaderValues::Sorted),
    ];
    let fields = Fields::open(node, &HEADER, problems)?;
    fields.require("name", "write `{header: {name: x-user}}`")?;
    let name = fields.read("name", header_name)?;
    let empty = empty_value::read(&fields);
    if fields.get("element").is_none() {
        let values = fields.choice("values", HeaderValues::First, VALUES);
        return Some(KeySource::Header {
            name,
            values,
            empty,
        });
    }
    let help = "remove `values`: an element is taken from all lines";
    fields.refuse_key("values", "cannot be used with `element`", help);
    let end = fields.choice("element", ListEnd::First, ENDS);
    Some(KeySource::ListElement { name, end, empty })
}

static QUERY: SectionSchema = SectionSchema {
    title: "`query`",
    path: "upstreams.NAME.key[].query",
    example: "{name: user, empty: value}",
    keys: &["name", "empty"],
    ..SectionSchema::EMPTY
};

/// A query parameter with more keys than a name.
fn query(node: &YamlNode, problems: &Problems) -> Option<KeySource> {
    let fields = Fields::open(node, &QUERY, problems)?;
    fields.require("name", "write `{query: {name: user}}`")?;
    let name = fields.read("name", query_name)?;
    let empty = empty_value::read(&fields);
    Some(KeySource::Query { name, empty })
}

fn named_source(fields: &Fields<'_>) -> Option<KeySource> {
    let header = fields.read("header", header_name).map(KeySource::header);
    let cookie = || fields.read("cookie", cookie::name).map(KeySource::cookie);
    let query = || fields.read("query", query_name).map(KeySource::query);
    let path = || {
        fields.get("path")?;
        fields.choice("path", (), &[("normalized", ())]);
        Some(KeySource::NormalizedPath)
    };
    let segment = || {
        fields.get("path_segment")?;
        Some(KeySource::PathSegment(
            fields.read("path_segment", path_segment)?,
        ))
    };
    let named = header.or_else(cookie).or_else(query);
    named.or_else(path).or_else(segment)
}

/// The name of a header field (RFC 9110 §5.1).
pub(super) fn header_name(node: &YamlNode) -> Result<HeaderName, InvalidValue> {
    let name = text(node, "the name of a header")?;
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
        let help = match name.split_once(':') {
            Some((before, _)) => format!("write only the name: {}", quote(before)),
            None => "use letters, digits and `-`, as in `x-user`".to_owned(),
        };
        (format!("{} is not the name of a header", quote(name)), help)
    })
}

/// Whether a query parameter can have this name.
pub(crate) fn is_query_name(name: &str) -> bool {
    !name.is_empty() && !name.contains(['?', '&', '=', '#', ' '])
}

fn query_name(node: &YamlNode) -> Result<String, InvalidValue> {
    let name = text(node, "the name of a query parameter")?;
    if !is_query_name(name) {
        let help = "write only the name, as in `{query: user}` for `?user=42`";
        return Err((
            format!("{} is not the name of a query parameter", quote(name)),
            help.to_owned(),
        ));
    }
    Ok(name.to_owned())
}

fn path_segment(node: &YamlNode) -> Result<u16, InvalidValue> {
    const MOST: u64 = 1000;
    if node.is_plain("0") {
        return Err((
            "segments are counted from 1".to_owned(),
            "`{path_segment: 1}` is `a` in `/a/b`".to_owned(),
        ));
    }
    let segment = crate::config::values::number("path_segment", node, &(1..=MOST))?;
    u16::try_from(segment).map_err(|_| {
        (
            format!("{} is out of range", describe_node(node)),
            format!("use 1 to {MOST}"),
        )
    })
}
