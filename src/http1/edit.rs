//! Changes to the fields of a message, kept beside it: the message stays as it came, for a retry and for the log.

use std::iter;

use http::header::HOST;

use super::byte_class::{TEXT, TOKEN};
use super::connection::{is_hop_by_hop, listed_fields};
use super::framing::{BodyLength, Framing};
use super::head::{RequestHead, ResponseHead};
use super::lines::{Field, FieldLines, KnownField, Line, write_field, write_lines};

/// A name or value that cannot be written as one field line (RFC 9110, 5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a field name or value has a byte that no field line can carry")]
pub struct InvalidField;

/// What is removed from the fields of one message, and added. Memory is kept for reuse.
#[derive(Clone, Debug, Default)]
pub struct FieldEdits {
    /// For each received line, whether it is removed; empty: none is.
    removed: Vec<bool>,
    /// The added lines as they are written.
    text: Vec<u8>,
    added: Vec<Line>,
}

impl FieldEdits {
    /// Forgets all changes.
    pub fn clear(&mut self) {
        self.removed.clear();
        self.text.clear();
        self.added.clear();
    }

    fn forward<'a>(
        &'a mut self,
        fields: &'a FieldLines,
        framing: &Framing,
        body: BodyLength,
    ) -> FieldEditor<'a> {
        self.clear();
        let mut editor = self.edit(fields);
        editor.remove_hop_by_hop();
        editor.set_framing(framing, body);
        editor
    }

    /// Reads and changes `fields`, further to the changes so far, which were to the same fields.
    pub fn edit<'a>(&'a mut self, fields: &'a FieldLines) -> FieldEditor<'a> {
        FieldEditor {
            received: fields,
            edits: self,
        }
    }
}

impl RequestHead {
    /// The fields for the peer, of a body that is sent as `body`: without those of the client's connection, and
    /// with the target's host if it has one (RFC 9112, 3.2.2). Forgets earlier changes.
    pub fn forward<'a>(&'a self, edits: &'a mut FieldEdits, body: BodyLength) -> FieldEditor<'a> {
        let host = self.target_host();
        let mut editor = edits.forward(&self.fields, &self.framing, body);
        if let Some(host) = host {
            editor.remove(HOST);
            editor.push("Host", host);
        }
        editor
    }
}

impl ResponseHead {
    /// The fields for the client, of a body that is sent as `body`: without those of the peer's connection. Forgets
    /// earlier changes.
    pub fn forward<'a>(&'a self, edits: &'a mut FieldEdits, body: BodyLength) -> FieldEditor<'a> {
        edits.forward(&self.fields, &self.framing, body)
    }
}

/// The fields of a message as they will be sent: reads see the changes.
#[derive(Debug)]
pub struct FieldEditor<'a> {
    received: &'a FieldLines,
    edits: &'a mut FieldEdits,
}

impl FieldEditor<'_> {
    /// The first value of a name, in any case of letters.
    pub fn get(&self, name: impl AsRef<str>) -> Option<&[u8]> {
        let name = name.as_ref();
        let (text, line) = self
            .lines()
            .find(|(text, line)| line.has_name(text, name))?;
        Some(line.field(text).value)
    }

    /// All values of a name: received ones first, then those added, each in their order.
    pub fn get_all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let lines = self.lines();
        let named = lines.filter(move |(text, line)| line.has_name(text, name));
        named.map(|(text, line)| line.field(text).value)
    }

    /// Whether a name is present.
    pub fn contains(&self, name: impl AsRef<str>) -> bool {
        self.get(name).is_some()
    }

    /// All fields: received ones first, then those added, each in their order.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.lines().map(|(text, line)| line.field(text))
    }

    /// Removes all fields of a name.
    pub fn remove(&mut self, name: impl AsRef<str>) {
        let name = name.as_ref();
        let text = &self.received.text;
        self.remove_received(|line| line.has_name(text, name));
        let edits = &mut *self.edits;
        edits.added.retain(|line| !line.has_name(&edits.text, name));
    }

    /// Replaces all fields of a name by one.
    pub fn set(
        &mut self,
        name: impl AsRef<str>,
        value: impl AsRef<[u8]>,
    ) -> Result<(), InvalidField> {
        let (name, value) = (name.as_ref(), value.as_ref());
        check_field(name, value)?;
        self.remove(name);
        self.push(name, value);
        Ok(())
    }

    /// Adds a field behind all others.
    pub fn append(
        &mut self,
        name: impl AsRef<str>,
        value: impl AsRef<[u8]>,
    ) -> Result<(), InvalidField> {
        let (name, value) = (name.as_ref(), value.as_ref());
        check_field(name, value)?;
        self.push(name, value);
        Ok(())
    }

    /// Removes the received fields that are for one connection only (RFC 9110, 7.6.1), also those that
    /// `Connection` lists, except ones that must reach the other side.
    pub fn remove_hop_by_hop(&mut self) {
        self.remove_received(|line| is_hop_by_hop(line.known));
        let text = &self.received.text;
        for name in listed_fields(self.received) {
            self.remove_received(|line| line.has_name(text, name));
        }
    }

    /// Replaces the framing fields of the message by those for a body that is sent as `body`: the length of
    /// `framing`, or chunks.
    pub fn set_framing(&mut self, framing: &Framing, body: BodyLength) {
        let chunked = body == BodyLength::Chunked;
        let keeps_length = framing.is_canonical && !chunked;
        self.remove_received(|line| match line.known {
            KnownField::TransferEncoding => true,
            KnownField::ContentLength => !keeps_length,
            _ => false,
        });
        if chunked {
            self.push("Transfer-Encoding", b"chunked");
        } else if let Some(length) = framing.content_length.filter(|_| !keeps_length) {
            self.push("Content-Length", length.to_string().as_bytes());
        }
    }

    /// Writes all lines, without the empty one that ends them.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let edits = &*self.edits;
        if edits.removed.is_empty() {
            write_lines(
                &self.received.text,
                self.received.lines.iter().copied(),
                out,
            );
        } else {
            write_lines(&self.received.text, self.kept(), out);
        }
        write_lines(&edits.text, edits.added.iter().copied(), out);
    }

    fn kept(&self) -> impl Iterator<Item = Line> {
        let removed = self
            .edits
            .removed
            .iter()
            .copied()
            .chain(iter::repeat(false));
        let lines = self.received.lines.iter().zip(removed);
        lines.filter(|(_, removed)| !removed).map(|(line, _)| *line)
    }

    fn lines(&self) -> impl Iterator<Item = (&[u8], Line)> {
        let received = self.kept().map(|line| (&*self.received.text, line));
        let edits = &*self.edits;
        received.chain(edits.added.iter().map(|line| (&*edits.text, *line)))
    }

    fn remove_received(&mut self, is_removed: impl Fn(&Line) -> bool) {
        let removed = &mut self.edits.removed;
        for (index, line) in self.received.lines.iter().enumerate() {
            if is_removed(line) {
                removed.resize(self.received.lines.len(), false);
                if let Some(removed) = removed.get_mut(index) {
                    *removed = true;
                }
            }
        }
    }

    /// Adds a line whose parts are checked.
    fn push(&mut self, name: &str, value: &[u8]) {
        let text = &mut self.edits.text;
        let start = text.len();
        let name_end = start + name.len();
        write_field(name.as_bytes(), value, text);
        let value_end = text.len() - 2;
        let value_start = value_end - value.len();
        let line = Line::new(text, start..text.len(), name_end, value_start..value_end);
        self.edits.added.extend(line);
    }
}

/// Whether the parts make one line, from which they are read as they are.
fn check_field(name: &str, value: &[u8]) -> Result<(), InvalidField> {
    let is_padded = matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']);
    let is_valid = !name.is_empty()
        && TOKEN.contains_all(name.as_bytes())
        && TEXT.contains_all(value)
        && !is_padded;
    is_valid.then_some(()).ok_or(InvalidField)
}
