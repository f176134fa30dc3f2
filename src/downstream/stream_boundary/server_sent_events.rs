//! Boundaries between the events of a `text/event-stream` (WHATWG HTML §9.2.6).

/// The state within an event: lines end with CR, LF or both, and an empty line ends the event.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EventScanner {
    line: EventLine,
    /// The event has a field.
    field_seen: bool,
    /// The byte before was CR: an LF belongs to the same line end.
    after_cr: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum EventLine {
    #[default]
    Empty,
    Comment,
    Field,
}

impl EventScanner {
    /// A comment, which servers send to keep a connection alive, does not begin an event.
    pub(super) fn is_at_boundary(self) -> bool {
        self.line == EventLine::Empty && !self.field_seen
    }

    pub(super) fn consume(&mut self, byte: u8) {
        let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
        match byte {
            b'\n' if after_cr => {}
            b'\r' | b'\n' => {
                self.field_seen &= self.line != EventLine::Empty;
                self.line = EventLine::Empty;
            }
            b':' if self.line == EventLine::Empty => self.line = EventLine::Comment,
            _ if self.line == EventLine::Empty => {
                (self.line, self.field_seen) = (EventLine::Field, true);
            }
            _ => {}
        }
    }
}
