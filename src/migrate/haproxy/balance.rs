//! `balance` and `hash-type`: the key and the ring.

use super::syntax::{HaproxyLine, HaproxyWord};
use crate::migrate::draft::{KeySourceDraft, RingDraft, UpstreamDraft};
use crate::migrate::notes::Notes;

const NO_KEY: &str =
    "Clockwise chooses a server by a key, which is the client's address by default; choose `key`";
const INVALID_NAME: &str = "this is not a valid name of a header, cookie or query parameter";
const MODULO: &str = "without `hash-type consistent`, HAProxy hashes modulo the total weight, which Clockwise does not do; most keys will move once";
const COOKIES: &str = "of two cookies with this name HAProxy takes the last, with the quotes around its value, and Clockwise the first, without them; keys of such clients will move";
const ABSOLUTE: &str = "of a request by HTTP/2 HAProxy hashes `https://host/path`, and Clockwise the path; keys of such clients will move (in HAProxy, `uri path-only` and `hash path` are the path)";
const LINES: &str = "of two header lines with this name HAProxy hashes the last and Clockwise the first; keys of such clients will move";

/// The hash of a backend.
#[derive(Default)]
pub(super) struct HashType {
    consistent: bool,
    function: Option<&'static str>,
    avalanche: bool,
}

/// `hash-type METHOD [FUNCTION [avalanche]]`.
pub(super) fn hash_type(line: &HaproxyLine) -> HashType {
    let words = line.tail(2).iter().map(|word| word.text.as_str());
    HashType {
        consistent: line.word(1) == "consistent",
        function: words.clone().find_map(hash_function),
        avalanche: words.clone().any(|word| word == "avalanche"),
    }
}

/// One of the hash functions of `HAProxy`.
fn hash_function(word: &str) -> Option<&'static str> {
    let all = ["sdbm", "djb2", "wt6", "crc32", "none"];
    all.into_iter().find(|function| *function == word)
}

/// Sets key and ring by a `balance` line.
pub(super) fn balance(
    line: &HaproxyLine,
    hash_type: &HashType,
    upstream: &mut UpstreamDraft,
    notes: &Notes<'_>,
) {
    let text = line.text();
    let comments = &mut upstream.comments;
    let key = match key(line) {
        Ok(key) if key.is_valid() => key,
        Ok(_) => {
            comments.push(notes.gap(line.span, &text, INVALID_NAME));
            return;
        }
        Err(why) => {
            comments.push(notes.gap(line.span, &text, &why));
            return;
        }
    };
    let differences = difference(&key)
        .into_iter()
        .chain(hashes_absolute_uri(line).then_some(ABSOLUTE));
    comments.extend(differences.map(|what| notes.remark(line.span, &text, what)));
    upstream.key = vec![key];
    if hash_type.consistent {
        let source = line.word(1) == "source";
        upstream.ring = Some(ring(hash_type, source));
    } else {
        comments.push(notes.gap(line.span, &text, MODULO));
    }
}

fn key(line: &HaproxyLine) -> Result<KeySourceDraft, String> {
    let text = line.word(1);
    let (name, argument) = match text.split_once('(') {
        Some((name, rest)) => (name, rest.trim_end_matches(')')),
        None => (text, line.word(2)),
    };
    match name {
        "source" => Ok(KeySourceDraft::ClientIp),
        "uri" => uri_source(line.tail(2)),
        "hdr" if line.word(2) != "use_domain_only" => Ok(header_element(argument, "first")),
        "url_param" => Ok(KeySourceDraft::QueryOrEmpty(argument.to_owned())),
        "hash" => hash_expression(argument),
        "roundrobin" | "static-rr" | "leastconn" | "first" | "random" => Err(NO_KEY.to_owned()),
        _ => Err(format!("Clockwise has no such key source; {NO_KEY}")),
    }
}

fn uri_source(options: &[HaproxyWord]) -> Result<KeySourceDraft, String> {
    let mut source = KeySourceDraft::Path;
    for word in options {
        match word.text.as_str() {
            "whole" => source = KeySourceDraft::PathAndQuery,
            "path-only" => {}
            _ => {
                return Err(
                    "a key is the whole path, not a part of it; choose `key`, and keys will move"
                        .to_owned(),
                );
            }
        }
    }
    Ok(source)
}

/// The key source of `balance hash`.
fn hash_expression(text: &str) -> Result<KeySourceDraft, String> {
    let bare = text.strip_prefix("req.").unwrap_or(text);
    let (name, argument) = bare.split_once('(').unwrap_or((bare, ""));
    let argument = argument.trim_end_matches(')');
    let whole = argument
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    match name {
        _ if !whole => Err(
            "Clockwise hashes values as the client sent them, without converters; choose `key`"
                .to_owned(),
        ),
        "src" => Ok(KeySourceDraft::ClientIpBinary),
        "path" => Ok(KeySourceDraft::Path),
        "pathq" | "url" => Ok(KeySourceDraft::PathAndQuery),
        "hdr" if !argument.is_empty() => Ok(header_element(argument, "last")),
        "fhdr" if !argument.is_empty() => Ok(KeySourceDraft::Header(argument.to_ascii_lowercase())),
        "cook" | "cookie" if !argument.is_empty() => {
            Ok(KeySourceDraft::Cookie(argument.to_owned()))
        }
        "urlp" | "url_param" if !argument.is_empty() => {
            Ok(KeySourceDraft::QueryOrEmpty(argument.to_owned()))
        }
        "base" => Ok(KeySourceDraft::Any(
            vec![
                KeySourceDraft::Header("host".to_owned()),
                KeySourceDraft::Path,
            ],
            Some(""),
        )),
        _ => Err(format!(
            "Clockwise has no key source for `{text}`; choose `key`"
        )),
    }
}

/// `HAProxy` hashes one element of a header's list; `Host` is not a list.
fn header_element(name: &str, end: &'static str) -> KeySourceDraft {
    let name = name.to_ascii_lowercase();
    if name == "host" {
        return KeySourceDraft::Header(name);
    }
    KeySourceDraft::HeaderElement(name, end)
}

fn difference(key: &KeySourceDraft) -> Option<&'static str> {
    match key {
        KeySourceDraft::Cookie(_) => Some(COOKIES),
        KeySourceDraft::Header(name) if name != "host" => Some(LINES),
        _ => None,
    }
}

/// Whether the key is the target as `HAProxy` has it, which is an absolute URI with HTTP/2.
fn hashes_absolute_uri(line: &HaproxyLine) -> bool {
    let is_path_only = || line.tail(2).iter().any(|word| word.text == "path-only");
    match line.word(1) {
        "uri" => !is_path_only(),
        "hash" => line.word(2) == "url",
        _ => false,
    }
}

fn ring(hash_type: &HashType, source: bool) -> RingDraft {
    let mut options = Vec::new();
    let function = hash_type.function;
    if source {
        options.push(("hash", "source".to_owned()));
    } else if let Some(function) = function {
        options.push(("hash", function.to_owned()));
    }
    // Without a function, HAProxy uses avalanche; with one, only if `avalanche` follows it.
    let standard = function.is_none() || source;
    let wanted = function.is_none() || hash_type.avalanche;
    if standard != wanted {
        options.push(("avalanche", wanted.to_string()));
    }
    RingDraft {
        dialect: "haproxy",
        options,
    }
}
