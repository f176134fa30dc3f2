//! Conditions on host and path, as far as routes can say them.

use super::syntax::{HaproxyLine, HaproxyWord};
use crate::route::{HostPattern, PathPrefix};

/// A named condition; several of one name are alternatives.
#[derive(Debug)]
pub(super) struct Acl {
    pub(super) name: String,
    pub(super) test: Result<AclTest, String>,
    /// It is true where this is.
    fetch: Option<String>,
}

/// What a request must have.
#[derive(Clone, Debug)]
pub(super) enum AclTest {
    Hosts(Vec<HostPattern>),
    Paths(Vec<PathPrefix>),
}

/// The requests of one alternative of a condition.
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

/// The alternatives of the words behind `if`; `Err` says why routes cannot say it.
pub(super) fn parse_condition(
    condition: &[HaproxyWord],
    acls: &[Acl],
) -> Result<Vec<HostPathMatch>, String> {
    let mut regions = Vec::new();
    for words in condition.split(|word| matches!(word.text.as_str(), "or" | "||")) {
        regions.push(parse_conjunction(words, acls)?);
    }
    Ok(regions)
}

/// What a condition asks, `if` or `unless` included, if that is one thing without values, and whether
/// it must be so.
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
    let mut region = HostPathMatch {
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
                return Err("routes cannot say what is not meant".to_owned());
            }
            name => test_by_name(name, acls)?,
        };
        region.intersect(test)?;
    }
    Ok(region)
}

impl HostPathMatch {
    fn intersect(&mut self, test: AclTest) -> Result<(), String> {
        let again =
            || "two conditions on one thing at once are more than a route can say".to_owned();
        match test {
            AclTest::Hosts(hosts) if self.hosts == [HostPattern::Any] => self.hosts = hosts,
            AclTest::Paths(paths) if self.paths == [PathPrefix::ROOT] => self.paths = paths,
            AclTest::Hosts(_) | AclTest::Paths(_) => return Err(again()),
        }
        Ok(())
    }
}

/// All conditions of one name together.
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
            _ => return Err("host or path at once is more than a route can say".to_owned()),
        }
    }
    Ok(all)
}

fn parse_test(words: &[HaproxyWord]) -> Result<AclTest, String> {
    let (criterion, rest) = words.split_first().ok_or("it is empty")?;
    let mut how = None;
    let mut values = rest;
    while let Some((flag, after)) = values.split_first() {
        match flag.text.as_str() {
            "-i" | "--" => values = after,
            "-m" => {
                how = after.first().map(|word| word.text.as_str());
                values = after.get(1..).unwrap_or_default();
            }
            flag if flag.starts_with('-') => return Err(format!("`{flag}` is not read")),
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
                "routes look at host and path only, not at `{}`",
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
    // With a port it is the same host.
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
                "hosts are names or `*.name`; list the names instead of `{value}`"
            ));
        }
    };
    let parse =
        |text: &String| HostPattern::parse(text).map_err(|_| format!("`{text}` is no host name"));
    texts.iter().map(parse).collect()
}

fn path_prefix(how: &str, value: &str) -> Result<PathPrefix, String> {
    if !matches!(how, "str" | "beg") || (how == "str" && value == "/") {
        return Err(format!("paths are prefixes here; `{value}` is none"));
    }
    PathPrefix::parse(value).map_err(|why| format!("`{value}` is no path prefix: {why}"))
}
