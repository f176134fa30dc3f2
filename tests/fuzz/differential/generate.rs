//! Makes the case of a seed: mostly valid requests, in part of the cases with mutations.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;

use super::case::{Case, Pause, Request};
use super::generate_response::{self, early_response, response};
use super::mutate::mutate;
use super::routes::{ROUTES, SHORT};

/// The part of the cases in which a request is mutated; percent.
const MUTATED: u32 = 35;

/// The addresses in `X-Forwarded-For`, which the client replaces by those of a case.
pub(super) const FORWARDED: [&str; 3] = ["192.0.2.1", "192.0.2.2", "192.0.2.3"];

/// Fields of requests, as they are sent.
const FIELDS: &[&str] = &[
    "Accept: */*",
    "User-Agent: fuzz/1",
    "Cookie: cw=abc",
    "Cookie: a=1; cw=x; b=\"2\"",
    "X-User: u1",
    "X-User: u2",
    "X-Forwarded-For: 192.0.2.1, 192.0.2.2",
    "X-Forwarded-For: 192.0.2.3",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: other.test",
    "Forwarded: for=192.0.2.9;proto=https",
    "X-Request-Id: mine-1",
    "Via: 1.1 before",
    "Connection: close",
    "Connection: keep-alive",
    "Connection: X-Hop",
    "Connection: keep-alive, x-hop, TE",
    "Connection: Close",
    "X-Hop: 1",
    "Keep-Alive: timeout=5",
    "TE: trailers",
    "Proxy-Connection: keep-alive",
    "Max-Forwards: 0",
    "Range: bytes=0-1",
    "If-None-Match: \"a\"",
    "Traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "Authorization: Basic YTpi",
    "Content-Type: text/plain",
    "X-A:b",
    "X-A:   b  ",
    "X-A:\tb\t",
    "X-A:",
    "X-A: a,, b ,",
    "x-lower: v",
    "X-REPEAT: 1",
    "X-Repeat: 2",
    "Trailer: X-T",
    "X_Under: 1",
    "Priority: u=1",
    "Early-Data: 1",
    "X!#$%&'*+-.^_`|~: 1",
    "X-Bytes: \u{e9}\u{ff}",
];

/// Fields that are in few requests, because they decide everything.
const RARE_FIELDS: &[&str] = &[
    "Upgrade: h2c",
    "Connection: upgrade",
    "Expect: other",
    "Content-Type: application/grpc",
    "Content-Length: 0",
];

/// Makes the case with this number of a seed, for a slot whose hosts have this name.
pub(super) fn case(random: &mut StdRng, name: &str) -> Case {
    let route = if chance(random, 35) {
        0
    } else {
        random.gen_range(0..ROUTES.len())
    };
    let mut case = Case {
        route,
        is_trusted: chance(random, 30),
        ..Case::default()
    };
    let count = *[1, 1, 2, 2, 3, 4, 5].choose(random).unwrap_or(&1);
    for index in 0..count {
        let is_last = index + 1 == count;
        push_exchange(random, name, is_last, &mut case);
    }
    // The last ones are for further attempts.
    for _ in 0..2 {
        case.responses.push(response(random, route == SHORT));
    }
    if chance(random, MUTATED) {
        case.is_malformed = true;
        let place = random.gen_range(0..case.requests.len());
        let request = &mut case.requests[place];
        if request.pause == Pause::Leave {
            request.pause = Pause::None;
        }
        mutate(random, request);
        // A response that never comes cannot be told from one that is late.
        case.responses
            .retain(|response| !generate_response::is_stalled(response));
    }
    case
}

pub(super) fn chance(random: &mut StdRng, percent: u32) -> bool {
    random.gen_range(0..100) < percent
}

pub(super) fn line(text: &str) -> Vec<u8> {
    let mut line: Vec<u8> = text.chars().map(|it| it as u8).collect();
    line.extend_from_slice(b"\r\n");
    line
}

fn push_exchange(random: &mut StdRng, name: &str, is_last: bool, case: &mut Case) {
    let mut request = request(random, name, case.route);
    let has_body = !request.body.is_empty();
    let expects = request.pause == Pause::Response;
    let mut response = response(random, case.route == SHORT);
    if has_body && !expects && chance(random, 5) {
        request.pause = Pause::Response;
        response = early_response(random);
    } else if expects && chance(random, 20) {
        response = early_response(random);
    } else if has_body && !expects && is_last && chance(random, 3) {
        request.pause = Pause::Leave;
    }
    case.requests.push(request);
    case.responses.push(response);
}

fn request(random: &mut StdRng, name: &str, route: usize) -> Request {
    let methods = [
        ("GET", 45),
        ("POST", 20),
        ("HEAD", 10),
        ("PUT", 10),
        ("OPTIONS", 8),
        ("DELETE", 4),
        ("PURGE", 3),
    ];
    let method = methods
        .choose_weighted(random, |it| it.1)
        .map_or("GET", |it| it.0);
    let is_http10 = chance(random, 10);
    let version = if is_http10 { "HTTP/1.0" } else { "HTTP/1.1" };
    let target = target(random, name, route, method);
    let mut lines = vec![line(&format!("{method} {target} {version}"))];
    if chance(random, 3) {
        lines.insert(0, b"\r\n".to_vec());
    }
    if !is_http10 || chance(random, 80) {
        lines.push(line(&format!("Host: {}", host(random, name))));
    }
    for _ in 0..random.gen_range(0..5) {
        let fields = if chance(random, 3) {
            RARE_FIELDS
        } else {
            FIELDS
        };
        let field = fields.choose(random).copied().unwrap_or_default();
        let place = random.gen_range(1..=lines.len());
        lines.insert(place.max(lines.len() - 1), line(field));
    }
    if chance(random, 1) {
        let length = *[2000, 3900, 5000].choose(random).unwrap_or(&0);
        lines.push(line(&format!("X-Long: {}", "v".repeat(length))));
    }
    let mut request = Request {
        lines,
        waits: chance(random, 60),
        ..Request::default()
    };
    let body = match method {
        "POST" | "PUT" => 90,
        "GET" | "HEAD" => 4,
        _ => 25,
    };
    if chance(random, body) {
        add_body(random, is_http10, &mut request);
    }
    request.lines.push(b"\r\n".to_vec());
    request.writes = writes(random, request.lines.concat().len());
    request
}

/// Sizes of writes: mostly one of all.
pub(super) fn writes(random: &mut StdRng, length: usize) -> Vec<usize> {
    let pieces = if chance(random, 70) {
        0
    } else {
        random.gen_range(1..4)
    };
    (0..pieces)
        .map(|_| random.gen_range(1..=length.clamp(1, 60)))
        .collect()
}

fn host(random: &mut StdRng, name: &str) -> String {
    match random.gen_range(0..20) {
        0 => format!("{name}.test:80"),
        1 => format!("{}.TEST", name.to_uppercase()),
        2 => format!("{name}.test."),
        _ => format!("{name}.test"),
    }
}

fn target(random: &mut StdRng, name: &str, route: usize, method: &str) -> String {
    if method == "OPTIONS" && chance(random, 20) {
        return "*".to_owned();
    }
    let path = ROUTES[route].0;
    let rest = match random.gen_range(0..40) {
        0..=9 => "/x",
        10..=14 => "?k=v",
        15 => "/a%2Fb?k=1&k=2",
        16 => "/../plain",
        17 => "//x//",
        18 => "?",
        19 => "/%zz",
        20 => "/;a=b?c#",
        21 => "/\u{e9}",
        22 => "/|\"<>",
        _ => "",
    };
    let mut target = format!("{path}{rest}");
    if chance(random, 1) {
        target += &"/y".repeat(150);
    }
    if chance(random, 8) {
        let scheme = ["http", "HTTP", "https"].choose(random).unwrap_or(&"http");
        target = format!("{scheme}://{}{target}", host(random, name));
    }
    target
}

fn add_body(random: &mut StdRng, is_http10: bool, request: &mut Request) {
    let length = body_length(random);
    let data = body(length);
    if is_http10 || chance(random, 55) {
        request
            .lines
            .push(line(&format!("Content-Length: {length}")));
        request.body = pieces(random, &data);
    } else {
        request.lines.push(line("Transfer-Encoding: chunked"));
        let trailers: &[&str] = match random.gen_range(0..6) {
            0 => &["X-T: 1"],
            1 => &["X-T: 1", "Content-Length: 5", "X-U:"],
            _ => &[],
        };
        request.body = chunks(random, &data, trailers);
    }
    if !is_http10 && chance(random, 12) {
        request.lines.push(line("Expect: 100-continue"));
        request.pause = Pause::Response;
    }
}

pub(super) fn body_length(random: &mut StdRng) -> usize {
    match random.gen_range(0..40) {
        0 => 0,
        1 => 5000,
        2 => 100_000,
        _ => random.gen_range(1..100),
    }
}

pub(super) fn body(length: usize) -> Vec<u8> {
    let letters = b"abcdefghijklmnopqrstuvwxyz0123456789\r\n";
    letters.iter().copied().cycle().take(length).collect()
}

/// Cuts bytes into writes.
pub(super) fn pieces(random: &mut StdRng, bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let most = if chance(random, 60) {
            rest.len()
        } else {
            rest.len().min(3000)
        };
        let (piece, left) = rest.split_at(random.gen_range(1..=most));
        pieces.push(piece.to_vec());
        rest = left;
    }
    pieces
}

/// The body in chunks of odd sizes, with extensions and trailers.
pub(super) fn chunks(random: &mut StdRng, data: &[u8], trailers: &[&str]) -> Vec<Vec<u8>> {
    let mut wire = Vec::new();
    for chunk in pieces(random, data) {
        let extension = match random.gen_range(0..12) {
            0 => ";a",
            1 => ";a=b;c=\"d;e\"",
            2 => " ; a = b",
            _ => "",
        };
        let size = match random.gen_range(0..6) {
            0 => format!("{:X}", chunk.len()),
            1 => format!("00{:x}", chunk.len()),
            _ => format!("{:x}", chunk.len()),
        };
        wire.extend_from_slice(size.as_bytes());
        wire.extend_from_slice(extension.as_bytes());
        wire.extend_from_slice(b"\r\n");
        wire.extend_from_slice(&chunk);
        wire.extend_from_slice(b"\r\n");
    }
    wire.extend_from_slice(if chance(random, 10) {
        b"000\r\n"
    } else {
        b"0\r\n"
    });
    for trailer in trailers {
        wire.extend(line(trailer));
    }
    wire.extend_from_slice(b"\r\n");
    if chance(random, 70) {
        vec![wire]
    } else {
        pieces(random, &wire)
    }
}
