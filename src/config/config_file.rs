//! Reads the configuration file as text.

use std::io;
use std::path::Path;

use super::bounded_file::{self, ReadError};
use super::report::{Problem, Problems, Report};
use super::span::Span;

/// Reads the file at `path`; the error is a report with one problem.
pub(super) fn read_text(path: &Path) -> Result<String, Report> {
    let name = path.display().to_string();
    let read = bounded_file::read(path);
    let (bytes, _) = read.map_err(|error| single_problem_report(&name, "", unreadable(&error)))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let lossy = String::from_utf8_lossy(error.as_bytes());
        single_problem_report(&name, &lossy, not_utf8(at))
    })
}

fn single_problem_report(name: &str, text: &str, problem: Problem) -> Report {
    let problems = Problems::default();
    problems.add(problem);
    Report::new(name, text, problems)
}

fn unreadable(error: &ReadError) -> Problem {
    let problem = Problem::for_file(error.to_string());
    match error {
        ReadError::Io(error) => match error.kind() {
            io::ErrorKind::NotFound => {
                problem.help("use `-c FILE` with the path of the configuration file")
            }
            io::ErrorKind::PermissionDenied => {
                problem.help("allow the user that runs clockwise to read the file")
            }
            _ => problem,
        },
        ReadError::Directory | ReadError::NotRegular => {
            problem.help("use `-c FILE` with the path of a YAML file")
        }
        ReadError::TooLarge => {
            problem.help("check that this is the configuration file: 10,000 peers take about 1 MiB")
        }
    }
}

/// The problem with a byte at this place of the lossy text.
pub(super) fn not_utf8(at: usize) -> Problem {
    // In the lossy text, U+FFFD (three bytes) replaces the first bad byte.
    Problem::error(
        "this byte is not UTF-8",
        Span {
            start: at,
            end: at + 3,
        },
    )
    .help("save the file as UTF-8")
}
