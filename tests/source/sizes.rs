//! Lines of code of a file and of a function, without blank lines, comments and tests.

use std::collections::BTreeSet;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Block, ImplItemFn, ItemFn, Signature, TraitItemFn};

use crate::file::{self, SourceFile};

/// The most lines of code of a file.
const FILE_LINES: usize = 400;

/// The most lines of code of a function, from `fn` to its closing brace.
const FUNCTION_LINES: usize = 60;

/// The most lines of code of the median function.
const MEDIAN_FUNCTION: usize = 8;

/// Files above [`FILE_LINES`], with today's lines. The aim is an empty list.
const LONG_FILES: &[(&str, usize)] = &[];

/// Functions above [`FUNCTION_LINES`] as `path::name`, with today's lines. The aim is an empty list.
const LONG_FUNCTIONS: &[(&str, usize)] = &[];

/// A file or a function, and its lines of code.
#[derive(Debug, PartialEq)]
struct Size {
    /// A file's path, or a function's as `path::name`.
    name: String,
    path: String,
    line: usize,
    lines: usize,
}

#[test]
fn files_and_functions_are_short() {
    let files = file::all();
    let sizes: Vec<_> = files.iter().map(file_size).collect();
    let functions: Vec<_> = files.iter().flat_map(function_sizes).collect();
    let median = median(&functions);
    let mut findings = above(&sizes, FILE_LINES);
    let long_files = findings.len();
    findings.extend(above(&functions, FUNCTION_LINES));
    let figure = format!(
        "files above {FILE_LINES} lines: {long_files} of {}\nfunctions above {FUNCTION_LINES} lines: {} of {}\n\
         median function: {median} lines",
        sizes.len(),
        findings.len() - long_files,
        functions.len()
    );
    let mut problems = compare(&sizes, FILE_LINES, ("LONG_FILES", LONG_FILES));
    problems.extend(compare(
        &functions,
        FUNCTION_LINES,
        ("LONG_FUNCTIONS", LONG_FUNCTIONS),
    ));
    crate::report("sizes", &figure, &findings);
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
    assert!(
        median <= MEDIAN_FUNCTION,
        "the median function has {median} lines, at most {MEDIAN_FUNCTION}"
    );
}

fn file_size(file: &SourceFile) -> Size {
    Size {
        name: file.path.clone(),
        path: file.path.clone(),
        line: 1,
        lines: file.code_lines().len(),
    }
}

fn function_sizes(file: &SourceFile) -> Vec<Size> {
    let mut functions = Functions {
        file,
        code_lines: file.code_lines(),
        sizes: Vec::new(),
    };
    for item in &file.items {
        functions.visit_item(item);
    }
    functions.sizes
}

/// Collects the functions of a file that have a body.
struct Functions<'a> {
    file: &'a SourceFile,
    code_lines: BTreeSet<usize>,
    sizes: Vec<Size>,
}

impl Functions<'_> {
    fn add(&mut self, signature: &Signature, body: &Block) {
        let line = signature.span().start().line;
        let last = body.brace_token.span.close().end().line;
        self.sizes.push(Size {
            name: format!("{}::{}", self.file.path, signature.ident),
            path: self.file.path.clone(),
            line,
            lines: self.code_lines.range(line..=last).count(),
        });
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.add(&function.sig, &function.block);
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_trait_item_fn(&mut self, function: &'ast TraitItemFn) {
        if let Some(body) = &function.default {
            self.add(&function.sig, body);
        }
        visit::visit_trait_item_fn(self, function);
    }
}

fn median(functions: &[Size]) -> usize {
    let mut lines: Vec<_> = functions.iter().map(|function| function.lines).collect();
    lines.sort_unstable();
    lines.get(lines.len() / 2).copied().unwrap_or_default()
}

/// What is longer than `most`, the longest first.
fn above(sizes: &[Size], most: usize) -> Vec<String> {
    let mut long: Vec<_> = sizes.iter().filter(|size| size.lines > most).collect();
    long.sort_by_key(|size| (usize::MAX - size.lines, &size.name));
    long.into_iter().map(|size| size.finding(most)).collect()
}

impl Size {
    fn finding(&self, most: usize) -> String {
        let Self { path, line, .. } = self;
        let function = self.name.strip_prefix(path).unwrap_or_default();
        let function = match function.trim_start_matches("::") {
            "" => String::new(),
            name => format!("`{name}` has "),
        };
        format!(
            "src/{path}:{line}: {function}{} lines of code, at most {most}; split it by mechanism",
            self.lines
        )
    }
}

/// What differs from the list of exceptions, which names each once and with its exact lines.
fn compare(
    sizes: &[Size],
    most: usize,
    (list, exceptions): (&str, &[(&str, usize)]),
) -> Vec<String> {
    let mut problems = Vec::new();
    let mut left: Vec<_> = exceptions.to_vec();
    let long: Vec<_> = sizes.iter().filter(|size| size.lines > most).collect();
    // Functions of the same name in one file are distinguished by their lines.
    let (exact, rest): (Vec<_>, Vec<_>) = long.into_iter().partition(|size| {
        let at = left
            .iter()
            .position(|entry| *entry == (&size.name, size.lines));
        at.map(|at| left.remove(at)).is_some()
    });
    drop(exact);
    for size in rest {
        let allowed = left.iter().position(|(name, _)| *name == size.name);
        let allowed = allowed.map(|at| left.remove(at).1);
        match allowed {
            Some(allowed) if size.lines < allowed => problems.push(format!(
                "{list} in tests/source/sizes.rs: lower `{}` from {allowed} to {}",
                size.name, size.lines
            )),
            Some(allowed) => problems.push(size.finding(allowed)),
            None => problems.push(size.finding(most)),
        }
    }
    let gone = left.iter().map(|(name, _)| {
        format!("{list} in tests/source/sizes.rs: remove `{name}`, it has at most {most} lines")
    });
    problems.extend(gone);
    problems
}

mod the_check_itself {
    use super::*;

    #[test]
    fn blank_lines_comments_and_tests_do_not_count() {
        let text = "//! a\n\nfn b(\nc: u8,\n) {\n\n// d\nlet _ = \"e\n\nf\";\n}\n\n#[cfg(test)]\nmod tests {\nfn g() {}\n}\n";
        let file = SourceFile::new("a.rs", text);
        assert_eq!(file_size(&file).lines, 7);
        let functions = function_sizes(&file);
        assert_eq!(functions.len(), 1);
        assert_eq!((functions[0].line, functions[0].lines), (3, 7));
        assert_eq!(
            functions[0].finding(6),
            "src/a.rs:3: `b` has 7 lines of code, at most 6; split it by mechanism"
        );
    }

    #[test]
    fn functions_in_traits_impls_and_functions_count() {
        let text = "trait A { fn b(); fn c() {} }\nimpl D { fn e() { fn f() {} } }";
        let functions = function_sizes(&SourceFile::new("a.rs", text));
        assert_eq!(functions.len(), 3);
        assert_eq!(median(&functions), 1);
    }

    #[test]
    fn exceptions_are_exact() {
        let size = |name: &str, lines| Size {
            name: name.to_owned(),
            path: name.to_owned(),
            line: 1,
            lines,
        };
        let sizes = [size("a", 9), size("b", 8), size("c", 7), size("d", 3)];
        let exact = [("a", 9), ("b", 8), ("c", 7)];
        assert!(compare(&sizes, 6, ("L", &exact)).is_empty());
        let other = [("a", 10), ("b", 7), ("d", 9)];
        assert_eq!(
            compare(&sizes, 6, ("L", &other)),
            [
                "L in tests/source/sizes.rs: lower `a` from 10 to 9",
                "src/b:1: 8 lines of code, at most 7; split it by mechanism",
                "src/c:1: 7 lines of code, at most 6; split it by mechanism",
                "L in tests/source/sizes.rs: remove `d`, it has at most 6 lines"
            ]
        );
    }
}
