//! One client connection: who it is from, what passes on it, and when it has waited too long.
//!
//! ```text
//!  listener ──► Connection ──► Exchange ◄── proxy hooks say which phase a request is in, until when
//!                   │             │
//!               introduction.rs whose it is, as whoever passes it on says; before anything else
//!               handshake.rs  TLS
//!               serve.rs      which HTTP is spoken (preface.rs), and how the connection is closed
//!               stream.rs     the bytes: they are read and written through it; it counts
//!               http1.rs      HTTP/1: one exchange after the other
//!               flow.rs       what it may become: a tunnel, of which neither direction waits for the other
//!               http2/        HTTP/2: many at once
//!                                 │
//!                             phase.rs   the phases, their limits, and what each limit means
//!                             watch.rs   one lazy timer: is a limit passed?
//!                             upload.rs  what waits of a body for its peer
//!                             tenure.rs  may a long stream stay? ending.rs: where it can end
//!                             pulse.rs   what is done from time to time while a request goes on
//! ```
//!
//! Pingora times single reads and writes, and nothing at all between two requests or in a flush; a
//! client that drips bytes, takes none, or holds an idle connection, is never told off. So the
//! deadlines stand here, around its session. What must hold: a request that is being answered is
//! cut only by a deadline that the operator set, never by the end of an idle time.

mod body_queue;
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
pub mod listener;
mod local_reply;
mod per_client_limit;
mod phase;
mod pingora_digests;
mod preface;
mod proxy_header;
mod request_progress;
mod scheduled_task;
mod serve;
mod socket;
mod stream_boundary;
mod tls_handshake;
mod watermark;

pub use self::body_queue::BodyQueue;
pub use self::close::CloseReason;
pub use self::connection::Connection;
pub use self::connection_limit::{ConnectionLimit, ConnectionPermit};
pub use self::exchange::Exchange;
pub use self::local_reply::LocalReply;
pub use self::phase::{AbortReason, Phase};
pub use self::proxy_header::{ConnectionInfo, canonical_addr, read_proxy_header};
pub use self::scheduled_task::{ScheduledTask, TaskOutcome, TaskSlot};
pub use self::serve::{PartialRequestResponder, serve};
pub use self::socket::DownstreamSocket;
pub use self::stream_boundary::StreamKind;
pub use self::tls_handshake::{ClientCertificate, TlsSession, accept_tls};
