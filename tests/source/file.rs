//! A file of `src` as the checks read it: parsed, without its tests.
//!
//! `syn` gives the syntax tree and `proc-macro2` the tokens with their place. Ordinary comments are in neither:
//! they are the text between two tokens that is not blank.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::{Attribute, ImplItem, Item, TraitItem};

/// One file of `src`, without its tests.
pub(crate) struct SourceFile {
    /// Its path under `src`, with `/` between the parts.
    pub(crate) path: String,
    /// The whole text, tests included.
    pub(crate) text: String,
    /// The items, without those that are compiled for tests only.
    pub(crate) items: Vec<Item>,
    /// Tokens and comments in their order, without those of tests.
    pub(crate) pieces: Vec<Piece>,
    /// The offset at which each line begins.
    lines: Vec<usize>,
}

/// A token or a comment.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Piece {
    pub(crate) kind: Kind,
    pub(crate) range: Range<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    Ident,
    /// A literal with quotes: a string, bytes, or a character.
    Text,
    /// A doc comment or an ordinary one.
    Comment,
    /// A number, a lifetime, or punctuation.
    Other,
}

/// Every file of `src` that is not a test, sorted by path.
pub(crate) fn all() -> Vec<SourceFile> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../src");
    let mut paths = Vec::new();
    collect(&root, &mut paths);
    paths.sort();
    assert!(!paths.is_empty(), "no Rust file in {}", root.display());
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_string_lossy();
        SourceFile::new(&name.replace('\\', "/"), &fs::read_to_string(path).unwrap())
    };
    paths.iter().map(read).collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

impl SourceFile {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let parsed = syn::parse_file(text);
        assert!(parsed.is_ok(), "src/{path}: {:?}", parsed.err());
        let mut items = parsed.unwrap().items;
        let mut tests = Vec::new();
        strip_tests(&mut items, &mut tests);
        let mut pieces = pieces(text);
        pieces.retain(|piece| !tests.iter().any(|test| test.contains(&piece.range.start)));
        let starts = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            path: path.to_owned(),
            items,
            pieces,
            lines: [0].into_iter().chain(starts).collect(),
            text: text.to_owned(),
        }
    }

    /// The top-level module of the file: `route` for `route/host.rs`.
    pub(crate) fn room(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.trim_end_matches(".rs")
    }

    /// The number of the line at this offset, from 1.
    pub(crate) fn line(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }

    pub(crate) fn text_of(&self, piece: &Piece) -> &str {
        &self.text[piece.range.clone()]
    }

    /// The numbers of the lines with code on them: not blank, not a comment, not of a test.
    pub(crate) fn code_lines(&self) -> BTreeSet<usize> {
        let code = self.pieces.iter().filter(|p| p.kind != Kind::Comment);
        code.flat_map(|p| self.line(p.range.start)..=self.line(p.range.end - 1))
            .collect()
    }

    /// The text with everything blanked but code: lines and columns stay.
    pub(crate) fn code(&self) -> String {
        let blank = |text: &str| -> String {
            text.chars()
                .map(|c| if c == '\n' { c } else { ' ' })
                .collect()
        };
        let mut code = String::new();
        let mut end = 0;
        for piece in &self.pieces {
            code += &blank(&self.text[end..piece.range.start]);
            match piece.kind {
                Kind::Text | Kind::Comment => code += &blank(self.text_of(piece)),
                Kind::Ident | Kind::Other => code += self.text_of(piece),
            }
            end = piece.range.end;
        }
        code
    }
}

/// Takes the items that are compiled for tests only out of `items`, and notes their positions.
fn strip_tests(items: &mut Vec<Item>, tests: &mut Vec<Range<usize>>) {
    items.retain(|item| keep(attributes(item), item, tests));
    for item in items {
        match item {
            Item::Mod(module) => {
                if let Some((_, inner)) = &mut module.content {
                    strip_tests(inner, tests);
                }
            }
            Item::Impl(block) => block.items.retain(|item| match item {
                ImplItem::Fn(function) => keep(&function.attrs, item, tests),
                ImplItem::Const(constant) => keep(&constant.attrs, item, tests),
                _ => true,
            }),
            Item::Trait(block) => block.items.retain(|item| match item {
                TraitItem::Fn(function) => keep(&function.attrs, item, tests),
                _ => true,
            }),
            _ => {}
        }
    }
}

fn keep(attributes: &[Attribute], item: &impl Spanned, tests: &mut Vec<Range<usize>>) -> bool {
    let test = attributes.iter().any(is_test);
    if test {
        tests.push(item.span().byte_range());
    }
    !test
}

/// `#[test]`, `#[cfg(test)]` or `#[cfg(all(test, …))]`.
fn is_test(attribute: &Attribute) -> bool {
    let condition = attribute
        .meta
        .require_list()
        .map(|list| list.tokens.to_string());
    attribute.path().is_ident("test")
        || attribute.path().is_ident("cfg")
            && condition.is_ok_and(|text| text == "test" || text.starts_with("all (test"))
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// All tokens and comments of `text`, in their order.
fn pieces(text: &str) -> Vec<Piece> {
    let mut tokens = Vec::new();
    flatten(text.parse().unwrap(), &mut tokens);
    let mut pieces = Vec::new();
    let mut end = 0;
    for token in tokens {
        pieces.extend(comment(text, end..token.range.start));
        end = token.range.end;
        pieces.push(token);
    }
    pieces.extend(comment(text, end..text.len()));
    pieces
}

/// The comment in the gap between two tokens.
fn comment(text: &str, gap: Range<usize>) -> Option<Piece> {
    let between = &text[gap.clone()];
    let start = gap.start + between.find('/')?;
    let range = start..start + text[start..gap.end].trim_end().len();
    let kind = Kind::Comment;
    Some(Piece { kind, range })
}

fn flatten(stream: TokenStream, pieces: &mut Vec<Piece>) {
    let trees: Vec<_> = stream.into_iter().collect();
    let mut rest = &trees[..];
    while let [first, after @ ..] = rest {
        if let Some((range, length)) = doc_comment(rest) {
            let kind = Kind::Comment;
            pieces.push(Piece { kind, range });
            rest = &rest[length..];
        } else {
            flatten_tree(first, pieces);
            rest = after;
        }
    }
}

fn flatten_tree(tree: &TokenTree, pieces: &mut Vec<Piece>) {
    let kind = match tree {
        TokenTree::Ident(_) => Kind::Ident,
        TokenTree::Literal(literal) if literal.to_string().contains(['"', '\'']) => Kind::Text,
        TokenTree::Punct(_) | TokenTree::Literal(_) => Kind::Other,
        TokenTree::Group(group) => {
            let (open, close) = (group.span_open(), group.span_close());
            pieces.push(other(open.byte_range()));
            flatten(group.stream(), pieces);
            pieces.push(other(close.byte_range()));
            return;
        }
    };
    let range = tree.span().byte_range();
    pieces.push(Piece { kind, range });
}

fn other(range: Range<usize>) -> Piece {
    let kind = Kind::Other;
    Piece { kind, range }
}

/// The place of the doc comment at the head of `trees`, and its number of trees: `#`, perhaps `!`, `[doc = "…"]`.
fn doc_comment(trees: &[TokenTree]) -> Option<(Range<usize>, usize)> {
    let is =
        |tree: Option<&TokenTree>, c| matches!(tree, Some(TokenTree::Punct(p)) if p.as_char() == c);
    let first = trees.first().filter(|tree| is(Some(tree), '#'))?;
    let at = 1 + usize::from(is(trees.get(1), '!'));
    let TokenTree::Group(group) = trees.get(at)? else {
        return None;
    };
    let mut inner = group.stream().into_iter();
    let name = inner.next()?;
    let assigns = is(inner.next().as_ref(), '=');
    let range = first.span().byte_range().start..group.span_close().byte_range().end;
    (assigns && matches!(name, TokenTree::Ident(name) if name == "doc")).then_some((range, at + 1))
}

mod the_check_itself {
    use super::*;

    #[test]
    fn tokens_comments_and_strings_are_distinguished() {
        let text =
            "//! a\n/// b\nfn c() { \"// d\"; 'e'; 'f: loop {} /* g\n*/ } // h \"i\"\n// ü j\n\n";
        let file = SourceFile::new("a.rs", text);
        let texts = |kind| -> Vec<_> {
            let pieces = file.pieces.iter().filter(move |piece| piece.kind == kind);
            pieces.map(|piece| file.text_of(piece)).collect()
        };
        assert_eq!(
            texts(Kind::Comment),
            ["//! a", "/// b", "/* g\n*/", "// h \"i\"\n// ü j"]
        );
        assert_eq!(texts(Kind::Text), ["\"// d\"", "'e'"]);
        assert_eq!(texts(Kind::Ident), ["fn", "c", "f", "loop"]);
        assert_eq!(
            file.code_lines().into_iter().collect::<Vec<_>>(),
            [3, 4],
            "comments are no code"
        );
        let code = file.code();
        assert!(code.lines().nth(2).unwrap().starts_with("fn c() { "));
        assert!(!code.contains('d'), "strings are blanked");
    }

    #[test]
    fn tests_are_left_out_at_any_position() {
        let text = "use a::b;\n/// c\n#[cfg(test)]\nmod tests { use d; }\nimpl E {\n#[cfg(test)]\nfn f() {}\nfn g() {}\n}\n#[cfg(not(test))]\nfn h() {}\n";
        let file = SourceFile::new("a.rs", text);
        let code: String = file.code().split_whitespace().collect();
        assert_eq!(code, "usea::b;implE{fng(){}}#[cfg(not(test))]fnh(){}");
        assert_eq!(file.items.len(), 3);
        assert!(file.pieces.iter().all(|piece| piece.kind != Kind::Comment));
    }
}
