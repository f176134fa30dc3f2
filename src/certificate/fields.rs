//! Fields of X.509 certificates.

use rustls_pki_types::CertificateDer;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::error::Error;

/// The common name of the issuer, or its organization if it has none.
pub(crate) fn issuer_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let issuer = parsed.issuer();
    let mut names = issuer.iter_common_name().chain(issuer.iter_organization());
    names.find_map(|name| name.as_str().ok().map(str::to_owned))
}

/// The parts of the certificate's identifier for renewal information (RFC 9773 §4.1): the key identifier of
/// the issuer, and the serial number.
pub(crate) fn renewal_info_id(certificate: &CertificateDer<'_>) -> Option<(Vec<u8>, Vec<u8>)> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let key_id =
        parsed
            .iter_extensions()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    Some(id.key_identifier.as_ref()?.0.to_vec())
                }
                _ => None,
            });
    Some((key_id?, parsed.raw_serial().to_vec()))
}

/// The name of the subject, which stays the same after a renewal: the first URI, DNS name or mail address, otherwise
/// the common name; `None`: the certificate has none of these.
pub(crate) fn subject_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let alternatives = parsed.subject_alternative_name().ok()?;
    let names = alternatives.map(|alternatives| &alternatives.value.general_names);
    let first = names.into_iter().flatten().find_map(|name| match name {
        GeneralName::URI(name) | GeneralName::DNSName(name) | GeneralName::RFC822Name(name) => {
            Some((*name).to_owned())
        }
        _ => None,
    });
    let common_name = || {
        let name = parsed.subject().iter_common_name().next()?;
        name.as_str().ok().map(str::to_owned)
    };
    first.or_else(common_name).filter(|name| !name.is_empty())
}

/// The last second of the certificate's validity, since 1970; `None`: the bytes are not a certificate.
pub(crate) fn not_after(certificate: &CertificateDer<'_>) -> Option<i64> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(validity(&parsed).1)
}

/// The first and the last second of the validity, since 1970.
pub(super) fn validity(certificate: &X509Certificate<'_>) -> (i64, i64) {
    let validity = certificate.validity();
    let [from, until] = [validity.not_before, validity.not_after].map(|time| time.timestamp());
    (from, until)
}

/// The DNS names in lower case.
pub(super) fn dns_names(certificate: &X509Certificate<'_>) -> Result<Vec<String>, Error> {
    let alternatives = certificate.subject_alternative_name();
    let alternatives = alternatives.map_err(|_| Error::BadCertificate(1))?;
    let names = alternatives.map_or(&[][..], |alternatives| &alternatives.value.general_names);
    Ok(names.iter().filter_map(dns_name).collect())
}

fn dns_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    }
}
