//! Conditions on host and path, as far as routes can express them.

use super::syntax::{HaproxyLine, HaproxyWord};
use crate::route::{HostPattern, PathPrefix};

/// A named condition; several with one name are alternatives.
#[derive(Debug)]
pub(super) struct Acl {
    pub(super) name: String,
    pub(super) test: Result<AclTest, String>,
    /// The only fetch of a condition without values, as in `ssl_fc`.
    fetch: Option<String>,
}

/// The hosts or paths that a condition matches.
#[derive(Clone, Debug)]
pub(super) enum AclTest {
    Hosts(Vec<HostPattern>),
    Paths(Vec<PathPrefix>),
}

/// The hosts and paths that one alternative of a condition matches.
#[derive(Clone, Debug)]
pub(super) struct HostPathMatch {
    pub(super) hosts: Vec<HostPattern>,
    pub(super) paths: Vec<PathPrefix>,
}

/// `acl NAME CRITERION VALUES`.
pub(super) fn parse_acl(line: &HaproxyLine) -> Acl {
    let alone = line.tail(2).first().filter(|_| line.words.len() == 3);
    Acl {
        name: line.word(1).to_owned(),
        test: parse_test(line.tail(2)),
        fetch: alone.map(|word| word.text.clone()),
    }
}

/// The alternatives of the condition after `if`; `Err` is the reason for the note.
pub(super) fn parse_condition(
    condition: &[HaproxyWord],
    acls: &[Acl],
) -> Result<Vec<HostPathMatch>, String> {
    let mut alternatives = Vec::new();
    for words in condition.split(|word| matches!(word.text.as_str(), "or" | "||")) {
        alternatives.push(parse_conjunction(words, acls)?);
    }
    Ok(alternatives)
}

/// The fetch of a condition with `if` or `unless` that has one fetch without values, and whether it must be
/// true.
pub(super) fn single_fetch(condition: &[HaproxyWord], acls: &[Acl]) -> Option<(String, bool)> {
    let words: Vec<_> = condition.iter().map(|word| word.text.as_str()).collect();
    let (first, rest) = words.split_first()?;
    let text = rest.join(" ");
    let bare = text.strip_prefix('!').map(str::trim_start);
    let wanted = (*first == "if") == bare.is_none();
    let bare = bare.unwrap_or(&text);
    let inside = bare
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'))
        .map(str::trim);
    let single = |name: &&str| !name.is_empty() && !name.contains([' ', '{', '}', '!']);
    if let Some(name) = inside {
        return Some(name)
            .filter(single)
            .map(|name| (name.to_owned(), wanted));
    }
    let mut named = acls.iter().filter(|acl| acl.name == bare);
    let flag = named.next()?.fetch.clone()?;
    named.next().is_none().then_some((flag, wanted))
}

fn parse_conjunction(words: &[HaproxyWord], acls: &[Acl]) -> Result<HostPathMatch, String> {
    let mut alternative = HostPathMatch {
        hosts: vec![HostPattern::Any],
        paths: vec![PathPrefix::ROOT],
    };
    let mut rest = words;
    while let Some((word, after)) = rest.split_first() {
        rest = after;
        let test = match word.text.as_str() {
            "{" => {
                let end = after.iter().position(|word| word.text == "}");
                let end = end.ok_or("a `}` is missing")?;
                rest = after.get(end + 1..).unwrap_or_default();
                parse_test(after.get(..end).unwrap_or_default())?
            }
            name if name.starts_with('!') => {
                return Err("a route cannot express a negated condition".to_owned());
            }
            name => test_by_name(name, acls)?,
        };
        alternative.intersect(test)?;
    }
    Ok(alternative)
}

impl HostPathMatch {
    fn intersect(&mut self, test: AclTest) -> Result<(), String> {
        let conflict =
            || "a route cannot combine two conditions on the host or two on the path".to_owned();
        match test {
            AclTest::Hosts(hosts) if self.hosts == [HostPattern::Any] => self.hosts = hosts,
            AclTest::Paths(paths) if self.paths == [PathPrefix::ROOT] => self.paths = paths,
            AclTest::Hosts(_) | AclTest::Paths(_) => return Err(conflict()),
        }
        Ok(())
    }
}

/// All conditions with one name.
fn test_by_name(name: &str, acls: &[Acl]) -> Result<AclTest, String> {
    let mut found = acls.iter().filter(|acl| acl.name == name);
    let first = found
        .next()
        .ok_or_else(|| format!("there is no acl `{name}`"))?;
    let mut all = first.test.clone()?;
    for acl in found {
        match (&mut all, acl.test.clone()?) {
            (AclTest::Hosts(all), AclTest::Hosts(more)) => all.extend(more),
            (AclTest::Paths(all), AclTest::Paths(more)) => all.extend(more),
            _ => return Err("a route cannot express host or path in one acl".to_owned()),
        }
    }
    Ok(all)
}

fn parse_test(words: &[HaproxyWord]) -> Result<AclTest, String> {
    let (criterion, rest) = words.split_first().ok_or("the condition is empty")?;
    let mut how = None;
    let mut values = rest;
    while let Some((flag, after)) = values.split_first() {
        match flag.text.as_str() {
            "-i" | "--" => values = after,
            "-m" => {
                how = after.first().map(|word| word.text.as_str());
                values = after.get(1..).unwrap_or_default();
            }
            flag if flag.starts_with('-') => {
                return Err(format!("the flag `{flag}` is not supported"));
            }
            _ => break,
        }
    }
    let name = criterion.text.to_ascii_lowercase();
    let name = name.strip_prefix("req.").unwrap_or(&name);
    let name = name.strip_suffix(",lower").unwrap_or(name);
    let (name, how) = match (name, how) {
        ("hdr(host)", how) => ("host", how.unwrap_or("str")),
        ("hdr_dom(host)", None) => ("host", "dom"),
        ("hdr_end(host)", None) => ("host", "end"),
        ("path", how) => ("path", how.unwrap_or("str")),
        ("path_beg" | "url_beg" | "capture.req.uri,beg", None) => ("path", "beg"),
        _ => {
            return Err(format!(
                "a route is translated from host and path only, not from `{}`",
                criterion.text
            ));
        }
    };
    let each = values.iter().map(|word| word.text.as_str());
    match name {
        "host" => Ok(AclTest::Hosts(
            each.map(|value| host_patterns(how, value))
                .collect::<Result<Vec<_>, _>>()?
                .concat(),
        )),
        _ => Ok(AclTest::Paths(
            each.map(|value| path_prefix(how, value))
                .collect::<Result<_, _>>()?,
        )),
    }
}

fn host_patterns(how: &str, value: &str) -> Result<Vec<HostPattern>, String> {
    let bare = value.strip_prefix('.').unwrap_or(value);
    // The port does not change the host.
    let bare = bare
        .rsplit_once(':')
        .filter(|(_, port)| port.parse::<u16>().is_ok())
        .map_or(bare, |(host, _)| host);
    let texts = match how {
        "str" => vec![value.to_owned()],
        "dom" => vec![bare.to_owned(), format!("*.{bare}")],
        "end" if value.starts_with('.') => vec![format!("*.{bare}")],
        _ => {
            return Err(format!(
                "a host is a name or `*.name`; list the names instead of `{value}`"
            ));
        }
    };
    let parse = |text: &String| {
        HostPattern::parse(text).map_err(|_| format!("`{text}` is not a host name"))
    };
    texts.iter().map(parse).collect()
}

fn path_prefix(how: &str, value: &str) -> Result<PathPrefix, String> {
    if !matches!(how, "str" | "beg") || (how == "str" && value == "/") {
        return Err(format!("a path is a prefix; `{value}` cannot be one"));
    }
    PathPrefix::parse(value).map_err(|why| format!("`{value}` is not a path prefix: {why}"))
}
