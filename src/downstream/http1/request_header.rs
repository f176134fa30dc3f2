//! The head of a request as Pingora's type.

use bytes::Bytes;
use http::HeaderValue;
use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use pingora::http::{IntoCaseHeaderName, RequestHeader};

use super::super::received_target::ReceivedTarget;
use crate::http1::{BodyLength, Refusal, RequestHead, TargetForm};

/// Converts a head that the codec has accepted: the target in origin-form, the host of the target if it has one
/// (RFC 9112 §3.2.2), and one meaning of the length. Names keep their letters. A target that Pingora's type cannot hold is a
/// [`ReceivedTarget`], and `/` is in its place.
///
/// # Errors
/// A field is none for Pingora's types.
pub(super) fn to_pingora(head: &RequestHead) -> Result<RequestHeader, Refusal> {
    let (fields, framing) = (head.fields(), head.framing());
    let mut request = with_target(head)?;
    request.set_version(head.version());
    let host = head
        .host_bytes()
        .filter(|_| head.target_form() == TargetForm::Absolute);
    let text = fields.text();
    for field in fields.iter() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name.as_bytes());
        let is_written_anew = is(TRANSFER_ENCODING.as_str())
            || !framing.is_canonical && is(CONTENT_LENGTH.as_str())
            || host.is_some() && is(HOST.as_str());
        if !is_written_anew {
            let (name, value) = (text.slice_ref(field.name), text.slice_ref(field.value));
            append(&mut request, name, value)?;
        }
    }
    if let Some(host) = host {
        append(&mut request, "Host", host)?;
    }
    if framing.body == BodyLength::Chunked {
        let chunked = Bytes::from_static(b"chunked");
        append(&mut request, "Transfer-Encoding", chunked)?;
    } else if let Some(length) = framing.content_length.filter(|_| !framing.is_canonical) {
        append(&mut request, "Content-Length", length.to_string().into())?;
    }
    Ok(request)
}

fn with_target(head: &RequestHead) -> Result<RequestHeader, Refusal> {
    let build = |target: &[u8]| {
        let fields = Some(head.fields().len());
        RequestHeader::build(head.method(), target, fields).map_err(|_| Refusal::InvalidTarget)
    };
    let target = head.peer_target_bytes();
    build(&target).or_else(|_| {
        let mut request = build(b"/")?;
        let received = ReceivedTarget::new(target);
        request.extensions_mut().insert(received);
        Ok(request)
    })
}

fn append(
    request: &mut RequestHeader,
    name: impl IntoCaseHeaderName,
    value: Bytes,
) -> Result<(), Refusal> {
    let value = HeaderValue::from_maybe_shared(value).map_err(|_| Refusal::InvalidFieldValue)?;
    let appended = request.append_header(name, value);
    appended.map(drop).map_err(|_| Refusal::InvalidFieldName)
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::http1::{HeadLimits, ParseStatus, RequestParser};

    fn converted(text: &str) -> String {
        let limits = HeadLimits {
            max_size: 4096,
            max_fields: 1000,
            max_target: 4096,
        };
        let mut head = RequestHead::default();
        let mut bytes = BytesMut::from(text);
        let parsed = RequestParser::default().parse(&mut bytes, &limits, &mut head);
        assert_eq!(parsed, Ok(ParseStatus::Complete), "{text}");
        let request = to_pingora(&head).unwrap();
        let target = String::from_utf8(ReceivedTarget::of(&request).to_vec()).unwrap();
        let mut wire =
            format!("{} {target} {:?}\r\n", request.method, request.version).into_bytes();
        request.header_to_h1_wire(&mut wire);
        String::from_utf8(wire).unwrap().replace("\r\n", "|")
    }

    #[test]
    fn head_becomes_an_origin_form_with_the_targets_host_and_one_length() {
        for (text, expected) in [
            (
                "GET /a?b HTTP/1.1\r\nHost: a.test\r\nX-ONE: 1\r\nx-one: 2\r\n\r\n",
                "GET /a?b HTTP/1.1|Host: a.test|X-ONE: 1|x-one: 2|",
            ),
            (
                "GET http://a.test:80/x HTTP/1.1\r\nHOST: b.test\r\nA: 1\r\n\r\n",
                "GET /x HTTP/1.1|A: 1|Host: a.test:80|",
            ),
            (
                "OPTIONS http://a.test HTTP/1.1\r\nHost: a.test\r\n\r\n",
                "OPTIONS * HTTP/1.1|Host: a.test|",
            ),
            ("GET /a HTTP/1.0\r\n\r\n", "GET /a HTTP/1.0|"),
            (
                "GET /a<b>`?\"c\" HTTP/1.1\r\nHost: a.test\r\n\r\n",
                "GET /a<b>`?\"c\" HTTP/1.1|Host: a.test|",
            ),
            (
                "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 05, 5\r\n\r\n",
                "POST /a HTTP/1.1|Host: a|Content-Length: 5|",
            ),
            (
                "POST /a HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\n\r\n",
                "POST /a HTTP/1.1|Host: a|Transfer-Encoding: chunked|",
            ),
            (
                "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\n\r\n",
                "CONNECT a.test:443 HTTP/1.1|Host: a.test:443|",
            ),
        ] {
            assert_eq!(converted(text), expected);
        }
    }
}
