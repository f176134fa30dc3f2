//! Work-arounds for Pingora 0.9.1, a file each: what is missing there, what breaks without the work-around, when it can go.
//! README.md in this directory has the requests to Pingora.

pub(crate) mod fresh_connection;

pub(crate) mod http_proxy;

pub(crate) mod proxy_header;

pub(crate) mod tunnel;

pub(crate) mod upstream_h2;

pub(crate) mod user_data;
