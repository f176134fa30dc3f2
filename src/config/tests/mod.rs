//! Golden cases, the files in `conf/`, and hostile input.

mod config_dump;
mod golden;
mod hostile_input;
mod reference;

use super::load_with_warnings;

#[test]
fn config_warnings_have_one_line_each() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clockwise.yaml");
    let yaml = "listeners: [{address: 127.0.0.1:1}]\nroutes: [{upstream: app}]\nupstreams:\n  app:\n    \
                peers: [127.0.0.1:2]\n    drain: {idle: 2h, deadline: 1h}\n";
    std::fs::write(&path, yaml).unwrap();
    let (_, warnings) = load_with_warnings(&path).unwrap();
    let place = format!("{}:6:33: `deadline` is shorter than `idle`", path.display());
    assert!(
        matches!(&*warnings, [one] if one.starts_with(&place)),
        "{warnings:?}"
    );
    assert!(
        warnings.concat().ends_with("; use at least `2h`"),
        "{warnings:?}"
    );
}
