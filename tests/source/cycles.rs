//! Files of one top-level module that depend on each other.
//!
//! A file depends on another that defines an item which its `use`, its code, or the arguments of a macro name.
//! `mod x;`, re-exports from a module's own children, doc comments and tests are no dependency.
//! Method calls are not seen: `resolve` knows no types.

use std::collections::{BTreeMap, BTreeSet};

use proc_macro2::{Delimiter, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Attribute, ImplItemFn, ItemFn, ItemMod, ItemUse, Macro, PatIdent, Path, Visibility};

use crate::file::{self, SourceFile};
use crate::graph::{self, Graph};
use crate::resolve::{self, Crate, ModulePath, Target, imports};

/// Files in a cycle. The aim is 0. The number of cycles is no measure: breaking one cycle may leave two smaller ones.
const FILES_IN_CYCLES: usize = 0;

#[test]
fn files_of_a_module_do_not_depend_on_each_other() {
    let files = file::all();
    let (cycles, findings) = cycles(&files);
    let count = cycles.iter().map(BTreeSet::len).sum();
    let figure = format!("files in cycles: {count}, in {} cycles", cycles.len());
    crate::check("cycles", &figure, (count, FILES_IN_CYCLES), &findings);
}

/// For each pair of files of one module, the names that the first uses of the second, and the line of each.
type Edges = BTreeMap<(usize, usize), BTreeMap<String, usize>>;

/// The files of each cycle, and the text of its finding.
fn cycles(files: &[SourceFile]) -> (Vec<BTreeSet<usize>>, Vec<String>) {
    let edges = edges(files);
    let mut graph = Graph::new();
    for (from, to) in edges.keys() {
        graph.entry(*from).or_default().insert(*to);
    }
    let cycles = graph::components(&graph);
    let tell = |cycle: &BTreeSet<usize>| {
        let way = graph::shortest_cycle(&graph, cycle);
        tell(files, &edges, cycle, &way)
    };
    let findings = cycles.iter().flat_map(tell).collect();
    (cycles, findings)
}

fn tell(
    files: &[SourceFile],
    edges: &Edges,
    cycle: &BTreeSet<usize>,
    way: &[usize],
) -> Vec<String> {
    let edge = |pair: &[usize]| {
        let (from, to) = (pair[0], pair[1]);
        let mut names: Vec<_> = edges[&(from, to)].iter().collect();
        names.sort_by_key(|(_, line)| **line);
        let names: Vec<_> = names
            .iter()
            .map(|(name, line)| format!("{line} `{name}`"))
            .collect();
        format!(
            "    src/{}:{} -> {}",
            files[from].path,
            names.join(", "),
            files[to].path
        )
    };
    let paths: Vec<_> = cycle
        .iter()
        .map(|file| files[*file].path.as_str())
        .collect();
    let mut lines = vec![format!(
        "src/{}:1: {} files depend on each other; move the shared items into a file of their own: {}",
        files[way[0]].path,
        cycle.len(),
        paths.join(", ")
    )];
    lines.push("  a shortest cycle:".to_owned());
    lines.extend(way.windows(2).map(edge));
    let all = edges
        .keys()
        .filter(|(from, to)| cycle.contains(from) && cycle.contains(to));
    let others: Vec<_> = all
        .map(|(from, to)| [*from, *to])
        .filter(|pair| !way.windows(2).any(|step| step == pair))
        .collect();
    if !others.is_empty() {
        lines.push("  the other dependencies:".to_owned());
        lines.extend(others.iter().map(|pair| edge(pair)));
    }
    lines
}

fn edges(files: &[SourceFile]) -> Edges {
    let mut names = Crate::new(files);
    let all: Vec<_> = files.iter().map(uses).collect();
    for named in all.iter().flatten() {
        if let Place::Function(tree) = &named.place {
            names.import(&named.module, imports(tree));
        }
    }
    let mut edges = Edges::new();
    for (from, uses) in all.iter().enumerate() {
        for named in uses {
            let Some(Target::Item(to, defined)) = names.resolve(&named.module, &named.path) else {
                continue;
            };
            let own = matches!(named.place, Place::Reexport) && defined.starts_with(&named.module);
            if to == from || own || files[to].room() != files[from].room() {
                continue;
            }
            let lines = edges.entry((from, to)).or_default();
            let line = lines.entry(named.path.join("::")).or_insert(named.line);
            *line = named.line.min(*line);
        }
    }
    edges
}

/// A path that a file names.
struct Named {
    /// The module that contains it.
    module: ModulePath,
    path: Vec<String>,
    line: usize,
    place: Place,
}

enum Place {
    Code,
    Import,
    Reexport,
    /// A `use` inside of a function, whose names are in scope there.
    Function(Box<syn::UseTree>),
}

fn uses(file: &SourceFile) -> Vec<Named> {
    let mut uses = Uses {
        module: resolve::module_path(&file.path),
        locals: Vec::new(),
        found: Vec::new(),
    };
    for item in &file.items {
        uses.visit_item(item);
    }
    uses.found
}

/// Collects the paths that a file names.
struct Uses {
    module: ModulePath,
    /// The variables of the functions around: they hide items of the same name.
    locals: Vec<BTreeSet<String>>,
    found: Vec<Named>,
}

impl Uses {
    fn add(&mut self, path: Vec<String>, line: usize, place: Place) {
        let hidden = |name| self.locals.iter().any(|locals| locals.contains(name));
        if let [name] = &path[..]
            && hidden(name)
        {
            return;
        }
        self.found.push(Named {
            module: self.module.clone(),
            path,
            line,
            place,
        });
    }

    /// The paths in the arguments of a macro. A single name counts if it is a type's, or called.
    fn tokens(&mut self, tokens: TokenStream) {
        let trees: Vec<_> = tokens.into_iter().collect();
        let punct = |at: usize| match trees.get(at) {
            Some(TokenTree::Punct(punct)) => punct.as_char(),
            _ => ' ',
        };
        let mut at = 0;
        while at < trees.len() {
            if let TokenTree::Group(group) = &trees[at] {
                self.tokens(group.stream());
            }
            let TokenTree::Ident(first) = &trees[at] else {
                at += 1;
                continue;
            };
            let member = at > 0 && punct(at - 1) == '.' && (at < 2 || punct(at - 2) != '.');
            let mut path = vec![first.to_string()];
            while punct(at + 1) == ':' && punct(at + 2) == ':' {
                let Some(TokenTree::Ident(next)) = trees.get(at + 3) else {
                    break;
                };
                path.push(next.to_string());
                at += 3;
            }
            at += 1;
            let called = matches!(trees.get(at), Some(TokenTree::Group(g)) if g.delimiter() == Delimiter::Parenthesis);
            let named = path.len() > 1 || called || path[0].starts_with(char::is_uppercase);
            if named && !member {
                self.add(path, first.span().start().line, Place::Code);
            }
        }
    }
}

impl<'ast> Visit<'ast> for Uses {
    fn visit_item_mod(&mut self, module: &'ast ItemMod) {
        self.module.push(module.ident.to_string());
        visit::visit_item_mod(self, module);
        self.module.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if item.leading_colon.is_some() {
            return;
        }
        for import in imports(&item.tree) {
            let place = if resolve::is_reexport(&item.vis) {
                Place::Reexport
            } else {
                Place::Import
            };
            self.add(import.path, import.line, place);
        }
        if !self.locals.is_empty() {
            let tree = Place::Function(Box::new(item.tree.clone()));
            self.add(Vec::new(), 0, tree);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast ItemFn) {
        self.locals
            .push(locals(|found| found.visit_item_fn(function)));
        visit::visit_item_fn(self, function);
        self.locals.pop();
    }

    fn visit_impl_item_fn(&mut self, function: &'ast ImplItemFn) {
        self.locals
            .push(locals(|found| found.visit_impl_item_fn(function)));
        visit::visit_impl_item_fn(self, function);
        self.locals.pop();
    }

    fn visit_path(&mut self, path: &'ast Path) {
        if path.leading_colon.is_none() {
            let names = path.segments.iter().map(|part| part.ident.to_string());
            let line = path.segments[0].ident.span().start().line;
            self.add(names.collect(), line, Place::Code);
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }

    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        if let Ok(list) = attribute.meta.require_list() {
            self.tokens(list.tokens.clone());
        }
    }

    fn visit_visibility(&mut self, _: &'ast Visibility) {}
}

/// The variables that a function binds, its arguments included.
fn locals(visit: impl FnOnce(&mut Locals)) -> BTreeSet<String> {
    let mut found = Locals::default();
    visit(&mut found);
    found.0
}

#[derive(Default)]
struct Locals(BTreeSet<String>);

impl<'ast> Visit<'ast> for Locals {
    fn visit_pat_ident(&mut self, pattern: &'ast PatIdent) {
        let name = pattern.ident.to_string();
        if name.starts_with(char::is_lowercase) {
            self.0.insert(name);
        }
        visit::visit_pat_ident(self, pattern);
    }
}

mod the_check_itself {
    use super::*;

    /// Each dependency as `a -> b: path`.
    fn depends(files: &[(&str, &str)]) -> Vec<String> {
        let files: Vec<_> = files
            .iter()
            .map(|(path, text)| SourceFile::new(path, text))
            .collect();
        let edges = edges(&files);
        let tell = |((from, to), names): (&(usize, usize), &BTreeMap<_, _>)| {
            let names: Vec<_> = names.keys().map(String::as_str).collect();
            let (from, to) = (&files[*from].path, &files[*to].path);
            format!("{from} -> {to}: {}", names.join(" "))
        };
        edges.iter().map(tell).collect()
    }

    #[test]
    fn reexports_and_doc_links_are_no_dependency_but_code_is() {
        let key = ("a/key.rs", "/// [`super::door::Door`]\npub struct Key;");
        let facade = "mod key; mod door; pub use key::Key; pub use self::door::Door;";
        let door = ("a/door.rs", "use super::Key; pub struct Door(Key);");
        assert_eq!(
            depends(&[("a/mod.rs", facade), key, door]),
            ["a/door.rs -> a/key.rs: Key super::Key"]
        );
        let uses = format!("{facade} fn open(key: Key) {{ door::open(key) }} fn door() {{}}");
        let door = (
            "a/door.rs",
            "pub struct Door; pub fn open(key: super::Key) {}",
        );
        assert_eq!(
            depends(&[("a/mod.rs", &uses), key, door]),
            [
                "a/mod.rs -> a/key.rs: Key",
                "a/mod.rs -> a/door.rs: door::open",
                "a/door.rs -> a/key.rs: super::Key"
            ]
        );
    }

    #[test]
    fn macros_attributes_and_imports_in_functions_are_looked_at() {
        let low = (
            "a/low.rs",
            "pub fn f() {} pub enum Low { One } pub fn hidden() {}",
        );
        let macros = "use super::low; fn b() { println!(\"{}\", low::f()); }";
        assert_eq!(
            depends(&[low, ("a/b.rs", macros), ("a/mod.rs", "mod low; mod b;")]),
            ["a/b.rs -> a/low.rs: low::f"]
        );
        let inside = "fn b() { use super::low::Low; assert!(matches!(x.hidden(), Low::One)); }";
        assert_eq!(
            depends(&[low, ("a/b.rs", inside), ("a/mod.rs", "mod low; mod b;")]),
            ["a/b.rs -> a/low.rs: Low::One super::low::Low"]
        );
        let attribute = "#[arg(value_parser = super::low::f)]\nstruct B;";
        assert_eq!(
            depends(&[low, ("a/b.rs", attribute), ("a/mod.rs", "mod low;")]).len(),
            1
        );
    }

    #[test]
    fn a_variable_hides_a_function_of_its_name() {
        let low = ("a/low.rs", "pub fn key() {}");
        let facade = "mod low; pub use low::key; fn b(key: u8) -> u8 { key }";
        assert!(depends(&[low, ("a/mod.rs", facade)]).is_empty());
        let facade = "mod low; pub use low::key; fn b() -> u8 { key() }";
        assert_eq!(depends(&[low, ("a/mod.rs", facade)]).len(), 1);
    }

    #[test]
    fn cycle_is_reported_with_the_line_of_each_step() {
        let files = [
            SourceFile::new("a/b.rs", "use super::c::C;\npub struct B;"),
            SourceFile::new("a/c.rs", "\npub struct C(super::b::B);"),
            SourceFile::new("a/mod.rs", "mod b; mod c;"),
            SourceFile::new("b.rs", "use crate::a::b::B;"),
        ];
        let (cycles, findings) = cycles(&files);
        assert_eq!(cycles, [BTreeSet::from([0, 1])]);
        assert_eq!(
            findings[2..],
            [
                "    src/a/b.rs:1 `super::c::C` -> a/c.rs",
                "    src/a/c.rs:2 `super::b::B` -> a/b.rs"
            ]
        );
    }
}
