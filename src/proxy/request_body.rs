//! `request_body_filter`: the body's size, its translation, and the end of a request that is refused for it.

use bytes::Bytes;
use pingora::proxy::Session;

use crate::fault::Fault;
use crate::phases::{Context, request_body};

/// Checks and translates a piece of the request's body before it is sent to the peer.
///
/// # Errors
/// The request is refused because of its body.
pub(super) fn on_request_body(
    body: &mut Option<Bytes>,
    end: bool,
    ctx: &mut Context,
) -> Result<(), Fault> {
    let length = body.as_ref().map_or(0, Bytes::len);
    let passed =
        request_body::on_piece(length, end, ctx).and_then(|()| decode_grpc_web(body, end, ctx));
    if let (Err(_), Some(exchange)) = (passed, &ctx.exchange) {
        // If the body queue ends, Pingora assumes that the peer ended it, and waits for the response. So the sender
        // of the body ends the exchange.
        exchange.body_queue.abort();
    }
    passed
}

/// Notes that a request has no body, or none that is sent again: the wait for the response begins. For a custom protocol,
/// Pingora 0.9.1 does not call `request_body_filter` then.
///
/// # Errors
/// Those of [`request_body::on_piece`].
pub(super) fn on_body_before_attempt(
    session: &mut Session,
    ctx: &mut Context,
) -> Result<(), Fault> {
    let is_queued = ctx
        .attempt
        .as_ref()
        .is_some_and(|it| it.queued_version.is_some());
    let session = session.as_mut();
    if is_queued && session.is_body_done() && session.get_retry_buffer().is_none() {
        request_body::on_piece(0, true, ctx)?;
    }
    Ok(())
}

fn decode_grpc_web(body: &mut Option<Bytes>, end: bool, ctx: &mut Context) -> Result<(), Fault> {
    let is_stopped = ctx
        .exchange
        .as_ref()
        .is_some_and(|exchange| exchange.body_queue.is_stopped());
    let Some(translation) = &mut ctx.grpc_web else {
        return Ok(());
    };
    // A body that the peer does not want has an end for Pingora, anywhere in the client's text.
    let decoded = translation.decode_request_body(body, end && !is_stopped);
    decoded.map_err(|_| Fault::BadRequest)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Version;

    use super::*;
    use crate::config::DownstreamConfig;
    use crate::downstream::{ConnectionLimit, Exchange};
    use crate::header::header_map;
    use crate::phases::grpc_web::GrpcWebTranslation;

    /// The result of a body that ends within a group of four characters of base64.
    fn end_of_half_a_group(is_refused: bool) -> Result<(), Fault> {
        let limit = ConnectionLimit::new(None);
        let (exchange, _client) = Exchange::for_test(DownstreamConfig::DEFAULT, &limit);
        exchange.body_queue.open();
        if is_refused {
            exchange.body_queue.stop_sending();
        }
        let mut ctx = Context::for_test_with_key("\"127.0.0.1:2\"");
        let mut call = header_map(&[("content-type", "application/grpc-web-text")]);
        ctx.grpc_web = GrpcWebTranslation::of_request(&mut call, Version::HTTP_2);
        ctx.exchange = Some(Arc::clone(&exchange));
        on_request_body(&mut Some(Bytes::from_static(b"AAAAA")), false, &mut ctx).unwrap();
        on_request_body(&mut None, true, &mut ctx)
    }

    #[tokio::test]
    async fn text_is_incomplete_only_if_the_client_ended_it() {
        assert_eq!(end_of_half_a_group(false), Err(Fault::BadRequest));
        assert_eq!(end_of_half_a_group(true), Ok(()));
    }
}
