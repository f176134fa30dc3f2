//! Sorts requests by start time, in bounded memory.
//!
//! A log has requests in the order of their end. The buffer holds back up to its capacity and releases the
//! request with the earliest start when it is full. The order is exact unless a request outlasts a whole
//! buffer of others: then it is taken to start when it arrives here, and counted as late.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::ReplayRequest;

/// Requests waiting for others with an earlier start.
#[derive(Debug)]
pub(crate) struct ReorderBuffer<T> {
    capacity: usize,
    heap: BinaryHeap<Reverse<BufferedRequest<T>>>,
    /// The number of requests pushed so far; orders requests with equal starts.
    arrivals: u64,
    /// The start of the last released request, in microseconds since 1970.
    last_start: u64,
    /// Requests that came after their position in the order had passed.
    pub late: u64,
}

#[derive(Debug)]
struct BufferedRequest<T> {
    sequence: u64,
    request: ReplayRequest,
    payload: T,
}

impl<T> ReorderBuffer<T> {
    /// A buffer of `capacity` requests. All memory is allocated here.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            capacity,
            heap: BinaryHeap::with_capacity(capacity + 1),
            arrivals: 0,
            last_start: 0,
            late: 0,
        }
    }

    /// Adds a request with its payload; releases one if the buffer is full.
    pub(crate) fn push(
        &mut self,
        request: ReplayRequest,
        payload: T,
    ) -> Option<(ReplayRequest, T)> {
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
            payload,
        }));
        if self.heap.len() > self.capacity {
            return self.pop();
        }
        None
    }

    /// Releases the request with the earliest start.
    pub(crate) fn pop(&mut self) -> Option<(ReplayRequest, T)> {
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

    fn reorder(capacity: usize, spans: &[(u64, u64)]) -> (Vec<(u64, u64)>, u64) {
        let mut buffer = ReorderBuffer::new(capacity);
        let mut out = Vec::new();
        for (start, end) in spans {
            out.extend(buffer.push(request(*start, *end), ()));
        }
        out.extend(std::iter::from_fn(|| buffer.pop()));
        let spans = out.iter().map(|(r, ())| (r.start, r.start + r.duration));
        (spans.collect(), buffer.late)
    }

    #[test]
    fn reorder_buffer_sorts_requests_by_start() {
        let (spans, late) = reorder(3, &[(5, 6), (7, 8), (1, 9), (8, 10)]);
        assert_eq!(spans, [(1, 9), (5, 6), (7, 8), (8, 10)]);
        assert_eq!(late, 0);
    }

    #[test]
    fn reorder_buffer_keeps_the_end_of_late_requests() {
        let (spans, late) = reorder(1, &[(5, 6), (7, 8), (9, 10), (1, 11), (2, 3)]);
        assert_eq!(spans, [(5, 6), (7, 8), (7, 11), (7, 7), (9, 10)]);
        assert_eq!(late, 2);
    }
}
