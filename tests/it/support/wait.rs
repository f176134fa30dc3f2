//! Waits for a condition, with a deadline.
//!
//! No test sleeps for "long enough": it names the condition that it waits for, and fails with that name.

use std::thread;
use std::time::{Duration, Instant};

/// The longest wait: enough for two busy cores; a passing test never comes near it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const POLL: Duration = Duration::from_millis(5);

/// Returns as soon as `holds` does; panics with `what` when [`PATIENCE`] has passed.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    value(what, || holds().then_some(()));
}

/// As [`until`], for what takes `due` on an idle machine.
pub(crate) fn until_due(due: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    value_in(due + PATIENCE, what, || holds().then_some(()));
}

/// Returns the first value that `find` finds; panics with `what` when [`PATIENCE`] has passed.
pub(crate) fn value<T>(what: &str, find: impl FnMut() -> Option<T>) -> T {
    value_in(PATIENCE, what, find)
}

fn value_in<T>(patience: Duration, what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} for: {what}");
        thread::sleep(POLL);
    }
}

/// Runs `work`; returns its result and its duration.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed())
}

/// Asserts that an operation with the timeout `bound` took about that long: not less (the timeout did not
/// end it) and not much more (another timeout, of 10 s or more, ended it). The upper tolerance is generous
/// because the machine is shared. The lower bound holds if the measurement starts before the timeout does.
#[track_caller]
pub(crate) fn assert_about(took: Duration, bound: Duration) {
    let (early, late) = (bound.mul_f64(0.8), bound + Duration::from_secs(8));
    assert!(
        took >= early,
        "ended after {took:?}, before the bound of {bound:?}"
    );
    assert!(
        took <= late,
        "ended after {took:?}, long after the bound of {bound:?}"
    );
}
