//! From a path in the code to the file that defines the item it names, through imports and re-exports.
//!
//! This knows what modules declare and import. It knows no types: a method's file, and what a macro defines, stay
//! unknown.

use std::collections::{BTreeMap, BTreeSet};

use syn::{Item, UseTree, Visibility};

use crate::file::SourceFile;

/// A module's names from the crate's root: `["route", "host"]`.
pub(crate) type ModulePath = Vec<String>;

/// The modules of the crate.
pub(crate) struct Crate {
    modules: BTreeMap<ModulePath, Module>,
}

#[derive(Default)]
struct Module {
    file: usize,
    names: BTreeMap<String, Vec<Binding>>,
    /// The modules or enums that it imports all names of.
    globs: Vec<Vec<String>>,
}

/// What a name in a module refers to.
enum Binding {
    Module(ModulePath),
    /// An item that is no module; the module itself defines it.
    Item,
    /// What the path refers to, seen from the module.
    Import(Vec<String>),
}

/// Where a path leads.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Target {
    Module(ModulePath),
    /// An item in the file of this index and in this module.
    Item(usize, ModulePath),
}

/// One name that a `use` brings into scope.
pub(crate) struct Import {
    pub(crate) path: Vec<String>,
    /// The name in scope; none for a glob.
    name: Option<String>,
    pub(crate) line: usize,
}

/// Rust has one namespace for modules and types, others for functions and macros.
/// A module and a function may share a name, so a lookup names the kind of item.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Space {
    Module,
    Item,
}

/// The look-ups that are under way.
type Seen = BTreeSet<(ModulePath, String, Space)>;

impl Crate {
    pub(crate) fn new(files: &[SourceFile]) -> Self {
        let modules = BTreeMap::new();
        let mut all = Self { modules };
        for (index, file) in files.iter().enumerate() {
            all.add(index, module_path(&file.path), &file.items);
        }
        all
    }

    fn add(&mut self, file: usize, path: ModulePath, items: &[Item]) {
        let mut module = Module {
            file,
            ..Module::default()
        };
        for item in items {
            if let Item::Use(item) = item {
                module.import(imports(&item.tree));
            }
            let Some(name) = name(item) else {
                continue;
            };
            let mut binding = Binding::Item;
            if let Item::Mod(inner) = item {
                let path = [&path[..], std::slice::from_ref(&name)].concat();
                if let Some((_, items)) = &inner.content {
                    self.add(file, path.clone(), items);
                }
                binding = Binding::Module(path);
            }
            module.names.entry(name).or_default().push(binding);
        }
        self.modules.insert(path, module);
    }

    /// Adds the imports inside of a function to its module, as if they stood there.
    pub(crate) fn import(&mut self, module: &ModulePath, imports: Vec<Import>) {
        if let Some(module) = self.modules.get_mut(module) {
            module.import(imports);
        }
    }

    /// Where `path`, written in `module`, leads: to an item if one has that name, else to a module.
    pub(crate) fn resolve(&self, module: &ModulePath, path: &[String]) -> Option<Target> {
        self.target(module, path, Space::Item, &mut Seen::new())
            .or_else(|| self.target(module, path, Space::Module, &mut Seen::new()))
    }

    fn target(
        &self,
        module: &ModulePath,
        path: &[String],
        space: Space,
        seen: &mut Seen,
    ) -> Option<Target> {
        let mut current = module.clone();
        for (at, name) in path.iter().enumerate() {
            let last = at + 1 == path.len();
            let step = match name.as_str() {
                "crate" => Target::Module(Vec::new()),
                "self" => Target::Module(current),
                "super" => Target::Module(current.split_last()?.1.to_vec()),
                _ if last => return self.look_up(&current, name, space, seen),
                _ => self
                    .look_up(&current, name, Space::Module, seen)
                    .or_else(|| self.look_up(&current, name, Space::Item, seen))?,
            };
            match step {
                Target::Module(next) => current = next,
                // What follows is a variant, or an associated item.
                item @ Target::Item(..) => return (space == Space::Item).then_some(item),
            }
        }
        (space == Space::Module).then_some(Target::Module(current))
    }

    fn look_up(
        &self,
        path: &ModulePath,
        name: &str,
        space: Space,
        seen: &mut Seen,
    ) -> Option<Target> {
        let key = (path.clone(), name.to_owned(), space);
        if !seen.insert(key.clone()) {
            return None; // imports in a circle
        }
        let found = self.look_up_once(path, name, space, seen);
        seen.remove(&key);
        found
    }

    fn look_up_once(
        &self,
        path: &ModulePath,
        name: &str,
        space: Space,
        seen: &mut Seen,
    ) -> Option<Target> {
        let module = self.modules.get(path)?;
        let bindings = module.names.get(name).map_or(&[][..], Vec::as_slice);
        let mut found = bindings.iter().filter_map(|binding| match binding {
            Binding::Module(path) => (space == Space::Module).then(|| Target::Module(path.clone())),
            Binding::Item => {
                (space == Space::Item).then(|| Target::Item(module.file, path.clone()))
            }
            Binding::Import(import) => self.target(path, import, space, seen),
        });
        if let Some(target) = found.next() {
            return Some(target);
        }
        drop(found);
        module
            .globs
            .iter()
            .find_map(|glob| match self.target(path, glob, Space::Module, seen)? {
                Target::Module(module) => self.look_up(&module, name, space, seen),
                Target::Item(..) => None,
            })
    }
}

impl Module {
    fn import(&mut self, imports: Vec<Import>) {
        for import in imports {
            match import.name {
                Some(name) => {
                    let bindings = self.names.entry(name).or_default();
                    bindings.push(Binding::Import(import.path));
                }
                None => self.globs.push(import.path),
            }
        }
    }
}

/// The module of a file: `["route", "host"]` for `route/host.rs`, none for `lib.rs`.
pub(crate) fn module_path(path: &str) -> ModulePath {
    let parts = path.trim_end_matches(".rs").split('/').map(str::to_owned);
    let mut module: Vec<_> = parts.collect();
    if module == ["lib"] || module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    module
}

fn name(item: &Item) -> Option<String> {
    let ident = match item {
        Item::Const(item) => &item.ident,
        Item::Enum(item) => &item.ident,
        Item::Fn(item) => &item.sig.ident,
        Item::Macro(item) => item.ident.as_ref()?,
        Item::Mod(item) => &item.ident,
        Item::Static(item) => &item.ident,
        Item::Struct(item) => &item.ident,
        Item::Trait(item) => &item.ident,
        Item::Type(item) => &item.ident,
        Item::Union(item) => &item.ident,
        _ => return None,
    };
    Some(ident.to_string())
}

/// Whether an import is offered to other modules.
pub(crate) fn is_reexport(visibility: &Visibility) -> bool {
    !matches!(visibility, Visibility::Inherited)
}

/// The names that a `use` brings into scope.
pub(crate) fn imports(tree: &UseTree) -> Vec<Import> {
    let mut imports = Vec::new();
    collect(tree, &[], &mut imports);
    imports
}

fn collect(tree: &UseTree, before: &[String], imports: &mut Vec<Import>) {
    let extended = |name: String| [before, &[name]].concat();
    match tree {
        UseTree::Path(tree) => collect(&tree.tree, &extended(tree.ident.to_string()), imports),
        UseTree::Group(group) => {
            for tree in &group.items {
                collect(tree, before, imports);
            }
        }
        UseTree::Glob(glob) => imports.push(Import {
            path: before.to_vec(),
            name: None,
            line: glob.star_token.span.start().line,
        }),
        UseTree::Name(name) => push(&name.ident, None, before, imports),
        UseTree::Rename(rename) => {
            push(
                &rename.ident,
                Some(rename.rename.to_string()),
                before,
                imports,
            );
        }
    }
}

fn push(
    ident: &proc_macro2::Ident,
    name: Option<String>,
    before: &[String],
    imports: &mut Vec<Import>,
) {
    let mut path = before.to_vec();
    if ident != "self" {
        path.push(ident.to_string());
    }
    imports.push(Import {
        name: name.or_else(|| path.last().cloned()),
        path,
        line: ident.span().start().line,
    });
}

mod the_check_itself {
    use super::*;

    const FILES: &[(&str, &str)] = &[
        ("lib.rs", "mod room;"),
        (
            "room/mod.rs",
            "mod door; mod key; mod open; pub use self::open::open; pub use key::{Key, Lock as Bolt}; use key::*; struct Own; fn door() {}",
        ),
        (
            "room/key.rs",
            "pub struct Key; pub enum Lock {} pub fn turn() {}",
        ),
        (
            "room/door.rs",
            "use super::{Bolt, key::{self, Key as K}}; mod inner { use super::*; }",
        ),
        ("room/open.rs", "pub fn open() {}"),
    ];

    fn file(module: &str, path: &str) -> Option<&'static str> {
        let files: Vec<_> = FILES
            .iter()
            .map(|(path, text)| SourceFile::new(path, text))
            .collect();
        let split = |text: &str| text.split("::").map(str::to_owned).collect::<Vec<_>>();
        match Crate::new(&files).resolve(&split(module), &split(path))? {
            Target::Item(file, _) => Some(FILES[file].0),
            Target::Module(_) => Some("module"),
        }
    }

    #[test]
    fn a_path_leads_to_the_file_that_defines_the_item() {
        let door = |path| file("room::door", path);
        assert_eq!(door("super::Key"), Some("room/key.rs"));
        assert_eq!(door("super::Own"), Some("room/mod.rs"));
        assert_eq!(door("Bolt"), Some("room/key.rs"));
        assert_eq!(door("K::new"), Some("room/key.rs"));
        assert_eq!(door("key::turn"), Some("room/key.rs"));
        assert_eq!(door("key"), Some("module"));
        assert_eq!(door("crate::room::turn"), Some("room/key.rs"), "a glob");
        assert_eq!(door("std::fs"), None);
        assert_eq!(file("room::door::inner", "K"), Some("room/key.rs"));
    }

    #[test]
    fn a_module_and_a_function_may_share_a_name() {
        assert_eq!(file("room", "open"), Some("room/open.rs"));
        assert_eq!(
            file("room::door", "super::open::open"),
            Some("room/open.rs")
        );
        assert_eq!(file("room::key", "super::door"), Some("room/mod.rs"));
    }
}
