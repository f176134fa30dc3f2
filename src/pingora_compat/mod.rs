//! Work-arounds for Pingora 0.9.1, a file each.

pub mod proxy_header;
