//! Phase 2, on a listener that serves nothing itself: its clients are sent on to HTTPS.

use bytes::Bytes;
use http::Method;
use http::header::LOCATION;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::proxy::Session;

use super::context::Context;
use super::fault::Fault;
use super::local_reply;
use crate::route::host_name;

/// Where `https` leads without saying so.
const HTTPS_PORT: u16 = 443;

/// Where the client is to ask instead; `None`: here.
///
/// # Errors
/// It should ask elsewhere, and has not said which host it wants.
pub(super) fn redirect_location(ctx: &Context) -> Result<Option<String>, Fault> {
    let connection = ctx.connection();
    let plain = connection.filter(|connection| !connection.is_encrypted());
    let port = plain.and_then(|connection| {
        ctx.snapshot
            .https_redirects
            .get(&*connection.listener_address)
    });
    let Some(port) = port.filter(|_| ctx.request.method != Method::CONNECT) else {
        return Ok(None);
    };
    let port = match *port {
        HTTPS_PORT => String::new(),
        other => format!(":{other}"),
    };
    let query = ctx.request.uri.query().map(|query| format!("?{query}"));
    let (path, query) = (ctx.request.path(), query.unwrap_or_default());
    match host_name(ctx.request.host_text()) {
        "" => Err(Fault::BadHost),
        host => Ok(Some(format!("https://{host}{port}{path}{query}"))),
    }
}

/// Tells the client so, for good, and that the method stays (RFC 9110, 15.4.9).
pub(super) async fn respond(session: &mut Session, ctx: &Context, location: String) -> Result<()> {
    let mut header = ResponseHeader::build(308, Some(4))?;
    header.insert_header(LOCATION, location)?;
    header.set_content_length(0)?;
    local_reply::send(session, ctx, header, Bytes::new()).await
}
