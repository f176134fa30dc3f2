//! The one place of the configuration that touches the disk.
//!
//! A file is refused before it is read if it is not a regular one or too big, and the reading is
//! bounded again: a file may grow, and some pretend to be empty.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::report::{Problem, Problems, Report};
use super::span::Span;

/// Ten thousand peers in their long form are about one MiB.
pub(super) const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// The text of the file at `path`, or why there is none.
pub(super) fn read_text(path: &Path) -> Result<String, Report> {
    let name = path.display().to_string();
    let bytes = read_bounded(path).map_err(|problem| single_problem_report(&name, "", *problem))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let shown = String::from_utf8_lossy(error.as_bytes());
        single_problem_report(&name, &shown, not_utf8(at))
    })
}

fn single_problem_report(name: &str, text: &str, problem: Problem) -> Report {
    let problems = Problems::default();
    problems.add(problem);
    Report::new(name, text, problems)
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, Box<Problem>> {
    // Before the open: to open a FIFO waits for its writer.
    let found = path.metadata().map_err(|error| unreadable(&error))?;
    if !found.is_file() {
        return Err(Box::new(not_a_file(found.is_dir())));
    }
    if found.len() > MAX_BYTES {
        return Err(Box::new(too_big()));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > MAX_BYTES {
        Err(Box::new(too_big()))
    } else {
        Ok(bytes)
    }
}

fn unreadable(error: &io::Error) -> Problem {
    let problem = Problem::for_file(format!("the file cannot be read: {error}"));
    match error.kind() {
        io::ErrorKind::NotFound => {
            problem.help("give the path of the configuration with `-c FILE`")
        }
        io::ErrorKind::PermissionDenied => {
            problem.help("let the user that runs this read the file")
        }
        _ => problem,
    }
}

fn not_a_file(directory: bool) -> Problem {
    let what = if directory {
        "a directory"
    } else {
        "not a regular file"
    };
    Problem::for_file(format!("this is {what}")).help("give the path of a YAML file with `-c FILE`")
}

fn too_big() -> Problem {
    Problem::for_file(format!("the file is bigger than {} MiB", MAX_BYTES >> 20))
        .help("is it a configuration? ten thousand peers fit into one MiB")
}

fn not_utf8(at: usize) -> Problem {
    // The lossy text has the three bytes of U+FFFD where the first bad byte was.
    Problem::error(
        "this byte is not UTF-8",
        Span {
            start: at,
            end: at + 3,
        },
    )
    .help("save the file as UTF-8")
}
