//! Golden cases, the files in `conf/`, and hostile input.

mod config_dump;
mod golden;
mod hostile_input;
mod reference;

use super::load_with_warnings;
use super::sections::ROOT;

#[test]
fn nested_section_has_the_path_of_a_key_of_its_parent() {
    for parent in ROOT.with_nested() {
        for section in parent.nested {
            let inside = section.path.strip_prefix(parent.path);
            let key = inside.and_then(|path| path.trim_start_matches('.').split(['.', '[']).next());
            let is_known = key.is_some_and(|key| parent.keys.contains(&key));
            assert!(is_known, "{} in {}", section.path, parent.title);
            assert!(!section.title.is_empty() && !section.example.is_empty());
        }
    }
}

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
