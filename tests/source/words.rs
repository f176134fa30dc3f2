//! The banned words: in comments, in doc comments, in string literals and in names.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::file::{self, Kind, Piece, SourceFile};

/// The most places with a banned word: `who` may refer to a human being.
const BANNED_WORDS: usize = 20;

/// Pronouns for people; a machine has a name.
const PRONOUNS: &[&str] = &[
    "who", "whom", "whose", "whoever", "whomever", "nobody", "somebody",
];

/// Phrases without a clear subject or amount.
const PHRASES: &[&[&str]] = &[
    &["is", "none"],
    &["so", "long"],
    &["so", "many"],
    &["at", "home", "with"],
    &["in", "vain"],
    &["come", "to", "nothing"],
    &["comes", "to", "nothing"],
    &["came", "to", "nothing"],
    &["of", "what", "is"],
    &["of", "what", "was"],
];

/// Names of the standard library that contain a phrase.
const STANDARD: &[&str] = &["is_none", "is_none_or"];

#[test]
fn words_are_plain() {
    let findings: Vec<_> = file::all().iter().flat_map(banned).collect();
    let figure = format!("banned words: {}", findings.len());
    crate::check("words", &figure, (findings.len(), BANNED_WORDS), &findings);
}

/// A word in lower case.
struct Word {
    text: String,
    range: Range<usize>,
    /// Only blanks, comment marks or `_` are between it and the word before.
    joined: bool,
}

fn banned(file: &SourceFile) -> Vec<String> {
    let mut names = BTreeSet::new();
    let mut findings = Vec::new();
    for run in runs(file) {
        let name = run[0].kind == Kind::Ident;
        if name && !names.insert(file.text_of(&run[0])) {
            continue; // a name is reported once in a file, where it first stands
        }
        let words: Vec<_> = run
            .iter()
            .flat_map(|piece| words(file.text_of(piece), piece))
            .collect();
        for found in matches(&words) {
            let line = file.line(found.start);
            let text: Vec<_> = file.text[found].split_whitespace().collect();
            let text = text.join(" ");
            findings.push(if name {
                let name = file.text_of(&run[0]);
                format!(
                    "src/{}:{line}: `{text}` in the name `{name}`; rename it",
                    file.path
                )
            } else {
                let excerpt = file.text.lines().nth(line - 1).unwrap_or_default().trim();
                format!(
                    "src/{}:{line}: `{text}`; name the subject or the amount: {excerpt}",
                    file.path
                )
            });
        }
    }
    findings
}

/// The pieces with words in them; comments on consecutive lines are one run.
fn runs(file: &SourceFile) -> impl Iterator<Item = &[Piece]> {
    let joined = |a: &Piece, b: &Piece| {
        let gap = file.text.get(a.range.end..b.range.start);
        let gap = gap.is_some_and(|gap| gap.trim().is_empty() && gap.matches('\n').count() <= 1);
        gap && a.kind == Kind::Comment && b.kind == Kind::Comment
    };
    let runs = file.pieces.chunk_by(joined);
    runs.filter(|run| run[0].kind != Kind::Other)
}

fn words(text: &str, piece: &Piece) -> Vec<Word> {
    let mut words: Vec<Word> = Vec::new();
    let mut soft = true;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if piece.kind == Kind::Text && c == '\\' {
            chars.next_if(|(_, c)| !c.is_whitespace()); // `n` of `\n`
            continue;
        }
        if !c.is_alphanumeric() {
            let blank_line = c == '\n' && text[at + 1..].trim_start_matches(' ').starts_with('\n');
            soft &= c.is_whitespace() || matches!(c, '/' | '!' | '*' | '_');
            soft &= !blank_line;
            continue;
        }
        let mut end = at + c.len_utf8();
        let mut small = c.is_lowercase();
        // A capital after a small letter begins the next word of a name: `InVain`.
        let camel = |small, c: char| small && c.is_uppercase() && piece.kind == Kind::Ident;
        while let Some((at, c)) = chars.next_if(|(_, c)| c.is_alphanumeric() && !camel(small, *c)) {
            end = at + c.len_utf8();
            small = c.is_lowercase();
        }
        words.push(Word {
            text: text[at..end].to_lowercase(),
            range: piece.range.start + at..piece.range.start + end,
            joined: soft && !standard_name(text, at),
        });
        soft = true;
    }
    words
}

/// Whether the word at this offset belongs to a name of [`STANDARD`].
fn standard_name(text: &str, at: usize) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let start = text[..at].rfind(|c| !part(c)).map_or(0, |start| start + 1);
    let start = (start..=at)
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(at);
    let length = text[start..].find(|c| !part(c));
    let name = length.map_or(&text[start..], |length| &text[start..start + length]);
    STANDARD.contains(&name)
}

fn matches(words: &[Word]) -> Vec<Range<usize>> {
    let pronouns = words
        .iter()
        .filter(|word| PRONOUNS.contains(&word.text.as_str()))
        .map(|word| word.range.clone());
    let phrases = (0..words.len()).flat_map(|at| {
        let found = PHRASES.iter().filter(move |p| starts_with(&words[at..], p));
        found.map(move |p| words[at].range.start..words[at + p.len() - 1].range.end)
    });
    let mut found: Vec<_> = pronouns.chain(phrases).collect();
    found.sort_by_key(|range| range.start);
    found
}

fn starts_with(words: &[Word], phrase: &[&str]) -> bool {
    let same = words.iter().zip(phrase).filter(|(a, b)| a.text == **b);
    let joined = words.iter().take(phrase.len()).skip(1).all(|w| w.joined);
    same.count() == phrase.len() && joined
}

mod the_check_itself {
    use super::*;

    fn found(text: &str) -> Vec<(usize, String)> {
        let file = SourceFile::new("a.rs", text);
        let findings = banned(&file).into_iter().map(|finding| {
            let mut parts = finding.split([':', '`']);
            let line = parts.nth(1).unwrap().parse().unwrap();
            (line, parts.nth(1).unwrap().to_owned())
        });
        findings.collect()
    }

    fn at(line: usize, text: &str) -> (usize, String) {
        (line, text.to_owned())
    }

    #[test]
    fn words_are_found_in_comments_strings_and_names() {
        let text = "//! Who is it?\n\n/// `whole`\nfn ask_whom_first() {\n// whose is\n\"\\nnobody's\"; ask_whom_first(); }\nstruct InVain;\nconst NOBODY: u8 = 0;";
        let expected = [
            at(1, "Who"),
            at(4, "whom"),
            at(5, "whose"),
            at(6, "nobody"),
            at(7, "InVain"),
            at(8, "NOBODY"),
        ];
        assert_eq!(found(text), expected);
    }

    #[test]
    fn phrases_are_found_across_lines_but_not_across_sentences() {
        let text = "/// There is so\n/// long a wait, in\n//// vain\n// is so. Many\n\n// so\n\n// long\nfn a() {}";
        assert_eq!(found(text), [at(1, "so /// long"), at(2, "in //// vain")]);
        assert_eq!(
            found("const A: &str = \"waits_in_vain so, many\";").len(),
            1
        );
    }

    #[test]
    fn names_of_the_standard_library_are_free() {
        assert!(found("/// `a.is_none()`\nfn a() { b.is_none_or(c); }").is_empty());
        assert_eq!(found("// ü is none").len(), 1);
    }

    #[test]
    fn tests_are_not_looked_at() {
        assert!(found("#[cfg(test)]\nmod tests {\n// who\n}").is_empty());
    }
}
