//! Counts what a client sends on an HTTP/2 connection, from the headers of its frames (RFC 9113 §4.1).
//!
//! Detects control floods (CVE-2019-9511 to CVE-2019-9518): more control frames than a client can need for
//! its streams and responses. It also reports the streams that the client resets;
//! [`rapid_reset`](super::rapid_reset) evaluates these. Frame payloads are skipped, not stored. Pure; time is
//! an argument.

use std::time::Duration;

use super::super::preface::PREFACE;

/// The control frames that a client may send. A client that measures bandwidth, as gRPC clients do, sends PING
/// and `WINDOW_UPDATE` in every round trip with data, even if it is only a few bytes.
const CONTROL_FRAME_ALLOWANCE: ControlFrameAllowance = ControlFrameAllowance {
    burst: 1000,
    per_stream: 10,
    per_chunk: 10,
    per_kib: 1,
    per_second: 10,
};

/// The length of a frame's header; bytes.
const FRAME_HEADER_LEN: usize = 9;

// Frame types (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const CONTINUATION: u8 = 9;

// Frame flags (RFC 9113 §6.1 and §6.2).
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Frames allowed from the start, and those added by each unit of useful work.
struct ControlFrameAllowance {
    burst: u64,
    /// For each stream that the client opens.
    per_stream: u64,
    /// For each chunk of a response that was sent completely.
    per_chunk: u64,
    /// For each KiB that was sent to the client.
    per_kib: u64,
    /// For each second since the connection was accepted.
    per_second: u64,
}

/// How much was sent to the client on a connection so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ResponseProgress {
    pub(super) bytes: u64,
    /// Chunks of responses, as the peers sent them. A chunk that a small window splits into several parts
    /// counts as one; otherwise a client could earn allowed frames with a window of one byte.
    pub(super) chunks: u64,
}

/// Tracks the frames of one connection: the position in the current frame, and counters.
#[derive(Debug)]
pub(super) struct FrameMonitor {
    /// Bytes of the preface that are still missing.
    preface_left: usize,
    frame_header: [u8; FRAME_HEADER_LEN],
    /// Bytes of `frame_header` that have arrived.
    header_len: usize,
    /// Bytes of the current frame's payload that are still missing.
    payload_left: usize,
    /// A header block has begun and has not ended.
    in_header_block: bool,
    /// The current frame is the last of its header block.
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
    /// Processes bytes from the client; returns the ids of the streams that they reset.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Vec<u32> {
        let mut resets = Vec::new();
        while !bytes.is_empty() {
            let consumed = self.step(bytes, &mut resets);
            bytes = bytes.get(consumed..).unwrap_or_default();
        }
        resets
    }

    /// Whether the preface and the first frame have arrived.
    pub(super) fn has_first_frame(&self) -> bool {
        self.frames_complete > 0
    }

    /// Whether a header block has begun and has not ended.
    pub(super) fn is_in_header_block(&self) -> bool {
        self.in_header_block
    }

    /// Streams that the client has opened.
    pub(super) fn streams_opened(&self) -> u64 {
        self.streams_opened
    }

    /// Whether the client has sent more control frames than [`CONTROL_FRAME_ALLOWANCE`] allows for the age and
    /// the progress of the connection.
    pub(super) fn is_control_flood(&self, progress: ResponseProgress, age: Duration) -> bool {
        const ALLOWED: ControlFrameAllowance = CONTROL_FRAME_ALLOWANCE;
        if self.control_frames <= ALLOWED.burst {
            return false;
        }
        let earned = [
            self.streams_opened.saturating_mul(ALLOWED.per_stream),
            progress.chunks.saturating_mul(ALLOWED.per_chunk),
            (progress.bytes / 1024).saturating_mul(ALLOWED.per_kib),
            age.as_secs().saturating_mul(ALLOWED.per_second),
        ];
        self.control_frames > earned.into_iter().fold(ALLOWED.burst, u64::saturating_add)
    }

    /// Consumes a part of the preface, one byte of a frame header, or a part of a payload; returns
    /// how many bytes that is, at least one.
    fn step(&mut self, bytes: &[u8], resets: &mut Vec<u32>) -> usize {
        if self.preface_left > 0 {
            return consume(&mut self.preface_left, bytes.len());
        }
        if self.payload_left > 0 {
            let consumed = consume(&mut self.payload_left, bytes.len());
            self.finish_frame();
            return consumed;
        }
        if let (Some(slot), Some(&byte)) =
            (self.frame_header.get_mut(self.header_len), bytes.first())
        {
            *slot = byte;
        }
        self.header_len += 1;
        if self.header_len == FRAME_HEADER_LEN {
            self.header_len = 0;
            self.on_frame_header(resets);
            self.finish_frame();
        }
        1
    }

    /// Counts a frame, now that its header is complete.
    fn on_frame_header(&mut self, resets: &mut Vec<u32>) {
        let [l1, l2, l3, kind, flags, stream_id @ ..] = self.frame_header;
        let length = u32::from_be_bytes([0, l1, l2, l3]) as usize;
        // The top bit is reserved, and ignored (RFC 9113 §4.1).
        let stream_id = u32::from_be_bytes(stream_id) & (u32::MAX >> 1);
        self.payload_left = length;
        match kind {
            HEADERS => {
                self.count_stream(stream_id);
                self.in_header_block = true;
            }
            RST_STREAM => resets.push(stream_id),
            DATA if length > 0 || flags & END_STREAM != 0 => {}
            _ => self.control_frames += 1,
        }
        self.ends_header_block = matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS != 0;
    }

    /// Counts a stream when its first HEADERS frame arrives; later ones are trailers.
    fn count_stream(&mut self, stream_id: u32) {
        if stream_id > self.last_stream_id {
            self.last_stream_id = stream_id;
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

/// Reduces `left` by at most `available`; returns by how much.
fn consume(left: &mut usize, available: usize) -> usize {
    let consumed = available.min(*left);
    *left -= consumed;
    consumed
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
        let mut monitor = FrameMonitor::default();
        monitor.feed(PREFACE);
        monitor.feed(&frames.concat());
        monitor
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
        let monitor = after(&[headers(1), headers(3), headers(1), headers(3), headers(5)]);
        assert_eq!(monitor.streams_opened(), 3);
    }

    #[test]
    fn http2_control_frames_are_counted_and_limited() {
        let burst = usize::try_from(CONTROL_FRAME_ALLOWANCE.burst).unwrap();
        for control in [
            frame(DATA, 0, 1, 0),
            frame(2, 0, 1, 5),
            frame(4, 0, 0, 0),
            frame(6, 0, 0, 8),
            frame(8, 0, 0, 4),
            frame(CONTINUATION, 0, 1, 0),
            frame(99, 0, 0, 3),
        ] {
            let mut monitor = after(&vec![control.clone(); burst]);
            let kib = ResponseProgress {
                bytes: 1024,
                chunks: 0,
            };
            let chunk = ResponseProgress {
                bytes: 1,
                chunks: 1,
            };
            assert!(!monitor.is_control_flood(ResponseProgress::default(), Duration::ZERO));
            monitor.feed(&control);
            assert!(monitor.is_control_flood(ResponseProgress::default(), Duration::ZERO));
            assert!(
                !monitor.is_control_flood(kib, Duration::ZERO),
                "a KiB was sent"
            );
            assert!(
                !monitor.is_control_flood(chunk, Duration::ZERO),
                "a chunk was sent"
            );
            assert!(
                !monitor.is_control_flood(ResponseProgress::default(), MINUTE),
                "a minute has passed"
            );
        }
    }

    #[test]
    fn http2_data_frames_and_end_stream_are_not_control_flood() {
        let data = [frame(DATA, 0, 1, 1), frame(DATA, END_STREAM, 1, 0)];
        let monitor = after(&vec![data.concat(); 10_000]);
        assert!(!monitor.is_control_flood(ResponseProgress::default(), Duration::ZERO));
    }

    #[test]
    fn http2_frame_monitor_reports_reset_stream_ids() {
        let mut monitor = after(&[]);
        let resets = [
            frame(RST_STREAM, 0, 1, 4),
            frame(RST_STREAM, 0, 3 | 1 << 31, 4),
        ]
        .concat();
        assert_eq!(monitor.feed(&resets[..FRAME_HEADER_LEN - 1]), [0; 0]);
        assert_eq!(monitor.feed(&resets[FRAME_HEADER_LEN - 1..]), [1, 3]);
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
            let mut chunked = after(&[]);
            let mut resets = Vec::new();
            let mut at = 0;
            for cut in cuts.into_iter().chain([bytes.len()]) {
                resets.extend(chunked.feed(&bytes[at..cut]));
                at = cut;
            }
            prop_assert_eq!(resets, after(&[]).feed(&bytes));
            prop_assert_eq!(format!("{whole:?}"), format!("{chunked:?}"));
        }
    }
}
