//! Makes the case of a difference small.

use super::Bench;
use super::case::{Case, Response};
use super::compare::Difference;
use super::totals::signature;

/// The most cases that are tried for one difference.
const MAX_TRIALS: usize = 40;

/// Deletes what the difference does not need.
pub(super) async fn minimise(
    bench: &Bench,
    slot: usize,
    case: Case,
    difference: Difference,
) -> (Case, Difference) {
    let mut smallest = (case, difference);
    let mut trials = 0;
    loop {
        let mut is_smaller = false;
        let mut step = 0;
        while let Some(smaller) = reduced(&smallest.0, step) {
            step += 1;
            if trials == MAX_TRIALS {
                return smallest;
            }
            if smaller == smallest.0 {
                continue;
            }
            trials += 1;
            if let Some(difference) = bench.unlisted(slot, &smaller).await
                && signature(&difference) == signature(&smallest.1)
            {
                smallest = (smaller, difference);
                is_smaller = true;
                step -= 1;
            }
        }
        if !is_smaller {
            return smallest;
        }
    }
}

/// The case without its `step`th part; `None`: it has less parts.
#[expect(
    clippy::same_functions_in_if_condition,
    reason = "each call takes one of the steps"
)]
fn reduced(case: &Case, step: usize) -> Option<Case> {
    let mut smaller = case.clone();
    let mut left = step;
    let mut is_next = |count: usize| {
        let place = (left < count).then_some(left);
        left = left.saturating_sub(count);
        place
    };
    if let Some(place) = is_next(case.requests.len()) {
        smaller.requests.remove(place);
        return Some(smaller);
    }
    if let Some(place) = is_next(case.responses.len()) {
        smaller.responses.remove(place);
        return Some(smaller);
    }
    if let Some(place) = is_next(case.responses.len()) {
        smaller.responses[place] = Response::plain();
        return Some(smaller);
    }
    if is_next(1).is_some() {
        smaller.is_trusted = false;
        smaller.route = 0;
        return Some(smaller);
    }
    for (index, request) in case.requests.iter().enumerate() {
        let reduced = &mut smaller.requests[index];
        if is_next(1).is_some() {
            reduced.writes.clear();
            reduced.body = vec![request.body.concat()];
        } else if let Some(place) = is_next(request.lines.len()) {
            reduced.lines.remove(place);
        } else if is_next(1).is_some() {
            reduced.body.clear();
        } else {
            continue;
        }
        return Some(smaller);
    }
    for (index, response) in case.responses.iter().enumerate() {
        let reduced = &mut smaller.responses[index];
        if is_next(1).is_some() {
            reduced.writes.clear();
            reduced.body = vec![response.body.concat()];
        } else if let Some(place) = is_next(response.lines.len()) {
            reduced.lines.remove(place);
        } else if let Some(place) = is_next(response.interim.len()) {
            reduced.interim.remove(place);
        } else if is_next(1).is_some() {
            reduced.body.clear();
        } else {
            continue;
        }
        return Some(smaller);
    }
    None
}
