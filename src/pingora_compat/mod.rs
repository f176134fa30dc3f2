//! Work-arounds for Pingora 0.9.1, a file each: what is missing there, what breaks without the work-around, when it can go.
//! README.md beside this file has the requests to Pingora.

pub mod fresh_connection;

pub mod http_proxy;

pub mod proxy_header;

pub mod tunnel;

pub mod upstream_h2;

pub mod user_data;
