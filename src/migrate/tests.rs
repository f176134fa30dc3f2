//! `tests/golden/migrate/*.in`: a configuration of another system; in the same directory its YAML (`.yaml`,
//! missing if the configuration is refused) and its notes (`.notes`).
//!
//! `BLESS=1 cargo test golden` rewrites the expected files; read the diff before you commit it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

use proptest::prelude::*;

use super::{Language, SourceFile, Translation, translate};
use crate::config::{self, Report};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/migrate");
const LANGUAGES: [Language; 3] = [Language::Nginx, Language::Haproxy, Language::Envoy];

#[test]
fn migrate_golden_cases() {
    let bless = env::var_os("BLESS").is_some();
    let mut failures = String::new();
    for path in cases() {
        let (yaml, notes) = translate_case(&path);
        for (extension, actual) in [("yaml", yaml), ("notes", notes)] {
            let beside = path.with_extension(extension);
            let expected = fs::read_to_string(&beside).unwrap_or_default();
            if bless && actual.is_empty() {
                let _ = fs::remove_file(&beside);
            } else if bless {
                fs::write(&beside, &actual).unwrap();
            } else if actual != expected {
                writeln!(failures, "{}:\n{actual}", beside.display()).unwrap();
            }
        }
    }
    assert!(failures.is_empty(), "golden cases differ:\n{failures}");
}

#[test]
fn migrated_yaml_is_a_valid_configuration() {
    for path in cases() {
        let (yaml, _) = translate_case(&path);
        if !yaml.is_empty() {
            let (_, report) = config::check_text("clockwise.yaml", &yaml);
            assert!(
                !report.has_errors(),
                "{}:\n{report}\n{yaml}",
                path.display()
            );
        }
    }
}

fn cases() -> Vec<PathBuf> {
    let entries = fs::read_dir(FOLDER).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let mut cases: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|ext| ext == "in"))
        .collect();
    cases.sort();
    assert!(cases.len() > 20);
    cases
}

/// The YAML and the notes, both as text.
fn translate_case(path: &Path) -> (String, String) {
    let (language, subject) = language(path);
    match read(language, subject, fs::read_to_string(path).unwrap()) {
        Ok(Translation { yaml, notes, gaps }) => {
            let mut text = String::new();
            for note in notes {
                writeln!(text, "{note}").unwrap();
            }
            writeln!(text, "{gaps} not translated").unwrap();
            (yaml, text)
        }
        Err(report) => (String::new(), format!("{report}\n")),
    }
}

fn language(path: &Path) -> (Language, &'static str) {
    let name = path.file_name().unwrap().to_string_lossy();
    match name.split_once('-').unwrap().0 {
        "nginx" => (Language::Nginx, "nginx.conf"),
        "haproxy" => (Language::Haproxy, "haproxy.cfg"),
        _ => (Language::Envoy, "envoy.yaml"),
    }
}

fn read(language: Language, name: &str, text: String) -> Result<Translation, Report> {
    let file = SourceFile {
        name: name.to_owned(),
        text,
    };
    translate(language, file, &|pattern: &str| {
        if pattern.contains('*') {
            return Ok(Vec::new());
        }
        let path = Path::new(FOLDER).join("include").join(pattern);
        let text = fs::read_to_string(path).map_err(|_| "there is no such file".to_owned())?;
        Ok(vec![SourceFile {
            name: pattern.to_owned(),
            text,
        }])
    })
}

#[test]
fn migrate_refuses_a_file_that_includes_itself() {
    let text = "include nginx.conf;";
    let file = |name: &str| SourceFile {
        name: name.to_owned(),
        text: text.to_owned(),
    };
    let again = |pattern: &str| Ok(vec![file(pattern)]);
    let report = translate(Language::Nginx, file("nginx.conf"), &again).unwrap_err();
    assert!(report.to_string().contains("includes itself"), "{report}");
    let twice = |pattern: &str| Ok(vec![file(pattern), file(pattern)]);
    let report = translate(Language::Nginx, file("nginx.conf"), &twice).unwrap_err();
    assert!(report.to_string().contains("includes itself"), "{report}");
}

#[test]
fn migrate_of_ten_megabytes_finishes_or_is_refused() {
    let parts = [
        ("", "x", ""),
        ("", "a { ", ""),
        ("", "a;", ""),
        ("", "\"", ""),
        ("", "server a 10.0.0.1:80 weight 2 disabled\n", ""),
        (
            "defaults\nmode http\nbackend a\n",
            "  server a 10.0.0.1:80\n",
            "",
        ),
        ("upstream a {", "server 10.0.0.1:80;\n", "}"),
        ("", "server { location /a { proxy_pass http://a; } }\n", ""),
        ("http { ", "gzip on;", "}"),
        ("static_resources: ", "[", ""),
        ("static_resources: {clusters: [", "{name: a}, ", "]}"),
        (
            "defaults\nmode http\nfrontend a\n",
            "  use_backend b if { path_beg /a }\n",
            "",
        ),
    ];
    for (head, part, tail) in parts {
        let text = format!("{head}{}{tail}", part.repeat((10 << 20) / part.len()));
        let language = match part {
            _ if head.starts_with("static") => Language::Envoy,
            _ if head.starts_with("defaults") || part.ends_with("disabled\n") => Language::Haproxy,
            _ => Language::Nginx,
        };
        let _ = read(language, "big", text);
    }
}

#[test]
fn migrate_detects_the_language_from_the_file_name() {
    for (name, language) in [
        ("/etc/nginx/nginx.conf", Some(Language::Nginx)),
        ("sites/shop.conf", Some(Language::Nginx)),
        ("haproxy.cfg", Some(Language::Haproxy)),
        ("haproxy.conf", Some(Language::Haproxy)),
        ("envoy.json", Some(Language::Envoy)),
        ("edge.yml", Some(Language::Envoy)),
        ("config", None),
    ] {
        assert_eq!(Language::from_path(Path::new(name)), language, "{name}");
    }
}

/// Words of the three languages, so that random texts pass the parsers.
const WORDS: &[&str] = &[
    "http",
    "server",
    "upstream",
    "location",
    "listen",
    "hash",
    "consistent",
    "proxy_pass",
    "include",
    "http://a",
    "a",
    "/",
    "/x",
    "=",
    "~",
    "80",
    "10.0.0.1:80",
    "[::]:80",
    "weight=2",
    "down",
    "$uri",
    "$",
    "${",
    "defaults",
    "frontend",
    "backend",
    "mode",
    "bind",
    "use_backend",
    "if",
    "or",
    "{",
    "}",
    ";",
    "\n",
    "\n  ",
    "\"",
    "'",
    "\\",
    "#",
    "balance",
    "uri",
    "source",
    "hash-type",
    "id",
    "weight",
    "option",
    "httpchk",
    "static_resources:",
    "clusters:",
    "- ",
    "name:",
    "[",
    "]",
    ": ",
    ", ",
    "&a",
    "*a",
    "0",
    "99999999999999999999",
    "é",
    "\u{feff}",
    "timeout",
    "5s",
    "map",
    "server_name",
    "*.a",
    ".a",
    "acl",
    "hdr(host)",
    "path_beg",
];

fn words() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        prop::sample::select(WORDS).prop_map(str::to_owned),
        "\\PC{0,3}"
    ];
    prop::collection::vec((word, prop::bool::ANY), 0..80).prop_map(|words| {
        let each = words
            .into_iter()
            .map(|(word, space)| if space { word + " " } else { word });
        each.collect()
    })
}

/// Edge values for a number, a duration, a name or an address.
const EDGES: &[&str] = &[
    "0",
    "1",
    "7",
    "100",
    "5000",
    "100000",
    "18446744073709551615",
    "1us",
    "1ms",
    "0.001s",
    "30s",
    "400d",
    "-1",
    "off",
    "auto",
    "x",
    "a.example",
    "a..b",
    "/a",
    "//",
    "/a?b#c",
    "$",
    "$cookie_a",
    "é",
    "a\\ b",
    "10.0.0.1:80",
    "[::1]:65536",
    "::",
];

/// A golden configuration with one word replaced.
fn edged() -> impl Strategy<Value = (usize, String)> {
    let cases: Vec<_> = cases()
        .into_iter()
        .map(|path| (language(&path).0, fs::read_to_string(path).unwrap()))
        .filter(|(language, text)| read(*language, "whole", text.clone()).is_ok())
        .collect();
    let edge = prop::sample::select(EDGES);
    (0..cases.len(), prop::num::usize::ANY, edge).prop_map(move |(case, word, edge)| {
        let (language, text) = &cases[case];
        let inside = |c: char| !c.is_whitespace() && !"{}[]();,=\"'".contains(c);
        let mut words: Vec<(usize, usize)> = Vec::new();
        for (at, c) in text.char_indices().filter(|(_, c)| inside(*c)) {
            match words.last_mut() {
                Some((_, end)) if *end == at => *end = at + c.len_utf8(),
                _ => words.push((at, at + c.len_utf8())),
            }
        }
        let (start, end) = words[word % words.len()];
        let index = LANGUAGES.iter().position(|known| known == language);
        (
            index.unwrap(),
            [&text[..start], edge, &text[end..]].concat(),
        )
    })
}

/// A golden configuration with a part replaced by random words.
fn damaged() -> impl Strategy<Value = (usize, String)> {
    let cases: Vec<String> = ["nginx-shop.in", "haproxy-shop.in", "envoy-shop.in"]
        .map(|name| fs::read_to_string(Path::new(FOLDER).join(name)).unwrap())
        .to_vec();
    (0..3_usize, prop::num::usize::ANY, 0..40_usize, words()).prop_map(
        move |(index, at, length, new)| {
            let text: Vec<char> = cases[index].chars().collect();
            let at = at % text.len();
            let tail = text[(at + length).min(text.len())..].iter();
            (
                index,
                text[..at]
                    .iter()
                    .chain(new.chars().collect::<Vec<_>>().iter())
                    .chain(tail)
                    .collect(),
            )
        },
    )
}

proptest! {
    #[test]
    fn migrate_of_random_text_does_not_panic(text in prop_oneof![words(), "\\PC{0,200}", "(?s).{0,100}"]) {
        for language in LANGUAGES {
            let _ = read(language, "random", text.clone());
        }
    }

    #[test]
    fn migrate_of_a_damaged_configuration_gives_valid_yaml_or_an_error((index, text) in damaged()) {
        if let Ok(translation) = read(LANGUAGES[index], "damaged", text) {
            let (_, report) = config::check_text("damaged.yaml", &translation.yaml);
            prop_assert!(!report.has_errors(), "{report}\n{}", translation.yaml);
        }
    }

    #[test]
    fn migrate_with_random_words_gives_valid_yaml((index, text) in edged()) {
        if let Ok(translation) = read(LANGUAGES[index], "edged", text) {
            let (_, report) = config::check_text("edged.yaml", &translation.yaml);
            prop_assert!(!report.has_errors(), "{report}\n{}", translation.yaml);
        }
    }
}
