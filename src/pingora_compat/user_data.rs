//! Passes a value of the server from a downstream stream to the hooks of the proxy.
//!
//! Pingora 0.9.1 makes the session of a request itself and has no place in it for data of the code that accepted the
//! connection. The proxy digest of a downstream stream is passed to the hooks unchanged and Pingora does not use it
//! there; its `user_data` holds the value. Without this, the hooks could not find the client's connection.
//!
//! It can be removed when a session has a place for such data: README.md, request 4.

use std::any::Any;
use std::sync::Arc;

use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::protocols::raw_connect::ProxyDigest;

struct UserData<T>(Arc<T>);

/// A proxy digest that carries `value`; its response header is never read.
///
/// # Errors
/// Only if Pingora refuses to build an empty response header.
pub(crate) fn wrap<T: Any + Send + Sync>(value: &Arc<T>) -> Result<Arc<ProxyDigest>> {
    let header = Box::new(ResponseHeader::build(200, Some(0))?);
    let user_data = Box::new(UserData(Arc::clone(value)));
    Ok(Arc::new(ProxyDigest::new(header, Some(user_data))))
}

/// The value in a digest made by [`wrap`] for the same type.
pub(crate) fn unwrap<T: Any + Send + Sync>(digest: &ProxyDigest) -> Option<&Arc<T>> {
    let user_data = digest.user_data.as_ref()?.downcast_ref::<UserData<T>>();
    user_data.map(|user_data| &user_data.0)
}
