//! Reads the files of the corpus, whose format `tests/corpus/README.md` describes.

use std::collections::HashSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The variable of the environment with which known differences are run, too.
const RUN_ALL: &str = "CORPUS_ALL";

/// One case: bytes that one side sends, and what the other side gets.
pub(super) struct Case {
    /// File and title.
    pub(super) name: String,
    /// The lines with `?`: the request to which the bytes are the response.
    pub(super) asked: Vec<String>,
    pub(super) steps: Vec<Step>,
    outcomes: Vec<Outcome>,
}

pub(super) enum Step {
    Send(Vec<u8>),
    /// The text after `!`.
    Act(String),
}

/// One line with `=`, and the lines with `<` after it.
pub(super) struct Outcome {
    /// The condition, or empty.
    only: String,
    /// The text after `=` and the condition.
    pub(super) text: String,
    /// The lines after `<`.
    pub(super) lines: Vec<String>,
}

impl Case {
    /// The outcomes under the first of these conditions that has any, else those without a condition.
    pub(super) fn outcomes(&self, conditions: &[&str]) -> Vec<&Outcome> {
        let of = |condition: &str| {
            let all = self.outcomes.iter();
            all.filter(|outcome| outcome.only == condition)
                .collect::<Vec<_>>()
        };
        let given = conditions.iter().map(|condition| of(condition));
        let mut given = given.filter(|outcomes| !outcomes.is_empty());
        given.next().unwrap_or_else(|| of(""))
    }

    /// All bytes that are sent.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let sent = self.steps.iter().map(|step| match step {
            Step::Send(bytes) => bytes.as_slice(),
            Step::Act(_) => &[],
        });
        sent.collect::<Vec<_>>().concat()
    }
}

impl Outcome {
    /// The bytes of the lines with `<`.
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.lines.iter().flat_map(|line| wire_line(line)).collect()
    }

    /// The number at the beginning of the text, and the rest.
    pub(super) fn status(&self) -> Option<(u16, &str)> {
        let (status, rest) = self.text.split_once(' ').unwrap_or((&self.text, ""));
        Some((status.parse().ok()?, rest))
    }

    pub(super) fn is(&self, text: &str) -> bool {
        self.text == text
    }
}

/// A file or directory of the corpus.
fn place(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    root.join("tests/corpus").join(name)
}

/// Reads all cases of `tests/corpus/KIND`, sorted by file. `decode`: makes bytes of a line after `>`.
pub(super) fn read_all(kind: &str, decode: fn(&str) -> Vec<u8>) -> Vec<Case> {
    let files = fs::read_dir(place(kind)).expect("a directory of the corpus");
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    let read_file = |file: &PathBuf| {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        read(&name, &fs::read_to_string(file).unwrap(), decode)
    };
    let cases: Vec<Case> = files.iter().flat_map(read_file).collect();
    let mut names = HashSet::new();
    for case in &cases {
        assert!(names.insert(&case.name), "two cases {}", case.name);
        assert!(!case.outcomes.is_empty(), "{}: no outcome", case.name);
    }
    cases
}

/// The cases of `all` that are run in a lane: all but those that `known_differences.txt` lists for it.
pub(super) fn of_lane<'a>(all: &'a [Case], lane: &str) -> Vec<&'a Case> {
    let list = place("known_differences.txt");
    let list = fs::read_to_string(list).expect("the list");
    let title = format!("## {lane}");
    let lines = list.lines().skip_while(|line| *line != title).skip(1);
    let known = lines.take_while(|line| !line.starts_with("## "));
    let known: HashSet<_> = known.collect();
    let is_run = |case: &&Case| env::var_os(RUN_ALL).is_some() || !known.contains(&*case.name);
    let cases: Vec<_> = all.iter().filter(is_run).collect();
    eprintln!("{lane}: {} known differences", all.len() - cases.len());
    cases
}

fn read(file: &str, text: &str, decode: fn(&str) -> Vec<u8>) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if let Some(title) = line.strip_prefix("## ") {
            cases.push(Case {
                name: format!("{file}: {title}"),
                asked: Vec::new(),
                steps: Vec::new(),
                outcomes: Vec::new(),
            });
            continue;
        }
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = format!("{file}:{}", number + 1);
        let case = cases
            .last_mut()
            .unwrap_or_else(|| panic!("{place}: no title yet"));
        let rest = line.get(1..).unwrap_or_default();
        let rest = rest.strip_prefix(' ').unwrap_or(rest);
        match line.chars().next() {
            Some('>') => case.steps.push(Step::Send(decode(rest))),
            Some('!') => case.steps.push(Step::Act(rest.to_owned())),
            Some('?') => case.asked.push(rest.to_owned()),
            Some('<') => {
                let last = case.outcomes.last_mut();
                let last = last.unwrap_or_else(|| panic!("{place}: no outcome yet"));
                last.lines.push(rest.to_owned());
            }
            Some('=') => {
                let (only, text) = line[1..].split_once(' ').unwrap_or((&line[1..], ""));
                case.outcomes.push(Outcome {
                    only: only.to_owned(),
                    text: text.to_owned(),
                    lines: Vec::new(),
                });
            }
            _ => panic!("{place}: `{line}`"),
        }
    }
    cases
}

/// The bytes of a line, with CRLF unless it ends in one backslash.
pub(super) fn wire_line(line: &str) -> Vec<u8> {
    let escapes = line.len() - line.trim_end_matches('\\').len();
    match line.strip_suffix('\\') {
        Some(line) if escapes % 2 == 1 => unescape(line),
        _ => [unescape(line), b"\r\n".to_vec()].concat(),
    }
}

/// The bytes of a text with `\r`, `\n`, `\t`, `\0`, `\\`, `\xHH` and `\{text*count}`.
pub(super) fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some((before, escape)) = rest.split_once('\\') {
        bytes.extend_from_slice(before.as_bytes());
        let (kind, after) = escape.split_at_checked(1).expect("an escape");
        rest = after;
        match kind {
            "r" => bytes.push(b'\r'),
            "n" => bytes.push(b'\n'),
            "t" => bytes.push(b'\t'),
            "0" => bytes.push(0),
            "\\" => bytes.push(b'\\'),
            "x" => {
                let (digits, after) = after.split_at(2);
                bytes.push(u8::from_str_radix(digits, 16).expect("two digits"));
                rest = after;
            }
            "{" => {
                let (inner, after) = after.split_once('}').expect("a brace that closes");
                let (part, count) = inner.rsplit_once('*').expect("text*count");
                bytes.extend(unescape(part).repeat(count.parse().expect("a count")));
                rest = after;
            }
            _ => panic!("unknown escape in `{text}`"),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

/// The bytes of hexadecimal digits; blanks, and what follows `#`, are ignored.
pub(super) fn hex(line: &str) -> Vec<u8> {
    let digits = line.split('#').next().unwrap_or_default();
    let digits: Vec<_> = digits.bytes().filter(|byte| *byte != b' ').collect();
    let byte = |pair: &[u8]| {
        let pair = str::from_utf8(pair).unwrap();
        u8::from_str_radix(pair, 16).unwrap_or_else(|_| panic!("`{pair}` in `{line}`"))
    };
    digits.chunks(2).map(byte).collect()
}

#[test]
fn corpus_escapes_are_read() {
    assert_eq!(wire_line("a\\x00\\t\\\\"), b"a\x00\t\\\r\n");
    assert_eq!(wire_line("a\\{b\\n*2}\\"), b"ab\nb\n");
    assert_eq!(hex("00 0a0B # c"), [0, 10, 11]);
}
