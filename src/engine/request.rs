//! One request of a client, from its head to its access-log line.

use std::sync::Arc;

use super::Engine;
use super::buffers::RequestBuffers;
use super::connect::PeerConnection;
use super::download::RequestFacts;
use super::failure::{ConnectFailure, Failure};
use super::relay::Relay;
use super::reply;
use super::tunnel::Tunnel;
use super::upload::{RequestBody, Upload};
use crate::clock;
use crate::config::UpstreamProtocol;
use crate::downstream::{
    ClientStream, CloseReason, Exchange, Http1Client, KeepAlive, LocalReply, RequestEnd,
};
use crate::fault::Fault;
use crate::http1::{FieldEdits, RequestHead, TargetForm, write_request};
use crate::phases::retry::Repeatable;
use crate::phases::{self, Context as RequestContext, RoutingDecision, forward_request};
use crate::proxy::retry::tls_failure;
use crate::request_target::RequestTarget;
use crate::snapshot::RouteTarget;

/// How a request ended, as far as the context does not contain it.
struct Ended {
    keep_alive: KeepAlive,
    /// The status and the body's length in bytes of our own response; `None`: the peer's response, or none.
    replied: Option<(u16, u64)>,
}

impl Engine {
    /// Serves the request after its head was read.
    pub(crate) async fn serve_request(&self, client: &mut Http1Client) -> RequestEnd {
        let Some(mut ctx) = self.begin(client.exchange(), &client.head) else {
            return RequestEnd::Unsuited;
        };
        let mut buffers = RequestBuffers::take();
        let ended = self.serve_routed(client, &mut buffers, &mut ctx).await;
        buffers.give_back();
        Self::finish(client, ctx, &ended)
    }

    /// The context of the request; `None`: Pingora must serve it.
    fn begin(&self, exchange: &Arc<Exchange>, head: &RequestHead) -> Option<RequestContext> {
        let snapshot = self.snapshot.load_full();
        let mut ctx = RequestContext::new(snapshot, Arc::clone(&self.telemetry));
        let line = phases::request_info::ParsedRequestLine {
            method: head.method().clone(),
            target: target(head),
            version: head.version(),
        };
        let exchange = Some(Arc::clone(exchange));
        phases::begin::begin_request(exchange, line, head.fields(), &mut ctx);
        if !is_suited(&mut ctx) {
            // The request is recorded when Pingora serves it.
            ctx.is_recorded = true;
            return None;
        }
        Some(ctx)
    }

    async fn serve_routed(
        &self,
        client: &mut Http1Client,
        buffers: &mut RequestBuffers,
        ctx: &mut RequestContext,
    ) -> Ended {
        let mut keep_alive = client.keep_alive();
        let mut body = RequestBody::of(&client.head);
        let reply = match select_peer(&client.head, ctx).await {
            Ok(None) => {
                let sides = (&mut *ctx, &mut keep_alive);
                match self.forward(client, buffers, &mut body, sides).await {
                    Ok(()) => None,
                    Err(fault) => {
                        keep_alive.forbid();
                        reply_after_failure(ctx, fault)
                    }
                }
            }
            Ok(Some(reply)) => Some(reply),
            Err(fault) => {
                ctx.fault = Some(fault);
                if phases::local_reply::must_close(ctx, fault) {
                    keep_alive.forbid();
                }
                Some(phases::local_reply::fault_reply(ctx, fault))
            }
        };
        let replied = match reply {
            Some(reply) => {
                let sides = (&mut *ctx, &mut keep_alive);
                Some(Box::pin(reply::send(client, &mut body, sides, reply)).await)
            }
            None => None,
        };
        Ended {
            keep_alive,
            replied,
        }
    }

    /// Sends the request to one peer after another, until one has answered or the failure is final.
    ///
    /// # Errors
    /// The last failure.
    async fn forward(
        &self,
        client: &mut Http1Client,
        buffers: &mut RequestBuffers,
        body: &mut RequestBody,
        (ctx, keep_alive): (&mut RequestContext, &mut KeepAlive),
    ) -> Result<(), Fault> {
        loop {
            phases::attempt_events::start(ctx)?;
            phases::affinity_refresh::start(&self.snapshot, ctx);
            let is_upgrade = ctx.upgrade.is_some();
            let (fault, stale_connection) = match self.connect(ctx, is_upgrade).await {
                Ok(connection) => {
                    let is_reused = connection.is_reused;
                    let sides = (&mut *ctx, &mut *keep_alive);
                    match self.relay(client, buffers, (connection, body), sides).await {
                        Ok(()) => return Ok(()),
                        Err(Failure::Client(fault)) => return Err(fault),
                        Err(Failure::Peer(fault)) => {
                            // Most likely the peer had closed the connection while it was idle.
                            let ended = fault == Fault::UpstreamReset;
                            let is_stale = is_reused && ended && !buffers.download.has_received();
                            (fault, is_stale)
                        }
                    }
                }
                Err(ConnectFailure { fault, error }) => {
                    let tls = error.as_deref().and_then(tls_failure);
                    phases::outlier_detection::record_connect_failure(ctx, fault, tls);
                    (fault, false)
                }
            };
            let repeat = Repeatable {
                stale_connection,
                ..Repeatable::on_any_connection(fault)
            };
            if ctx.peer_status != 0 || !phases::retry::prepare_retry(ctx, repeat) {
                return Err(fault);
            }
            buffers.download.reset();
        }
    }

    /// Makes one attempt on a connection.
    async fn relay(
        &self,
        client: &mut Http1Client,
        buffers: &mut RequestBuffers,
        (mut connection, body): (PeerConnection, &mut RequestBody),
        (ctx, keep_alive): (&mut RequestContext, &mut KeepAlive),
    ) -> Result<(), Failure> {
        let write_timeout = ctx
            .upstream()
            .map(|upstream| upstream.config.timeouts.write);
        let head = &client.head;
        phases::connect::on_connected(ctx, connection.is_reused, head.expects_continue());
        // An attempt counts the body from its start.
        let kept = body.kept();
        if kept > 0 || body.is_complete() {
            phases::request_body::on_piece(kept, body.is_complete(), ctx)?;
        }
        let mut out = std::mem::take(&mut buffers.out);
        write_head(head, (&mut buffers.edits, &mut out), ctx)?;
        let is_upgrade = ctx.upgrade.is_some();
        let mut upload = Upload::new(out, std::mem::take(body));
        let mut stream = ClientStream::new(&mut client.io, &mut client.input);
        let request = RequestFacts {
            method: head.method(),
            version: head.version(),
            fields: head.fields(),
            accepts_trailers: head.accepts_trailers(),
            may_switch: is_upgrade,
            snapshot: &self.snapshot,
        };
        let mut relay = Relay {
            peer: &mut connection.stream,
            upload: &mut upload,
            download: &mut buffers.download,
            write_timeout: write_timeout.unwrap_or_default(),
        };
        let relayed = relay.run(&mut stream, request, (ctx, keep_alive)).await;
        let is_sent = upload.is_complete();
        (buffers.out, *body) = upload.into_parts();
        relayed?;
        if buffers.download.has_switched() {
            let (from_client, from_peer) = buffers.take_for_tunnel(client);
            let peer = (&mut connection.stream, from_peer);
            let tunnel = Tunnel::new((&mut client.io, from_client), peer);
            // Boxed: few requests become a tunnel.
            return Box::pin(tunnel.run(write_timeout.unwrap_or_default(), ctx)).await;
        }
        if is_sent && !is_upgrade && buffers.download.leaves_reusable() {
            connection.release(self, clock::since_start());
        }
        client.drop_rest(&mut body.received, keep_alive).await;
        if !body.is_complete() {
            client.exchange().request_lingering_close();
        }
        Ok(())
    }

    /// Records the request, and returns what follows on the connection.
    fn finish(client: &mut Http1Client, mut ctx: RequestContext, ended: &Ended) -> RequestEnd {
        let (status, body_bytes_sent) = ended
            .replied
            .unwrap_or((ctx.peer_status, ctx.response_body_bytes));
        phases::finish::finish(&mut ctx, status, body_bytes_sent);
        client.end_request();
        if ended.keep_alive.is_allowed() {
            RequestEnd::KeepAlive
        } else {
            RequestEnd::Close(CloseReason::Clean)
        }
    }
}

/// Writes the head of the request for the peer.
fn write_head(
    head: &RequestHead,
    (edits, out): (&mut FieldEdits, &mut Vec<u8>),
    ctx: &RequestContext,
) -> Result<(), Failure> {
    let mut editor = head.forward(edits, head.body());
    forward_request::set_request_headers(&mut editor, ctx)?;
    if let Some(protocols) = ctx.upgrade.clone() {
        forward_request::offer_upgrade(&mut editor, protocols);
    } else if head.accepts_trailers() {
        forward_request::accept_trailers(&mut editor);
    }
    let target = ctx.request.target.origin_form();
    write_request(head.method(), target, &editor, out);
    Ok(())
}

/// Whether the engine can serve the request: it is not a gRPC call, and the upstream of its route has HTTP/1.1 and no
/// `grpc_web`. The response to a request without a route needs no upstream.
fn is_suited(ctx: &mut RequestContext) -> bool {
    let is_http1 = |route: &RouteTarget| {
        let config = &route.upstream.config;
        config.transport.protocol == UpstreamProtocol::Http1 && !config.grpc_web
    };
    ctx.request.grpc_content_type.is_none() && phases::route::look_up(ctx).is_none_or(is_http1)
}

/// Chooses the first peer; or returns the response to a request that goes to no peer.
async fn select_peer(
    head: &RequestHead,
    ctx: &mut RequestContext,
) -> Result<Option<LocalReply>, Fault> {
    if let Some(reply) = phases::acme_http01::respond(ctx).await {
        return Ok(Some(reply));
    }
    let raw = phases::validate::RawHeader {
        target: head.target().as_bytes(),
        size: head.size(),
    };
    match phases::route_request(raw, head.fields(), ctx)? {
        RoutingDecision::Reply(reply) => Ok(Some(reply)),
        RoutingDecision::Forward => {
            phases::select::select_initial(ctx).await?;
            Ok(None)
        }
    }
}

/// The response to a request that failed at a peer or on the way to it; `None`: a response has begun, or the client is
/// gone.
fn reply_after_failure(ctx: &mut RequestContext, fault: Fault) -> Option<LocalReply> {
    let fault = *ctx.fault.get_or_insert(fault);
    if fault.is_client_abort() || ctx.response_begun() {
        ctx.reset_if_close_ends_body();
        return None;
    }
    Some(phases::local_reply::fault_reply(ctx, fault))
}

fn target(head: &RequestHead) -> RequestTarget {
    match head.target_form() {
        TargetForm::Origin | TargetForm::Asterisk => RequestTarget::new(head.peer_target(), None),
        TargetForm::Absolute => RequestTarget::new(head.peer_target(), head.host()),
        TargetForm::Authority => RequestTarget::new("", head.host()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::http1::{HeadLimits, ParseStatus, RequestParser};

    #[test]
    fn target_of_every_form_has_its_path_and_its_own_host() {
        for (line, authority, origin_form) in [
            ("GET /a?b", None, "/a?b"),
            ("OPTIONS *", None, "*"),
            ("GET http://a.test", Some("a.test"), "/"),
            ("GET HTTPS://a.test:8443/x?y", Some("a.test:8443"), "/x?y"),
            ("GET http://a.test?y", Some("a.test"), "/?y"),
            ("CONNECT a.test:443", Some("a.test:443"), ""),
        ] {
            let mut bytes = BytesMut::from(&*format!("{line} HTTP/1.1\r\nHost: h\r\n\r\n"));
            let mut head = RequestHead::default();
            let limits = HeadLimits {
                max_size: bytes.len(),
                max_fields: 1,
                max_target: bytes.len(),
            };
            let parsed = RequestParser::default().parse(&mut bytes, &limits, &mut head);
            assert_eq!(parsed, Ok(ParseStatus::Complete), "{line}");
            let target = target(&head);
            let parts = (target.authority(), target.origin_form());
            assert_eq!(parts, (authority, origin_form), "{line}");
        }
    }
}
