//! Puts requests in the order of their start, in bounded memory.
//!
//! A log has them in the order of their end. A long one comes late, so as many requests are held back
//! as the window is wide, and the one that started first leaves when the window is full. Up to the
//! window's width the order is exact, whatever the durations; beyond it, a request that outlasts a
//! whole window of others is taken to start when it is its turn, and counted as late.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Request;

/// Requests that wait for those that started before them.
#[derive(Debug)]
pub struct Window<T> {
    width: usize,
    waiting: BinaryHeap<Reverse<Waiting<T>>>,
    /// How many came so far; among equal starts the first that came goes first.
    came: u64,
    /// The start of the last one that left, in microseconds.
    left: u64,
    /// Those that came too late for their place.
    pub late: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    number: u64,
    request: Request,
    with: T,
}

impl<T> Window<T> {
    /// A window of so many requests; it takes its memory at once, and no more later.
    pub fn new(width: usize) -> Self {
        Self {
            width,
            waiting: BinaryHeap::with_capacity(width + 1),
            came: 0,
            left: 0,
            late: 0,
        }
    }

    /// Takes a request in, with whatever goes with it; gives one out when the window is full.
    pub fn push(&mut self, request: Request, with: T) -> Option<(Request, T)> {
        let request = if request.start < self.left {
            self.late += 1;
            request.starting_at(self.left)
        } else {
            request
        };
        self.came += 1;
        self.waiting.push(Reverse(Waiting {
            number: self.came,
            request,
            with,
        }));
        if self.waiting.len() > self.width {
            return self.pop();
        }
        None
    }

    /// Gives out the one that started first.
    pub fn pop(&mut self) -> Option<(Request, T)> {
        let Reverse(first) = self.waiting.pop()?;
        self.left = first.request.start;
        Some((first.request, first.with))
    }
}

impl<T> Waiting<T> {
    const fn order(&self) -> (u64, u64) {
        (self.request.start, self.number)
    }
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.order() == other.order()
    }
}

impl<T> Eq for Waiting<T> {}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Waiting<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.order().cmp(&other.order())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(start: u64, end: u64) -> Request {
        Request {
            start,
            duration: end - start,
            bytes: 0,
            hash: None,
        }
    }

    fn in_order(width: usize, spans: &[(u64, u64)]) -> (Vec<(u64, u64)>, u64) {
        let mut window = Window::new(width);
        let mut out = Vec::new();
        for (start, end) in spans {
            out.extend(window.push(request(*start, *end), ()));
        }
        out.extend(std::iter::from_fn(|| window.pop()));
        let spans = out.iter().map(|(r, ())| (r.start, r.start + r.duration));
        (spans.collect(), window.late)
    }

    #[test]
    fn what_ended_late_comes_where_it_started() {
        let (spans, late) = in_order(3, &[(5, 6), (7, 8), (1, 9), (8, 10)]);
        assert_eq!(spans, [(1, 9), (5, 6), (7, 8), (8, 10)]);
        assert_eq!(late, 0);
    }

    #[test]
    fn what_comes_too_late_keeps_its_end() {
        let (spans, late) = in_order(1, &[(5, 6), (7, 8), (9, 10), (1, 11), (2, 3)]);
        assert_eq!(spans, [(5, 6), (7, 8), (7, 11), (7, 7), (9, 10)]);
        assert_eq!(late, 2);
    }
}
