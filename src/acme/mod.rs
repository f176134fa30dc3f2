//! Certificates from an authority, by ACME (RFC 8555): ordered, renewed and kept without an operator.
//!
//! ```text
//!  policy::renewal  when? ──► keeper  one task beside the way of requests
//!                               │
//!                 account, order ──► https ──► the authority ── looks who is here ──► port 80 or 443
//!                               │                                                          │
//!                            storage  the disk, and who may order ── answers ──►        issued
//!                               └───────────── the certificate ────────────────────────────┘
//! ```
//!
//! What must hold: nothing is ordered that could not be kept; nothing is ordered by two processes at
//! once; a certificate that is there is shown until a better one is.

mod account;
mod cert_task;
mod challenge_store;
mod http_client;
mod manager;
mod order;
mod storage;

use std::sync::Arc;

pub use self::manager::CertManager;
use self::storage::Storage;

use crate::config::Config;
use crate::policy::cert_renewal::OrderFailure;
use crate::tls::ManagedCerts;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// The authority, or the way to it.
    #[error("{}", describe(.0))]
    Authority(#[from] instant_acme::Error),
    /// It looked, and did not see what it was to see.
    #[error("{0}")]
    ValidationFailed(String),
    /// What it gave is not what was ordered.
    #[error("the certificate cannot be used: {0}")]
    UnusableCertificate(String),
    /// There is a new one, and the one before still counts.
    #[error("a new certificate is in place, but the one before is not revoked: {0}")]
    NotRevoked(String),
    /// A key or a request could not be made.
    #[error("cannot make a key: {0}")]
    Key(#[from] rcgen::Error),
    /// What was to be kept could not be.
    #[error("{0}")]
    Storage(#[from] storage::Error),
    /// Nobody is known to vouch for the authority's own certificate.
    #[error("cannot tell whom to trust: {0}")]
    RootCerts(std::io::Error),
    /// A defect of the program.
    #[error("broke off: {0}")]
    Panicked(tokio::task::JoinError),
    /// It took longer than anything should.
    #[error("the authority did not come to an end within {0:?}")]
    TimedOut(std::time::Duration),
}

impl Error {
    /// What it means for the next time.
    fn failure_kind(&self) -> OrderFailure {
        use instant_acme::Error::{Api, Json, Other};
        match self {
            Self::Authority(Api(problem)) => match (problem.r#type.as_deref(), problem.status) {
                (Some("urn:ietf:params:acme:error:rateLimited"), _) | (_, Some(429)) => {
                    OrderFailure::RateLimited
                }
                // A nonce may be refused at any time, however often (RFC 8555, 6.5): `instant-acme` takes
                // three in a row, after which it is still no refusal of the order.
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
        instant_acme::Error::Json(_) => "the authority answers, but not as ACME has it".to_owned(),
        error => error.to_string(),
    }
}

/// Shows the certificates that lie on the disk already; those that are shown stay. It reads files.
pub fn load_stored(config: &Config, issued: &Arc<ManagedCerts>) {
    let Some(acme) = &config.acme else { return };
    let storage = Storage::for_authority(acme);
    for names in config.acme_certificate_names() {
        let slot = issued.get_or_insert(names);
        if slot.certificate.load().is_none() {
            slot.certificate
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
