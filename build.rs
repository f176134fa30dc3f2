//! What `clockwise --version` says of the build: the commit, the compiler and the TLS library, in `CLOCKWISE_BUILD`.
//!
//! The commit is that of `CLOCKWISE_COMMIT`, for builds without the repository, else that of the checkout, with
//! `-dirty` if tracked files differ from it. Without both there is none: a source archive builds without git. Debug
//! builds do not look at the checkout: each commit would compile everything again.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let root = Path::new(&root);
    for file in ["build.rs", "Cargo.lock"] {
        println!("cargo::rerun-if-changed={file}");
    }
    for name in ["CLOCKWISE_COMMIT", "RUSTC"] {
        println!("cargo::rerun-if-env-changed={name}");
    }
    let parts = [commit(root), compiler(), tls_library(root)];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    println!("cargo::rustc-env=CLOCKWISE_BUILD={}", parts.join(", "));
}

fn commit(root: &Path) -> Option<String> {
    let given = env::var("CLOCKWISE_COMMIT").ok();
    let commit = match given.filter(|commit| !commit.is_empty()) {
        Some(commit) => commit,
        None => commit_of_checkout(root)?,
    };
    Some(format!("commit {commit}"))
}

/// `None` in a directory that only lies in the repository of something else.
fn commit_of_checkout(root: &Path) -> Option<String> {
    let is_debug = env::var("PROFILE").is_ok_and(|profile| profile == "debug");
    if is_debug || !root.join(".git").exists() {
        return None;
    }
    // Each file can make the checkout dirty.
    for file in ["src", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let git = |arguments: &[&str]| output(Command::new("git").current_dir(root).args(arguments));
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    // Changes with every commit and checkout, in a work tree of its own as well.
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    let dirty = if changed.is_empty() { "" } else { "-dirty" };
    Some(format!("{commit}{dirty}"))
}

/// As in `rustc 1.95.0`.
fn compiler() -> Option<String> {
    let version = output(Command::new(env::var_os("RUSTC")?).arg("-V"))?;
    let words: Vec<&str> = version.split(' ').take(2).collect();
    Some(words.join(" "))
}

/// As in `rustls 0.23.46 with ring 0.17.14`: the locked versions.
fn tls_library(root: &Path) -> Option<String> {
    let lock = fs::read_to_string(root.join("Cargo.lock")).ok()?;
    let version = |package: &str| {
        let (_, after) = lock.split_once(&format!("name = \"{package}\"\nversion = \""))?;
        after.split_once('"').map(|(version, _)| version)
    };
    Some(format!(
        "rustls {} with ring {}",
        version("rustls")?,
        version("ring")?
    ))
}

/// The output without the line end; `None` if the command fails.
fn output(command: &mut Command) -> Option<String> {
    let done = command.output().ok().filter(|done| done.status.success())?;
    let text = String::from_utf8(done.stdout).ok()?;
    Some(text.trim().to_owned())
}
