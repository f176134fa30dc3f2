//! The files in `conf/`: all are valid; the reference shows every key and the real defaults.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::config::raw::{self, YamlNode, YamlValue};
use crate::config::report::Problems;
use crate::config::schema::SectionSchema;
use crate::config::sections;
use crate::config::{check_text, parse};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf");

#[test]
fn shipped_configuration_files_are_all_valid() {
    let examples = yaml_files(&Path::new(FOLDER).join("examples"));
    assert!(examples.len() >= 7);
    for path in yaml_files(Path::new(FOLDER)).iter().chain(&examples) {
        let name = path.display().to_string();
        let (config, report) = check_text(&name, &fs::read_to_string(path).unwrap());
        assert!(config.is_some() && report.is_empty(), "{report}");
    }
}

#[test]
fn minimal_configuration_has_ten_lines() {
    let text = fs::read_to_string(Path::new(FOLDER).join("minimal.yaml")).unwrap();
    assert_eq!(text.lines().count(), 10);
}

#[test]
fn reference_configuration_shows_every_key() {
    let tree = tree(&uncommented(&reference()));
    for section in sections::ROOT.with_nested() {
        let written = keys_at(&tree, section);
        for key in section.keys {
            assert!(
                written.contains(key),
                "`{key}` of {} is not shown",
                section.title
            );
        }
    }
}

#[test]
fn reference_configuration_states_the_real_defaults() {
    let required = "listeners: [{address: 0.0.0.0:8080}]\nroutes: [{upstream: app}]\n\
                    upstreams: {app: {peers: [127.0.0.1:9001]}}\n";
    let expected = parse("required.yaml", required).unwrap();
    assert_eq!(parse("clockwise.yaml", &reference()).unwrap(), expected);
}

#[test]
fn reference_configuration_alternatives_are_all_valid() {
    let text = reference();
    let lines: Vec<&str> = text.lines().collect();
    let alternatives = (0..lines.len()).filter(|line| uncomment(lines[*line]).is_some());
    for at in alternatives {
        let text = with_required_sections(&with_alternative(&lines, at), lines[at]);
        let (_, report) = check_text("clockwise.yaml", &text);
        assert!(report.is_empty(), "{}\n{report}", lines[at]);
    }
}

/// The configurations in a folder; the rules for Prometheus are none.
fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.extension().is_some_and(|ext| ext == "yaml"))
        .filter(|path| !path.ends_with("alerts.yaml"))
        .collect()
}

fn reference() -> String {
    fs::read_to_string(Path::new(FOLDER).join("clockwise.yaml")).unwrap()
}

/// The line without its `#` if it is an alternative, `#key: …`. Comments have a space after the `#`.
fn uncomment(line: &str) -> Option<String> {
    let start = line.find(|c| c != ' ')?;
    let key = line[start..]
        .strip_prefix('#')
        .filter(|rest| !rest.starts_with(' '))?;
    let is_key = key
        .split(':')
        .next()?
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b == b'_');
    (is_key && key.contains(": ")).then(|| format!("{}{key}", &line[..start]))
}

fn uncommented(text: &str) -> String {
    let lines = text
        .lines()
        .map(|line| uncomment(line).unwrap_or_else(|| line.to_owned()));
    lines.collect::<Vec<_>>().join("\n")
}

/// The file with the alternative of line `at` in place of the same key above it, if there is one.
fn with_alternative(lines: &[&str], at: usize) -> String {
    let alternative = uncomment(lines[at]).unwrap();
    let key = &alternative[..=alternative.find(':').unwrap()];
    let indent = alternative.find(|c| c != ' ').unwrap();
    let above = (0..at)
        .rev()
        .take_while(|line| is_within(lines[*line], indent));
    let replaced = above.filter(|line| lines[*line].starts_with(key)).last();
    let end = replaced.map(|first| end_of_block(lines, first, indent));
    let rest = (0..lines.len()).filter(|line| {
        let inside = replaced
            .zip(end)
            .is_some_and(|(first, end)| (first..end).contains(line));
        !inside || *line == at
    });
    let text = rest.map(|line| {
        if line == at {
            alternative.as_str()
        } else {
            lines[line]
        }
    });
    let text = text.collect::<Vec<_>>().join("\n");
    match required_setting(lines[at]) {
        Some((key, setting)) => replace_line(&text, &format!("    {key}: "), setting),
        None => text,
    }
}

/// The setting that an alternative requires, from its comment: "with `KEY: VALUE`".
fn required_setting(line: &str) -> Option<(&str, &str)> {
    let (_, after) = line.split_once("ith `")?;
    let (setting, _) = after.split_once('`')?;
    Some((setting.split_once(": ")?.0, setting))
}

/// Replaces the last line that begins with `prefix`: upstreams are the last section with such keys.
fn replace_line(text: &str, prefix: &str, with: &str) -> String {
    let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
    let last = lines.iter().rposition(|line| line.starts_with(prefix));
    lines[last.unwrap()] = format!("    {with}");
    lines.join("\n")
}

/// Adds the sections without which the alternative in `line` is invalid.
fn with_required_sections(text: &str, line: &str) -> String {
    let line = line.trim_start();
    if line.contains("{acme: ") {
        return text.replacen("\nacme: off", "\nacme: {challenge: tls-alpn-01}", 1);
    }
    if line.starts_with("#acme: ") {
        let listener = "\n  - {address: 0.0.0.0:443, tls: {acme: example.org}}\n  - address";
        return text.replacen("\n  - address", listener, 1);
    }
    if line.contains("[{etcd: ") {
        let cluster = "\netcd: {endpoints: [\"http://127.0.0.1:2379\"]}\npool_size: ";
        return text.replacen("\npool_size: ", cluster, 1);
    }
    text.to_owned()
}

/// Whether the line belongs to the map whose keys start in column `indent`.
fn is_within(line: &str, indent: usize) -> bool {
    line.find(|c| c != ' ').is_some_and(|start| start >= indent)
}

fn end_of_block(lines: &[&str], first: usize, indent: usize) -> usize {
    let inside = |line: &&str| is_within(line, indent + 1);
    first
        + 1
        + lines[first + 1..]
            .iter()
            .take_while(|line| inside(line))
            .count()
}

fn tree(text: &str) -> YamlNode {
    let empty = raw::EmptyDocument {
        message: "empty",
        help: "",
    };
    raw::read(text, &empty, &Problems::default()).unwrap()
}

/// All keys of the maps of `section`.
fn keys_at<'a>(root: &'a YamlNode, section: &SectionSchema) -> BTreeSet<&'a str> {
    let steps = section.path.split('.').filter(|step| !step.is_empty());
    let maps = steps.fold(vec![root], |nodes, step| {
        nodes
            .into_iter()
            .flat_map(|node| children(node, step))
            .collect()
    });
    maps.into_iter()
        .flat_map(entries)
        .map(|(key, _)| key)
        .collect()
}

fn children<'a>(node: &'a YamlNode, step: &str) -> Vec<&'a YamlNode> {
    let name = step.trim_end_matches("[]");
    let found = entries(node)
        .into_iter()
        .filter(|(key, _)| name == "NAME" || *key == name);
    found
        .flat_map(|(_, value)| {
            if step.ends_with("[]") {
                items(value)
            } else {
                vec![value]
            }
        })
        .collect()
}

fn entries(node: &YamlNode) -> Vec<(&str, &YamlNode)> {
    match &node.value {
        YamlValue::Map(entries) => entries.iter().map(|e| (e.key.as_str(), &e.value)).collect(),
        YamlValue::Scalar(_) | YamlValue::List(_) => Vec::new(),
    }
}

fn items(node: &YamlNode) -> Vec<&YamlNode> {
    match &node.value {
        YamlValue::List(items) => items.iter().collect(),
        YamlValue::Scalar(_) | YamlValue::Map(_) => vec![node],
    }
}
