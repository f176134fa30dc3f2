//! Orders and renews certificates automatically, from an ACME certificate authority (RFC 8555).
//!
//! ```text
//!  policy::cert_renewal ── due? ──► manager: one background task
//!                                     │
//!              cert_task ─► account, order ──► http_client ──► authority ── validates ──► port 80 or 443
//!                  │                                                                          │
//!               storage ──► challenge_store: shared with other processes ──► tls::ManagedCerts┘
//! ```
//!
//! Invariants: an order begins only after the stored files were read, and after a test write to the storage; of the
//! processes with the same storage, only one orders; a certificate stays in use until a newer one replaces it.

mod account;
mod authority;
mod cert_task;
mod challenge_store;
mod files;
mod http_client;
mod manager;
mod order;
mod storage;

pub(crate) use self::authority::load_stored;
pub(crate) use self::manager::CertManager;

use crate::policy::cert_renewal::OrderFailure;

/// Why a certificate could not be ordered, stored or revoked.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The authority rejected a request, or cannot be reached.
    #[error("{}", describe(.0))]
    Authority(#[from] instant_acme::Error),
    /// The authority could not validate a name.
    #[error("{0}")]
    ValidationFailed(String),
    /// The issued certificate does not match the order.
    #[error("the certificate cannot be used: {0}")]
    UnusableCertificate(String),
    /// The order succeeded, but the previous certificate could not be revoked.
    #[error("a new certificate is in use, but the previous one could not be revoked: {0}")]
    NotRevoked(String),
    /// A key or a certificate request could not be created.
    #[error("cannot create a key or a certificate request: {0}")]
    Key(#[from] rcgen::Error),
    /// A file of the storage could not be read or written.
    #[error("{0}")]
    Storage(#[from] files::Error),
    /// The root certificates that the authority is verified with cannot be loaded.
    #[error("cannot load root certificates to verify the authority: {0}")]
    RootCerts(std::io::Error),
    /// The task panicked: a bug of the program.
    #[error("the task panicked, which is a bug in Clockwise: {0}")]
    Panicked(tokio::task::JoinError),
    /// The order took longer than its time limit.
    #[error("the order was not complete within {0:?}")]
    TimedOut(std::time::Duration),
}

impl Error {
    /// The class of the failure; it determines the pause before the next order.
    fn failure_kind(&self) -> OrderFailure {
        use instant_acme::Error::{Api, Json, Other};
        match self {
            Self::Authority(Api(problem)) => match (problem.r#type.as_deref(), problem.status) {
                (Some("urn:ietf:params:acme:error:rateLimited"), _) | (_, Some(429)) => {
                    OrderFailure::RateLimited
                }
                // The authority may reject any nonce (RFC 8555 §6.5). `instant-acme` gives up after three
                // rejected nonces in a row. This does not mean that the authority rejects the order.
                (
                    Some(
                        "urn:ietf:params:acme:error:badNonce"
                        | "urn:ietf:params:acme:error:serverInternal",
                    ),
                    _,
                )
                | (_, Some(500..)) => OrderFailure::Unreachable,
                _ => OrderFailure::Rejected,
            },
            Self::Authority(Other(_) | Json(_)) | Self::Storage(_) => OrderFailure::Unreachable,
            _ => OrderFailure::Rejected,
        }
    }
}

fn describe(error: &instant_acme::Error) -> String {
    match error {
        instant_acme::Error::Json(_) => {
            "the response of the authority is not valid ACME".to_owned()
        }
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acme_problem_type_and_status_select_the_failure_class() {
        let failure = |kind: &str, status: u16| {
            let kind = format!("urn:ietf:params:acme:error:{kind}");
            let problem = serde_json::json!({"type": kind, "status": status});
            Error::Authority(instant_acme::Error::Api(
                serde_json::from_value(problem).unwrap(),
            ))
            .failure_kind()
        };
        assert_eq!(failure("badNonce", 400), OrderFailure::Unreachable);
        assert_eq!(failure("serverInternal", 500), OrderFailure::Unreachable);
        assert_eq!(failure("malformed", 503), OrderFailure::Unreachable);
        assert_eq!(failure("rateLimited", 403), OrderFailure::RateLimited);
        assert_eq!(failure("malformed", 429), OrderFailure::RateLimited);
        assert_eq!(failure("unauthorized", 403), OrderFailure::Rejected);
    }
}
