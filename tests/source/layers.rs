//! Keeps the import direction: each module names only the modules of the crate that its row allows.
//!
//! Names are looked up in the text of the code; comments, strings and tests are blanked before.

use std::collections::BTreeSet;

use crate::file::{self, SourceFile};

/// The pure modules: values in, values out.
const CORE: &[&str] = &[
    "ring",
    "request_target",
    "route",
    "key",
    "cookie",
    "client_addr",
    "certificate",
    "proxy_protocol",
    "header",
    "grpc",
    "http1",
    "fault",
    "policy",
    "predict",
];

/// What each module may name besides itself, from the core up.
const LAYERS: &[(&str, AllowedImports)] = &[
    ("ring", AllowedImports::Name(&[])),
    ("request_target", AllowedImports::Name(&[])),
    ("route", AllowedImports::Name(&[])),
    ("policy", AllowedImports::Name(&[])),
    ("header", AllowedImports::Name(&[])),
    ("client_addr", AllowedImports::Name(&["header"])),
    ("cookie", AllowedImports::Name(&[])),
    (
        "key",
        AllowedImports::Name(&["header", "request_target", "route", "cookie"]),
    ), // which part of a `Host` is the name; what a cookie's value is
    ("certificate", AllowedImports::Name(&[])),
    ("proxy_protocol", AllowedImports::Name(&[])),
    ("grpc", AllowedImports::Name(&["header"])),
    ("fault", AllowedImports::Name(&["grpc", "policy"])), // the columns of its table
    ("http1", AllowedImports::Name(&["fault", "header"])), // what follows from a refusal
    ("predict", AllowedImports::Name(&["ring", "policy"])),
    ("clock", AllowedImports::Name(&[])),
    ("config", AllowedImports::Core(&["clock"])),
    ("migrate", AllowedImports::Core(&["config"])),
    ("lifecycle", AllowedImports::Name(&["clock"])),
    ("telemetry", AllowedImports::Name(&["config", "clock"])),
    (
        "upstream",
        AllowedImports::Core(&["config", "telemetry", "tls", "clock"]),
    ),
    (
        "snapshot",
        AllowedImports::Core(&["config", "telemetry", "tls", "upstream", "clock"]),
    ),
    (
        "tls",
        AllowedImports::Name(&["config", "certificate", "telemetry", "clock"]),
    ),
    (
        "acme",
        AllowedImports::Core(&["config", "snapshot", "telemetry", "tls", "clock"]),
    ),
    (
        "probe",
        AllowedImports::Core(&[
            "config",
            "snapshot",
            "tls",
            "upstream",
            "pingora_compat",
            "clock",
        ]),
    ),
    (
        "discovery",
        AllowedImports::Name(&["config", "snapshot", "clock", "policy", "ring"]),
    ), // the intervals of lookups, the weights of peers; whether a list comes into force is for the server
    (
        "downstream",
        AllowedImports::Name(&[
            "certificate",
            "fault",
            "grpc",
            "header",
            "http1",
            "proxy_protocol",
            "client_addr",
            "policy",
            "config",
            "telemetry",
            "tls",
            "clock",
            "read_buffer",
            "pingora_compat",
        ]),
    ),
    (
        "phases",
        AllowedImports::Core(&[
            "config",
            "snapshot",
            "tls",
            "upstream",
            "telemetry",
            "clock",
            "downstream",
        ]),
    ),
    (
        "proxy",
        AllowedImports::Core(&[
            "phases",
            "config",
            "snapshot",
            "tls",
            "upstream",
            "telemetry",
            "clock",
            "downstream",
            "upstream_http1",
            "pingora_compat",
        ]),
    ),
    ("read_buffer", AllowedImports::Name(&[])),
    (
        "upstream_http1",
        AllowedImports::Name(&[
            "http1",
            "upstream",
            "clock",
            "read_buffer",
            "pingora_compat",
        ]),
    ),
    (
        "engine",
        AllowedImports::Core(&[
            "phases",
            "proxy",
            "config",
            "snapshot",
            "upstream",
            "upstream_http1",
            "read_buffer",
            "telemetry",
            "clock",
            "downstream",
        ]),
    ),
    (
        "pingora_compat",
        AllowedImports::Name(&["grpc", "http1", "proxy_protocol", "tls"]),
    ),
    (
        "admin",
        AllowedImports::Core(&[
            "config",
            "snapshot",
            "lifecycle",
            "upstream",
            "telemetry",
            "tls",
            "clock",
            "downstream",
        ]),
    ),
    ("server", AllowedImports::AllBut(&["cli", "main"])),
    ("cli", AllowedImports::AllBut(&["main"])),
    ("main", AllowedImports::AllBut(&[])),
    ("lib", AllowedImports::AllBut(&[])),
];

/// Names from outside that the core must not use, as whole words; what follows a `*` or `::` is open.
const IMPURE: &[&str] = &[
    "pingora*",
    "tokio::",
    "log::",
    "rand::",
    "parking_lot",
    "arc_swap",
    "fs::",
    "env::",
    "process::",
    "thread::",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "ToSocketAddrs",
    "Instant",
    "SystemTime",
    "RandomState",
];

/// Names from outside that a module must not use, as in [`IMPURE`].
const FORBIDDEN: &[(&str, &[&str])] = &[
    // The phases serve any carrier.
    ("phases", &["pingora*"]),
];

/// Names that only these files may use, by the beginning of their path under `src`.
const RESERVED: &[(&str, &[&str])] = &[
    (
        "pingora::lb",
        &["upstream/ring_selection.rs", "probe.rs", "probe/"],
    ),
    ("Instant::now", &["clock.rs"]),
    ("SystemTime::now", &["clock.rs"]),
];

/// The modules that one may name.
#[derive(Clone, Copy)]
enum AllowedImports {
    /// These.
    Name(&'static [&'static str]),
    /// The core and these.
    Core(&'static [&'static str]),
    /// All others but these.
    AllBut(&'static [&'static str]),
}

impl AllowedImports {
    fn name(self, module: &str) -> bool {
        match self {
            Self::Name(these) => these.contains(&module),
            Self::Core(these) => CORE.contains(&module) || these.contains(&module),
            Self::AllBut(these) => !these.contains(&module),
        }
    }
}

/// One file of `src`, as [`SourceFile::code`] gives it.
struct Source {
    /// Its path under `src`, with `/` between the parts.
    path: String,
    /// Its code, blank where comments, strings and tests were.
    code: String,
}

#[test]
fn imports_point_down() {
    let problems: Vec<_> = file::all()
        .iter()
        .flat_map(|file| Source::new(file).problems())
        .collect();
    println!("imports against the layers: {}", problems.len());
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

impl Source {
    fn new(file: &SourceFile) -> Self {
        Self {
            path: file.path.clone(),
            code: file.code(),
        }
    }

    /// The module of the crate that the file belongs to: `route` for `route/host.rs`.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    fn problems(&self) -> Vec<String> {
        let checks = [
            self.imports(),
            self.impurities(),
            self.forbidden_names(),
            self.reserved_names(),
            self.climbs(),
        ];
        checks.concat()
    }

    fn imports(&self) -> Vec<String> {
        let module = self.module();
        let Some((_, may)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            return vec![format!(
                "src/{}:1: module `{module}` has no row in LAYERS (tests/source/layers.rs)",
                self.path
            )];
        };
        crate_names(&self.code)
            .filter(|(_, name)| *name != module && !may.name(name))
            .map(|(at, name)| self.problem(at, &format!("`{module}` must not import `{name}`")))
            .collect()
    }

    fn impurities(&self) -> Vec<String> {
        if !CORE.contains(&self.module()) {
            return Vec::new();
        }
        let found = IMPURE
            .iter()
            .flat_map(|name| words(&self.code, name).map(move |at| (at, name)));
        let say = |(at, name): (usize, &&str)| {
            self.problem(at, &format!("the core is pure: no `{name}`"))
        };
        found.map(say).collect()
    }

    fn forbidden_names(&self) -> Vec<String> {
        let of_module = FORBIDDEN.iter().filter(|(name, _)| *name == self.module());
        let names = of_module.flat_map(|(_, names)| names.iter());
        let found = names.flat_map(|name| words(&self.code, name).map(move |at| (at, name)));
        let say = |(at, name): (usize, &&str)| {
            self.problem(at, &format!("`{}` must not use `{name}`", self.module()))
        };
        found.map(say).collect()
    }

    fn reserved_names(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (name, files) in RESERVED {
            if files.iter().any(|file| self.path.starts_with(file)) {
                continue;
            }
            let message = format!("`{name}` is only for {}", files.join(", "));
            problems.extend(words(&self.code, name).map(|at| self.problem(at, &message)));
        }
        problems
    }

    /// `super::` that reaches the crate's root would get around the table.
    fn climbs(&self) -> Vec<String> {
        if matches!(self.module(), "lib" | "main") {
            return Vec::new();
        }
        let root = "super::".repeat(self.depth() + 1);
        words(&self.code, &root)
            .map(|at| self.problem(at, "`super` reaches the crate's root; write `crate::`"))
            .collect()
    }

    /// How far the file's module is below a module of [`LAYERS`].
    fn depth(&self) -> usize {
        let slashes = self.path.matches('/').count();
        if self.path.ends_with("/mod.rs") {
            slashes - 1
        } else {
            slashes
        }
    }

    fn problem(&self, at: usize, message: &str) -> String {
        let line = self.code[..at].matches('\n').count() + 1;
        format!("src/{}:{line}: {message}", self.path)
    }
}

/// The modules named as `crate::a`, `crate::{a, b::{c, d}}` or in a `use` of `crate::{…}`, with their place.
fn crate_names(code: &str) -> impl Iterator<Item = (usize, &str)> {
    words(code, "crate::").flat_map(|at| {
        let rest = &code[at + "crate::".len()..];
        let names: BTreeSet<_> = match rest.strip_prefix('{') {
            Some(group) => group_names(group),
            None => BTreeSet::from([identifier(rest)]),
        };
        names.into_iter().map(move |name| (at, name))
    })
}

/// The first names of the parts of a `use` group, whose opening brace is before `group`.
fn group_names(group: &str) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    let mut depth = 1;
    let mut start = 0;
    for (at, c) in group.char_indices() {
        if depth == 1 && matches!(c, ',' | '}') {
            names.insert(identifier(group[start..at].trim_start()));
            start = at + 1;
        }
        depth += i32::from(c == '{') - i32::from(c == '}');
        if depth == 0 {
            break;
        }
    }
    names.remove("");
    names
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !is_word(c)).unwrap_or(text.len());
    &text[..end]
}

/// The positions of `name` as a whole word; if `name` ends in `*`, the word may be longer.
fn words(code: &str, name: &str) -> impl Iterator<Item = usize> {
    let (name, open) = match name.strip_suffix('*') {
        Some(name) => (name, true),
        None => (name, name.ends_with("::")),
    };
    code.match_indices(name).filter_map(move |(at, _)| {
        let begins = !code[..at].ends_with(is_word);
        let ends = open || !code[at + name.len()..].starts_with(is_word);
        (begins && ends).then_some(at)
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

mod the_check_itself {
    use super::*;

    fn problems(path: &str, text: &str) -> Vec<String> {
        Source::new(&SourceFile::new(path, text)).problems()
    }

    #[test]
    fn sees_an_import_that_points_up() {
        let text = "use crate::config::Peer;\nuse crate::{proxy, route::{self, key}};\n";
        let found = problems("upstream/mod.rs", text);
        assert_eq!(
            found,
            ["src/upstream/mod.rs:2: `upstream` must not import `proxy`"]
        );
        assert_eq!(
            problems("listener/mod.rs", "fn a() { crate::upstream::b() }").len(),
            1
        );
        assert_eq!(problems("nobody.rs", "").len(), 1);
    }

    #[test]
    fn sees_an_import_through_super() {
        assert_eq!(problems("key.rs", "use super::ring;").len(), 1);
        assert_eq!(problems("route/mod.rs", "use super::ring;").len(), 1);
        assert_eq!(
            problems("route/host.rs", "use super::super::ring;").len(),
            1
        );
        assert!(problems("route/host.rs", "use super::ParseError;").is_empty());
    }

    #[test]
    fn sees_impure_names_in_the_core_only() {
        let text = "use std::time::{Duration, Instant};\nuse pingora::Error;\nuse catalog::fsx;\n";
        assert_eq!(problems("policy/retry.rs", text).len(), 2);
        assert!(problems("proxy/mod.rs", text).is_empty());
    }

    #[test]
    fn sees_a_crate_that_a_module_must_not_use() {
        let text = "use pingora::Error;\nfn a(_: pingora_http::RequestHeader) {}\n";
        assert_eq!(problems("phases/route.rs", text).len(), 2);
        assert!(problems("proxy/mod.rs", text).is_empty());
    }

    #[test]
    fn sees_names_in_files_they_are_not_for() {
        assert_eq!(
            problems("proxy/mod.rs", "fn a() { std::time::Instant::now(); }").len(),
            1
        );
        assert!(problems("clock.rs", "fn a() { Instant::now(); }").is_empty());
        assert_eq!(
            problems("upstream/mod.rs", "use pingora::lb::Backend;").len(),
            1
        );
        assert!(problems("upstream/ring_selection.rs", "use pingora::lb::Backend;").is_empty());
    }

    #[test]
    fn does_not_look_at_comments_and_tests() {
        let text = "/// [`crate::proxy`]\nfn a() {} // crate::proxy\n#[cfg(test)]\nmod tests {\nuse crate::proxy; }";
        assert!(problems("ring/mod.rs", text).is_empty());
    }
}
