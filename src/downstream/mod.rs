//! Client connections: sockets, limits, TLS, HTTP/1 and HTTP/2 towards the client, and every deadline there.
//!
//! ```text
//!  listener/ ──► Connection ──► Exchange ◄── the proxy's hooks set a request's phase and its limit
//!
//!  a connection                             an exchange: one request and its response
//!    connection_limit.rs  open connections    phase.rs            phases, limits, abort reasons
//!    per_client_limit.rs  … of one client     deadlines.rs        the limit that runs out next
//!    proxy_header.rs      PROXY protocol      deadline_timer.rs   one lazy timer for all limits
//!    tls_handshake.rs     TLS                 request_progress.rs bytes of the request
//!    serve.rs, preface.rs HTTP/1 or HTTP/2?   scheduled_task.rs   periodic work during a request
//!    http1/, http2/       the sessions        graceful_close.rs   ends a long stream between messages
//!    drive.rs             flush, eviction       stream_boundary/  finds the end of a message
//!    close.rs             the close           watermark.rs        backpressure of a tunnel
//!  the bytes of a connection                  local_reply.rs      the response to an aborted request
//!    socket.rs, buffered_socket.rs,           partial_request.rs  … to one without a whole header
//!    io.rs                                    body_rates.rs,
//!                                             body_wait.rs        `min_body_rate`
//!                                             retry_buffer.rs    a body, to be sent again
//!                                           a request of either version, as Pingora wants it
//!                                             pingora_session.rs, pingora_digests.rs, no_custom_messages.rs
//! ```
//!
//! Pingora 0.9.1 has time limits only for single reads and writes: not for a client that sends byte by byte, does
//! not read its response, or keeps an idle connection open. So the deadlines are here, around the sessions.
//! Invariant: the only time limits that abort a request in progress are those that the operator has configured
//! for requests, never the idle timeout.

mod body_rates;
mod body_wait;
mod buffered_socket;
mod close;
mod connection;
mod connection_limit;
mod deadline_timer;
mod deadlines;
mod drive;
mod exchange;
mod graceful_close;
mod http1;
mod http2;
mod io;
pub(crate) mod listener;
mod local_reply;
mod no_custom_messages;
mod partial_request;
mod per_client_limit;
mod phase;
mod pingora_digests;
mod pingora_session;
mod preface;
mod proxy_header;
mod received_target;
mod request_progress;
mod retry_buffer;
mod scheduled_task;
mod serve;
mod socket;
mod stream_boundary;
mod time_cell;
mod tls_handshake;
mod watermark;

pub(crate) use self::close::CloseReason;
pub(crate) use self::connection::Connection;
pub(crate) use self::connection_limit::{ConnectionLimit, ConnectionPermit};
#[cfg(test)]
pub(crate) use self::drive::drive_connection;
pub(crate) use self::exchange::Exchange;
pub(crate) use self::http1::{
    ClientStream, Http1Client, Http1Engine, KeepAlive, ReceivedBody, RequestEnd,
};
pub(crate) use self::io::DownstreamIo;
pub(crate) use self::local_reply::LocalReply;
pub(crate) use self::partial_request::PartialRequestResponder;
pub(crate) use self::phase::{AbortReason, Phase};
pub(crate) use self::proxy_header::{ConnectionInfo, canonical_addr, read_proxy_header};
pub(crate) use self::received_target::ReceivedTarget;
pub(crate) use self::retry_buffer::RetryBuffer;
pub(crate) use self::scheduled_task::{ScheduledTask, TaskOutcome};
pub(crate) use self::serve::serve;
pub(crate) use self::socket::DownstreamSocket;
pub(crate) use self::stream_boundary::StreamKind;
#[cfg(test)]
pub(crate) use self::tls_handshake::ClientCertificate;
pub(crate) use self::tls_handshake::{TlsSession, accept_tls};
