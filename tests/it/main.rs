//! The integration tests: the real binary between real sockets, through its public contract.
//!
//! Every test starts what it needs on free ports in a directory of its own, so all of them run at
//! once. [`support`] is the harness; each other module is one promise of the program.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, says why on stderr, and measures real time"
)]

// what it stands on
mod harness; // client against origin, origins that die and come back
mod support;

// the way of a request
mod acme; // certificates that are ordered
mod balance; // load that is even in spite of keys
mod conformance; // HTTP/2 to the letter
mod dialects; // every key stays where another load balancer had it
mod early_responses; // responses that end before their requests do
mod failover; // what happens when a peer fails
mod forwarding; // what reaches the peer, and what comes back
mod grpc; // a client and a server of gRPC
mod grpc_web; // clients in browsers before that server
mod health; // which peers are in use
mod http2; // the same over HTTP/2, and what only that has
mod http2_floods; // clients of HTTP/2 that make work and no requests
mod key_sources; // the peer is the one that the ring predicts
mod limits; // what a client may not do, and how long it may take
mod listeners; // sockets as they are asked for
mod local_replies; // responses that no peer made
mod moved_streams; // long streams follow their keys
mod peers_h2; // HTTP/2 to peers
mod peers_tls; // encrypted connections to peers
mod proxy_protocol; // the PROXY protocol, in and out
mod routing; // host, path, method
mod stalled_transfers; // clients and peers that stop in the middle
mod sticky; // a cookie keeps a client where it is
mod timeouts; // what a peer may not take longer than
mod tls; // encrypted connections, and who is at their ends
mod websocket; // a WebSocket passes untouched

// beside the way
mod admin; // what an instance says about itself
mod admin_predictions; // the same over HTTP, and what may be asked there
mod certificates; // they expire, are renewed and revoked
mod cli; // the commands, their output, their exit codes
mod handover; // what a new process makes of what its predecessor says
mod logs; // access log and error log
mod migrate; // the configuration of another system, with no key moved
mod predict; // what a change would move, and where the load would go
mod reload; // another configuration, in the process that runs
mod service; // under a service manager, and as process 1
mod stop; // no request is lost when an instance ends
mod unix_peers; // peers on Unix sockets
mod upgrade; // another process, on the same sockets
