//! The rules of the source itself: the import direction, cycles, names, words and sizes.
//!
//! Each check counts its findings and compares the count with a budget, a constant at the head of its module.
//! A count above the budget fails, and so does one below it: the budget only goes down. `-- --nocapture` prints
//! one figure for each check; the findings are in `target/tmp/source/`, one file for each check.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a test fails by panicking and prints its figures; every index comes from the same collection"
)]

mod cycles; // files of one module that depend on each other
mod file; // what the checks read: a parsed file of `src`
mod graph; // strongly connected components, shortest cycles
mod layers; // imports point one way
mod map; // the paths in `src/lib.rs` exist
mod names; // one type name, one meaning
mod resolve; // from a path in the code to the file that defines it
mod sizes; // lines of a file and of a function
mod words; // the banned words

use std::fs;
use std::path::Path;

/// Prints `figure` and writes `findings` to `target/tmp/source/NAME.txt`.
fn report(name: &str, figure: &str, findings: &[String]) {
    println!("{figure}");
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("source");
    fs::create_dir_all(&directory).unwrap();
    let file = directory.join(name).with_extension("txt");
    fs::write(file, findings.join("\n") + "\n").unwrap();
}

/// Reports the findings, and fails if there are more than `budget`.
fn check(name: &str, figure: &str, (count, budget): (usize, usize), findings: &[String]) {
    report(name, figure, findings);
    assert!(
        count <= budget,
        "\n{}\n{figure}; above the budget of {budget} in tests/source/{name}.rs\n",
        findings.join("\n")
    );
}
