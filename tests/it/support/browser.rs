//! Debian's Chromium, without a screen.

use std::process::Command;

use super::tls::fed;

/// The document that a page has become when it is loaded. The browser finds the name `a.test` here and no
/// other anywhere, and trusts this key alone.
pub(crate) fn show(page: &str, key_digest: &str) -> String {
    run(page, key_digest, &[])
}

/// The document that a page has become when its scripts and what they fetch are done.
pub(crate) fn show_at_last(page: &str, key_digest: &str) -> String {
    // Its clock stands still while something is being fetched.
    run(page, key_digest, &["--virtual-time-budget=10000"])
}

fn run(page: &str, key_digest: &str, more: &[&str]) -> String {
    let profile = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new("chromium");
    command.args([
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--host-resolver-rules=MAP a.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ]);
    command.arg(format!("--user-data-dir={}", profile.path().display()));
    command.arg(format!(
        "--ignore-certificate-errors-spki-list={key_digest}"
    ));
    fed(command.args(more).args(["--dump-dom", page]), b"")
}
