//! Waiting for a condition of the outside world, with a deadline.
//!
//! No test sleeps for "long enough": it names what it waits for, and fails with that name.

use std::thread;
use std::time::{Duration, Instant};

/// Long enough for two busy cores; a passing test never comes near it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

const POLL: Duration = Duration::from_millis(5);

/// Returns as soon as `holds` does; panics with `what` when [`PATIENCE`] has passed.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> bool) {
    value(what, || holds().then_some(()));
}

/// Returns the first value that `find` finds; panics with `what` when [`PATIENCE`] has passed.
pub(crate) fn value<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for: {what}");
        thread::sleep(POLL);
    }
}

/// How long `work` took, and what it gave.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let value = work();
    (value, start.elapsed())
}

/// Asserts that something which is bounded to `bound` took about that long: not sooner (the bound
/// was not reached at all), not much later (it was missed, and another one of 10 s or more ended it).
/// Late is generous: the machine is shared. So is early, if the watch is started before whatever the
/// bound counts from: this process may be held up between the two.
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
