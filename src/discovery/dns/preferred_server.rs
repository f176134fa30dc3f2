//! Which name server is asked first. Pure.
//!
//! The order of the servers means something: the first is often the only one with the internal names, and the next one a
//! public server. So a later server is asked first only after it has answered with records, which the servers before it did
//! not do, and only for a while: an answer of it that there are no records says less than silence of the first.

use std::time::Duration;

/// How long a later server is asked first. Meanwhile the names of a source do not wait for the first one, each for the time
/// limit of an answer.
const PREFERRED_FOR: Duration = Duration::from_secs(10);

/// The server that is asked first.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PreferredServer {
    index: usize,
    until: Duration,
}

impl PreferredServer {
    /// The index of the server to ask first; the others follow in their order.
    pub(super) fn index(self, now: Duration) -> usize {
        if now < self.until { self.index } else { 0 }
    }

    /// After an answer with records.
    pub(super) fn note_records(&mut self, index: usize, now: Duration) {
        // Further answers do not make the time longer: the first server must be asked again.
        if index != self.index(now) {
            let until = now.saturating_add(PREFERRED_FOR);
            *self = Self { index, until };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    #[test]
    fn later_server_with_records_is_asked_first_for_ten_seconds() {
        let mut preferred = PreferredServer::default();
        assert_eq!(preferred.index(at(0)), 0);
        preferred.note_records(1, at(0));
        for second in 0..10 {
            assert_eq!(preferred.index(at(second)), 1, "{second}");
            preferred.note_records(1, at(second));
        }
        assert_eq!(preferred.index(at(10)), 0);
        preferred.note_records(1, at(10));
        assert_eq!(preferred.index(at(19)), 1);
        assert_eq!(preferred.index(at(20)), 0);
    }

    #[test]
    fn first_server_is_asked_first_again_as_soon_as_it_has_records() {
        let mut preferred = PreferredServer::default();
        preferred.note_records(2, at(0));
        preferred.note_records(0, at(1));
        assert_eq!(preferred.index(at(1)), 0);
    }
}
