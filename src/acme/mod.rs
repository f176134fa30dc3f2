//! Certificates from an ACME authority (RFC 8555): ordered and renewed without an operator.
//!
//! ```text
//!  policy::cert_renewal ── due? ──► manager: one background task
//!                                     │
//!              cert_task ─► account, order ──► http_client ──► authority ── validates ──► port 80 or 443
//!                  │                                                                          │
//!               storage ──► challenge_store: answers for other processes ──► tls::ManagedCerts┘
//! ```
//!
//! Invariants: nothing is ordered that could not be stored; no two processes order at the same time; a
//! certificate stays in use until a better one is there.

mod account;
mod cert_task;
mod challenge_store;
mod files;
mod http_client;
mod manager;
mod order;
mod storage;

use std::sync::Arc;

pub(crate) use self::manager::CertManager;
use self::storage::Storage;

use crate::config::Config;
use crate::policy::cert_renewal::OrderFailure;
use crate::tls::ManagedCerts;

/// Why a certificate could not be ordered, stored or revoked.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The authority refused, or cannot be reached.
    #[error("{}", describe(.0))]
    Authority(#[from] instant_acme::Error),
    /// The authority could not validate a name.
    #[error("{0}")]
    ValidationFailed(String),
    /// The issued certificate does not fit the order.
    #[error("the certificate cannot be used: {0}")]
    UnusableCertificate(String),
    /// There is a new certificate, but the previous one is still valid.
    #[error("a new certificate is in use, but the previous one is not revoked: {0}")]
    NotRevoked(String),
    /// A key or a certificate request could not be made.
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
    /// The storage failed.
    #[error("{0}")]
    Storage(#[from] files::Error),
    /// There are no root certificates to verify the authority with.
    #[error("no root certificates to verify the authority with: {0}")]
    RootCerts(std::io::Error),
    /// A defect of the program.
    #[error("the task panicked, a defect of this program: {0}")]
    Panicked(tokio::task::JoinError),
    /// The order took too long.
    #[error("the order was not complete within {0:?}")]
    TimedOut(std::time::Duration),
}

impl Error {
    /// The class of the failure, which sets the pause before the next order.
    fn failure_kind(&self) -> OrderFailure {
        use instant_acme::Error::{Api, Json, Other};
        match self {
            Self::Authority(Api(problem)) => match (problem.r#type.as_deref(), problem.status) {
                (Some("urn:ietf:params:acme:error:rateLimited"), _) | (_, Some(429)) => {
                    OrderFailure::RateLimited
                }
                // A nonce may be refused at any time (RFC 8555, 6.5): `instant-acme` gives up after three in a
                // row, but the order itself was not rejected.
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

/// Puts the certificates of the storage in use, where none is in use yet. Reads files, so it blocks.
pub(crate) fn load_stored(config: &Config, managed_certs: &Arc<ManagedCerts>) {
    let Some(acme) = &config.acme else { return };
    let storage = Storage::for_authority(acme);
    for names in config.acme_certificate_names() {
        let cert = managed_certs.get_or_insert(names);
        if cert.certificate.load().is_none() {
            cert.certificate
                .store(storage.certificate(names).map(Arc::new));
        }
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
