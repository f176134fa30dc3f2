//! Phase 6, both directions: translates a gRPC-Web call to gRPC for the peer, and the response to gRPC-Web in the
//! client's format ([`grpc::web`]).
//!
//! This requires `grpc_web` in the upstream, and HTTP/2 to the peer. gRPC needs HTTP/2, so a peer with
//! HTTP/1.1 gets the call unchanged. The trailers of the response become a frame at the end of its body.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Version};

use crate::grpc;
use crate::grpc::web::{self, GrpcWebRequest, WebEncoding, WebTextDecoder};
use crate::header::HeaderEdit;

/// A response ends without the trailers of gRPC: it is truncated, and must not look complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MissingTrailers;

/// The state of one attempt's translation.
#[derive(Debug)]
pub(crate) struct GrpcWebTranslation {
    call: GrpcWebRequest,
    /// For a request body in base64.
    decoder: Option<WebTextDecoder>,
    response: GrpcWebResponse,
}

/// The translation that the end of the response needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GrpcWebResponse {
    /// Nothing: the response is not gRPC, or has not arrived yet.
    PassThrough,
    /// A frame with its trailers, which must arrive.
    AwaitingTrailers,
    /// No frame: the header has the status. Trailers may still follow.
    StatusInHeader,
}

impl GrpcWebTranslation {
    /// Translates the header of an attempt if it is a call of gRPC-Web that goes to a peer of HTTP/2.
    pub(crate) fn of_request(request: &mut impl HeaderEdit, version: Version) -> Option<Box<Self>> {
        if version != Version::HTTP_2 {
            return None;
        }
        let call = GrpcWebRequest::from_headers(request)?;
        request.set(&CONTENT_TYPE, call.grpc_content_type()?);
        // gRPC servers refuse a call without it.
        request.set(&TE, HeaderValue::from_static("trailers"));
        let is_text = call.request_encoding == WebEncoding::Text;
        if is_text {
            request.remove(&CONTENT_LENGTH);
        }
        Some(Box::new(Self {
            call,
            decoder: is_text.then(WebTextDecoder::default),
            response: GrpcWebResponse::PassThrough,
        }))
    }

    /// Decodes a piece of the request's body.
    ///
    /// # Errors
    /// The body is not base64; the client is to blame.
    pub(crate) fn decode_request_body(
        &mut self,
        body: &mut Option<Bytes>,
        end: bool,
    ) -> Result<(), web::InvalidBase64> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(());
        };
        if let Some(piece) = body {
            *piece = decoder.decode(piece)?;
        }
        if end { decoder.finish() } else { Ok(()) }
    }

    /// Translates the response's header.
    pub(crate) fn translate_response(&mut self, response: &mut impl HeaderEdit) {
        let content_type = response.get(&CONTENT_TYPE);
        let translated = content_type.and_then(|it| self.call.response_content_type(it));
        let Some(translated) = translated else {
            return;
        };
        self.response = if response.contains(&grpc::STATUS) {
            GrpcWebResponse::StatusInHeader
        } else {
            GrpcWebResponse::AwaitingTrailers
        };
        response.remove(&CONTENT_LENGTH);
        response.set(&CONTENT_TYPE, translated);
    }

    /// Encodes a piece of the response's body.
    ///
    /// # Errors
    /// The body ends without trailers.
    pub(crate) fn encode_response_body(
        &self,
        body: &mut Option<Bytes>,
        end: bool,
    ) -> Result<(), MissingTrailers> {
        match self.response {
            GrpcWebResponse::PassThrough => return Ok(()),
            GrpcWebResponse::AwaitingTrailers if end => {
                return Err(MissingTrailers);
            }
            GrpcWebResponse::AwaitingTrailers | GrpcWebResponse::StatusInHeader => {}
        }
        let encoding = self.call.response_encoding;
        *body = body.take().map(|piece| web::encode_chunk(piece, encoding));
        Ok(())
    }

    /// The end of the body that the trailers become; `None`: they pass unchanged.
    pub(crate) fn encode_trailers(&self, trailers: &HeaderMap) -> Option<Bytes> {
        if self.response == GrpcWebResponse::PassThrough {
            return None;
        }
        let frame = web::trailers_frame(trailers);
        Some(web::encode_chunk(frame, self.call.response_encoding))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::header_map;

    fn call(content_type: &'static str) -> HeaderMap {
        header_map(&[("content-type", content_type), ("content-length", "8")])
    }

    fn translated(content_type: &'static str) -> (HeaderMap, Box<GrpcWebTranslation>) {
        let mut request = call(content_type);
        let translation = GrpcWebTranslation::of_request(&mut request, Version::HTTP_2);
        (request, translation.unwrap())
    }

    #[test]
    fn grpc_web_request_becomes_grpc() {
        let (request, _) = translated("application/grpc-web+proto");
        assert_eq!(request[CONTENT_TYPE], "application/grpc+proto");
        assert_eq!(request[TE], "trailers");
        assert_eq!(request[CONTENT_LENGTH], "8");
    }

    #[test]
    fn grpc_web_text_request_loses_its_length_and_is_decoded() {
        let (request, mut translation) = translated("application/grpc-web-text");
        assert!(!request.contains_key(CONTENT_LENGTH));
        let mut body = Some(Bytes::from_static(b"YWJj"));
        translation.decode_request_body(&mut body, true).unwrap();
        assert_eq!(body.unwrap(), "abc");
        let (_, mut translation) = translated("application/grpc-web-text");
        let mut body = Some(Bytes::from_static(b"YW"));
        assert!(translation.decode_request_body(&mut body, true).is_err());
    }

    #[test]
    fn request_is_not_translated_to_http1_or_if_it_is_not_grpc_web() {
        for (content_type, version) in [
            ("application/grpc-web", Version::HTTP_11),
            ("application/grpc", Version::HTTP_2),
            ("text/plain", Version::HTTP_2),
        ] {
            let mut request = call(content_type);
            let translation = GrpcWebTranslation::of_request(&mut request, version);
            assert!(translation.is_none(), "{content_type}");
            assert_eq!(request[CONTENT_TYPE], content_type);
        }
    }

    #[test]
    fn response_that_is_not_grpc_passes_unchanged() {
        let (_, mut translation) = translated("application/grpc-web");
        let mut page = header_map(&[("content-type", "text/html"), ("content-length", "3")]);
        translation.translate_response(&mut page);
        assert_eq!(page[CONTENT_LENGTH], "3");
        let mut body = Some(Bytes::from_static(b"abc"));
        translation.encode_response_body(&mut body, true).unwrap();
        assert_eq!(body.unwrap(), "abc");
        assert_eq!(translation.encode_trailers(&HeaderMap::new()), None);
    }

    #[test]
    fn response_without_trailers_is_an_error_unless_the_header_has_the_status() {
        for (fields, is_complete) in [
            (&[("content-type", "application/grpc")][..], false),
            (
                &[("content-type", "application/grpc"), ("grpc-status", "0")],
                true,
            ),
        ] {
            let (_, mut translation) = translated("application/grpc-web");
            translation.translate_response(&mut header_map(fields));
            let ended = translation.encode_response_body(&mut None, true);
            assert_eq!(ended.is_ok(), is_complete, "{fields:?}");
        }
    }

    #[test]
    fn trailers_become_the_last_frame_of_the_body() {
        let (_, mut translation) = translated("application/grpc-web");
        let mut header = header_map(&[("content-type", "application/grpc")]);
        translation.translate_response(&mut header);
        let trailers = HeaderMap::from_iter([(grpc::STATUS, 0.into())]);
        let frame = translation.encode_trailers(&trailers).unwrap();
        assert_eq!(frame.first(), Some(&0x80));
        assert!(frame.ends_with(b"grpc-status: 0\r\n"), "{frame:?}");
    }
}
