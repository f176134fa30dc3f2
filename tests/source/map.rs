//! The map in `src/lib.rs` names files and directories that exist.

use std::fs;
use std::path::Path;

/// The parts of a line of Rust documentation that are written as code and look like a path: `a/`, `a/b.rs`.
fn paths(line: &str) -> impl Iterator<Item = &str> {
    let code = line.split('`').skip(1).step_by(2);
    code.filter(|text| text.contains('/') && !text.contains([' ', ':', '*']))
}

#[test]
fn paths_in_the_map_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let map = fs::read_to_string(root.join("src/lib.rs")).unwrap();
    let named: Vec<_> = map.lines().flat_map(paths).collect();
    assert!(named.len() > 20, "the table of changes is in src/lib.rs");
    for path in named {
        let is_there = root.join("src").join(path).exists() || root.join(path).exists();
        assert!(is_there, "`{path}` of src/lib.rs does not exist");
    }
}
