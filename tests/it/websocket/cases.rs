//! WebSocket cases, modelled on the groups of the Autobahn test suite and numbered like them.

use crate::support::websocket::{
    BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RSV1, RSV2, RSV3, Script, TEXT, fragments, frame,
    server_frame,
};

const GREETING: &str = "Hello-µ@ßöäüàá-UTF-8!!";

/// Payload lengths at which the size of the frame header changes, and their neighbours.
const LENGTHS: [usize; 7] = [0, 125, 126, 127, 128, 65_535, 65_536];

fn script(name: impl Into<String>) -> Script {
    Script::new(name)
}

/// A script that begins with a valid message, which the server must echo.
fn after_a_message(name: impl Into<String>) -> Script {
    script(name).send(frame(TEXT, b"before")).await_frames(1)
}

/// Adds a message that the server must echo, then a normal close.
fn echoed(script: Script, message: Vec<u8>) -> Script {
    script.send(message).await_frames(1).close()
}

/// Adds a frame that the server must answer with a close frame and this status code.
fn refused(script: Script, frame: Vec<u8>, code: u16) -> Script {
    script.send(frame).closed_by_server(code)
}

fn filled(length: usize) -> Vec<u8> {
    let letters = b"abcdefghijklmnopqrstuvw".iter().cycle();
    letters.take(length).copied().collect()
}

pub(crate) fn framing_1() -> Vec<Script> {
    let mut scripts = Vec::new();
    for (kind, first) in [("text", TEXT), ("binary", BINARY)] {
        for length in LENGTHS {
            let message = frame(first, &filled(length));
            let name = format!("1: {kind} of {length}");
            scripts.push(script(&name).send(&message[..]).await_frames(1).close());
            let size = if length > 128 { 997 } else { 1 };
            let name = format!("{name} in writes of {size}");
            scripts.push(
                script(name)
                    .send_in_pieces(&message, size)
                    .await_frames(1)
                    .close(),
            );
        }
    }
    scripts
}

pub(crate) fn pings_2() -> Vec<Script> {
    let full = [0xfe; 125];
    let ten = || (0..10_u8).flat_map(|number| frame(PING, &[b'p', number]));
    vec![
        script("2: a ping of nothing")
            .send(frame(PING, b""))
            .await_frames(1)
            .close(),
        script("2: a ping of text")
            .send(frame(PING, b"Hello, world!"))
            .await_frames(1)
            .close(),
        script("2: a ping of bytes")
            .send(frame(PING, &[0, 0xff, 0xfe, 0xfd]))
            .await_frames(1)
            .close(),
        script("2: a ping of 125")
            .send(frame(PING, &full))
            .await_frames(1)
            .close(),
        script("2: a ping of 126")
            .send(frame(PING, &[0xfe; 126]))
            .closed_by_server(1002),
        script("2: a ping in bytes")
            .send_in_pieces(frame(PING, &full), 1)
            .await_frames(1)
            .close(),
        script("2: a pong of nothing")
            .send(frame(PONG, b""))
            .close(),
        script("2: a pong of text")
            .send(frame(PONG, b"unsolicited"))
            .close(),
        script("2: a pong and a ping")
            .send(frame(PONG, b"unsolicited"))
            .send(frame(PING, b"asked"))
            .await_frames(1)
            .close(),
        script("2: ten pings")
            .send(ten().collect::<Vec<_>>())
            .await_frames(10)
            .close(),
        script("2: ten pings in bytes")
            .send_in_pieces(ten().collect::<Vec<_>>(), 1)
            .await_frames(10)
            .close(),
    ]
}

pub(crate) fn reserved_bits_3() -> Vec<Script> {
    let cases = [
        (TEXT | RSV3, 5),
        (TEXT | RSV2, 5),
        (TEXT | RSV2 | RSV3, 5),
        (TEXT | RSV1, 5),
        (BINARY | RSV1 | RSV3, 5),
        (PING | RSV1 | RSV2, 5),
        (CLOSE | RSV1 | RSV2 | RSV3, 2),
    ];
    let bad = cases.map(|(first, length)| (first, frame(first, &filled(length))));
    let whole = bad.iter().map(|(first, bad)| {
        after_a_message(format!("3: {first:#x}"))
            .send(&bad[..])
            .closed_by_server(1002)
    });
    let bytes = bad.iter().map(|(first, bad)| {
        let (start, rest) = bad.split_at(2);
        // The server may close as soon as it has received the header.
        let script = after_a_message(format!("3: {first:#x} in pieces"));
        script
            .send([start, &rest[..4]].concat())
            .send_in_pieces(&rest[4..], 100)
            .closed_by_server(1002)
    });
    whole.chain(bytes).collect()
}

pub(crate) fn reserved_opcodes_4() -> Vec<Script> {
    let opcodes = (3..8).chain(11..16_u8);
    let scripts = opcodes.flat_map(|opcode| {
        let [empty, full] = [&b""[..], b"payload"].map(|payload| frame(FIN | opcode, payload));
        [
            script(format!("4: {opcode} of nothing"))
                .send(empty)
                .closed_by_server(1002),
            after_a_message(format!("4: {opcode}"))
                .send(full)
                .closed_by_server(1002),
        ]
    });
    scripts.collect()
}

pub(crate) fn fragmentation_5() -> Vec<Script> {
    [fragments_that_make_a_message(), fragments_that_do_not()].concat()
}

/// A message in two frames.
fn two_fragments() -> [Vec<u8>; 2] {
    [
        frame(TEXT & !FIN, b"fragment1"),
        frame(CONTINUATION, b"fragment2"),
    ]
}

fn fragments_that_make_a_message() -> Vec<Script> {
    let [first, last] = two_fragments();
    let both = [&first[..], &last].concat();
    let between = [&first[..], &frame(PING, b"between"), &last].concat();
    let empty = [frame(TEXT & !FIN, b""), frame(0, b""), frame(FIN, b"")].concat();
    let nothing = [frame(TEXT & !FIN, b""), last.clone()].concat();
    let five = [
        [frame(TEXT & !FIN, b"1"), frame(0, b"2"), frame(PING, b"a")].concat(),
        [frame(0, b"3"), frame(0, b"4"), frame(PING, b"b")].concat(),
        frame(FIN, b"5"),
    ];
    let five = five
        .into_iter()
        .fold(script("5: five, and two pings"), |script, part| {
            script.send(part).await_frames(1)
        });
    let apart = script("5: two, apart").send(first);
    vec![
        echoed(script("5: two"), both.clone()),
        echoed(apart, last),
        script("5: two, in bytes")
            .send_in_pieces(both, 1)
            .await_frames(1)
            .close(),
        script("5: a ping between")
            .send(between.clone())
            .await_frames(2)
            .close(),
        script("5: a ping between, in bytes")
            .send_in_pieces(between, 1)
            .await_frames(2)
            .close(),
        echoed(script("5: empty ones"), empty),
        echoed(after_a_message("5: an empty first"), nothing),
        five.close(),
    ]
}

fn fragments_that_do_not() -> Vec<Script> {
    let [first, last] = two_fragments();
    let both = [&first[..], &last].concat();
    let behind = |name| script(name).send(both.clone()).await_frames(1);
    let open = frame(0, b"fragment");
    let within = script("5: a message within").send(first);
    vec![
        refused(
            script("5: a ping in fragments"),
            frame(PING & !FIN, b"one"),
            1002,
        ),
        refused(
            script("5: a pong in fragments"),
            frame(PONG & !FIN, b"one"),
            1002,
        ),
        refused(within, frame(TEXT, b"other"), 1002),
        refused(script("5: the last, of nothing"), last.clone(), 1002),
        refused(script("5: another, of nothing"), open.clone(), 1002),
        refused(behind("5: the last, once more"), last, 1002),
        refused(behind("5: another, behind the last"), open, 1002),
    ]
}

/// Texts that are not UTF-8 (RFC 3629 §3).
const NOT_UTF8: [&[u8]; 11] = [
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    b"\xf4\x90\x80\x80",
    b"\xc0\x80",
    b"\xe0\x80\x80",
    b"\x80",
    b"\xce",
    b"\xed\xa0\x80",
    b"\xf8\x88\x80\x80\x80",
    b"\xfe",
    b"\xff",
    b"a\xc3(b",
];

pub(crate) fn utf8_6() -> Vec<Script> {
    let good = [
        GREETING.as_bytes(),
        "κόσμε".as_bytes(),
        b"\xef\xbf\xbf",
        b"\xf4\x8f\xbf\xbf",
        b"\xed\x9f\xbf",
        b"\x00",
        b"\xf0\x90\x80\x80",
        b"\xef\xbf\xbd",
    ];
    let mut scripts = Vec::new();
    for text in good {
        let (name, whole) = (format!("6: {text:x?}"), frame(TEXT, text));
        scripts.push(script(&name).send(&whole[..]).await_frames(1).close());
        scripts.push(
            script(format!("{name} in bytes"))
                .send_in_pieces(&whole, 1)
                .await_frames(1)
                .close(),
        );
        // Splits every code point into its bytes.
        let script = script(format!("{name} in frames of a byte"));
        scripts.push(
            script
                .send(fragments(TEXT, text, 1))
                .await_frames(1)
                .close(),
        );
    }
    for text in NOT_UTF8 {
        let (name, whole) = (format!("6: not {text:x?}"), frame(TEXT, text));
        scripts.push(
            after_a_message(&name)
                .send(&whole[..])
                .closed_by_server(1007),
        );
        scripts.push(
            script(format!("{name} in bytes"))
                .send_in_pieces(&whole, 1)
                .closed_by_server(1007),
        );
        scripts.push(
            script(format!("{name} as bytes"))
                .send(frame(BINARY, text))
                .await_frames(1)
                .close(),
        );
    }
    // The message is incomplete, but already invalid: the server must not wait for its end.
    let early = script("6: no more is needed").send(frame(TEXT & !FIN, "κόσμε".as_bytes()));
    scripts.push(
        early
            .send(frame(0, b"\xf4\x90\x80\x80"))
            .closed_by_server(1007),
    );
    scripts
}

pub(crate) fn closing_7() -> Vec<Script> {
    let with = |code: u16, reason: &[u8]| [&code.to_be_bytes()[..], reason].concat();
    let mut scripts = vec![
        after_a_message("7: at once").close(),
        script("7: of nothing").close_with(b""),
        script("7: of a byte")
            .send(frame(CLOSE, b"x"))
            .closed_by_server(1002),
        script("7: with a reason").close_with(&with(1000, "bye für now".as_bytes())),
        script("7: with 123 of a reason").close_with(&with(1000, &[b'*'; 123])),
        script("7: with 124 of a reason")
            .send(frame(CLOSE, &with(1000, &[b'*'; 124])))
            .closed_by_server(1002),
        script("7: no UTF-8")
            .send(frame(CLOSE, &with(1000, b"\xce\xba\xed\xa0\x80")))
            .closed_by_server(1007),
        script("7: in bytes")
            .send_in_pieces(frame(CLOSE, &with(1000, b"bye")), 1)
            .ends_with_frame(server_frame(CLOSE, &with(1000, b"bye"))),
        script("7: within a message")
            .send(frame(TEXT & !FIN, b"half"))
            .close(),
    ];
    let behind = [
        ("a close", frame(CLOSE, &with(1000, b""))),
        ("a ping", frame(PING, b"late")),
        ("a message", frame(TEXT, b"late")),
        ("a long message", frame(BINARY, &filled(262_144))),
        ("the rest", frame(FIN, b"of the message")),
    ];
    for (name, late) in behind {
        let close = frame(CLOSE, &with(1000, b""));
        let script = script(format!("7: and then {name}")).send([close, late].concat());
        scripts.push(script.ends_with_frame(server_frame(CLOSE, &with(1000, b""))));
    }
    for code in [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ] {
        scripts.push(script(format!("7: code {code}")).close_with(&with(code, b"")));
    }
    for code in [
        0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        let script = script(format!("7: no code {code}"));
        scripts.push(
            script
                .send(frame(CLOSE, &with(code, b"why")))
                .closed_by_server(1002),
        );
    }
    scripts
}

pub(crate) fn large_9() -> Vec<Script> {
    const MIB: usize = 1 << 20;
    let mut scripts = Vec::new();
    for (kind, first) in [("text", TEXT), ("binary", BINARY)] {
        for length in [MIB / 16, MIB / 4, MIB, 4 * MIB] {
            let script = script(format!("9: {kind} of {length}"));
            scripts.push(
                script
                    .send(frame(first, &filled(length)))
                    .await_frames(1)
                    .close(),
            );
        }
        for size in [64, 256, 4096, 65_536] {
            let script = script(format!("9: {kind} in frames of {size}"));
            scripts.push(
                script
                    .send(fragments(first, &filled(MIB), size))
                    .await_frames(1)
                    .close(),
            );
        }
        for size in [64, 1024] {
            let script = script(format!("9: {kind} in writes of {size}"));
            scripts.push(
                script
                    .send_in_pieces(frame(first, &filled(MIB / 8)), size)
                    .await_frames(1)
                    .close(),
            );
        }
    }
    scripts
}

pub(crate) fn fragments_10() -> Vec<Script> {
    let message = fragments(TEXT, &filled(65_536), 1300);
    vec![
        script("10: frames of 1300")
            .send(&message[..])
            .await_frames(1)
            .close(),
        script("10: frames of 1300 in writes of 1300")
            .send_in_pieces(message, 1300)
            .await_frames(1)
            .close(),
    ]
}

/// "Hello", compressed (RFC 7692 §7.2.3.1).
const HELLO: [u8; 7] = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
/// "Hello" again, as a reference to the previous message (RFC 7692 §7.2.3.2).
const AGAIN: [u8; 5] = [0xf2, 0x00, 0x11, 0x00, 0x00];
/// "Hello" in a stored (uncompressed) block (RFC 7692 §7.2.3.3).
const STORED: [u8; 11] = *b"\x00\x05\x00\xfa\xffHello\x00";

/// The message in stored blocks (RFC 1951 §3.2.4), without the final bytes that RFC 7692 §7.2.1 removes.
fn stored(message: &[u8]) -> Vec<u8> {
    let block = |piece: &[u8]| {
        let length = u16::try_from(piece.len()).expect("a block's length");
        let header = [&[0][..], &length.to_le_bytes(), &(!length).to_le_bytes()].concat();
        [&header, piece].concat()
    };
    let blocks = message.chunks(65_535).flat_map(block);
    blocks.chain([0]).collect()
}

pub(crate) fn compressed_12() -> Vec<Script> {
    [compressed(), wrongly_compressed(), stored_12()].concat()
}

fn deflate(name: &str) -> Script {
    script(format!("12: {name}")).with_extensions("permessage-deflate")
}

fn compressed() -> Vec<Script> {
    let hello = || frame(TEXT | RSV1, &HELLO);
    let between = [
        frame((TEXT | RSV1) & !FIN, &HELLO[..3]),
        frame(PING, b"x"),
        frame(FIN, &HELLO[3..]),
    ];
    let bytes = fragments(TEXT | RSV1, &HELLO, 1);
    let once = deflate("twice").send(hello()).await_frames(1);
    vec![
        echoed(deflate("not at all"), frame(TEXT, b"Hello")),
        echoed(deflate("once"), hello()),
        echoed(once, frame(TEXT | RSV1, &AGAIN)),
        echoed(deflate("stored"), frame(TEXT | RSV1, &STORED)),
        echoed(deflate("in fragments"), fragments(TEXT | RSV1, &HELLO, 3)),
        deflate("in fragments of a byte")
            .send_in_pieces(bytes, 1)
            .await_frames(1)
            .close(),
        deflate("a ping between")
            .send(between.concat())
            .await_frames(2)
            .close(),
    ]
}

fn wrongly_compressed() -> Vec<Script> {
    let again = [
        frame((TEXT | RSV1) & !FIN, &HELLO[..3]),
        frame(FIN | RSV1, &HELLO[3..]),
    ];
    let no_text = frame(TEXT | RSV1, &stored(b"a\xc3(b"));
    let nonsense = frame(BINARY | RSV1, &[0xff; 20]);
    vec![
        refused(deflate("no UTF-8"), no_text, 1007),
        refused(deflate("nonsense"), nonsense, 1002),
        refused(deflate("a ping"), frame(PING | RSV1, &HELLO), 1002),
        refused(deflate("a continuation"), again.concat(), 1002),
        refused(deflate("another bit"), frame(TEXT | RSV2, &HELLO), 1002),
    ]
}

fn stored_12() -> Vec<Script> {
    let sizes = [
        (TEXT, 0),
        (TEXT, 128),
        (BINARY, 65_536),
        (TEXT, 1 << 20),
        (BINARY, 3 << 20),
    ];
    let scripts = sizes.iter().flat_map(|(first, length)| {
        let message = stored(&filled(*length));
        let parts = fragments(first | RSV1, &message, 4096);
        [
            echoed(deflate(&format!("{length}")), frame(first | RSV1, &message)),
            echoed(deflate(&format!("{length} in fragments")), parts),
        ]
    });
    scripts.collect()
}

pub(crate) fn offers_13() -> Vec<Script> {
    let offers = [
        "permessage-deflate",
        "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; server_max_window_bits=9",
        "permessage-deflate; client_max_window_bits=9; server_max_window_bits=9",
        "permessage-deflate; client_max_window_bits; server_max_window_bits=\"15\"",
        "permessage-deflate; server_max_window_bits=99, permessage-deflate",
        "x-unknown; a=b, permessage-deflate; client_no_context_takeover",
        "x-unknown; value=\"ab\"",
    ];
    let scripts = offers.map(|offer| {
        let script = script(format!("13: {offer}")).with_extensions(offer);
        let script = script
            .send(frame(TEXT, GREETING.as_bytes()))
            .await_frames(1);
        script
            .send(frame(BINARY, &filled(70_000)))
            .await_frames(1)
            .close()
    });
    scripts.into()
}
