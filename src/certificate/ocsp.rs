//! OCSP responses (RFC 6960) to staple to a certificate: subject, status and validity.
//!
//! The signature is not verified here: every client verifies it, and a client that rejects the response
//! behaves as if there were none.

use ring::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA384, SHA512, digest};
use x509_parser::der_parser::asn1_rs::{Any, Class, FromDer, GeneralizedTime, Tag};
use x509_parser::prelude::X509Certificate;

use super::time::{DisplayTime, SECONDS_A_DAY};

/// The largest response; bytes. Real ones have less than 10 KiB, with the certificate of the signer.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

/// `id-pkix-ocsp-basic` (RFC 6960 §4.2.1) in DER.
const OID_OCSP_BASIC: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];

/// The hash functions for the name of an issuer, by their object identifiers in DER.
const ISSUER_HASHES: [(&[u8], &Algorithm); 4] = [
    (&[0x2b, 0x0e, 3, 2, 0x1a], &SHA1_FOR_LEGACY_USE_ONLY),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1], &SHA256),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 2], &SHA384),
    (&[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 3], &SHA512),
];

/// The first and the last second of the validity of a response, since 1970.
pub(super) type ValidityPeriod = (i64, i64);

/// Why an OCSP response is not stapled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum OcspError {
    /// The response is an error of the responder.
    #[error("the responder {0}")]
    ResponderStatus(&'static str),
    /// The response is for another certificate.
    #[error("it is for another certificate")]
    OtherCertificate,
    /// The certificate is revoked.
    #[error("the certificate is revoked")]
    Revoked,
    /// The responder does not know the certificate.
    #[error("the responder does not know the certificate")]
    Unknown,
    /// The response is not valid yet.
    #[error("it is not valid before {}", DisplayTime(*.0))]
    NotYetValid(i64),
    /// The response has expired.
    #[error("it expired on {}", DisplayTime(*.0))]
    Expired(i64),
}

/// The validity of a response with the status `good` for the certificate; `None`: not an OCSP response.
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
            let status = singles.iter().find_map(about);
            Some(status.unwrap_or(Err(OcspError::OtherCertificate)))
        }
        ([code], _) => Some(Err(OcspError::ResponderStatus(describe_status(*code)?))),
        _ => None,
    }
}

/// RFC 6960 §4.2.1: `OCSPResponseStatus`.
fn describe_status(code: u8) -> Option<&'static str> {
    Some(match code {
        1 => "could not read the request",
        2 => "had an internal error",
        3 => "asks to try again later",
        5 => "requires a signed request",
        6 => "refused the request",
        _ => return None,
    })
}

/// The single responses of a basic response, from its `responseBytes`.
fn single_responses<'a>(bytes: &Any<'a>) -> Option<Vec<Any<'a>>> {
    let [kind, basic] = &der_values(single_sequence(&der_values(bytes.data)?)?)?[..] else {
        return None;
    };
    if kind.data != OID_OCSP_BASIC {
        return None;
    }
    let basic = der_values(single_sequence(&der_values(basic.data)?)?)?;
    let data = der_values(basic.first()?.data)?;
    // The first sequence: version and responder before it have context-specific tags, `producedAt` is a time.
    let responses = data.iter().find(|part| is_sequence(part))?;
    der_values(responses.data)
}

/// The response for one certificate.
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
            // Without `nextUpdate`, newer information is available at any time (RFC 6960 §4.2.2.1).
            validity: (from, until.unwrap_or(from.saturating_add(SECONDS_A_DAY))),
        })
    }

    /// The status of the certificate; `None`: the response is for another certificate.
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

/// The content of the only value, if it is a sequence.
fn single_sequence<'a>(values: &[Any<'a>]) -> Option<&'a [u8]> {
    match values {
        [only] if is_sequence(only) => Some(only.data),
        _ => None,
    }
}

/// The DER values in the bytes, in order; `None`: the bytes are not DER.
fn der_values(mut bytes: &[u8]) -> Option<Vec<Any<'_>>> {
    let mut parts = Vec::new();
    while !bytes.is_empty() {
        let (rest, part) = Any::from_der(bytes).ok()?;
        parts.push(part);
        bytes = rest;
    }
    Some(parts)
}
