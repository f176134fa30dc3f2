//! What `HAProxy` says of TLS in general: `global`'s defaults, versions, and the paths of files.

use super::syntax::{Line, Word};
use crate::config;
use crate::migrate::notes::Notes;

const OLD: &str = "versions below TLS 1.2 are not spoken here";
const NEW: &str = "TLS 1.3 is always spoken here";
pub(super) const OWN: &str = "left out: it only concerns HAProxy itself";

/// The versions that can be told apart here; all below 1.2 are alike.
const VERSIONS: &[(&str, u8)] = &[
    ("sslv3", 0),
    ("tlsv1.0", 0),
    ("tlsv10", 0),
    ("tlsv1.1", 0),
    ("tlsv11", 0),
    ("tlsv1.2", 2),
    ("tlsv12", 2),
    ("tlsv1.3", 3),
    ("tlsv13", 3),
];

/// Words about versions that are followed by a value.
const BOUNDS: [&str; 2] = ["ssl-min-ver", "ssl-max-ver"];

/// What `global` says.
#[derive(Clone, Debug, Default)]
pub(super) struct Global {
    ca_base: Option<String>,
    crt_base: Option<String>,
    /// What a `bind` begins with.
    pub(super) bind: Versions,
    /// What a `server` begins with.
    pub(super) server: Versions,
    /// `ssl-server-verify none`.
    pub(super) unverified: bool,
}

/// The versions of TLS that are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Versions {
    least: Option<u8>,
    most: Option<u8>,
    without_12: bool,
    without_13: bool,
}

impl Global {
    /// Takes in a line of `global`; `false` if it is about something else.
    pub(super) fn line(&mut self, line: &Line, notes: &Notes<'_>) -> bool {
        match line.keyword() {
            "ca-base" => self.ca_base = Some(line.word(1).to_owned()),
            "crt-base" => self.crt_base = Some(line.word(1).to_owned()),
            "ssl-server-verify" => self.unverified = line.word(1) == "none",
            "ssl-default-bind-options" => options(&mut self.bind, line, notes),
            "ssl-default-server-options" => options(&mut self.server, line, notes),
            _ => return false,
        }
        true
    }

    /// Where the file of an authority's certificates is; `None`: it is no file's name.
    pub(super) fn ca(&self, name: &str) -> Option<String> {
        path(self.ca_base.as_deref(), name)
    }

    /// Where the file of a certificate is; `None`: it is no file's name.
    pub(super) fn crt(&self, name: &str) -> Option<String> {
        path(self.crt_base.as_deref(), name)
    }
}

fn path(base: Option<&str>, name: &str) -> Option<String> {
    let path = match base {
        Some(base) if !name.starts_with('/') => format!("{}/{name}", base.trim_end_matches('/')),
        _ => name.to_owned(),
    };
    let named = !name.is_empty() && !name.starts_with('@') && config::is_file_path(&path);
    (named && !path.contains('$')).then_some(path)
}

fn options(versions: &mut Versions, line: &Line, notes: &Notes<'_>) {
    let mut own = Versions::default();
    let mut rest = Vec::new();
    let mut words = line.tail(1).iter();
    while let Some(word) = words.next() {
        let value = Versions::value(word, &mut words);
        if !own.read(&word.text, value) {
            rest.push(word.text.as_str());
        }
    }
    if !rest.is_empty() {
        let shown = format!("{} {}", line.keyword(), rest.join(" "));
        notes.remark(line.place, &shown, OWN);
    }
    for what in own.differences() {
        notes.remark(line.place, &line.shown(), what);
    }
    *versions = own.over(*versions);
}

impl Versions {
    /// What follows a word, if it is one about versions that has a value.
    fn value<'a>(word: &Word, rest: &mut std::slice::Iter<'a, Word>) -> &'a str {
        let valued = BOUNDS.contains(&word.text.as_str());
        let value = if valued { rest.next() } else { None };
        value.map_or("", |word| &word.text)
    }

    /// Takes in a word; `false` if it is about something else.
    pub(super) fn read(&mut self, word: &str, value: &str) -> bool {
        match word {
            "ssl-min-ver" => self.least = version(value),
            "ssl-max-ver" => self.most = version(value),
            _ if word.starts_with("force-") => {
                let only = word.strip_prefix("force-").and_then(version);
                (self.least, self.most) = (only, only);
                return only.is_some();
            }
            _ => match word.strip_prefix("no-").and_then(version) {
                Some(3) => self.without_13 = true,
                Some(2) => self.without_12 = true,
                other => return other.is_some(),
            },
        }
        true
    }

    /// What is said here, before what is said in general.
    pub(super) fn over(self, general: Self) -> Self {
        Self {
            least: self.least.or(general.least),
            most: self.most.or(general.most),
            without_12: self.without_12 || general.without_12,
            without_13: self.without_13 || general.without_13,
        }
    }

    /// The oldest one, if that was said.
    pub(super) fn least(self) -> Option<&'static str> {
        match self.least {
            Some(3) => Some("1.3"),
            _ if self.without_12 && self.has_13() => Some("1.3"),
            Some(2) => Some("1.2"),
            _ => None,
        }
    }

    fn has_13(self) -> bool {
        !self.without_13 && self.most.is_none_or(|most| most >= 3)
    }

    /// What is not as it is said.
    pub(super) fn differences(self) -> impl Iterator<Item = &'static str> {
        let old = self.least == Some(0) || self.most == Some(0);
        let new = !self.has_13();
        [(old, OLD), (new, NEW)]
            .into_iter()
            .filter_map(|(differs, what)| differs.then_some(what))
    }
}

fn version(name: &str) -> Option<u8> {
    let name = name.to_ascii_lowercase();
    let found = VERSIONS.iter().find(|(known, _)| *known == name);
    found.map(|(_, version)| *version)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn least(words: &[(&str, &str)]) -> (Option<&'static str>, Vec<&'static str>) {
        let mut versions = Versions::default();
        for (word, value) in words {
            assert!(versions.read(word, value), "{word}");
        }
        (versions.least(), versions.differences().collect())
    }

    #[test]
    fn the_oldest_version_is_found_however_it_is_said() {
        assert_eq!(least(&[]), (None, vec![]));
        assert_eq!(least(&[("ssl-min-ver", "TLSv1.2")]), (Some("1.2"), vec![]));
        assert_eq!(least(&[("ssl-min-ver", "TLSv1.3")]), (Some("1.3"), vec![]));
        assert_eq!(least(&[("ssl-min-ver", "TLSv1.0")]), (None, vec![OLD]));
        assert_eq!(
            least(&[("no-sslv3", ""), ("no-tlsv10", "")]),
            (None, vec![])
        );
        assert_eq!(least(&[("no-tlsv12", "")]), (Some("1.3"), vec![]));
        assert_eq!(least(&[("force-tlsv13", "")]), (Some("1.3"), vec![]));
        assert_eq!(least(&[("force-tlsv12", "")]), (Some("1.2"), vec![NEW]));
        assert_eq!(least(&[("ssl-max-ver", "TLSv1.2")]), (None, vec![NEW]));
        assert!(!Versions::default().read("no-tls-tickets", ""));
        assert!(!Versions::default().read("ssl", ""));
    }

    #[test]
    fn relative_paths_are_under_their_base() {
        let global = Global {
            crt_base: Some("/etc/ssl/".to_owned()),
            ..Global::default()
        };
        assert_eq!(global.crt("a.pem").as_deref(), Some("/etc/ssl/a.pem"));
        assert_eq!(global.crt("/b.pem").as_deref(), Some("/b.pem"));
        assert_eq!(global.ca("a.pem").as_deref(), Some("a.pem"));
        for name in ["", "certs/", "@store/a", "${DIR}/a.pem"] {
            assert_eq!(global.crt(name), None, "{name}");
        }
    }
}
