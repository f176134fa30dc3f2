//! Builds the verifier of client certificates, and the root store for verifying peers.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::ring::default_provider;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

/// Why a verifier cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum VerifierError {
    /// A certificate cannot be a trust anchor.
    #[error("certificate {0} of the file cannot be used as a CA certificate")]
    Issuer(usize, #[source] rustls::Error),
    /// A revocation list cannot be used.
    #[error("the revocation list cannot be used: {0}")]
    Crl(#[from] rustls::server::VerifierBuilderError),
}

/// The verifier of client certificates: accepts those issued by one of `issuers` and not in a list of
/// `revoked`. With `required`, a client without a certificate is rejected.
///
/// # Errors
/// [`VerifierError`].
pub(crate) fn client_verifier(
    issuers: &[CertificateDer<'static>],
    revoked: &[CertificateRevocationListDer<'static>],
    required: bool,
) -> Result<Arc<dyn ClientCertVerifier>, VerifierError> {
    let (roots, provider) = (Arc::new(root_store(issuers)?), Arc::new(default_provider()));
    let builder = WebPkiClientVerifier::builder_with_provider(roots, provider)
        .with_crls(revoked.iter().cloned());
    let builder = if required {
        builder
    } else {
        builder.allow_unauthenticated()
    };
    Ok(builder.build()?)
}

/// The trust anchors, from the certificates of the issuers.
///
/// # Errors
/// [`VerifierError::Issuer`].
pub(crate) fn root_store(
    issuers: &[CertificateDer<'static>],
) -> Result<RootCertStore, VerifierError> {
    let mut roots = RootCertStore::empty();
    for (index, issuer) in issuers.iter().enumerate() {
        let added = roots.add(issuer.clone());
        added.map_err(|error| VerifierError::Issuer(index + 1, error))?;
    }
    Ok(roots)
}
