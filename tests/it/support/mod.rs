//! The harness: everything a test needs to put the real binary between real sockets.
//!
//! Nothing here knows the inside of Clockwise. It speaks to the program through what a user has:
//! the command line, the YAML file, the listeners, the control socket, signals and log files.
//! Every read has a deadline, so a hang is a failure with a message, not a stuck run.

pub(crate) mod admin;
pub(crate) mod browser;
pub(crate) mod client;
pub(crate) mod command_dir;
pub(crate) mod curl;
pub(crate) mod edge;
pub(crate) mod http2;
pub(crate) mod http2_origin;
pub(crate) mod load;
pub(crate) mod log;
pub(crate) mod mixed_load;
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
