//! Debian's Chromium, headless.

use std::process::Command;

use super::tls::fed;

/// Loads a page and returns the document. The browser resolves only the name `a.test`, to this host, and
/// trusts only this key.
pub(crate) fn show(page: &str, key_digest: &str) -> String {
    run(page, key_digest, &[])
}

/// Loads a page, waits for its scripts and fetches, and returns the document.
pub(crate) fn show_at_last(page: &str, key_digest: &str) -> String {
    // The virtual clock of Chromium stops during fetches.
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
