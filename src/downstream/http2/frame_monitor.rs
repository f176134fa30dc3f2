//! What a client does on an HTTP/2 connection, as the headers of its frames tell (RFC 9113, 4.1).
//!
//! Reads along, and keeps nothing of what the frames carry. A client is judged by what it makes us do
//! for nothing: frames that move no request on (CVE-2019-9511 to 9518), measured against what it gets
//! done, as busy clients send more of them. Of the requests that it takes back (CVE-2023-44487) only the
//! streams are told here; [`haste`](super::haste) judges them. Pure; time is an argument.

use std::time::Duration;

use super::super::preface::PREFACE;

/// Frames that a client may send for nothing: at first; then for each stream, each piece of a
/// response, each KiB that it is sent, each second. A client that measures its path, as those of gRPC
/// do, sends PING and `WINDOW_UPDATE` with every round trip in which something came, however little.
const CONTROL_FRAME_ALLOWANCE: ControlFrameAllowance = ControlFrameAllowance {
    burst: 1000,
    per_stream: 10,
    per_chunk: 10,
    per_kib: 1,
    per_second: 10,
};

/// The length of a frame's header; bytes.
const FRAME_HEADER_LEN: usize = 9;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

struct ControlFrameAllowance {
    burst: u64,
    per_stream: u64,
    per_chunk: u64,
    per_kib: u64,
    per_second: u64,
}

/// What a client was sent so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ResponseProgress {
    pub(super) bytes: u64,
    /// Pieces of responses, as the peers sent them. What a small window cuts them into counts as one:
    /// else a client could earn a frame with each byte that it lets us send.
    pub(super) chunks: u64,
}

/// How far the client has come in its frames, and what it has sent.
#[derive(Debug)]
pub(super) struct FrameMonitor {
    /// Of the preface; bytes.
    preface_left: usize,
    frame_header: [u8; FRAME_HEADER_LEN],
    header_len: usize,
    /// Of the frame's payload; bytes.
    payload_left: usize,
    /// A header block has begun.
    in_header_block: bool,
    /// The frame is the last of its header block.
    ends_header_block: bool,
    last_stream_id: u32,
    frames_complete: u64,
    streams_opened: u64,
    control_frames: u64,
}

impl Default for FrameMonitor {
    fn default() -> Self {
        Self {
            preface_left: PREFACE.len(),
            frame_header: [0; FRAME_HEADER_LEN],
            header_len: 0,
            payload_left: 0,
            in_header_block: false,
            ends_header_block: false,
            last_stream_id: 0,
            frames_complete: 0,
            streams_opened: 0,
            control_frames: 0,
        }
    }
}

impl FrameMonitor {
    /// The client has sent these bytes; the streams that it takes back with them.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Vec<u32> {
        let mut resets = Vec::new();
        while !bytes.is_empty() {
            let taken = self.step(bytes, &mut resets);
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        resets
    }

    /// The preface and the first frame are there.
    pub(super) fn has_first_frame(&self) -> bool {
        self.frames_complete > 0
    }

    /// Some of a header block is there, and not all.
    pub(super) fn is_in_header_block(&self) -> bool {
        self.in_header_block
    }

    /// Streams opened.
    pub(super) fn streams_opened(&self) -> u64 {
        self.streams_opened
    }

    /// Whether a client that was given this, in that time, has sent too many frames for nothing.
    pub(super) fn is_control_flood(&self, given: ResponseProgress, age: Duration) -> bool {
        if self.control_frames <= CONTROL_FRAME_ALLOWANCE.burst {
            return false;
        }
        let earned = [
            self.streams_opened
                .saturating_mul(CONTROL_FRAME_ALLOWANCE.per_stream),
            given
                .chunks
                .saturating_mul(CONTROL_FRAME_ALLOWANCE.per_chunk),
            (given.bytes / 1024).saturating_mul(CONTROL_FRAME_ALLOWANCE.per_kib),
            age.as_secs()
                .saturating_mul(CONTROL_FRAME_ALLOWANCE.per_second),
        ];
        self.control_frames
            > earned
                .into_iter()
                .fold(CONTROL_FRAME_ALLOWANCE.burst, u64::saturating_add)
    }

    /// Takes as many of the bytes as have one meaning, at least one; how many.
    fn step(&mut self, bytes: &[u8], resets: &mut Vec<u32>) -> usize {
        if self.preface_left > 0 {
            return consume(&mut self.preface_left, bytes.len());
        }
        if self.payload_left > 0 {
            let taken = consume(&mut self.payload_left, bytes.len());
            self.finish_frame();
            return taken;
        }
        if let (Some(place), Some(&byte)) =
            (self.frame_header.get_mut(self.header_len), bytes.first())
        {
            *place = byte;
        }
        self.header_len += 1;
        if self.header_len == FRAME_HEADER_LEN {
            self.header_len = 0;
            self.on_frame_header(resets);
            self.finish_frame();
        }
        1
    }

    /// A frame's header is there.
    fn on_frame_header(&mut self, resets: &mut Vec<u32>) {
        let [l1, l2, l3, kind, flags, stream @ ..] = self.frame_header;
        let length = u32::from_be_bytes([0, l1, l2, l3]) as usize;
        let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
        self.payload_left = length;
        match kind {
            HEADERS => {
                self.count_stream(stream);
                self.in_header_block = true;
            }
            RST_STREAM => resets.push(stream),
            DATA if length > 0 || flags & END_STREAM != 0 => {}
            _ => self.control_frames += 1,
        }
        self.ends_header_block = matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS != 0;
    }

    /// What comes on an older stream is a trailer.
    fn count_stream(&mut self, stream: u32) {
        if stream > self.last_stream_id {
            self.last_stream_id = stream;
            self.streams_opened += 1;
        }
    }

    fn finish_frame(&mut self) {
        if self.payload_left == 0 {
            self.frames_complete += 1;
            self.in_header_block &= !self.ends_header_block;
        }
    }
}

/// Takes from what is left; how many.
fn consume(left: &mut usize, available: usize) -> usize {
    let taken = available.min(*left);
    *left -= taken;
    taken
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn frame(kind: u8, flags: u8, stream: u32, length: usize) -> Vec<u8> {
        let mut frame = u32::try_from(length).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags]);
        frame.extend(stream.to_be_bytes());
        frame.resize(FRAME_HEADER_LEN + length, 0);
        frame
    }

    fn after(frames: &[Vec<u8>]) -> FrameMonitor {
        let mut read = FrameMonitor::default();
        read.feed(PREFACE);
        read.feed(&frames.concat());
        read
    }

    #[test]
    fn http2_preface_is_complete_after_the_first_settings_frame() {
        assert!(!after(&[]).has_first_frame());
        assert!(!after(&[frame(4, 0, 0, 6)[..14].to_vec()]).has_first_frame());
        assert!(after(&[frame(4, 0, 0, 6)]).has_first_frame());
        assert!(after(&[frame(4, 0, 0, 0)]).has_first_frame());
    }

    #[test]
    fn http2_header_block_is_open_until_end_headers() {
        let begun = frame(HEADERS, 0, 1, 5);
        let more = frame(CONTINUATION, 0, 1, 5);
        let last = frame(CONTINUATION, END_HEADERS, 1, 5);
        for (frames, open) in [
            (vec![frame(HEADERS, END_HEADERS, 1, 5)], false),
            (vec![frame(HEADERS, END_HEADERS, 1, 5)[..13].to_vec()], true),
            (vec![begun.clone()], true),
            (vec![begun.clone(), more.clone()], true),
            (vec![begun.clone(), more.clone(), last.clone()], false),
            (vec![begun, more, last[..13].to_vec()], true),
        ] {
            assert_eq!(after(&frames).is_in_header_block(), open, "{frames:?}");
        }
    }

    #[test]
    fn http2_trailers_do_not_open_a_stream() {
        let headers = |stream| frame(HEADERS, END_HEADERS, stream, 1);
        let read = after(&[headers(1), headers(3), headers(1), headers(3), headers(5)]);
        assert_eq!(read.streams_opened(), 3);
    }

    #[test]
    fn http2_control_frames_are_counted_and_limited() {
        let first = usize::try_from(CONTROL_FRAME_ALLOWANCE.burst).unwrap();
        for nothing in [
            frame(DATA, 0, 1, 0),
            frame(2, 0, 1, 5),
            frame(4, 0, 0, 0),
            frame(6, 0, 0, 8),
            frame(8, 0, 0, 4),
            frame(CONTINUATION, 0, 1, 0),
            frame(99, 0, 0, 3),
        ] {
            let mut read = after(&vec![nothing.clone(); first]);
            let kib = ResponseProgress {
                bytes: 1024,
                chunks: 0,
            };
            let piece = ResponseProgress {
                bytes: 1,
                chunks: 1,
            };
            assert!(!read.is_control_flood(ResponseProgress::default(), Duration::ZERO));
            read.feed(&nothing);
            assert!(read.is_control_flood(ResponseProgress::default(), Duration::ZERO));
            assert!(!read.is_control_flood(kib, Duration::ZERO), "it took a KiB");
            assert!(
                !read.is_control_flood(piece, Duration::ZERO),
                "it took a piece"
            );
            assert!(
                !read.is_control_flood(ResponseProgress::default(), MINUTE),
                "it took its time"
            );
        }
    }

    #[test]
    fn http2_data_frames_and_end_stream_are_not_control_flood() {
        let some = [frame(DATA, 0, 1, 1), frame(DATA, END_STREAM, 1, 0)];
        let read = after(&vec![some.concat(); 10_000]);
        assert!(!read.is_control_flood(ResponseProgress::default(), Duration::ZERO));
    }

    #[test]
    fn http2_frame_monitor_reports_reset_stream_ids() {
        let mut read = after(&[]);
        let resets = [
            frame(RST_STREAM, 0, 1, 4),
            frame(RST_STREAM, 0, 3 | 1 << 31, 4),
        ]
        .concat();
        assert_eq!(read.feed(&resets[..FRAME_HEADER_LEN - 1]), [0; 0]);
        assert_eq!(read.feed(&resets[FRAME_HEADER_LEN - 1..]), [1, 3]);
    }

    proptest! {
        #[test]
        fn http2_frame_monitor_result_is_independent_of_chunking(
            bytes in prop::collection::vec(0..12_u8, 0..300),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
        ) {
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let whole = after(std::slice::from_ref(&bytes));
            let mut pieces = after(&[]);
            let mut resets = Vec::new();
            let mut at = 0;
            for cut in cuts.into_iter().chain([bytes.len()]) {
                resets.extend(pieces.feed(&bytes[at..cut]));
                at = cut;
            }
            prop_assert_eq!(resets, after(&[]).feed(&bytes));
            prop_assert_eq!(format!("{whole:?}"), format!("{pieces:?}"));
        }
    }
}
