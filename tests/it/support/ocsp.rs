//! An issuer's answer to whether a certificate still counts (RFC 6960), as it would sign it.

use jiff::Timestamp;
use rcgen::SigningKey;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The object identifiers `id-sha1`, `ecdsa-with-SHA256` and `id-pkix-ocsp-basic`.
const SHA1: &[u8] = &[6, 5, 0x2b, 0x0e, 3, 2, 0x1a];
const ECDSA: &[u8] = &[6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
const BASIC: &[u8] = &[6, 9, 0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1];

const SEQUENCE: u8 = 0x30;
const OCTETS: u8 = 4;

/// An OCSP response: the certificate is good between these times.
pub(crate) fn good(
    certificate: &CertificateDer<'_>,
    issuer: &CertificateDer<'_>,
    key: &impl SigningKey,
    (from, until): (Timestamp, Timestamp),
) -> Vec<u8> {
    let (_, leaf) = X509Certificate::from_der(certificate).unwrap();
    let (_, issuer) = X509Certificate::from_der(issuer).unwrap();
    let public = hash(&issuer.public_key().subject_public_key.data);
    let name = hash(issuer.subject().as_raw());
    let serial = der(2, &[leaf.raw_serial()]);
    let id = der(
        SEQUENCE,
        &[&der(SEQUENCE, &[SHA1]), &name, &public, &serial],
    );
    let until = der(0xa0, &[&time(until)]);
    let single = der(SEQUENCE, &[&id, &[0x80, 0], &time(from), &until]);
    let responder = der(0xa2, &[&public]);
    let answers = der(SEQUENCE, &[&single]);
    let response_data = der(SEQUENCE, &[&responder, &time(from), &answers]);
    let signature = der(3, &[&[0], &key.sign(&response_data).unwrap()]);
    let basic = der(
        SEQUENCE,
        &[&response_data, &der(SEQUENCE, &[ECDSA]), &signature],
    );
    let bytes = der(SEQUENCE, &[BASIC, &der(OCTETS, &[&basic])]);
    der(SEQUENCE, &[&[0x0a, 1, 0], &der(0xa0, &[&bytes])])
}

fn hash(bytes: &[u8]) -> Vec<u8> {
    der(OCTETS, &[digest(&SHA1_FOR_LEGACY_USE_ONLY, bytes).as_ref()])
}

fn time(time: Timestamp) -> Vec<u8> {
    let text = time.strftime("%Y%m%d%H%M%SZ").to_string();
    der(0x18, &[text.as_bytes()])
}

/// A DER value with this tag and these parts (X.690 §8.1), shorter than 64 KiB.
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let [high, low] = u16::try_from(content.len()).unwrap().to_be_bytes();
    let length: &[u8] = match (high, low) {
        (0, 0..=0x7f) => &[low],
        (0, _) => &[0x81, low],
        _ => &[0x82, high, low],
    };
    [&[tag], length, &content].concat()
}
