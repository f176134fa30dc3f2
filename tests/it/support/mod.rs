//! The harness: runs the real program with real sockets around it.
//!
//! It uses only the interfaces of a user: command line, YAML file, listeners, control socket, signals and log files.
//! Every read has a deadline, so a hang fails with a message.

pub(crate) mod admin;
pub(crate) mod browser;
pub(crate) mod client;
pub(crate) mod command_dir;
pub(crate) mod curl;
pub(crate) mod edge;
pub(crate) mod etcd;
pub(crate) mod host_names;
pub(crate) mod http2;
pub(crate) mod http2_origin;
pub(crate) mod kubernetes_api;
pub(crate) mod list_file;
pub(crate) mod load;
pub(crate) mod log;
pub(crate) mod mixed_load;
pub(crate) mod name_server;
pub(crate) mod nginx;
pub(crate) mod ocsp;
pub(crate) mod origin;
pub(crate) mod pebble;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod raw_peer;
pub(crate) mod reference_proxy;
pub(crate) mod tls;
pub(crate) mod wait;
pub(crate) mod websocket;
