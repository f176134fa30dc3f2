//! Fields of HTTP/1 as the phases read and edit them.

use bytes::Bytes;
use http::HeaderValue;
use http::header::HeaderName;

use super::edit::FieldEditor;
use super::lines::FieldLines;
use crate::header::{HeaderEdit, HeaderRead};

impl HeaderRead for FieldLines {
    fn get(&self, name: &HeaderName) -> Option<&[u8]> {
        Self::get(self, name)
    }

    fn get_all<'a>(&'a self, name: &HeaderName) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        Self::get_all(self, name.as_str())
    }

    fn value(&self, name: &HeaderName) -> Option<HeaderValue> {
        shared_value(self.get_bytes(name)?)
    }
}

impl HeaderRead for FieldEditor<'_> {
    fn get(&self, name: &HeaderName) -> Option<&[u8]> {
        Self::get(self, name)
    }

    fn get_all<'a>(&'a self, name: &HeaderName) -> impl DoubleEndedIterator<Item = &'a [u8]> {
        Self::get_all(self, name.as_str())
    }

    fn value(&self, name: &HeaderName) -> Option<HeaderValue> {
        shared_value(self.get_bytes(name)?)
    }
}

impl HeaderEdit for FieldEditor<'_> {
    fn set(&mut self, name: &HeaderName, value: HeaderValue) {
        self.set_value(name.as_str(), &value);
    }

    fn set_ref(&mut self, name: &HeaderName, value: &HeaderValue) {
        self.set_value(name.as_str(), value);
    }

    fn append(&mut self, name: &HeaderName, value: HeaderValue) {
        self.append_value(name.as_str(), &value);
    }

    fn remove(&mut self, name: &HeaderName) {
        Self::remove(self, name);
    }

    fn remove_where(&mut self, is_removed: impl Fn(&[u8]) -> bool) {
        Self::remove_where(self, is_removed);
    }
}

/// Never fails: the parser accepts only bytes that [`HeaderValue`] accepts, too.
fn shared_value(value: Bytes) -> Option<HeaderValue> {
    HeaderValue::from_maybe_shared(value).ok()
}
