//! Events of a `text/event-stream`.

/// Events (WHATWG HTML §9.2.6): lines that end with CR, LF or both; an empty one ends the event.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct EventScanner {
    line: EventLine,
    /// A field came since the last empty line.
    field_seen: bool,
    /// The byte before was CR: an LF belongs to it.
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
    /// A comment, as servers send to keep a connection, begins no event.
    pub(super) fn is_at_boundary(self) -> bool {
        self.line == EventLine::Empty && !self.field_seen
    }

    pub(super) fn step(&mut self, byte: u8) {
        let after_cr = std::mem::replace(&mut self.after_cr, byte == b'\r');
        match byte {
            b'\n' if after_cr => {}
            b'\r' | b'\n' => {
                self.field_seen &= self.line != EventLine::Empty;
                self.line = EventLine::Empty;
            }
            b':' if self.line == EventLine::Empty => self.line = EventLine::Comment,
            _ if self.line == EventLine::Empty => {
                (self.line, self.field_seen) = (EventLine::Field, true)
            }
            _ => {}
        }
    }
}
