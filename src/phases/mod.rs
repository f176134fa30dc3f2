//! The phases of a request, in its order, whatever carries it.

pub(crate) mod acme_http01;
pub(crate) mod affinity_refresh;
pub(crate) mod attempt;
pub(crate) mod begin;
pub(crate) mod connect;
pub(crate) mod context;
pub(crate) mod finish;
pub(crate) mod forward_request;
pub(crate) mod forward_response;
pub(crate) mod grpc_web;
pub(crate) mod local_reply;
pub(crate) mod outlier_detection;
pub(crate) mod partial_request;
pub(crate) mod proxy_header;
pub(crate) mod redirect;
pub(crate) mod request_body;
pub(crate) mod request_info;
pub(crate) mod request_key;
pub(crate) mod retry;
pub(crate) mod route;
pub(crate) mod select;
pub(crate) mod sticky_cookie;
pub(crate) mod stream_limits;
pub(crate) mod validate;

pub(crate) use self::context::Context;
pub(crate) use self::partial_request::PartialRequests;
