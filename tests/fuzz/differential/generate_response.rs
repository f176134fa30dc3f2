//! Makes the origin's responses.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::case::{End, Response, When};
use super::generate::{body, body_length, chance, chunks, line, pieces, writes};

/// Fields of responses, as they are sent.
const FIELDS: &[&str] = &[
    "Date: Mon, 01 Jan 2024 00:00:00 GMT",
    "Server: fuzz",
    "Set-Cookie: a=1",
    "Set-Cookie: b=2; Path=/",
    "Vary: accept",
    "Vary: origin",
    "Cache-Control: no-store",
    "ETag: \"a\"",
    "Location: /other",
    "Content-Type: text/plain",
    "Connection: keep-alive",
    "Connection: X-Hop",
    "X-Hop: 1",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: close",
    "Via: 1.1 origin",
    "Trailer: X-T",
    "Strict-Transport-Security: max-age=1",
    "X-Request-Id: mine-2",
    "X-A:b",
    "X-A:   b  ",
    "X-A:\tb\t",
    "X-A:",
    "x-lower: v",
    "WWW-Authenticate: Basic realm=\"a\"",
    "Upgrade: h2c",
    "Alt-Svc: h3=\":443\"",
    "X-Accel-Buffering: no",
    "X-Bytes: \u{e9}\u{ff}",
];

const INTERIM: &[&str] = &[
    "HTTP/1.1 100 Continue\r\n\r\n",
    "HTTP/1.1 102 Processing\r\nX-A: b\r\n\r\n",
    "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nlink: </b>\r\n\r\n",
    "HTTP/1.1 103\r\nLink:</c>\r\n\r\n",
];

/// Lines that make the framing or the head wrong, or nearly.
const ODD_LINES: &[&str] = &[
    "Content-Length: 5, 5",
    "Content-Length: 6",
    "Content-Length: +5",
    "Content-Length: 05",
    "Content-Length:",
    "Content-Length: a",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: gzip",
    "Transfer-Encoding: identity",
    "Transfer-Encoding: Chunked",
    "X : 1",
    " folded",
    "X",
    ": empty",
    "X: a\0b",
    "X: a\u{7f}b",
    "X: a\rb",
    "X\u{e9}: b",
];

const STATUS_LINES: &[&str] = &[
    "HTTP/1.1 200",
    "HTTP/1.1 200 ",
    "HTTP/1.1 200 Fine and \u{e9}",
    "HTTP/1.1 299 Odd",
    "HTTP/1.1 599 Odd",
    "HTTP/1.1 999 Odd",
    "HTTP/1.1 099 Odd",
    "HTTP/1.1 20 Short",
    "HTTP/1.1 2000 Long",
    "HTTP/1.1  200 OK",
    "HTTP/1.2 200 OK",
    "HTTP/2.0 200 OK",
    "HTTP/1.1 426 Upgrade Required",
    "ICY 200 OK",
    "http/1.1 200 OK",
];

/// Whether the response never comes to its end.
pub(super) fn is_stalled(response: &Response) -> bool {
    response.end == End::Stall
}

/// A response before the body of its request was read.
pub(super) fn early_response(random: &mut StdRng) -> Response {
    let mut response = with_length(random, "HTTP/1.1 413 Content Too Large");
    response.when = When::AfterHead;
    if chance(random, 50) {
        response.end = End::Close;
    }
    response
}

/// A response after its request; `may_stall`: the route has short timeouts.
pub(super) fn response(random: &mut StdRng, may_stall: bool) -> Response {
    let mut response = match random.gen_range(0..100) {
        0..=34 => {
            let status = status(random);
            with_length(random, status)
        }
        35..=59 => chunked(random),
        60..=69 => until_close(random),
        70..=77 => without_body(random),
        78..=84 => http10(random),
        85..=88 => truncated(random),
        89..=91 => Response {
            end: End::Close,
            ..Response::default()
        },
        _ => odd(random),
    };
    if may_stall && chance(random, 20) {
        stall(random, &mut response);
    }
    if !response.lines.is_empty() && chance(random, 10) {
        for _ in 0..random.gen_range(1..3) {
            let interim = INTERIM.choose(random).copied().unwrap_or_default();
            response.interim.push(interim.as_bytes().to_vec());
        }
    }
    announce_close(&mut response);
    response.writes = writes(random, response.lines.concat().len());
    response
}

/// Says that the connection closes. A close that comes unannounced after a whole response may be seen before or after
/// the connection is used again.
fn announce_close(response: &mut Response) {
    let has_head = response.lines.last().is_some_and(|line| line == b"\r\n");
    let is_announced = response
        .lines
        .iter()
        .any(|line| line == b"Connection: close\r\n");
    if response.end == End::Close && has_head && !is_announced {
        let place = response.lines.len() - 1;
        response.lines.insert(place, line("Connection: close"));
    }
}

fn status(random: &mut StdRng) -> &'static str {
    let all = [
        "HTTP/1.1 200 OK",
        "HTTP/1.1 200 OK",
        "HTTP/1.1 201 Created",
        "HTTP/1.1 206 Partial Content",
        "HTTP/1.1 302 Found",
        "HTTP/1.1 404 Not Found",
        "HTTP/1.1 500 Broken",
        "HTTP/1.1 503 Busy",
    ];
    all.choose(random).copied().unwrap_or_default()
}

/// A head with these lines, further fields in between.
fn head(random: &mut StdRng, status: &str, framing: &[&str]) -> Response {
    let mut lines: Vec<_> = framing.iter().map(|field| line(field)).collect();
    for _ in 0..random.gen_range(0..4) {
        let field = FIELDS.choose(random).copied().unwrap_or_default();
        lines.insert(random.gen_range(0..=lines.len()), line(field));
    }
    lines.insert(0, line(status));
    let mut response = Response::default();
    if chance(random, 10) {
        lines.push(line("Connection: close"));
        response.end = End::Close;
    }
    lines.push(b"\r\n".to_vec());
    response.lines = lines;
    response
}

fn with_length(random: &mut StdRng, status: &str) -> Response {
    let data = body(body_length(random));
    let mut response = head(
        random,
        status,
        &[&format!("Content-Length: {}", data.len())],
    );
    response.body = pieces(random, &data);
    response
}

fn chunked(random: &mut StdRng) -> Response {
    let status = status(random);
    let mut response = head(random, status, &["Transfer-Encoding: chunked"]);
    let data = body(body_length(random));
    let trailers: &[&str] = if chance(random, 20) {
        &["X-T: 1", "X-U:"]
    } else {
        &[]
    };
    response.body = chunks(random, &data, trailers);
    response
}

fn until_close(random: &mut StdRng) -> Response {
    let status = status(random);
    let mut response = head(random, status, &[]);
    let data = body(body_length(random));
    response.body = pieces(random, &data);
    response.end = End::Close;
    response
}

fn without_body(random: &mut StdRng) -> Response {
    let (status, framing): (_, &[&str]) = match random.gen_range(0..8) {
        0..=2 => ("HTTP/1.1 204 No Content", &[]),
        3 => ("HTTP/1.1 204 No Content", &["Content-Length: 0"]),
        4 => ("HTTP/1.1 304 Not Modified", &["Content-Length: 5"]),
        5 => ("HTTP/1.1 304 Not Modified", &["Transfer-Encoding: chunked"]),
        6 => ("HTTP/1.1 304 Not Modified", &[]),
        _ => ("HTTP/1.1 205 Reset Content", &["Content-Length: 0"]),
    };
    head(random, status, framing)
}

fn http10(random: &mut StdRng) -> Response {
    let data = body(body_length(random));
    let length = format!("Content-Length: {}", data.len());
    let (framing, end): (&[&str], _) = match random.gen_range(0..3) {
        0 => (&[&length], End::Close),
        1 => (&[&length, "Connection: keep-alive"], End::Keep),
        _ => (&[], End::Close),
    };
    let mut response = head(random, "HTTP/1.0 200 OK", framing);
    response.body = pieces(random, &data);
    if end == End::Close {
        response.end = end;
    }
    response
}

/// A response that ends too early.
fn truncated(random: &mut StdRng) -> Response {
    let mut response = if chance(random, 50) {
        with_length(random, "HTTP/1.1 200 OK")
    } else {
        chunked(random)
    };
    response.end = End::Close;
    if chance(random, 30) {
        response.lines.pop();
        response.body.clear();
    } else if let Some(last) = response.body.last_mut() {
        last.truncate(last.len() / 2);
    }
    response
}

fn stall(random: &mut StdRng, response: &mut Response) {
    response.end = End::Stall;
    if chance(random, 50) {
        response.lines.clear();
        response.body.clear();
    } else if let Some(last) = response.body.last_mut() {
        last.truncate(last.len() / 2);
    }
}

/// A response with an odd line, which may make it malformed; its connection ends.
fn odd(random: &mut StdRng) -> Response {
    let (status, odd) = if chance(random, 40) {
        (STATUS_LINES.choose(random), None)
    } else {
        (None, ODD_LINES.choose(random))
    };
    let framing = match random.gen_range(0..3) {
        0 => "Content-Length: 5",
        1 => "Transfer-Encoding: chunked",
        _ => "X-A: b",
    };
    let lines: Vec<_> = [Some(framing), odd.copied()]
        .into_iter()
        .flatten()
        .collect();
    let status = status.copied().unwrap_or("HTTP/1.1 200 OK");
    let mut response = head(random, status, &lines);
    response.body = vec![match random.gen_range(0..4) {
        0 => b"5\r\nhello\r\n0\r\n\r\n".to_vec(),
        1 => b"5 \r\nhello\r\n0\r\n\r\n".to_vec(),
        _ => b"hello".to_vec(),
    }];
    response.end = End::Close;
    if chance(random, 10) {
        let place = random.gen_range(0..response.lines.len());
        bare_line_feed(&mut response.lines[place]);
    }
    response
}

/// Ends a line with a line feed alone.
pub(super) fn bare_line_feed(line: &mut Vec<u8>) {
    line.truncate(line.len().saturating_sub(2));
    line.push(b'\n');
}
