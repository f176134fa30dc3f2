//! Reading an access log that is being written.
//!
//! A request's line is written after its response was sent and after the request was counted, so neither
//! the response nor a metric shows that the line is in the file. Tests read access logs only through this
//! module, which waits for the line.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::wait;

/// Waits for `count` lines of a log. Panics if there are more.
#[track_caller]
pub(crate) fn lines(path: &Path, count: usize) -> Vec<Value> {
    let lines = wait::value(&format!("{count} lines of the access log"), || {
        Some(read(path)).filter(|lines| lines.len() >= count)
    });
    assert_eq!(lines.len(), count, "{lines:?}");
    lines
}

/// Waits for a line that is `wanted`; returns the last one.
#[track_caller]
pub(crate) fn line(path: &Path, wanted: impl Fn(&Value) -> bool) -> Value {
    wait::value("the line of the access log", || {
        read(path).into_iter().rfind(|line| wanted(line))
    })
}

/// The complete lines: a line without its line feed is still being written.
fn read(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let complete = text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'));
    complete
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}
