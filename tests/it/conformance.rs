//! HTTP/2 to the letter: the cases that h2spec knows, section by section (its numbers are those of
//! RFC 7540; if RFC 9113 differs, the case says so), with a client of the tests' own. What is
//! part of another case (one DATA, one HEADERS, a GET, a POST) has none of its own.
//!
//! The codec is the `h2` crate's. It differs from what h2spec wants in this, and only this:
//!
//! | sections | wanted | what it does | why that will do |
//! |---|---|---|---|
//! | 4.3, 5.4.1, 6.3 to 6.9, hpack | GOAWAY with `COMPRESSION_ERROR`, `FRAME_SIZE_ERROR`, … | GOAWAY with `PROTOCOL_ERROR` | the connection ends all the same; the code is for its author's eyes |
//! | 5.1/5, 5.1/6, 6.1/2 | a reset with `STREAM_CLOSED` | GOAWAY with `PROTOCOL_ERROR` | RFC 9113 §5.4.1 lets any error be one of the connection |
//! | 8.1.2/1, 8.1.2.1/1 | a reset | GOAWAY | `src/pingora_compat/README.md`, request 7 |
//! | 8.1.2.1/3 | a reset | the trailers are taken | the peer gets the other trailers, none of them; request 8 |

#![expect(
    clippy::too_many_lines,
    reason = "a table of cases is as long as there are cases"
)]

use crate::http2::H2C;
use crate::support::edge::{ConfigBuilder, Edge};
use crate::support::http2::Outcome::{Alive, Closed, Goaway, Reset, Status};
use crate::support::http2::{
    Client, Frame, Outcome, PREFACE, block, code, flag, get, kind, request,
};
use crate::support::origin::{Behaviour, Origin};

use code::{
    COMPRESSION_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, PROTOCOL_ERROR, REFUSED_STREAM,
    STREAM_CLOSED,
};
use flag::{ACK, END_HEADERS, END_STREAM, PADDED};

/// The allowed results of a case.
#[derive(Clone, Copy, Debug)]
enum Expectation {
    /// The connection ends; if it sends an error code, it is one of these.
    Connection(&'static [u32]),
    /// The connection ends, with one of these codes or the one that the library has for all of them.
    Undecodable(&'static [u32]),
    /// The stream, or the whole connection, ends with one of these codes.
    Stream(&'static [u32]),
    /// A response with this status.
    Answer(u16),
    /// Nothing.
    Nothing,
    /// Whatever is no failure: nothing, a response, or an end without blame.
    NoHarm,
}

impl Expectation {
    fn allows(self, outcome: Outcome) -> bool {
        match (self, outcome) {
            (Self::Connection(_) | Self::Undecodable(_) | Self::Stream(_), Closed) => true,
            (Self::Undecodable(codes), Goaway(code)) => {
                code == PROTOCOL_ERROR || codes.contains(&code)
            }
            (Self::Connection(codes), Goaway(code))
            | (Self::Stream(codes), Goaway(code) | Reset(code)) => codes.contains(&code),
            (Self::Answer(wanted), Status(status)) => wanted == status,
            (Self::Nothing, outcome) => outcome == Alive,
            (Self::NoHarm, outcome) => {
                matches!(
                    outcome,
                    Alive | Closed | Status(200) | Goaway(code::NO_ERROR)
                )
            }
            _ => false,
        }
    }
}

type Case = (&'static str, Expectation, fn(&mut Client));

/// Runs each case on a connection of its own, that is beyond its SETTINGS.
fn check(cases: &[Case]) {
    let origin = Origin::start();
    let edge = start(&origin);
    let mut failures = Vec::new();
    for (name, want, act) in cases {
        let mut client = Client::open(edge.address);
        act(&mut client);
        let outcome = match want {
            Expectation::Answer(_) => Status(*client.answer(1).statuses.first().unwrap_or(&0)),
            _ => client.outcome(),
        };
        if !want.allows(outcome) {
            failures.push(format!("{name}: {outcome:?}, not {want:?}"));
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

fn start(origin: &Origin) -> Edge {
    ConfigBuilder::of([origin.label()])
        .top("listeners", H2C)
        .start()
}

fn send(client: &mut Client, frames: &[Frame]) {
    for frame in frames {
        // The server may close the connection before the last of them.
        let _ = client.send(frame);
    }
}

fn whole(stream: u32) -> Frame {
    Frame::headers(stream, END_STREAM, &get("/?k=a"))
}

/// A request whose body is still to come.
fn open(stream: u32) -> Frame {
    Frame::headers(stream, 0, &request("POST", "/?k=a"))
}

/// A whole request, and its response.
fn done(client: &mut Client) {
    assert_eq!(client.get("/?k=a").statuses, [200]);
}

/// A request with this header.
fn with(more: &[(&str, &str)]) -> Frame {
    Frame::headers(1, END_STREAM, &[&get("/?k=a")[..], more].concat())
}

fn only(fields: &[(&str, &str)]) -> Frame {
    Frame::headers(1, END_STREAM, fields)
}

fn priority(stream: u32, payload: [u8; 5]) -> Frame {
    Frame::new(kind::PRIORITY, 0, stream, payload)
}

fn begun(stream: u32) -> Frame {
    Frame::new(kind::HEADERS, END_STREAM, stream, block(&get("/?k=a")))
}

fn end_of_header(stream: u32) -> Frame {
    Frame::new(
        kind::CONTINUATION,
        END_HEADERS,
        stream,
        block(&[("x", "y")]),
    )
}

/// A header block as it is.
fn raw_block(more: &[u8]) -> Frame {
    let block = [&block(&get("/?k=a"))[..], more].concat();
    Frame::new(kind::HEADERS, END_HEADERS | END_STREAM, 1, block)
}

#[test]
fn connection_preface_3_5() {
    let origin = Origin::start();
    let edge = start(&origin);
    let mut client = Client::connect(edge.address);
    client.raw(PREFACE).unwrap();
    let first = client.next().unwrap().unwrap();
    assert_eq!(first.kind, kind::SETTINGS, "3.5/1");
    let mut client = Client::connect(edge.address);
    client.raw(b"INVALID CONNECTION PREFACE\r\n\r\n").unwrap();
    assert_ne!(client.outcome(), Alive, "3.5/2");
}

#[test]
fn frames_4() {
    check(&[
        ("4.1/1 unknown type", Expectation::Nothing, |c| {
            send(c, &[Frame::new(0xff, 0, 0, [0; 8])]);
        }),
        ("4.1/2 undefined flag", Expectation::Nothing, |c| {
            send(c, &[Frame::new(kind::PING, 0xfe, 0, [0; 8])]);
        }),
        ("4.1/3 reserved bit", Expectation::Nothing, |c| {
            send(c, &[Frame::new(kind::PING, 0, 1 << 31, [0; 8])]);
        }),
        ("4.2/1 the largest DATA", Expectation::Answer(200), |c| {
            send(c, &[open(1), Frame::data(1, END_STREAM, [0; 1 << 14])]);
        }),
        (
            "4.2/2 DATA too large",
            Expectation::Undecodable(&[FRAME_SIZE_ERROR]),
            |c| {
                send(
                    c,
                    &[open(1), Frame::data(1, END_STREAM, vec![0; (1 << 14) + 1])],
                );
            },
        ),
        (
            "4.2/3 HEADERS too large",
            Expectation::Undecodable(&[FRAME_SIZE_ERROR]),
            |c| {
                let large = "x".repeat(1 << 14);
                send(c, &[with(&[("large", &large)])]);
            },
        ),
        (
            "4.3/1 broken block",
            Expectation::Undecodable(&[COMPRESSION_ERROR]),
            |c| {
                send(
                    c,
                    &[Frame::new(
                        kind::HEADERS,
                        END_HEADERS | END_STREAM,
                        1,
                        [0x40, 0x84, 1],
                    )],
                );
            },
        ),
        (
            "4.3/2 PRIORITY in a header",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| {
                send(
                    c,
                    &[begun(1), Frame::new(kind::PRIORITY, 0, 1, [0, 0, 0, 0, 1])],
                );
            },
        ),
        (
            "4.3/3 another header in a header",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| {
                send(c, &[begun(1), whole(3)]);
            },
        ),
    ]);
}

#[test]
fn states_5_1() {
    check(&[
        (
            "1 idle: DATA",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| {
                send(c, &[Frame::data(1, END_STREAM, *b"x")]);
            },
        ),
        (
            "2 idle: RST_STREAM",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| {
                send(c, &[Frame::reset(1, 8)]);
            },
        ),
        (
            "3 idle: WINDOW_UPDATE",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| {
                send(c, &[Frame::window(1, 100)]);
            },
        ),
        (
            "4 idle: CONTINUATION",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| send(c, &[end_of_header(1)]),
        ),
        (
            "5 half closed: DATA",
            Expectation::Stream(&[STREAM_CLOSED, PROTOCOL_ERROR]),
            |c| {
                send(c, &[whole(1), Frame::data(1, END_STREAM, *b"x")]);
            },
        ),
        (
            "6 half closed: HEADERS",
            Expectation::Stream(&[STREAM_CLOSED, PROTOCOL_ERROR]),
            |c| send(c, &[whole(1), whole(1)]),
        ),
        (
            "7 half closed: CONTINUATION",
            Expectation::Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
            |c| {
                send(c, &[whole(1), end_of_header(1)]);
            },
        ),
        (
            "8 reset: DATA",
            Expectation::Stream(&[STREAM_CLOSED]),
            |c| {
                send(
                    c,
                    &[
                        open(1),
                        Frame::reset(1, 8),
                        Frame::data(1, END_STREAM, *b"x"),
                    ],
                );
            },
        ),
        (
            "9 reset: HEADERS",
            Expectation::Stream(&[STREAM_CLOSED, PROTOCOL_ERROR]),
            |c| {
                send(c, &[open(1), Frame::reset(1, 8), whole(1)]);
            },
        ),
        (
            "10 reset: CONTINUATION",
            Expectation::Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
            |c| {
                send(c, &[open(1), Frame::reset(1, 8), end_of_header(1)]);
            },
        ),
        (
            "11 closed: DATA",
            Expectation::Stream(&[STREAM_CLOSED]),
            |c| {
                done(c);
                send(c, &[Frame::data(1, END_STREAM, *b"x")]);
            },
        ),
        (
            "12 closed: HEADERS",
            Expectation::Stream(&[STREAM_CLOSED, PROTOCOL_ERROR]),
            |c| {
                done(c);
                send(c, &[whole(1)]);
            },
        ),
        (
            "13 closed: CONTINUATION",
            Expectation::Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
            |c| {
                done(c);
                send(c, &[end_of_header(1)]);
            },
        ),
        (
            "5.1.1/1 even number",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| send(c, &[whole(2)]),
        ),
        (
            "5.1.1/2 lower number",
            Expectation::Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
            |c| {
                send(c, &[whole(5), whole(3)]);
            },
        ),
    ]);
}

#[test]
fn concurrent_streams_limit_5_1_2() {
    let origin = Origin::behaving(Behaviour::Hold);
    let edge = start(&origin);
    let mut client = Client::open(edge.address);
    for stream in 0..101 {
        client.send(&whole(2 * stream + 1)).unwrap();
    }
    let want = Expectation::Stream(&[PROTOCOL_ERROR, REFUSED_STREAM]);
    let outcome = client.outcome();
    assert!(want.allows(outcome), "{outcome:?}");
}

#[test]
fn priorities_and_errors_5_3_to_5_5() {
    check(&[
        // RFC 9113 §5.3.2: priorities are obsolete, and what they say is nothing.
        (
            "5.3.1/1 depends on itself",
            Expectation::Stream(&[PROTOCOL_ERROR]),
            |c| {
                let payload = [&[0, 0, 0, 1, 255][..], &block(&get("/?k=a"))].concat();
                let flags = END_HEADERS | END_STREAM | flag::PRIORITY;
                send(c, &[Frame::new(kind::HEADERS, flags, 1, payload)]);
            },
        ),
        (
            "5.3.1/2 depends on itself",
            Expectation::Stream(&[PROTOCOL_ERROR]),
            |c| {
                send(c, &[Frame::new(kind::PRIORITY, 0, 3, [0, 0, 0, 3, 1])]);
            },
        ),
        (
            "5.4.1 PING of six bytes",
            Expectation::Undecodable(&[FRAME_SIZE_ERROR]),
            |c| {
                send(c, &[Frame::new(kind::PING, 0, 0, [0; 6])]);
            },
        ),
        ("5.5/1 extension", Expectation::Nothing, |c| {
            send(c, &[Frame::new(0x16, 0, 0, [0; 8])]);
        }),
        (
            "5.5/2 extension in a header",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| {
                send(
                    c,
                    &[begun(1), Frame::new(0x16, 0, 0, [0; 8]), end_of_header(1)],
                );
            },
        ),
    ]);
}

#[test]
fn data_headers_priority_and_resets_6_1_to_6_4() {
    check(&[
        (
            "6.1/1 DATA on 0",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| {
                send(c, &[Frame::data(0, END_STREAM, *b"x")]);
            },
        ),
        (
            "6.1/2 DATA on a stream that is over",
            Expectation::Stream(&[STREAM_CLOSED, PROTOCOL_ERROR]),
            |c| {
                send(c, &[whole(1), Frame::data(1, END_STREAM, *b"x")]);
            },
        ),
        (
            "6.1/3 padding",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| {
                send(
                    c,
                    &[
                        open(1),
                        Frame::new(kind::DATA, PADDED | END_STREAM, 1, *b"\x06Test"),
                    ],
                );
            },
        ),
        (
            "6.2/3 HEADERS on 0",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| send(c, &[whole(0)]),
        ),
        (
            "6.2/4 padding",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| {
                let block = block(&get("/?k=a"));
                let padding = u8::try_from(block.len() + 1).unwrap();
                let flags = END_HEADERS | END_STREAM | PADDED;
                send(
                    c,
                    &[Frame::new(
                        kind::HEADERS,
                        flags,
                        1,
                        [&[padding][..], &block].concat(),
                    )],
                );
            },
        ),
        (
            "6.3/1 PRIORITY on 0",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| {
                send(c, &[Frame::new(kind::PRIORITY, 0, 0, [0, 0, 0, 0, 1])]);
            },
        ),
        (
            "6.3/2 PRIORITY of four bytes",
            Expectation::Undecodable(&[FRAME_SIZE_ERROR]),
            |c| {
                send(c, &[open(1), Frame::new(kind::PRIORITY, 0, 1, [0; 4])]);
            },
        ),
        (
            "6.4/1 RST_STREAM on 0",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| {
                send(c, &[Frame::reset(0, 8)]);
            },
        ),
        (
            "6.4/3 RST_STREAM of three bytes",
            Expectation::Undecodable(&[FRAME_SIZE_ERROR]),
            |c| {
                send(c, &[open(1), Frame::new(kind::RST_STREAM, 0, 1, [0; 3])]);
            },
        ),
    ]);
}

#[test]
fn settings_6_5() {
    check(&[
        (
            "1 ACK with a payload",
            Expectation::Undecodable(&[FRAME_SIZE_ERROR]),
            |c| {
                send(c, &[Frame::new(kind::SETTINGS, ACK, 0, [0])]);
            },
        ),
        (
            "2 on a stream",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| {
                send(c, &[Frame::new(kind::SETTINGS, 0, 1, [0, 3, 0, 0, 0, 100])]);
            },
        ),
        (
            "3 of three bytes",
            Expectation::Undecodable(&[FRAME_SIZE_ERROR]),
            |c| {
                send(c, &[Frame::new(kind::SETTINGS, 0, 0, [0, 3, 0])]);
            },
        ),
        (
            "6.5.2/1 ENABLE_PUSH",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| {
                send(c, &[Frame::settings(&[(2, 2)])]);
            },
        ),
        (
            "6.5.2/2 INITIAL_WINDOW_SIZE",
            Expectation::Undecodable(&[FLOW_CONTROL_ERROR]),
            |c| {
                send(c, &[Frame::settings(&[(4, 1 << 31)])]);
            },
        ),
        (
            "6.5.2/3 MAX_FRAME_SIZE too small",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| {
                send(c, &[Frame::settings(&[(5, (1 << 14) - 1)])]);
            },
        ),
        (
            "6.5.2/4 MAX_FRAME_SIZE too large",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| {
                send(c, &[Frame::settings(&[(5, 1 << 24)])]);
            },
        ),
        ("6.5.2/5 unknown", Expectation::Nothing, |c| {
            send(c, &[Frame::settings(&[(0xff, 1)])]);
        }),
        ("6.5.3/2 ACK", Expectation::Nothing, |c| {
            send(c, &[Frame::settings(&[(0xff, 1)])]);
            c.wait_for("ACK", |frame| {
                frame.kind == kind::SETTINGS && frame.flags == ACK
            });
        }),
    ]);
}

#[test]
fn push_promise_ping_and_goaway_6_6_to_6_8() {
    check(&[
        (
            "8.2/1 PUSH_PROMISE",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| {
                let promise = [&[0, 0, 0, 3][..], &block(&get("/"))].concat();
                send(
                    c,
                    &[
                        open(1),
                        Frame::new(kind::PUSH_PROMISE, END_HEADERS, 1, promise),
                    ],
                );
            },
        ),
        ("6.7/1 PING", Expectation::Nothing, |c| {
            send(c, &[Frame::new(kind::PING, 0, 0, *b"h2spec!!")]);
            c.wait_for("ACK", |frame| {
                frame.kind == kind::PING && frame.payload == b"h2spec!!"
            });
        }),
        ("6.7/2 PING with ACK", Expectation::Nothing, |c| {
            send(c, &[Frame::new(kind::PING, ACK, 0, [1; 8])]);
        }),
        (
            "6.7/3 PING on a stream",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| {
                send(c, &[Frame::new(kind::PING, 0, 1, [0; 8])]);
            },
        ),
        (
            "6.8/1 GOAWAY on a stream",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| {
                send(c, &[Frame::new(kind::GOAWAY, 0, 1, [0; 8])]);
            },
        ),
        (
            "7/1 GOAWAY with an unknown code",
            Expectation::NoHarm,
            |c| {
                let farewell = Frame::new(kind::GOAWAY, 0, 0, [0, 0, 0, 0, 0, 0, 0, 0xff]);
                send(c, &[farewell]);
            },
        ),
        (
            "7/2 RST_STREAM with an unknown code",
            Expectation::Nothing,
            |c| {
                send(c, &[open(1), Frame::reset(1, 0xff)]);
            },
        ),
    ]);
}

#[test]
fn window_updates_6_9() {
    check(&[
        (
            "1 WINDOW_UPDATE of 0",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| send(c, &[Frame::window(0, 0)]),
        ),
        (
            "2 WINDOW_UPDATE of 0 on a stream",
            Expectation::Stream(&[PROTOCOL_ERROR]),
            |c| {
                send(c, &[open(1), Frame::window(1, 0)]);
            },
        ),
        (
            "3 WINDOW_UPDATE of three bytes",
            Expectation::Undecodable(&[FRAME_SIZE_ERROR]),
            |c| {
                send(c, &[Frame::new(kind::WINDOW_UPDATE, 0, 0, [0, 0, 1])]);
            },
        ),
        (
            "6.9.1/2 above the largest",
            Expectation::Undecodable(&[FLOW_CONTROL_ERROR]),
            |c| {
                send(
                    c,
                    &[
                        Frame::window(0, i32::MAX as u32),
                        Frame::window(0, i32::MAX as u32),
                    ],
                );
            },
        ),
        (
            "6.9.1/3 above the largest on a stream",
            Expectation::Stream(&[FLOW_CONTROL_ERROR]),
            |c| {
                send(
                    c,
                    &[
                        open(1),
                        Frame::window(1, i32::MAX as u32),
                        Frame::window(1, i32::MAX as u32),
                    ],
                );
            },
        ),
        (
            "6.9.2/3 above the largest by SETTINGS",
            Expectation::Undecodable(&[FLOW_CONTROL_ERROR]),
            |c| {
                send(c, &[Frame::settings(&[(4, 1 << 31)])]);
            },
        ),
    ]);
}

#[test]
fn window_limits_are_respected_6_9_1_and_6_9_2() {
    let origin = Origin::behaving(Behaviour::Body(5));
    let edge = start(&origin);
    let data = |client: &mut Client| {
        client
            .wait_for("DATA", |frame| frame.kind == kind::DATA)
            .payload
            .len()
    };
    let mut client = Client::with(edge.address, &[(4, 1)]);
    client.send(&whole(1)).unwrap();
    assert_eq!(data(&mut client), 1, "6.9.1/1");
    let mut client = Client::with(edge.address, &[(4, 100), (4, 1)]);
    client.send(&whole(1)).unwrap();
    assert_eq!(data(&mut client), 1, "6.5.3/1");
    let mut client = Client::with(edge.address, &[(4, 0)]);
    client.send(&whole(1)).unwrap();
    client.send(&Frame::settings(&[(4, 1)])).unwrap();
    assert_eq!(data(&mut client), 1, "6.9.2/1");
    let mut client = Client::with(edge.address, &[(4, 3)]);
    client.send(&whole(1)).unwrap();
    assert_eq!(data(&mut client), 3);
    client.send(&Frame::settings(&[(4, 2)])).unwrap();
    client.send(&Frame::window(1, 2)).unwrap();
    assert_eq!(data(&mut client), 1, "6.9.2/2");
}

#[test]
fn continuations_6_10() {
    check(&[
        ("1 several", Expectation::Answer(200), |c| {
            let more = Frame::new(kind::CONTINUATION, 0, 1, block(&[("a", "b")]));
            send(c, &[begun(1), more, end_of_header(1)]);
        }),
        (
            "2 something else",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| {
                send(c, &[begun(1), Frame::data(1, END_STREAM, *b"x")]);
            },
        ),
        ("3 on 0", Expectation::Connection(&[PROTOCOL_ERROR]), |c| {
            send(c, &[begun(1), end_of_header(0)]);
        }),
        (
            "4 after the end",
            Expectation::Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
            |c| {
                send(c, &[open(1), end_of_header(1)]);
            },
        ),
        (
            "5 after another's end",
            Expectation::Connection(&[PROTOCOL_ERROR, STREAM_CLOSED]),
            |c| {
                send(c, &[begun(1), end_of_header(1), end_of_header(1)]);
            },
        ),
        (
            "6 after DATA",
            Expectation::Connection(&[PROTOCOL_ERROR]),
            |c| {
                send(c, &[open(1), Frame::data(1, 0, *b"x"), end_of_header(1)]);
            },
        ),
    ]);
}

#[test]
fn requests_8_1() {
    const MALFORMED: Expectation = Expectation::Stream(&[PROTOCOL_ERROR]);
    check(&[
        ("1 a second header that is no trailer", MALFORMED, |c| {
            send(c, &[open(1), Frame::headers(1, 0, &[("x", "y")])]);
        }),
        ("8.1.2/1 upper case", MALFORMED, |c| {
            send(c, &[with(&[("X-TEST", "ok")])]);
        }),
        ("8.1.2.1/1 unknown pseudo-field", MALFORMED, |c| {
            send(c, &[with(&[(":test", "ok")])]);
        }),
        ("8.1.2.1/2 a response's", MALFORMED, |c| {
            send(c, &[with(&[(":status", "200")])]);
        }),
        ("8.1.2.1/3 in a trailer", Expectation::Answer(200), |c| {
            send(
                c,
                &[
                    open(1),
                    Frame::headers(1, END_STREAM, &[(":method", "GET")]),
                ],
            );
        }),
        ("8.1.2.1/4 behind a field", MALFORMED, |c| {
            let fields = [&[("x", "y")][..], &get("/")].concat();
            send(c, &[only(&fields)]);
        }),
        ("8.1.2.2/1 of the connection", MALFORMED, |c| {
            send(c, &[with(&[("connection", "keep-alive")])]);
        }),
        ("8.1.2.2/2 TE", MALFORMED, |c| {
            send(c, &[with(&[("te", "trailers, deflate;q=0.5")])]);
        }),
        ("8.1.2.3/1 empty path", MALFORMED, |c| {
            send(c, &[only(&get(""))]);
        }),
        ("8.1.2.3/2 no method", MALFORMED, |c| {
            send(c, &[only(&get("/")[1..])]);
        }),
        ("8.1.2.3/3 no scheme", MALFORMED, |c| {
            send(
                c,
                &[only(&[
                    (":method", "GET"),
                    (":path", "/"),
                    (":authority", "test"),
                ])],
            );
        }),
        ("8.1.2.3/4 no path", MALFORMED, |c| {
            send(
                c,
                &[only(&[
                    (":method", "GET"),
                    (":scheme", "http"),
                    (":authority", "test"),
                ])],
            );
        }),
        ("8.1.2.3/5 two methods", MALFORMED, |c| {
            send(c, &[only(&[&[(":method", "GET")][..], &get("/")].concat())]);
        }),
        ("8.1.2.3/6 two schemes", MALFORMED, |c| {
            send(
                c,
                &[only(&[&get("/")[..], &[(":scheme", "http")]].concat())],
            );
        }),
        ("8.1.2.3/7 two paths", MALFORMED, |c| {
            send(c, &[only(&[&get("/")[..], &[(":path", "/")]].concat())]);
        }),
        ("8.1.2.6/1 another length", MALFORMED, |c| {
            let fields = [&request("POST", "/?k=a")[..], &[("content-length", "1")]].concat();
            send(
                c,
                &[
                    Frame::headers(1, 0, &fields),
                    Frame::data(1, END_STREAM, *b"test"),
                ],
            );
        }),
        ("8.1.2.6/2 another length in all", MALFORMED, |c| {
            let fields = [&request("POST", "/?k=a")[..], &[("content-length", "9")]].concat();
            let half = Frame::data(1, 0, *b"test");
            send(
                c,
                &[
                    Frame::headers(1, 0, &fields),
                    half,
                    Frame::data(1, END_STREAM, *b"test"),
                ],
            );
        }),
    ]);
}

#[test]
fn compression() {
    const BROKEN: Expectation = Expectation::Undecodable(&[COMPRESSION_ERROR]);
    check(&[
        ("2.3.3/1 an index that is not", BROKEN, |c| {
            send(c, &[raw_block(&[0xc6])]);
        }),
        ("2.3.3/2 a name that is not", BROKEN, |c| {
            send(c, &[raw_block(b"\x7f\x07\x01x")]);
        }),
        ("4.2/1 a size behind fields", BROKEN, |c| {
            send(c, &[raw_block(&[0x20])]);
        }),
        ("5.2/1 long padding", BROKEN, |c| {
            send(
                c,
                &[raw_block(
                    b"\x00\x85\xf2\xb2\x4a\x84\xff\x84\x49\x50\x9f\xff",
                )],
            );
        }),
        ("5.2/2 padding that is none", BROKEN, |c| {
            send(
                c,
                &[raw_block(b"\x00\x85\xf2\xb2\x4a\x87\xff\x83\x49\x50\x90")],
            );
        }),
        ("5.2/3 the end of a text", BROKEN, |c| {
            send(
                c,
                &[raw_block(
                    b"\x00\x85\xf2\xb2\x4a\x84\xff\x87\x49\x51\xff\xff\xff\xfa\x7f",
                )],
            );
        }),
        ("6.1/1 index 0", BROKEN, |c| send(c, &[raw_block(&[0x80])])),
        ("6.3/1 a size above the limit", BROKEN, |c| {
            let block = [&[0x3f, 0xe2, 0x1f][..], &block(&get("/?k=a"))].concat();
            send(
                c,
                &[Frame::new(
                    kind::HEADERS,
                    END_HEADERS | END_STREAM,
                    1,
                    block,
                )],
            );
        }),
    ]);
}

#[test]
fn valid_http2_requests_are_answered() {
    check(&[
        (
            "generic/2/2 half closed: WINDOW_UPDATE",
            Expectation::Answer(200),
            |c| {
                send(c, &[whole(1), Frame::window(1, 1)]);
            },
        ),
        (
            "generic/2/3 half closed: PRIORITY",
            Expectation::Answer(200),
            |c| {
                send(
                    c,
                    &[whole(1), Frame::new(kind::PRIORITY, 0, 1, [0, 0, 0, 0, 15])],
                );
            },
        ),
        (
            "generic/2/4 half closed: RST_STREAM",
            Expectation::NoHarm,
            |c| {
                send(c, &[whole(1), Frame::reset(1, 8)]);
            },
        ),
        ("generic/2/5 closed: PRIORITY", Expectation::Nothing, |c| {
            done(c);
            send(c, &[Frame::new(kind::PRIORITY, 0, 1, [0, 0, 0, 0, 15])]);
        }),
        (
            "generic/3.1/2 several DATA",
            Expectation::Answer(200),
            |c| {
                send(
                    c,
                    &[
                        open(1),
                        Frame::data(1, 0, *b"te"),
                        Frame::data(1, END_STREAM, *b"st"),
                    ],
                );
            },
        ),
        ("generic/3.1/3 padded DATA", Expectation::Answer(200), |c| {
            send(
                c,
                &[
                    open(1),
                    Frame::new(kind::DATA, PADDED | END_STREAM, 1, *b"\x03test\0\0\0"),
                ],
            );
        }),
        (
            "generic/3.2/2 padded HEADERS",
            Expectation::Answer(200),
            |c| {
                let payload = [&[2][..], &block(&get("/?k=a")), &[0, 0]].concat();
                send(
                    c,
                    &[Frame::new(
                        kind::HEADERS,
                        END_HEADERS | END_STREAM | PADDED,
                        1,
                        payload,
                    )],
                );
            },
        ),
        (
            "generic/3.2/3 HEADERS with a priority",
            Expectation::Answer(200),
            |c| {
                let payload = [&[0x80, 0, 0, 0, 15][..], &block(&get("/?k=a"))].concat();
                let flags = END_HEADERS | END_STREAM | flag::PRIORITY;
                send(c, &[Frame::new(kind::HEADERS, flags, 1, payload)]);
            },
        ),
        (
            "generic/3.3/1 the least weight",
            Expectation::Answer(200),
            |c| {
                send(c, &[priority(1, [0, 0, 0, 0, 0]), whole(1)]);
            },
        ),
        (
            "generic/3.3/2 the largest weight",
            Expectation::Answer(200),
            |c| {
                send(c, &[priority(1, [0, 0, 0, 0, 255]), whole(1)]);
            },
        ),
        (
            "generic/3.3/3 depends on another",
            Expectation::Answer(200),
            |c| {
                send(c, &[priority(1, [0, 0, 0, 3, 15]), whole(1)]);
            },
        ),
        ("generic/3.3/4 exclusively", Expectation::Answer(200), |c| {
            send(c, &[priority(1, [0x80, 0, 0, 3, 15]), whole(1)]);
        }),
        (
            "generic/3.3/5 on an idle stream",
            Expectation::Answer(200),
            |c| {
                send(c, &[priority(5, [0, 0, 0, 7, 15]), whole(1)]);
            },
        ),
        ("generic/3.8/1 GOAWAY", Expectation::NoHarm, |c| {
            send(c, &[Frame::new(kind::GOAWAY, 0, 0, [0; 8])]);
        }),
        (
            "generic/3.9/1 WINDOW_UPDATE",
            Expectation::Answer(200),
            |c| {
                send(c, &[Frame::window(0, 1), whole(1)]);
            },
        ),
        ("generic/4/2 HEAD", Expectation::Answer(200), |c| {
            send(c, &[only(&request("HEAD", "/?k=a"))]);
        }),
        (
            "generic/4/4 POST with trailers",
            Expectation::Answer(200),
            |c| {
                let trailers = Frame::headers(1, END_STREAM, &[("x-test", "ok")]);
                send(c, &[open(1), Frame::data(1, 0, *b"test"), trailers]);
            },
        ),
    ]);
}

/// Each form that a field may have (RFC 7541 §6), and that it is read as what it is.
#[test]
fn representations_generic_5() {
    const TABLE: &[u8] = b"\x0f\x2b"; // 58, in four bits
    const NEVER: &[u8] = b"\x1f\x2b";
    const NAME: &[u8] = b"\x06x-test";
    const VALUE: &[u8] = b"\x04test";
    const CODED_NAME: &[u8] = b"\x85\xf2\xb2\x4a\x84\xff";
    const CODED: &[u8] = b"\x83\x49\x50\x9f";
    let origin = Origin::start();
    let edge = start(&origin);
    let field = |form: &[u8], name: &[u8], value: &[u8]| [form, name, value].concat();
    for (number, name, update, field) in [
        (2, "user-agent", &b""[..], field(b"\x7a", b"", VALUE)),
        (3, "user-agent", b"", field(b"\x7a", b"", CODED)),
        (4, "x-test", b"", field(b"\x40", NAME, VALUE)),
        (5, "x-test", b"", field(b"\x40", CODED_NAME, CODED)),
        (6, "user-agent", b"", field(TABLE, b"", VALUE)),
        (7, "user-agent", b"", field(TABLE, b"", CODED)),
        (8, "x-test", b"", field(b"\x00", NAME, VALUE)),
        (9, "x-test", b"", field(b"\x00", CODED_NAME, CODED)),
        (10, "user-agent", b"", field(NEVER, b"", VALUE)),
        (11, "user-agent", b"", field(NEVER, b"", CODED)),
        (12, "x-test", b"", field(b"\x10", NAME, VALUE)),
        (13, "x-test", b"", field(b"\x10", CODED_NAME, CODED)),
        // The table size is set to 0; in the second case to 0 and then to 4,096 again.
        (14, "x-test", b"\x20", field(b"\x00", NAME, VALUE)),
        (
            15,
            "x-test",
            b"\x20\x3f\xe1\x1f",
            field(b"\x40", NAME, VALUE),
        ),
    ] {
        let block = [update, &block(&get("/?k=a")), &field].concat();
        let flags = END_HEADERS | END_STREAM;
        let mut client = Client::open(edge.address);
        client
            .send(&Frame::new(kind::HEADERS, flags, 1, block))
            .unwrap();
        let asked = client.answer(1).json();
        let fields = asked["headers"].as_array().unwrap();
        let wanted = serde_json::json!([name, "test"]);
        assert!(fields.contains(&wanted), "generic/5/{number}: {asked}");
    }
    let mut client = Client::open(edge.address);
    let indexed = [&[0x82, 0x86, 0x84, 0x41, 4][..], b"test"].concat();
    let request = Frame::new(kind::HEADERS, END_HEADERS | END_STREAM, 1, indexed);
    client.send(&request).unwrap();
    assert_eq!(client.answer(1).statuses, [200], "generic/5/1");
    let mut client = Client::open(edge.address);
    client.send(&raw_block(b"\x40\x01x\x01y\xbe")).unwrap();
    assert_eq!(client.answer(1).statuses, [200], "what is in the table");
}
