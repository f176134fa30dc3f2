//! The values of a JSON line, appended to a buffer without an allocation.
//!
//! Bytes from the client are made safe: control characters are escaped, invalid UTF-8 becomes U+FFFD.

use std::cell::Cell;
use std::io::Write;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;

use crate::telemetry::hex_digits;

pub(super) fn or_null<T>(line: &mut Vec<u8>, value: Option<T>, render: impl Fn(&mut Vec<u8>, T)) {
    match value {
        Some(value) => render(line, value),
        None => line.extend_from_slice(b"null"),
    }
}

pub(super) fn boolean(line: &mut Vec<u8>, value: bool) {
    line.extend_from_slice(if value { b"true" } else { b"false" });
}

/// `"2026-01-02T03:04:05.678Z"`. Each thread caches the text of its last second, so that a date is
/// rendered once a second and not once a line.
pub(super) fn time(line: &mut Vec<u8>, time: Timestamp) {
    thread_local! {
        static LAST: Cell<(i64, [u8; 19])> = const { Cell::new((i64::MIN, [0; 19])) };
    }
    // Euclidean division rounds down for times before 1970 too: there the fraction in jiff is negative.
    let milliseconds = time.as_millisecond();
    let second = milliseconds.div_euclid(1_000);
    let (cached, mut text) = LAST.get();
    if cached != second {
        text = date(second);
        LAST.set((second, text));
    }
    line.push(b'"');
    line.extend_from_slice(&text);
    let [a, b, c] = digits(milliseconds.rem_euclid(1_000).unsigned_abs());
    line.extend_from_slice(&[b'.', a, b, c, b'Z', b'"']);
}

/// `2026-01-02T03:04:05`; a year with more than four digits is truncated.
fn date(second: i64) -> [u8; 19] {
    let mut text = [b' '; 19];
    let time = Timestamp::from_second(second).unwrap_or(Timestamp::UNIX_EPOCH);
    // A slice takes no more than its length: the `Z` does not fit; the caller adds it after the fraction.
    let _ = write!(&mut text[..], "{time:.0}");
    text
}

pub(super) fn address(line: &mut Vec<u8>, address: IpAddr) {
    line.push(b'"');
    match address {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            for octet in [a, b, c] {
                integer(line, octet.into());
                line.push(b'.');
            }
            integer(line, d.into());
        }
        // Writing to a `Vec` never fails. The text of an address needs no escape.
        IpAddr::V6(v6) => drop(write!(line, "{v6}")),
    }
    line.push(b'"');
}

pub(super) fn seconds(line: &mut Vec<u8>, duration: Duration) {
    integer(line, duration.as_secs());
    let mut fraction = [b'.'; 7];
    let [_, micros @ ..] = &mut fraction;
    *micros = digits(duration.subsec_micros().into());
    line.extend_from_slice(&fraction);
}

pub(super) fn integer(line: &mut Vec<u8>, value: u64) {
    // Most numbers of a line are small.
    match value {
        0..10 => line.push(digit(value)),
        10..100 => line.extend_from_slice(&digits::<2>(value)),
        100..1_000 => line.extend_from_slice(&digits::<3>(value)),
        _ => {
            // The largest number has 20 digits.
            let text = digits::<20>(value);
            let zeros = text.iter().take_while(|digit| **digit == b'0').count();
            line.extend_from_slice(text.get(zeros..).unwrap_or_default());
        }
    }
}

/// The last `N` decimal digits, with leading zeros.
fn digits<const N: usize>(mut value: u64) -> [u8; N] {
    let mut text = [b'0'; N];
    for byte in text.iter_mut().rev() {
        *byte = digit(value);
        value /= 10;
    }
    text
}

/// The hash of a key as [`Hash`](crate::ring::Hash) shows it, in quotes.
#[expect(clippy::cast_possible_truncation, reason = "one half at a time")]
pub(super) fn hex(line: &mut Vec<u8>, value: u64) {
    line.push(b'"');
    if value >> 32 != 0 {
        line.extend_from_slice(&hex_digits((value >> 32) as u32));
    }
    line.extend_from_slice(&hex_digits(value as u32));
    line.push(b'"');
}

fn digit(value: u64) -> u8 {
    b'0' + (value % 10) as u8
}

/// A JSON string (RFC 8259 §7).
pub(super) fn json_string(line: &mut Vec<u8>, text: &[u8]) {
    line.push(b'"');
    if is_plain_text(text) {
        line.extend_from_slice(text);
    } else {
        push_escaped(line, text);
    }
    line.push(b'"');
}

/// A word of our own, which needs no escape.
pub(super) fn plain_string(line: &mut Vec<u8>, word: &str) {
    line.push(b'"');
    line.extend_from_slice(word.as_bytes());
    line.push(b'"');
}

/// Whether no byte needs an escape. Most texts are too short for the compiler's vectors, so eight bytes are checked at a time.
fn is_plain_text(text: &[u8]) -> bool {
    let Some(last) = text.last_chunk() else {
        return text.iter().all(|&byte| is_plain(byte));
    };
    let (words, _) = text.as_chunks();
    // The last word overlaps the one before it.
    words.iter().chain([last]).all(|&word| is_plain_word(word))
}

/// [`is_plain`] of eight bytes: bit 7 of each byte of `escaped` shows that one at or below it is not plain.
fn is_plain_word(word: [u8; 8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGH: u64 = ONES << 7;
    let word = u64::from_ne_bytes(word);
    let below = |bound: u8, word: u64| word.wrapping_sub(ONES * u64::from(bound)) & !word;
    let equal = |byte: u8| below(1, word ^ (ONES * u64::from(byte)));
    let delete = word.wrapping_add(ONES);
    let escaped = word | delete | below(b' ', word) | equal(b'"') | equal(b'\\');
    escaped & HIGH == 0
}

/// Printable ASCII that needs no escape in a JSON string.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, b' ' | b'!' | b'#'..=b'[' | b']'..=b'~')
}

#[cold]
fn push_escaped(line: &mut Vec<u8>, text: &[u8]) {
    for chunk in text.utf8_chunks() {
        for char in chunk.valid().chars() {
            push_escaped_char(line, char);
        }
        if !chunk.invalid().is_empty() {
            line.extend_from_slice("\u{FFFD}".as_bytes());
        }
    }
}

fn push_escaped_char(line: &mut Vec<u8>, char: char) {
    match char {
        '"' | '\\' => line.extend_from_slice(&[b'\\', char as u8]),
        // Also U+007F … U+009F, which JSON allows: they control a terminal that shows the log.
        _ if char.is_control() => {
            let _ = write!(line, "\\u{:04x}", u32::from(char));
        }
        _ => line.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Hash;

    #[test]
    fn hash_in_the_log_is_shown_as_elsewhere() {
        for hash in [0, 0x00c0_ffee, 0xffff_ffff, 1 << 32, u64::MAX] {
            let mut line = Vec::new();
            hex(&mut line, hash);
            assert_eq!(line, format!("\"{}\"", Hash(hash)).into_bytes());
        }
    }

    #[test]
    fn number_of_any_size_has_its_digits() {
        for number in [0, 9, 10, 99, 100, 999, 1_000, 65_535, u64::MAX] {
            let mut line = Vec::new();
            integer(&mut line, number);
            assert_eq!(line, number.to_string().into_bytes());
        }
    }

    #[test]
    fn text_needs_an_escape_if_any_of_its_bytes_does() {
        for length in 1..=17 {
            for at in 0..length {
                for byte in 0..=u8::MAX {
                    let mut text = vec![b'a'; length];
                    text[at] = byte;
                    assert_eq!(is_plain_text(&text), is_plain(byte), "{text:?}");
                }
            }
        }
        assert!(is_plain_text(b""));
    }
}
