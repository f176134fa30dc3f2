//! Warnings about certificates that are in use.

use super::error::CertFile;
use super::ocsp::OcspError;
use super::time::{DisplayTime, SECONDS_A_DAY};

/// The time before the end of the validity from which a certificate counts as expiring soon; seconds. For a
/// short-lived certificate it is a quarter of the validity instead.
const EXPIRY_WARNING: i64 = 14 * SECONDS_A_DAY;

/// A problem of a certificate or a revocation list that stays in use. Times are in seconds since 1970.
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
    #[error("the revocation list has been out of date since {}", DisplayTime(*.0))]
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
                "download a new one, for example with `openssl ocsp -respout FILE`"
            }
            Self::StaleCrl(_) => {
                "download a new one: certificates that were revoked since then are still accepted"
            }
        }
    }

    /// The warning about a validity, given as its first and its last second.
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
