//! Phase 6, both ways: a call by gRPC-Web reaches its peer as gRPC, and the response comes back as
//! what was asked for ([`grpc::web`]).
//!
//! Only where the upstream is told to, and only over HTTP/2: a peer that has chosen HTTP/1.1 could send
//! no trailers, and gets the call as it is. Pingora writes the frame that the trailers become as the end of
//! the body.

use bytes::Bytes;
use http::Version;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, TE};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType, Result};

use super::context::Context;
use super::fault::Fault;
use crate::grpc;
use crate::grpc::web::{self, GrpcWebRequest, WebEncoding, WebTextDecoder};

/// What becomes of the bodies of one attempt.
#[derive(Debug)]
pub(super) struct GrpcWebTranslation {
    call: GrpcWebRequest,
    /// Of a request in text.
    decoder: Option<WebTextDecoder>,
    /// What the response is known to be.
    response: GrpcWebResponse,
}

/// What a response needs at its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GrpcWebResponse {
    /// None of gRPC, or none yet: it passes as it is.
    PassThrough,
    /// Its trailers are to come.
    AwaitingTrailers,
    /// Its header has the status: no trailers need to come.
    StatusInHeader,
}

impl GrpcWebTranslation {
    fn new(call: GrpcWebRequest) -> Self {
        let decoder = (call.request_encoding == WebEncoding::Text).then(WebTextDecoder::default);
        Self {
            call,
            decoder,
            response: GrpcWebResponse::PassThrough,
        }
    }

    fn decode(&mut self, body: &mut Option<Bytes>, end: bool) -> Result<(), web::InvalidBase64> {
        let Some(decoder) = &mut self.decoder else {
            return Ok(());
        };
        if let Some(piece) = body {
            *piece = decoder.decode(piece)?;
        }
        if end { decoder.finish() } else { Ok(()) }
    }
}

/// The header of an attempt: what is known of the attempt before is forgotten, as the body is sent anew.
pub(super) fn translate_request(request: &mut RequestHeader, ctx: &mut Context) -> Result<()> {
    ctx.grpc_web = None;
    let wanted = ctx
        .upstream()
        .is_some_and(|upstream| upstream.config.grpc_web);
    if !wanted || request.version != Version::HTTP_2 {
        return Ok(());
    }
    let Some(call) = GrpcWebRequest::from_headers(&request.headers) else {
        return Ok(());
    };
    let Some(kind) = call.grpc_content_type() else {
        return Ok(());
    };
    request.insert_header(CONTENT_TYPE, kind)?;
    // Servers answer nobody else.
    request.insert_header(TE, "trailers")?;
    if call.request_encoding == WebEncoding::Text {
        request.remove_header(&CONTENT_LENGTH);
    }
    ctx.grpc_web = Some(Box::new(GrpcWebTranslation::new(call)));
    Ok(())
}

/// A piece of the request's body.
///
/// # Errors
/// It is not what it should be; the client is to blame.
pub(super) fn decode_request_body(
    body: &mut Option<Bytes>,
    end: bool,
    ctx: &mut Context,
) -> Result<()> {
    let Some(translation) = &mut ctx.grpc_web else {
        return Ok(());
    };
    translation.decode(body, end).map_err(|_| {
        ctx.fault = Some(Fault::BadRequest);
        Error::new_down(ErrorType::HTTPStatus(400))
    })
}

/// The response's header.
pub(super) fn translate_response(response: &mut ResponseHeader, ctx: &mut Context) -> Result<()> {
    let Some(translation) = &mut ctx.grpc_web else {
        return Ok(());
    };
    let peers = response.headers.get(CONTENT_TYPE);
    let Some(kind) = peers.and_then(|peers| translation.call.response_content_type(peers)) else {
        return Ok(());
    };
    translation.response = if response.headers.contains_key(grpc::STATUS) {
        GrpcWebResponse::StatusInHeader
    } else {
        GrpcWebResponse::AwaitingTrailers
    };
    response.remove_header(&CONTENT_LENGTH);
    response.insert_header(CONTENT_TYPE, kind)
}

/// A piece of the response's body.
///
/// # Errors
/// It ends without trailers: it is not whole, and must not look so.
pub(super) fn encode_response_body(
    body: &mut Option<Bytes>,
    end: bool,
    ctx: &mut Context,
) -> Result<()> {
    let Some(translation) = &ctx.grpc_web else {
        return Ok(());
    };
    match translation.response {
        GrpcWebResponse::PassThrough => return Ok(()),
        GrpcWebResponse::AwaitingTrailers if end => {
            return Err(Error::new_up(ErrorType::ConnectionClosed));
        }
        GrpcWebResponse::AwaitingTrailers | GrpcWebResponse::StatusInHeader => {}
    }
    let form = translation.call.response_encoding;
    *body = body.take().map(|piece| web::encode_chunk(piece, form));
    Ok(())
}

/// The end of the response's body that its trailers become; `None`: they pass as they are.
pub(super) fn encode_trailers(trailers: &http::HeaderMap, ctx: &Context) -> Option<Bytes> {
    let translation = ctx.grpc_web.as_ref()?;
    if translation.response == GrpcWebResponse::PassThrough {
        return None;
    }
    let frame = web::trailers_frame(trailers);
    Some(web::encode_chunk(frame, translation.call.response_encoding))
}
