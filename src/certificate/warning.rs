//! Warnings about certificates that are in use.

use super::error::CertFile;
use super::ocsp::OcspError;
use super::time::{DisplayTime, SECONDS_A_DAY};

/// How long before its end a certificate counts as expiring soon; seconds. At most a quarter of its
/// whole validity.
const EXPIRY_WARNING: i64 = 14 * SECONDS_A_DAY;

/// A problem of a certificate that is in use all the same. Times are in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum CertWarning {
    /// The certificate is not valid yet.
    #[error("the certificate is not valid before {}", DisplayTime(*.0))]
    NotYetValid(i64),
    /// The certificate expires soon.
    #[error("the certificate expires on {}", DisplayTime(*.0))]
    ExpiresSoon(i64),
    /// The certificate has expired.
    #[error("the certificate expired on {}", DisplayTime(*.0))]
    Expired(i64),
    /// The OCSP response is not used.
    #[error("the OCSP response is not stapled: {0}")]
    OcspUnusable(OcspError),
    /// A revocation list is out of date, but still in use.
    #[error("the revocation list is out of date since {}", DisplayTime(*.0))]
    StaleCrl(i64),
}

impl CertWarning {
    /// The file with the problem.
    pub fn file(self) -> CertFile {
        match self {
            Self::OcspUnusable(_) => CertFile::Ocsp,
            _ => CertFile::Chain,
        }
    }

    /// What to do about it.
    pub fn help(self) -> &'static str {
        match self {
            Self::NotYetValid(_) | Self::Expired(_) => "clients refuse it; use a valid one",
            Self::ExpiresSoon(_) => "renew it; an automatic renewal should have happened by now",
            Self::OcspUnusable(OcspError::Revoked) => {
                "clients may refuse it; use another certificate"
            }
            Self::OcspUnusable(_) => {
                "fetch a new one, for example with `openssl ocsp -respout FILE`"
            }
            Self::StaleCrl(_) => "fetch a new one: clients revoked since then are still accepted",
        }
    }

    /// The warning about the first and the last second of a validity.
    pub(super) fn of_validity((from, until): (i64, i64), now: i64) -> Option<Self> {
        let soon = EXPIRY_WARNING.min(until.saturating_sub(from) / 4);
        match now {
            now if now > until => Some(Self::Expired(until)),
            now if now < from => Some(Self::NotYetValid(from)),
            now if now >= until.saturating_sub(soon) => Some(Self::ExpiresSoon(until)),
            _ => None,
        }
    }
}
