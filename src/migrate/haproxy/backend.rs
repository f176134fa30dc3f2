//! `balance`, `hash-type`, checks: an upstream.

use super::proxy_section::ProxySection;
use super::syntax::{HaproxyLine, HaproxyWord};
use super::{server_tls, units};
use crate::migrate::clamp::NoteSubject;
use crate::migrate::draft::{HealthDraft, KeySourceDraft, RingDraft};
use crate::migrate::notes::Notes;

const NO_KEY: &str =
    "requests go to servers by a key here, the client's address if none is chosen; choose `key`";
const MODULO: &str = "without `hash-type consistent` it is a modulo, of which we have no like: most keys will move once";
const COOKIES: &str = "HAProxy takes the last cookie of that name and hashes the quotes around its value, here it is the first and quotes do not count: keys of such clients will move";
const LINES: &str = "where a client sends the field twice, HAProxy hashes the last line, here it is the first: keys of such clients will move";

/// How a backend hashes.
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

/// One of the functions that `HAProxy` has.
fn hash_function(word: &str) -> Option<&'static str> {
    let all = ["sdbm", "djb2", "wt6", "crc32", "none"];
    all.into_iter().find(|function| *function == word)
}

/// Key and ring of a `balance` line.
pub(super) fn balance(line: &HaproxyLine, proxy: &mut ProxySection, notes: &Notes<'_>) {
    let shown = line.text();
    let key = match key(line) {
        Ok(key) if key.is_valid() => key,
        Ok(_) => {
            let why = "there can be no such header, cookie or parameter";
            proxy
                .upstream
                .comments
                .push(notes.gap(line.span, &shown, why));
            return;
        }
        Err(why) => {
            proxy
                .upstream
                .comments
                .push(notes.gap(line.span, &shown, &why));
            return;
        }
    };
    let source = line.word(1) == "source";
    let comments = &mut proxy.upstream.comments;
    comments.extend(difference(&key).map(|what| notes.remark(line.span, &shown, what)));
    proxy.upstream.key = vec![key];
    if proxy.hash_type.consistent {
        proxy.upstream.ring = Some(ring(&proxy.hash_type, source));
    } else {
        proxy
            .upstream
            .comments
            .push(notes.gap(line.span, &shown, MODULO));
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
        "url_param" => Ok(KeySourceDraft::Query(argument.to_owned())),
        "hash" => hash_expression(argument),
        "roundrobin" | "static-rr" | "leastconn" | "first" | "random" => Err(NO_KEY.to_owned()),
        _ => Err(format!("there is no key source like it; {NO_KEY}")),
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
                    "a key is the whole path; with a part of it keys will move: choose `key`"
                        .to_owned(),
                );
            }
        }
    }
    Ok(source)
}

/// The expression of `balance hash`.
fn hash_expression(text: &str) -> Result<KeySourceDraft, String> {
    let bare = text.strip_prefix("req.").unwrap_or(text);
    let (name, argument) = bare.split_once('(').unwrap_or((bare, ""));
    let argument = argument.trim_end_matches(')');
    let whole = argument
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    match name {
        _ if !whole => {
            Err("values are hashed as they were sent, without converters; choose `key`".to_owned())
        }
        "src" => Ok(KeySourceDraft::ClientIpBinary),
        "path" => Ok(KeySourceDraft::Path),
        "pathq" | "url" => Ok(KeySourceDraft::PathAndQuery),
        "hdr" if !argument.is_empty() => Ok(header_element(argument, "last")),
        "fhdr" if !argument.is_empty() => Ok(KeySourceDraft::Header(argument.to_ascii_lowercase())),
        "cook" | "cookie" if !argument.is_empty() => {
            Ok(KeySourceDraft::Cookie(argument.to_owned()))
        }
        "urlp" | "url_param" if !argument.is_empty() => {
            Ok(KeySourceDraft::Query(argument.to_owned()))
        }
        "base" => Ok(KeySourceDraft::Any(
            vec![
                KeySourceDraft::Header("host".to_owned()),
                KeySourceDraft::Path,
            ],
            Some(""),
        )),
        _ => Err(format!(
            "there is no key source like `{text}`; choose `key`"
        )),
    }
}

/// `HAProxy` takes every header field for a list; `Host` is none.
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

fn ring(hash_type: &HashType, source: bool) -> RingDraft {
    let mut options = Vec::new();
    let function = hash_type.function;
    if source {
        options.push(("hash", "source".to_owned()));
    } else if let Some(function) = function {
        options.push(("hash", function.to_owned()));
    }
    // Without a function HAProxy has avalanche on, with one only where it is said.
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

/// `option httpchk [METHOD] [URI [VERSION]]`.
pub(super) fn httpchk(line: &HaproxyLine, proxy: &mut ProxySection, notes: &Notes<'_>) {
    let words = line.tail(2);
    let path = words.iter().find(|word| word.text.starts_with('/'));
    proxy.probe.http = Some(path.map_or("/", |word| &word.text).to_owned());
    let method = words.first().filter(|word| !word.text.starts_with('/'));
    note_probe_method(
        method.map_or("OPTIONS", |word| &word.text),
        line,
        proxy,
        notes,
    );
    // Before `http-check send`, headers were smuggled in behind the version.
    let version = words.get(2).map_or("", |word| &word.text);
    let host = version.lines().find_map(|text| text.strip_prefix("Host:"));
    proxy.probe.host = host.map(|text| text.trim().to_owned());
}

/// `http-check send …` and `http-check expect …`.
pub(super) fn http_check(line: &HaproxyLine, proxy: &mut ProxySection, notes: &Notes<'_>) {
    match (line.word(1), line.word(2)) {
        ("send", _) => http_check_send(line, proxy, notes),
        ("expect", "status") => {
            let good = |text: &&str| {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                let status = |text: &str| {
                    text.parse::<u16>()
                        .is_ok_and(|status| (100..600).contains(&status))
                };
                status(first) && status(last) && first <= last
            };
            let statuses = line.word(3).split(',').filter(good);
            proxy.probe.expect = statuses.map(str::to_owned).collect();
        }
        _ => super::note_unknown(line, &mut proxy.upstream.comments, notes),
    }
}

fn http_check_send(line: &HaproxyLine, proxy: &mut ProxySection, notes: &Notes<'_>) {
    let mut words = line.tail(2).iter().map(|word| word.text.as_str());
    while let Some(word) = words.next() {
        match word {
            "meth" => note_probe_method(words.next().unwrap_or_default(), line, proxy, notes),
            "uri" => proxy.probe.http = words.next().map(str::to_owned),
            "hdr"
                if words
                    .next()
                    .is_some_and(|name| name.eq_ignore_ascii_case("host")) =>
            {
                proxy.probe.host = words.next().map(str::to_owned);
            }
            _ => {}
        }
    }
}

fn note_probe_method(
    method: &str,
    line: &HaproxyLine,
    proxy: &mut ProxySection,
    notes: &Notes<'_>,
) {
    if method != "GET" {
        let what = format!("probes are GET here, not {method}");
        proxy
            .upstream
            .comments
            .push(notes.remark(line.span, &line.text(), &what));
    }
}

/// What the probes of a backend become.
pub(super) fn health(proxy: &mut ProxySection, notes: &Notes<'_>) -> HealthDraft {
    if !proxy.has_checks {
        return HealthDraft::Off;
    }
    let (place, shown) = (proxy.span, "option httpchk");
    let probe = proxy.probe.clone();
    let comments = &mut proxy.upstream.comments;
    let mut health = HealthDraft::On(probe.clamp_to_limits(
        NoteSubject {
            span: place,
            text: shown,
        },
        comments,
        notes,
    ));
    server_tls::set_probe_host(&mut health, proxy, notes);
    health
}

/// `timeout NAME DURATION`; `false` if we have none of that name.
pub(super) fn timeout(line: &HaproxyLine, proxy: &mut ProxySection) -> bool {
    let time = units::duration(line.word(2));
    let (times, down) = (&mut proxy.upstream.timeouts, &mut proxy.downstream);
    match line.word(1) {
        "connect" => times.connect = time,
        "server" => (times.first_byte, times.read, times.write) = (time, time, time),
        "tunnel" => times.tunnel = time,
        "check" => proxy.probe.timeout = time,
        "client" => (down.read_timeout, down.write_timeout) = (time, time),
        "http-request" => down.header_timeout = time,
        "http-keep-alive" => down.keepalive = time,
        _ => return false,
    }
    true
}
