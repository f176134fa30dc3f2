//! Puts requests in the order of their start, in bounded memory.
//!
//! A log has them in the order of their end. A long one comes late, so as many requests are held back
//! as the window is wide, and the one that started first leaves when the window is full. Up to the
//! window's width the order is exact, whatever the durations; beyond it, a request that outlasts a
//! whole window of others is taken to start when it is its turn, and counted as late.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::ReplayRequest;

/// Requests that wait for those that started before them.
#[derive(Debug)]
pub struct ReorderBuffer<T> {
    capacity: usize,
    heap: BinaryHeap<Reverse<BufferedRequest<T>>>,
    /// How many came so far; among equal starts the first that came goes first.
    arrivals: u64,
    /// The start of the last one that left, in microseconds.
    last_start: u64,
    /// Those that came too late for their place.
    pub late: u64,
}

#[derive(Debug)]
struct BufferedRequest<T> {
    sequence: u64,
    request: ReplayRequest,
    payload: T,
}

impl<T> ReorderBuffer<T> {
    /// A window of so many requests; it takes its memory at once, and no more later.
    pub fn new(width: usize) -> Self {
        Self {
            capacity: width,
            heap: BinaryHeap::with_capacity(width + 1),
            arrivals: 0,
            last_start: 0,
            late: 0,
        }
    }

    /// Takes a request in, with whatever goes with it; gives one out when the window is full.
    pub fn push(&mut self, request: ReplayRequest, with: T) -> Option<(ReplayRequest, T)> {
        let request = if request.start < self.last_start {
            self.late += 1;
            request.with_start(self.last_start)
        } else {
            request
        };
        self.arrivals += 1;
        self.heap.push(Reverse(BufferedRequest {
            sequence: self.arrivals,
            request,
            payload: with,
        }));
        if self.heap.len() > self.capacity {
            return self.pop();
        }
        None
    }

    /// Gives out the one that started first.
    pub fn pop(&mut self) -> Option<(ReplayRequest, T)> {
        let Reverse(first) = self.heap.pop()?;
        self.last_start = first.request.start;
        Some((first.request, first.payload))
    }
}

impl<T> BufferedRequest<T> {
    const fn sort_key(&self) -> (u64, u64) {
        (self.request.start, self.sequence)
    }
}

impl<T> PartialEq for BufferedRequest<T> {
    fn eq(&self, other: &Self) -> bool {
        self.sort_key() == other.sort_key()
    }
}

impl<T> Eq for BufferedRequest<T> {}

impl<T> PartialOrd for BufferedRequest<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for BufferedRequest<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.sort_key().cmp(&other.sort_key())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(start: u64, end: u64) -> ReplayRequest {
        ReplayRequest {
            start,
            duration: end - start,
            bytes: 0,
            hash: None,
        }
    }

    fn in_order(width: usize, spans: &[(u64, u64)]) -> (Vec<(u64, u64)>, u64) {
        let mut window = ReorderBuffer::new(width);
        let mut out = Vec::new();
        for (start, end) in spans {
            out.extend(window.push(request(*start, *end), ()));
        }
        out.extend(std::iter::from_fn(|| window.pop()));
        let spans = out.iter().map(|(r, ())| (r.start, r.start + r.duration));
        (spans.collect(), window.late)
    }

    #[test]
    fn reorder_buffer_sorts_requests_by_start() {
        let (spans, late) = in_order(3, &[(5, 6), (7, 8), (1, 9), (8, 10)]);
        assert_eq!(spans, [(1, 9), (5, 6), (7, 8), (8, 10)]);
        assert_eq!(late, 0);
    }

    #[test]
    fn reorder_buffer_keeps_the_end_of_late_requests() {
        let (spans, late) = in_order(1, &[(5, 6), (7, 8), (9, 10), (1, 11), (2, 3)]);
        assert_eq!(spans, [(5, 6), (7, 8), (7, 11), (7, 7), (9, 10)]);
        assert_eq!(late, 2);
    }
}
