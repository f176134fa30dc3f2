//! Debian's Chromium, without a screen.

use std::process::Command;

use super::tls::fed;

/// The document that a page has become when its scripts and what they fetch are done. The browser finds
/// the name `a.test` here and no other anywhere, and trusts this key alone.
pub(crate) fn show(page: &str, key_digest: &str) -> String {
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
    // Its clock stands still while something is being fetched.
    command.arg("--virtual-time-budget=10000");
    fed(command.args(["--dump-dom", page]), b"")
}
