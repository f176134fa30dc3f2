//! The messages of gRPC health checking (`grpc.health.v1.Health/Check`), each with one field.
//!
//! A message is framed by a byte of flags and its length in four bytes. Its fields are a key (number and
//! wire type) and a value each (Protocol Buffers, "Encoding").

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;

pub(super) const PATH: &[u8] = b"/grpc.health.v1.Health/Check";

/// The longest response body, in bytes; any valid one is shorter.
pub(super) const MAX_RESPONSE: usize = 4096;

/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u64 = 1;
/// The bytes of flags and length.
const FRAME_PREFIX: usize = 5;

/// Encodes a framed `HealthCheckRequest { service }`. The name has at most 127 bytes; a longer one is left out.
pub(super) fn encode_request(service: &str) -> Bytes {
    const SERVICE_TAG: u8 = 1 << 3 | 2;
    let mut message = BytesMut::new();
    if let (1.., Ok(length @ ..=127)) = (service.len(), u8::try_from(service.len())) {
        message.put_slice(&[SERVICE_TAG, length]);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(FRAME_PREFIX + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or_default());
    frame.put(message);
    frame.freeze()
}

/// Whether the frame is a `HealthCheckResponse` with the status `SERVING`.
pub(super) fn is_serving(frame: &[u8]) -> bool {
    let Some((&[flags, a, b, c, d], message)) = frame.split_first_chunk::<FRAME_PREFIX>() else {
        return false;
    };
    let is_complete = u32::from_be_bytes([a, b, c, d]) as usize == message.len();
    flags == 0 && is_complete && decode_serving_status(message) == Some(SERVING)
}

/// The `grpc-status`, if present; `UNKNOWN` (2) if it is not a number.
pub(super) fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    const UNKNOWN: u16 = 2;
    let status = headers.get("grpc-status")?.to_str().ok();
    Some(
        status
            .and_then(|status| status.parse().ok())
            .unwrap_or(UNKNOWN),
    )
}

/// The last value of field 1, a number; other fields are skipped. `None` if it is missing or the message is
/// malformed.
fn decode_serving_status(mut message: &[u8]) -> Option<u64> {
    let mut found = None;
    while !message.is_empty() {
        let key = read_varint(&mut message)?;
        match (key >> 3, key & 7) {
            (1, 0) => found = Some(read_varint(&mut message)?),
            (_, 0) => drop(read_varint(&mut message)?),
            (_, 1) => skip_bytes(&mut message, 8)?,
            (_, 2) => {
                let length = usize::try_from(read_varint(&mut message)?).ok()?;
                skip_bytes(&mut message, length)?;
            }
            (_, 5) => skip_bytes(&mut message, 4)?,
            _ => return None,
        }
    }
    found
}

/// Reads a varint: seven bits per byte, the lowest first; all bytes but the last have the eighth bit set.
fn read_varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for index in 0..10 {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f).checked_shl(7 * index)?;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn skip_bytes(message: &mut &[u8], length: usize) -> Option<()> {
    *message = message.get(length..)?;
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[0][..], &length, message].concat()
    }

    #[test]
    fn grpc_probe_sends_an_empty_health_check_request() {
        assert_eq!(&encode_request("")[..], [0, 0, 0, 0, 0]);
        assert_eq!(
            &encode_request("a.B")[..],
            [0, 0, 0, 0, 5, 10, 3, b'a', b'.', b'B']
        );
    }

    #[test]
    fn grpc_probe_passes_only_on_serving() {
        assert!(is_serving(&framed(&[8, 1])));
        assert!(is_serving(&framed(&[8, 2, 8, 1])), "the last one counts");
        assert!(is_serving(&framed(&[
            18, 2, 7, 7, 25, 0, 0, 0, 0, 0, 0, 0, 0, 8, 1, 45, 0, 0, 0, 0
        ])));
        for not in [
            &[][..],
            &[8, 2],
            &[8, 0],
            &[8],
            &[10, 1, 1],
            &[8, 0x81],
            &[16, 1],
            &[11],
        ] {
            assert!(!is_serving(&framed(not)), "{not:?}");
        }
        assert!(!is_serving(&[1, 0, 0, 0, 2, 8, 1]), "compressed");
        assert!(!is_serving(&[0, 0, 0, 0, 3, 8, 1]), "truncated");
        assert!(!is_serving(&[0, 0, 0]));
    }

    proptest! {
        #[test]
        fn grpc_probe_with_random_bytes_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = is_serving(&bytes);
            let _ = is_serving(&framed(&bytes));
        }
    }
}
