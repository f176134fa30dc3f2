//! Makes a request malformed, or nearly.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::case::Request;
use super::generate::{chance, line};
use super::generate_response::bare_line_feed;

const REQUEST_LINES: &[(&str, &str)] = &[
    (" HTTP/1.", "  HTTP/1."),
    (" HTTP/1.", "\tHTTP/1."),
    (" HTTP/1.", " HTTP/1.1 HTTP/1."),
    ("HTTP/1.", "HTTP/2."),
    ("HTTP/1.", "HTTP/3."),
    ("HTTP/1.", "HTTP/0."),
    ("HTTP/1.", "http/1."),
    ("HTTP/1.", "HTTPS/1."),
    ("HTTP/1.1", "HTTP/1.2"),
    ("HTTP/1.1", "HTTP/1.10"),
    ("HTTP/1.1", "HTTP/1"),
    (" HTTP/1.1", ""),
    ("GET", "get"),
    ("GET", "G T"),
    ("GET ", " GET "),
    ("GET", "G(T"),
    ("GET", ""),
    ("POST", "POST\u{e9}"),
    (" /", " "),
    (" /", " ?"),
    (" /", " //"),
    (" /", " /\\"),
    (" /", " http:///"),
    (" /", " ftp://a.test/"),
    (" /", " http://u@a.test/"),
    (" /", " a.test:80/"),
];

const LINES: &[&str] = &[
    "X : 1",
    " folded: 1",
    "\tfolded",
    "X",
    ": empty",
    "X\0: 1",
    "X: a\0b",
    "X: a\u{7f}b",
    "X: a\rb",
    "X\u{e9}: b",
    "X(: b",
    "Content-Length: +5",
    "Content-Length: -5",
    "Content-Length: 5, 5",
    "Content-Length: 5, 6",
    "Content-Length: 5",
    "Content-Length: 05",
    "Content-Length: 0x5",
    "Content-Length:",
    "Content-Length: 99999999999999999999",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: Chunked",
    "Transfer-Encoding: chunked, chunked",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: chunked, gzip",
    "Transfer-Encoding:",
    "Transfer-Encoding: ,chunked",
    "Host: a.test",
    "Host:",
    "Host: a b",
    "Host: a@b",
    "Host: [::1",
    "Host: a/b",
    "Host: a.test:x",
    "Connection: close, content-length",
    "Connection: host",
    "Connection: transfer-encoding",
    "Connection: ,,",
    "Connection: keep-alive, close",
    "Expect: 100-continue",
    "Expect: 100-Continue, x",
];

const CHUNK_PARTS: &[(&str, &str)] = &[
    ("\r\n", "\n"),
    ("\r\n", " \r\n"),
    ("\r\n", ";\r\n"),
    ("\r\n", ";a=\"b\r\n"),
    ("\r\n", "\r"),
    ("\r\n", ""),
    ("0\r\n", "-0\r\n"),
    ("0\r\n", "0x0\r\n"),
    ("0\r\n", "00000000000000000000\r\n"),
    ("0\r\n", "g\r\n"),
    ("0\r\n", "\r\n"),
    ("0\r\n", "0\r\nX\r\n"),
    ("0\r\n", "0\r\nX : y\r\n"),
    ("0\r\n", "ffffffffffffffff\r\n"),
    ("0\r\n", "10000000000000000\r\n"),
];

/// Mutates the head or the body once or twice.
pub(super) fn mutate(random: &mut StdRng, request: &mut Request) {
    for _ in 0..random.gen_range(1..3) {
        match random.gen_range(0..10) {
            0..=1 => {
                let part = REQUEST_LINES.choose(random).copied();
                replace(random, &mut request.lines[..1], part);
            }
            2..=5 => {
                let added = LINES.choose(random).copied().unwrap_or_default();
                let place = random.gen_range(1..=request.lines.len().max(2) - 1);
                request.lines.insert(place, line(added));
            }
            6 => remove_line(random, request),
            7 => end_of_line(random, request),
            8 => change_byte(random, request),
            _ => {
                let part = CHUNK_PARTS.choose(random).copied();
                replace(random, &mut request.body, part);
            }
        }
    }
}

/// Replaces one occurrence of a text.
fn replace(random: &mut StdRng, pieces: &mut [Vec<u8>], part: Option<(&str, &str)>) {
    let (Some((from, to)), Some(piece)) = (part, pieces.choose_mut(random)) else {
        return;
    };
    let found: Vec<_> = piece
        .windows(from.len())
        .enumerate()
        .filter(|(_, window)| *window == from.as_bytes())
        .map(|(start, _)| start)
        .collect();
    if let Some(start) = found.choose(random) {
        let to = to.chars().map(|it| it as u8);
        piece.splice(*start..start + from.len(), to);
    }
}

fn remove_line(random: &mut StdRng, request: &mut Request) {
    let place = random.gen_range(0..request.lines.len());
    if request.lines.len() > 2 {
        request.lines.remove(place);
    }
}

fn end_of_line(random: &mut StdRng, request: &mut Request) {
    let place = random.gen_range(0..request.lines.len());
    let line = &mut request.lines[place];
    if chance(random, 70) {
        bare_line_feed(line);
    } else {
        line.truncate(line.len().saturating_sub(1));
    }
}

fn change_byte(random: &mut StdRng, request: &mut Request) {
    let place = random.gen_range(0..request.lines.len());
    let line = &mut request.lines[place];
    if !line.is_empty() {
        let at = random.gen_range(0..line.len());
        line[at] = random.r#gen();
    }
}
