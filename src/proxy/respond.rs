//! What a client is told when no peer answers it.

use bytes::Bytes;
use http::HeaderValue;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use pingora_error::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::{FailToProxy, Session};

use super::context::Context;
use super::fault::Fault;

/// Seconds after which a client may ask again when no peer is up: about one probe's time.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("2");

/// Answers a request that goes to no peer; the connection lives on, where its body allows that.
pub(super) async fn refuse(session: &mut Session, ctx: &mut Context, fault: Fault) -> Result<()> {
    ctx.fault = Some(fault);
    if matches!(fault, Fault::BadHost | Fault::BadRequest) {
        // Where one request ends and the next begins can no longer be trusted.
        session.set_keepalive(None);
    }
    write(session, ctx, fault).await
}

/// Answers a request that failed on its way, where nothing was sent yet.
pub(super) async fn fail(session: &mut Session, ctx: &mut Context, fault: Fault) -> FailToProxy {
    ctx.fault = Some(fault);
    session.set_keepalive(None);
    let begun = session
        .response_written()
        .is_some_and(|response| !response.status.is_informational());
    let gone = matches!(fault, Fault::ClientGone | Fault::ClientStalled);
    if begun || gone {
        return FailToProxy {
            error_code: 0,
            can_reuse_downstream: false,
        };
    }
    // A client that cannot be told is gone; the access log has the fault.
    let _ = write(session, ctx, fault).await;
    FailToProxy {
        error_code: fault.status(),
        can_reuse_downstream: false,
    }
}

async fn write(session: &mut Session, ctx: &Context, fault: Fault) -> Result<()> {
    let (header, body) = page(ctx, fault)?;
    if let Some(connection) = &ctx.connection
        && !session.is_body_done()
    {
        connection.linger();
    }
    session
        .write_response_header(Box::new(header), false)
        .await?;
    session.write_response_body(Some(body), true).await
}

fn page(ctx: &Context, fault: Fault) -> Result<(ResponseHeader, Bytes)> {
    let body = format!("{} {}\n", fault.status(), fault.name());
    let mut header = ResponseHeader::build(fault.status(), Some(8))?;
    header.insert_header(CONTENT_TYPE, "text/plain")?;
    header.insert_header(CACHE_CONTROL, "no-store")?;
    header.set_content_length(body.len())?;
    if let (Some(name), Some(id)) = (&ctx.snapshot.forwarding.request_id, &ctx.ask.id) {
        header.insert_header(name.clone(), id.clone())?;
    }
    match fault {
        Fault::NoPeer => header.insert_header(RETRY_AFTER, RETRY_AFTER_SECONDS)?,
        Fault::MethodNotAllowed => header.insert_header(ALLOW, allowed(ctx))?,
        _ => {}
    }
    Ok((header, body.into()))
}

/// The methods that the routes for this host and path take (RFC 9110, 15.5.6).
fn allowed(ctx: &Context) -> String {
    let methods = ctx
        .snapshot
        .routes
        .allowed(ctx.ask.host_text(), ctx.ask.path());
    methods
        .iter()
        .map(|method| method.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}
