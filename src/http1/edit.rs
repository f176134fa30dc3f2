//! Changes to the fields of a message, kept apart from it: the message stays as received, for a retry and the log.

use bytes::Bytes;
use http::HeaderValue;
use http::header::HOST;

use super::byte_class::{TOKEN, is_field_text};
use super::connection::{is_hop_by_hop, removable_field};
use super::framing::{BodyLength, Framing};
use super::head::{RequestHead, ResponseHead};
use super::lines::{
    Field, FieldLines, KnownField, Line, NameSet, list_elements, write_field, write_lines,
};

/// A name or value that cannot be written as one field line (RFC 9110 §5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a field name or value has a byte that no field line can carry")]
pub struct InvalidField;

/// The changes to the fields of one message. Memory is kept for reuse.
#[derive(Clone, Debug, Default)]
pub struct FieldEdits {
    /// Whether the next two lists are filled from a message.
    has_begun: bool,
    /// The received lines that are kept.
    kept: Vec<Line>,
    /// The added lines, as ranges of `text`, which has them as they are written.
    added: Vec<Line>,
    text: Vec<u8>,
    /// The names of all lines, the removed ones included.
    names: NameSet,
}

impl FieldEdits {
    /// Forgets all changes.
    pub fn clear(&mut self) {
        self.has_begun = false;
        self.kept.clear();
        self.added.clear();
        self.text.clear();
    }

    /// The memory that [`clear`](Self::clear) keeps; bytes.
    pub fn capacity(&self) -> usize {
        let lines = self.kept.capacity() + self.added.capacity();
        lines * size_of::<Line>() + self.text.capacity()
    }

    /// Reads and changes `fields`. Earlier changes to the same fields stay.
    pub fn edit<'a>(&'a mut self, fields: &'a FieldLines) -> FieldEditor<'a> {
        if !self.has_begun {
            self.begin(fields, |_| true);
        }
        FieldEditor {
            received: &fields.text,
            edits: self,
        }
    }

    fn begin(&mut self, fields: &FieldLines, is_kept: impl Fn(&Line) -> bool) {
        self.clear();
        self.has_begun = true;
        self.names = fields.names;
        let kept = fields.lines.iter().filter(|line| is_kept(line));
        self.kept.extend(kept);
    }

    /// Begins with the fields of a message that is forwarded: without those for one connection only, and with the
    /// framing of a body that is sent as `body`.
    fn forward<'a>(
        &'a mut self,
        fields: &'a FieldLines,
        framing: &Framing,
        body: BodyLength,
    ) -> FieldEditor<'a> {
        let is_chunked = body == BodyLength::Chunked;
        let keeps_length = framing.is_canonical && !is_chunked;
        self.begin(fields, |line| match line.known {
            KnownField::ContentLength => keeps_length,
            KnownField::TransferEncoding => false,
            known => !is_hop_by_hop(known),
        });
        let mut editor = self.edit(fields);
        if is_chunked {
            editor.push("Transfer-Encoding", b"chunked");
        } else if let Some(length) = framing.content_length.filter(|_| !keeps_length) {
            editor.push("Content-Length", length.to_string().as_bytes());
        }
        for option in fields.known(KnownField::Connection) {
            list_elements(option)
                .filter_map(removable_field)
                .for_each(|name| editor.remove(name));
        }
        editor
    }
}

impl RequestHead {
    /// The fields for the peer, of a body that is sent as `body`: without those of the client's connection, and
    /// with the target's host if it has one (RFC 9112 §3.2.2). Forgets earlier changes.
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
    received: &'a Bytes,
    edits: &'a mut FieldEdits,
}

impl FieldEditor<'_> {
    /// The first value of a name, in any case of letters.
    pub fn get(&self, name: impl AsRef<str>) -> Option<&[u8]> {
        let name = name.as_ref();
        if !self.edits.names.may_contain(name.as_bytes()) {
            return None;
        }
        let mut lines = self.lines();
        let (text, line) = lines.find(|(text, line)| line.has_name(text, name))?;
        Some(line.field(text).value)
    }

    /// As [`get`](Self::get), sharing the memory of the message if the field came with it.
    pub fn get_bytes(&self, name: impl AsRef<str>) -> Option<Bytes> {
        let name = name.as_ref();
        let line = self
            .edits
            .kept
            .iter()
            .find(|line| line.has_name(self.received, name));
        match line {
            Some(line) => Some(self.received.slice(line.value_range())),
            None => self.get(name).map(Bytes::copy_from_slice),
        }
    }

    /// All values of a name: received ones first, then those added, each in their order.
    pub fn get_all<'a>(&'a self, name: &str) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        let may_contain = self.edits.names.may_contain(name.as_bytes());
        let lines = may_contain.then(|| self.lines()).into_iter().flatten();
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
        if !self.edits.names.may_contain(name.as_bytes()) {
            return;
        }
        let FieldEdits {
            kept, added, text, ..
        } = &mut *self.edits;
        kept.retain(|line| !line.has_name(self.received, name));
        added.retain(|line| !line.has_name(text, name));
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

    /// Adds a field after all others.
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

    /// Removes all fields with a name for which `is_removed` is true; the name has its original case.
    pub fn remove_where(&mut self, is_removed: impl Fn(&[u8]) -> bool) {
        let FieldEdits {
            kept, added, text, ..
        } = &mut *self.edits;
        kept.retain(|line| !is_removed(line.field(self.received).name));
        added.retain(|line| !is_removed(line.field(text).name));
    }

    /// As [`set`](Self::set), with a name that is a token.
    pub(super) fn set_value(&mut self, name: &str, value: &HeaderValue) {
        self.remove(name);
        self.push(name, value.as_bytes());
    }

    /// As [`append`](Self::append), with a name that is a token.
    pub(super) fn append_value(&mut self, name: &str, value: &HeaderValue) {
        self.push(name, value.as_bytes());
    }

    /// Writes all lines, without the empty one that ends them.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        write_lines(self.received, &self.edits.kept, out);
        write_lines(&self.edits.text, &self.edits.added, out);
    }

    fn lines(&self) -> impl DoubleEndedIterator<Item = (&[u8], &Line)> {
        let kept = self.edits.kept.iter().map(|line| (&**self.received, line));
        let added = self.edits.added.iter();
        kept.chain(added.map(|line| (self.edits.text.as_slice(), line)))
    }

    /// Adds a line of a name and a value that are checked already.
    fn push(&mut self, name: &str, value: &[u8]) {
        self.edits.names.insert(name.as_bytes());
        let text = &mut self.edits.text;
        let start = text.len();
        write_field(name.as_bytes(), value, text);
        let name_end = start + name.len();
        let value_end = text.len() - 2;
        let value = value_end - value.len()..value_end;
        let known = KnownField::Other;
        let line = Line::new(text, start..text.len(), name_end, value, known);
        self.edits.added.extend(line);
    }
}

/// Whether a line of this name and value is read back as the same name and value.
fn check_field(name: &str, value: &[u8]) -> Result<(), InvalidField> {
    let is_padded = matches!(value, [b' ' | b'\t', ..] | [.., b' ' | b'\t']);
    let is_valid = !name.is_empty()
        && TOKEN.contains_all(name.as_bytes())
        && is_field_text(value)
        && !is_padded;
    is_valid.then_some(()).ok_or(InvalidField)
}
