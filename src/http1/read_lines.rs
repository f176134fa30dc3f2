//! Reads a section of field lines, up to the empty line that ends it (RFC 9112 §5).

use std::ops::Range;

use memchr::memchr;

use super::byte_class::{TEXT, TOKEN, has_no_controls_but};
use super::lines::{FieldLines, KnownField, Line};
use super::refusal::Refusal;
use super::scan::FieldScanner;

/// Parses the section that begins at `start` of `text`, and returns its end.
///
/// A section that is complete and valid is read in a few fast passes. Any other is left to the scanner, which
/// stops at its first wrong byte, and continues when more bytes have arrived.
pub(super) fn parse_fields(
    text: &[u8],
    start: usize,
    scanner: &mut Option<FieldScanner>,
    max_lines: usize,
    fields: &mut FieldLines,
) -> Result<Option<usize>, Refusal> {
    let scanner = if let Some(scanner) = scanner {
        scanner
    } else {
        if let Some(end) = read_lines(text, start, max_lines, fields) {
            return Ok(Some(end));
        }
        scanner.insert(FieldScanner::new(start))
    };
    let Some(end) = scanner.scan(text, max_lines)? else {
        return Ok(None);
    };
    // `read_lines` accepts all sections that the scanner accepts; a test compares the two.
    let read = read_lines(text, start, max_lines, fields).filter(|read| *read == end);
    read.map(Some).ok_or(Refusal::InvalidFieldValue)
}

/// Reads the section if it is complete and valid.
fn read_lines(
    text: &[u8],
    start: usize,
    max_lines: usize,
    fields: &mut FieldLines,
) -> Option<usize> {
    fields.clear();
    let mut at = start;
    while !matches!(text.get(at..)?, [b'\r', b'\n', ..]) {
        let name_end = TOKEN.run_end(text, at);
        let is_named = name_end > at && text.get(name_end) == Some(&b':');
        if !is_named || fields.len() == max_lines {
            return None;
        }
        let line_feed = name_end + memchr(b'\n', text.get(name_end..)?)?;
        let value_end = line_feed - 1;
        if text.get(value_end) != Some(&b'\r') {
            return None;
        }
        let value = trim_range(text, name_end + 1..value_end);
        let name = text.get(at..name_end)?;
        let known = KnownField::of(name);
        fields.push(
            name,
            Line::new(text, at..line_feed + 1, name_end, value, known)?,
        );
        at = line_feed + 1;
    }
    let end = at + 2;
    let section = text.get(start..end)?;
    let breaks = 2 * (fields.len() + 1);
    (has_no_controls_but(breaks, section) || is_text(section, breaks)).then_some(end)
}

/// As [`has_no_controls_but`], for sections with HTAB.
fn is_text(section: &[u8], breaks: usize) -> bool {
    let others = section.iter().filter(|byte| !TEXT.contains(**byte));
    others.count() == breaks
}

/// The range without the blanks at its ends.
fn trim_range(text: &[u8], Range { mut start, mut end }: Range<usize>) -> Range<usize> {
    let is_blank = |at: usize| matches!(text.get(at), Some(b' ' | b'\t'));
    while start < end && is_blank(start) {
        start += 1;
    }
    while start < end && is_blank(end - 1) {
        end -= 1;
    }
    start..end
}
