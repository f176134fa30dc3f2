//! The argument of `hash` as key sources.
//!
//! nginx hashes the text that the argument evaluates to, so the sources must give the same text: values are
//! joined without a separator, and an empty value adds nothing. Of repeated cookies and parameters nginx takes the first,
//! also if it is empty; the lines of a header field it joins, since 1.23.0.

use super::syntax::Directive;
use crate::migrate::draft::KeySourceDraft;

/// The key of a `hash` argument: the first source that is present.
pub(super) struct HashArgument {
    pub(super) key: Vec<KeySourceDraft>,
    /// Small differences between nginx and Clockwise.
    pub(super) remarks: Vec<&'static str>,
}

const NORMALIZED_PATHS: &str = "Clockwise decodes escapes of letters, digits, `-`, `.`, `_` and `~` only; where nginx decodes others (`%20`), the key differs";
const PATHS: &str = "Clockwise hashes the path as the client sent it; where nginx decodes it (`%41`, `//`, `..`), the key differs";
const COOKIES: &str = "nginx ignores the case of the cookie's name and hashes the quotes around its value; Clockwise does neither, so the keys of such clients will move";
const QUERIES: &str = "nginx ignores the case of the parameter's name and Clockwise does not; keys from `?ID=` instead of `?id=` will move";
const LINES: &str = "nginx 1.23.0 and later join the lines of a repeated header; an older one hashes the first line: for it, leave out `values: joined`";
const SOCKET: &str = "Clockwise has no key source for the connection's address; behind `trusted_proxies`, `client_ip` is the client's address and keys will move";

/// The key sources of `text`; `Err` is the reason for the note. `maps` are the `map` blocks of `http`.
pub(super) fn key(text: &str, maps: &[&Directive]) -> Result<HashArgument, String> {
    let names = variable_names(text)?;
    if let [name] = names.as_slice()
        && let Some(hashed) = key_from_map(name, maps)
    {
        return hashed;
    }
    let names = join_uri_args(&names);
    let sources: Vec<_> = names
        .iter()
        .map(|name| source(name))
        .collect::<Result<_, _>>()?;
    let remarks = names.iter().filter_map(|name| difference(name)).collect();
    let key = match sources.as_slice() {
        [] => return Err("the key is empty".to_owned()),
        [_] => sources,
        _ => vec![KeySourceDraft::Any(sources, Some(""))],
    };
    Ok(HashArgument { key, remarks })
}

/// `$a${b}` becomes `a`, `b`.
pub(super) fn variable_names(text: &str) -> Result<Vec<String>, String> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(tail) = rest.strip_prefix('$') {
        let (name, after) = if let Some(braced) = tail.strip_prefix('{') {
            braced.split_once('}').unwrap_or((braced, ""))
        } else {
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            tail.split_at(tail.find(|c| !word(c)).unwrap_or(tail.len()))
        };
        names.push(name.to_owned());
        rest = after;
    }
    if rest.is_empty() {
        return Ok(names);
    }
    Err("the key contains fixed text, and a key of Clockwise consists of request values only; keys will move".to_owned())
}

/// Joins `$uri$is_args$args`, which is one key source.
fn join_uri_args(names: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for name in names {
        all.push(name.clone());
        let tail = all.len().checked_sub(3).and_then(|start| all.get(start..));
        if let Some([path, mark, query]) = tail
            && path == "uri"
            && mark == "is_args"
            && matches!(query.as_str(), "args" | "query_string")
        {
            all.truncate(all.len() - 3);
            all.push("uri_is_args_args".to_owned());
        }
    }
    all
}

fn source(name: &str) -> Result<KeySourceDraft, String> {
    let dashed = |name: &str| name.replace('_', "-").to_ascii_lowercase();
    Ok(match name {
        "remote_addr" => KeySourceDraft::ClientIp,
        "realip_remote_addr" => return Err(SOCKET.to_owned()),
        "binary_remote_addr" => KeySourceDraft::ClientIpBinary,
        "request_uri" | "uri_is_args_args" => KeySourceDraft::PathAndQuery,
        "uri" | "document_uri" => KeySourceDraft::NormalizedPath,
        "host" => KeySourceDraft::Host,
        _ => match name.split_once('_') {
            // nginx joins the lines of `Cookie` in another way, and refuses a second `Host`.
            Some(("http", header @ ("cookie" | "host"))) => {
                KeySourceDraft::Header(header.to_owned())
            }
            Some(("http", header)) if !header.is_empty() => {
                KeySourceDraft::HeaderLines(dashed(header), "joined")
            }
            Some(("cookie", cookie)) if !cookie.is_empty() => {
                KeySourceDraft::CookieOrEmpty(cookie.to_owned())
            }
            Some(("arg", query)) if !query.is_empty() => {
                KeySourceDraft::QueryOrEmpty(query.to_owned())
            }
            _ => {
                return Err(format!(
                    "Clockwise has no key source for `${name}`; choose another `key`"
                ));
            }
        },
    })
}

fn difference(name: &str) -> Option<&'static str> {
    match name {
        "uri" | "document_uri" => Some(NORMALIZED_PATHS),
        "uri_is_args_args" => Some(PATHS),
        _ if name.starts_with("cookie_") => Some(COOKIES),
        _ if name.starts_with("arg_") => Some(QUERIES),
        "http_cookie" | "http_host" | "http_x_forwarded_for" => None,
        _ if name.starts_with("http_") => Some(LINES),
        _ => None,
    }
}

/// The common `map $cookie_x $key { "" $remote_addr; default $cookie_x; }`: the first source that is present.
fn key_from_map(name: &str, maps: &[&Directive]) -> Option<Result<HashArgument, String>> {
    let wanted = format!("${name}");
    let map = maps.iter().find(|map| map.argument(1) == wanted)?;
    let value = |key: &str| {
        let mut entries = map.children().iter();
        entries
            .find(|entry| entry.name.text == key)
            .map(|entry| entry.argument(0))
    };
    let (Some(empty), Some(default), 2) = (value(""), value("default"), map.children().len())
    else {
        return Some(Err(format!(
            "the `map` of `${name}` has more than an empty and a default entry; choose another `key`"
        )));
    };
    if default != map.argument(0) {
        return Some(Err(format!(
            "the `map` of `${name}` changes its value; choose another `key`"
        )));
    }
    let both = key(default, &[]).and_then(|first| Ok((first, key(empty, &[])?)));
    let without_options = |sources: Vec<KeySourceDraft>| {
        let plain = sources.into_iter().map(KeySourceDraft::without_options);
        plain.collect::<Vec<_>>()
    };
    // An empty value is what makes the map take the second source.
    Some(both.map(|(first, second)| HashArgument {
        key: [without_options(first.key), second.key].concat(),
        remarks: [first.remarks, second.remarks].concat(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Vec<KeySourceDraft>> {
        key(text, &[]).ok().map(|hashed| hashed.key)
    }

    #[test]
    fn nginx_variables_become_key_sources() {
        assert_eq!(of("$remote_addr"), Some(vec![KeySourceDraft::ClientIp]));
        assert_eq!(
            of("${cookie_sid}"),
            Some(vec![KeySourceDraft::CookieOrEmpty("sid".to_owned())])
        );
        assert_eq!(
            of("$http_x_user"),
            Some(vec![KeySourceDraft::HeaderLines(
                "x-user".to_owned(),
                "joined"
            )])
        );
        assert_eq!(
            of("$uri$is_args$args"),
            Some(vec![KeySourceDraft::PathAndQuery])
        );
        let both = vec![KeySourceDraft::Host, KeySourceDraft::PathAndQuery];
        assert_eq!(
            of("$host$request_uri"),
            Some(vec![KeySourceDraft::Any(both, Some(""))])
        );
    }

    #[test]
    fn nginx_variables_with_small_differences_get_a_note() {
        let remarks = |text| key(text, &[]).map(|hashed| hashed.remarks).unwrap();
        assert_eq!(
            remarks("$cookie_a$arg_b$http_c$uri"),
            [COOKIES, QUERIES, LINES, NORMALIZED_PATHS]
        );
        assert!(remarks("$request_uri$http_cookie$remote_addr").is_empty());
    }

    #[test]
    fn nginx_variables_without_an_equal_hash_are_refused() {
        for text in [
            "",
            "$",
            "$scheme",
            "fixed",
            "$host/x",
            "$http_",
            "${",
            "$host$",
            "$realip_remote_addr",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
