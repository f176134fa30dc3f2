//! `{cookie: …}`: a cookie of the application, or a sticky cookie that Clockwise generates.

use std::time::Duration;

use super::empty_value;
use crate::config::fields::{Fields, text, unknown_value};
use crate::config::raw::YamlNode;
use crate::config::report::{Problem, Problems, quote};
use crate::config::schema::SectionSchema;
use crate::config::values::{self, InvalidValue};
use crate::cookie::{SameSite, SecureAttribute, StickyCookie};
use crate::key::{EmptyValue, KeySource};

/// The longest lifetime that browsers allow.
const MAX_TTL: Duration = Duration::from_secs(400 * 24 * 3600);

const SAME_SITE: &[(&str, SameSite)] = &[
    ("lax", SameSite::Lax),
    ("strict", SameSite::Strict),
    ("none", SameSite::None),
];

pub(super) static COOKIE: SectionSchema = SectionSchema {
    title: "`cookie`",
    path: "upstreams.NAME.key[].cookie",
    example: "{name: cw, generate: true}",
    keys: &[
        "name",
        "generate",
        "ttl",
        "refresh",
        "same_site",
        "secure",
        "http_only",
        "path",
        "domain",
        "empty",
    ],
    ..SectionSchema::EMPTY
};

/// A cookie with more keys than a name. `inside`: within `all` or `any`.
pub(super) fn read(node: &YamlNode, problems: &Problems, inside: bool) -> Option<KeySource> {
    let fields = Fields::open(node, &COOKIE, problems)?;
    fields.require("name", "write `{cookie: {name: sid}}`")?;
    let name = fields.read("name", name);
    if !fields.flag("generate", false) {
        refuse_attributes(&fields);
        let empty = empty_value::read(&fields);
        return name.map(|name| KeySource::Cookie { name, empty });
    }
    if inside {
        let help = "make it a source of its own, at the end of the list";
        fields.error(
            node,
            "`all` and `any` cannot contain a generated cookie",
            help,
        );
        return None;
    }
    if empty_value::read(&fields) == EmptyValue::Value {
        let help = "remove `empty`: a generated cookie replaces an empty one";
        fields.refuse_key("empty", "is for cookies that are not generated", help);
    }
    let sticky = sticky(&fields, name.unwrap_or_default());
    check_attributes(&fields, &sticky);
    (!sticky.name.is_empty()).then_some(KeySource::StickyCookie(sticky))
}

/// Refuses sources after a generated cookie, which always gives a key.
pub(super) fn check_generated_is_last(sources: &[(KeySource, &YamlNode)], problems: &Problems) {
    let is_generated = |(source, _): &(KeySource, _)| matches!(source, KeySource::StickyCookie(_));
    let after = sources.iter().skip_while(|pair| !is_generated(pair)).nth(1);
    if let Some((_, node)) = after {
        let message =
            "this source is never used: the generated cookie before it always gives a key";
        let help = "put the cookie with `generate: true` last";
        problems.add(Problem::error(message, node.error_span()).help(help));
    }
}

/// Whether a cookie can have this name: a token (RFC 6265 §4.1.1).
pub(crate) fn is_name(name: &str) -> bool {
    let token = |byte: u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?={}".contains(&byte);
    !name.is_empty() && name.bytes().all(token)
}

pub(super) fn name(node: &YamlNode) -> Result<String, InvalidValue> {
    let name = text(node, "the name of a cookie")?;
    if !is_name(name) {
        let help = "write only the name, without `=` and the value, as in `{cookie: sid}`";
        return Err((
            format!("{} is not the name of a cookie", quote(name)),
            help.to_owned(),
        ));
    }
    Ok(name.to_owned())
}

/// Refuses attributes of a cookie that is only read.
fn refuse_attributes(fields: &Fields<'_>) {
    let keys = COOKIE.keys.iter();
    let mut attributes = keys.filter(|key| !matches!(**key, "name" | "generate" | "empty"));
    if let Some(node) = attributes.find_map(|key| fields.get(key)) {
        let help = "add `generate: true`, or write `{cookie: sid}`";
        fields.error(node, "this is for generated cookies only", help);
    }
}

fn sticky(fields: &Fields<'_>, name: String) -> StickyCookie {
    let bounds = Duration::from_secs(1)..=MAX_TTL;
    let ttl = |node: &YamlNode| values::duration(node, &bounds);
    StickyCookie {
        name,
        ttl: fields.or_off("ttl", None, ttl),
        refresh: fields.flag("refresh", false),
        same_site: fields.choice("same_site", SameSite::Lax, SAME_SITE),
        secure: fields
            .read("secure", secure)
            .unwrap_or(SecureAttribute::Auto),
        http_only: fields.flag("http_only", true),
        path: fields.read("path", path).unwrap_or_else(|| "/".to_owned()),
        domain: fields.or_off("domain", None, domain),
    }
}

fn secure(node: &YamlNode) -> Result<SecureAttribute, InvalidValue> {
    if node.is_word("auto") {
        return Ok(SecureAttribute::Auto);
    }
    let flag = values::flag(node).map_err(|(_, _)| {
        let help = "use `true`, `false` or `auto` (only if the client uses TLS)";
        (unknown_value("secure", node), help.to_owned())
    })?;
    Ok(if flag {
        SecureAttribute::Yes
    } else {
        SecureAttribute::No
    })
}

/// RFC 6265 §4.1.1: anything but control characters and `;`.
fn path(node: &YamlNode) -> Result<String, InvalidValue> {
    let path = text(node, "a path")?;
    let good = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b';';
    if !path.starts_with('/') || !path.bytes().all(good) {
        let message = format!("{} is not the path of a cookie", quote(path));
        return Err((message, "begin with `/`, as in `/app`".to_owned()));
    }
    Ok(path.to_owned())
}

fn domain(node: &YamlNode) -> Result<String, InvalidValue> {
    let domain = text(node, "a domain")?;
    // Browsers ignore a leading dot (RFC 6265 §5.2.3).
    let labels = domain.strip_prefix('.').unwrap_or(domain).split('.');
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    let mut labels = labels.map(|label| !label.is_empty() && label.bytes().all(good));
    if labels.any(|good| !good) {
        let message = format!("{} is not the domain of a cookie", quote(domain));
        return Err((message, "give a host name, as in `example.com`".to_owned()));
    }
    Ok(domain.to_owned())
}

/// Refuses attributes that browsers reject or that have no effect.
fn check_attributes(fields: &Fields<'_>, sticky: &StickyCookie) {
    // An invalid `ttl` has been reported, and is not missing.
    let has_ttl = fields.get("ttl").is_some_and(|ttl| !ttl.is_off());
    if let (true, false, Some(node)) = (sticky.refresh, has_ttl, fields.get("refresh")) {
        let help = "add `ttl: 1h`, or remove `refresh`";
        fields.error(node, "`refresh` without `ttl`", help);
    }
    if let (SameSite::None, SecureAttribute::No, Some(node)) =
        (sticky.same_site, sticky.secure, fields.get("same_site"))
    {
        let help = "use `secure: true` or `auto`, or `same_site: lax`";
        fields.error(
            node,
            "browsers reject `same_site: none` without `secure`",
            help,
        );
    }
    check_prefix(fields, sticky);
}

/// Refuses a name with the prefix `__Host-` or `__Secure-` without the attributes that it requires.
fn check_prefix(fields: &Fields<'_>, sticky: &StickyCookie) {
    let begins = |prefix: &str| {
        let start = sticky.name.get(..prefix.len());
        start.is_some_and(|start| start.eq_ignore_ascii_case(prefix))
    };
    let secure = sticky.secure == SecureAttribute::Yes;
    let bare = secure && sticky.path == "/" && sticky.domain.is_none();
    let help = if begins("__Host-") && !bare {
        "a name that begins with `__Host-` needs `secure: true`, `path: /` and no `domain`"
    } else if begins("__Secure-") && !secure {
        "a name that begins with `__Secure-` needs `secure: true`"
    } else {
        return;
    };
    if let Some(node) = fields.get("name") {
        fields.error(node, "browsers reject this cookie", help);
    }
}
