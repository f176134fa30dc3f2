//! An OCSP response (RFC 6960) that a server sends along with its certificate: whom it is about, what
//! it says, and for how long.
//!
//! The issuer's signature is not looked at: every client does that itself, and what a client does not
//! believe costs no more than nothing.

use ring::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512, digest};
use x509_parser::der_parser::asn1_rs::{Any, Class, FromDer, GeneralizedTime, Tag};
use x509_parser::prelude::X509Certificate;

use super::{DisplayTime, SECONDS_A_DAY};

/// Real ones have less than 10 KiB, with the certificate of who signed them.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// `id-pkix-ocsp-basic` (RFC 6960, 4.2.1), as DER has it.
const OID_OCSP_BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];

/// The hashes that may name an issuer.
const ISSUER_HASHES: [(&[u8], &Algorithm); 4] = [
    (&[0x2b, 0x0e, 3, 2, 0x1a], &SHA1_FOR_LEGACY_USE_ONLY),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1], &SHA256),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2], &SHA384),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3], &SHA512),
];

/// From when until when the response counts, in seconds since 1970.
pub(super) type ValidityPeriod = (i64, i64);

/// Why an OCSP response is not sent along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum OcspError {
    /// The responder could not answer when it was asked.
    #[error("it says that the responder {0}")]
    ResponderStatus(&'static str),
    /// It does not speak of this certificate.
    #[error("it is about another certificate")]
    OtherCertificate,
    /// The issuer has taken the certificate back.
    #[error("it says that the certificate is revoked")]
    Revoked,
    /// The responder does not know the certificate.
    #[error("it says that the certificate is not known")]
    Unknown,
    /// Its time has not come.
    #[error("it counts from {} on", DisplayTime(*.0))]
    NotYetValid(i64),
    /// Its time is over.
    #[error("it counted until {}", DisplayTime(*.0))]
    Expired(i64),
}

/// What a response says about the certificate: while it is fresh it can be sent along.
///
/// `None`: this is no OCSP response.
pub(super) fn parse_response(
    der: &[u8],
    certificate: &X509Certificate<'_>,
) -> Option<Result<ValidityPeriod, OcspError>> {
    let whole = Some(der).filter(|der| der.len() <= MAX_RESPONSE_BYTES)?;
    let [status, rest @ ..] = &der_values(single_sequence(&der_values(whole)?)?)?[..] else {
        return None;
    };
    if status.header.tag() != Tag::Enumerated {
        return None;
    }
    match (status.data, rest) {
        ([0], [bytes]) => {
            let singles = single_responses(bytes)?;
            let about = |single: &Any<'_>| SingleResponse::parse(single)?.status_of(certificate);
            let judged = singles.iter().find_map(about);
            Some(judged.unwrap_or(Err(OcspError::OtherCertificate)))
        }
        ([code], _) => Some(Err(OcspError::ResponderStatus(describe_status(*code)?))),
        _ => None,
    }
}

/// RFC 6960, 4.2.1: `OCSPResponseStatus`.
fn describe_status(code: u8) -> Option<&'static str> {
    Some(match code {
        1 => "could not read the request",
        2 => "had a fault",
        3 => "is to be asked later",
        5 => "wants the request signed",
        6 => "may not answer this request",
        _ => return None,
    })
}

/// The answers in a basic response, from its `responseBytes` on.
fn single_responses<'a>(bytes: &Any<'a>) -> Option<Vec<Any<'a>>> {
    let [kind, basic] = &der_values(single_sequence(&der_values(bytes.data)?)?)?[..] else {
        return None;
    };
    if kind.data != OID_OCSP_BASIC {
        return None;
    }
    let basic = der_values(single_sequence(&der_values(basic.data)?)?)?;
    let data = der_values(basic.first()?.data)?;
    // Version and responder have tags of their own, the time before the answers is no sequence.
    let answers = data.iter().find(|part| is_sequence(part))?;
    der_values(answers.data)
}

/// What is said about one certificate.
struct SingleResponse<'a> {
    hash: &'a [u8],
    issuer: &'a [u8],
    serial: &'a [u8],
    status: Tag,
    validity: ValidityPeriod,
}

impl<'a> SingleResponse<'a> {
    fn parse(single: &Any<'a>) -> Option<Self> {
        let [id, status, from, rest @ ..] = &der_values(single.data)?[..] else {
            return None;
        };
        let [hash, issuer, _, serial] = &der_values(id.data)?[..] else {
            return None;
        };
        let from = seconds(from)?;
        let until = rest.iter().find(|part| part.header.tag() == Tag(0));
        let until = until.and_then(|until| seconds(der_values(until.data)?.first()?));
        Some(Self {
            hash: der_values(hash.data)?.first()?.data,
            issuer: issuer.data,
            serial: serial.data,
            status: status.header.tag(),
            // Without an end there is something newer at any time (RFC 6960, 4.2.2.1).
            validity: (from, until.unwrap_or(from.saturating_add(SECONDS_A_DAY))),
        })
    }

    /// `None`: it is about another certificate.
    fn status_of(
        &self,
        certificate: &X509Certificate<'_>,
    ) -> Option<Result<ValidityPeriod, OcspError>> {
        let (_, hash) = ISSUER_HASHES.iter().find(|(name, _)| *name == self.hash)?;
        let issuer = digest(hash, certificate.issuer().as_raw());
        let same = self.serial == certificate.raw_serial() && self.issuer == issuer.as_ref();
        same.then_some(match self.status {
            Tag(0) => Ok(self.validity),
            Tag(1) => Err(OcspError::Revoked),
            _ => Err(OcspError::Unknown),
        })
    }
}

fn seconds(time: &Any<'_>) -> Option<i64> {
    let time = GeneralizedTime::from_bytes(time.data).ok()?;
    Some(time.utc_datetime().ok()?.unix_timestamp())
}

fn is_sequence(part: &Any<'_>) -> bool {
    part.header.tag() == Tag::Sequence && part.header.class() == Class::Universal
}

/// What is inside the only value, which is a sequence.
fn single_sequence<'a>(values: &[Any<'a>]) -> Option<&'a [u8]> {
    match values {
        [only] if is_sequence(only) => Some(only.data),
        _ => None,
    }
}

/// DER values one after the other; `None`: that is not what the bytes are.
fn der_values(mut bytes: &[u8]) -> Option<Vec<Any<'_>>> {
    let mut parts = Vec::new();
    while !bytes.is_empty() {
        let (rest, part) = Any::from_der(bytes).ok()?;
        parts.push(part);
        bytes = rest;
    }
    Some(parts)
}
