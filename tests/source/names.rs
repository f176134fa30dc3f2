//! One type name, one meaning: no two modules of the crate define a type of the same name.

use std::collections::BTreeMap;

use proc_macro2::Ident;
use syn::Item;

use crate::file::{self, SourceFile};

/// Type names that more than one module defines. The aim is 0.
const DUPLICATE_NAMES: usize = 0;

/// Names that any module may define.
const FREE: &[&str] = &["Error"];

/// File names that do not describe the content.
const VAGUE: &[&str] = &[
    "utils", "util", "helpers", "common", "types", "tools", "misc",
];

#[test]
fn type_names_are_defined_once() {
    let findings = duplicates(&file::all());
    let figure = format!("duplicate type names: {}", findings.len());
    crate::check(
        "names",
        &figure,
        (findings.len(), DUPLICATE_NAMES),
        &findings,
    );
}

#[test]
fn file_names_tell_the_content() {
    let files = file::all();
    let vague: Vec<_> = files.iter().flat_map(|file| vague(&file.path)).collect();
    assert!(vague.is_empty(), "\n{}\n", vague.join("\n"));
}

fn duplicates(files: &[SourceFile]) -> Vec<String> {
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files {
        for name in types(&file.items) {
            let line = name.span().start().line;
            let place = format!("src/{}:{line}", file.path);
            places.entry(name.to_string()).or_default().push(place);
        }
    }
    places
        .into_iter()
        .filter(|(name, places)| places.len() > 1 && !FREE.contains(&name.as_str()))
        .map(|(name, places)| format!("{}: `{name}`; rename all but one", places.join(", ")))
        .collect()
}

/// The names of the types that a module and its inline modules define.
fn types(items: &[Item]) -> Vec<&Ident> {
    items.iter().flat_map(named).collect()
}

fn named(item: &Item) -> Vec<&Ident> {
    match item {
        Item::Struct(item) => vec![&item.ident],
        Item::Enum(item) => vec![&item.ident],
        Item::Union(item) => vec![&item.ident],
        Item::Trait(item) => vec![&item.ident],
        Item::Type(item) => vec![&item.ident],
        Item::Mod(module) => match &module.content {
            Some((_, items)) => types(items),
            None => Vec::new(),
        },
        _ => Vec::new(),
    }
}

fn vague(path: &str) -> Vec<String> {
    let parts = path.trim_end_matches(".rs").split('/');
    parts
        .filter(|part| VAGUE.contains(part))
        .map(|part| format!("src/{path}:1: `{part}` does not tell the content; rename the file"))
        .collect()
}

mod the_check_itself {
    use super::*;

    #[test]
    fn a_type_name_in_two_files_is_found_error_apart() {
        let files = [
            SourceFile::new("a.rs", "struct Peer;\nenum Error {}\nstruct Own;"),
            SourceFile::new(
                "b/c.rs",
                "enum Error {}\n\nmod inner {\ntype Peer = u8; }\nimpl A for B { type Own = C; }\n#[cfg(test)]\nmod tests { struct Own; }",
            ),
        ];
        assert_eq!(
            duplicates(&files),
            ["src/a.rs:1, src/b/c.rs:4: `Peer`; rename all but one"]
        );
    }

    #[test]
    fn a_vague_file_name_is_found() {
        assert_eq!(vague("proxy/utils.rs").len(), 1);
        assert!(vague("proxy/utility.rs").is_empty());
    }
}
