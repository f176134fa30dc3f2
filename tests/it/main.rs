//! The integration tests: the real program, on real sockets, through its public interfaces.
//!
//! Every test starts its own instance and servers, on free ports and in its own directory, so all tests
//! run in parallel. [`support`] is the harness; each other module tests one feature.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, says why on stderr, and measures real time"
)]

// the harness
mod harness; // the harness itself
mod support;

// the way of a request
mod acme; // certificates from an ACME authority
mod balance; // even load in spite of keys
mod body_rate; // clients that send or take a body too slowly
mod conformance; // HTTP/2 conformance (h2spec)
mod corpus; // where messages end: text files, real origins
mod dialects; // the ring against other load balancers
mod early_responses; // responses that end before their requests
mod failover; // failures of peers, retries
mod forwarding; // headers, framing and bodies
mod grpc; // gRPC
mod grpc_web; // gRPC-Web
mod health; // probes, ejection, drain and enable
mod http1; // clients of HTTP/1, on each carrier
mod http2; // HTTP/2 from clients
mod http2_floods; // HTTP/2 clients that cause work without requests
mod http2_malformed; // malformed requests of HTTP/2 clients
mod key_sources; // every kind of key
mod limits; // limits on clients
mod listeners; // Unix sockets, IPv4 and IPv6, shared ports
mod local_replies; // responses made by Clockwise itself
mod moved_streams; // long streams of a moved key
mod outlier_detection; // ejection after failures of requests
mod peers_h2; // HTTP/2 to peers
mod peers_tls; // TLS to peers
mod proxy_protocol; // the PROXY protocol, in and out
mod response_framing; // the ends of responses, switches of protocols
mod routing; // host, path, method
mod stalled_memory; // memory of clients that do not read
mod stalled_transfers; // clients and peers that stop in the middle
mod sticky; // the sticky cookie
mod targets; // request targets
mod timeouts; // timeouts of peers
mod tls; // TLS with clients
mod websocket; // WebSockets

// operation
mod admin; // the admin API
mod admin_predictions; // predictions over the admin API
mod certificates; // certificate files that expire or change
mod cli; // commands, output, exit codes
mod control_socket; // the control socket between users
mod handover; // the protocol of a hot restart
mod logs; // access log and error log
mod migrate; // configurations of other proxies
mod peer_changes; // changes of peers by operators
mod peer_dns; // peers from names of DNS that change
mod peer_etcd; // peers from etcd
mod peer_files; // peers from files that change
mod peer_kubernetes; // peers from a service of Kubernetes
mod peer_names; // peers whose names do not resolve
mod predict; // `ring diff` and `ring replay`
mod reload; // a new configuration in the same process
mod service; // service managers and the supervisor
mod stop; // start and stop
mod unix_peers; // peers on Unix sockets
mod upgrade; // a new process on the same sockets
