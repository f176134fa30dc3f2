//! Selects the certificate for a handshake by the server name (SNI, RFC 6066 §3).
//!
//! Exact names come before wildcards; any other name gets the first certificate. A wildcard matches
//! exactly one label (RFC 9525 §6.3). If several certificates have the name, the first one with a key type that
//! the client supports is used, so ECDSA and RSA certificates can be configured together. An OCSP response is
//! stapled while it is valid.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::alpn::ALPN_ACME;
use super::managed_certs::{ManagedCert, ManagedCerts};
use crate::certificate::Certificate;
use crate::clock;

#[derive(Debug)]
pub(super) struct CertResolver {
    exact: HashMap<String, ServedCerts>,
    /// The certificates of wildcard names, by the name without `*.`.
    wildcard: HashMap<String, ServedCerts>,
    all: ServedCerts,
    managed_certs: Arc<ManagedCerts>,
}

/// The source of a certificate.
#[derive(Clone, Debug)]
pub(super) enum ServedCert {
    /// Files of the operator.
    Files(Arc<Certificate>),
    /// ACME; empty until the certificate is issued.
    Managed(Arc<ManagedCert>),
}

type ServedCerts = Vec<ServedCert>;

impl ServedCert {
    fn names(&self) -> &[String] {
        match self {
            Self::Files(certificate) => &certificate.names,
            Self::Managed(cert) => cert.names.as_slice(),
        }
    }

    fn certificate(&self) -> Option<Arc<Certificate>> {
        match self {
            Self::Files(certificate) => Some(Arc::clone(certificate)),
            Self::Managed(cert) => cert.certificate.load_full(),
        }
    }
}

impl CertResolver {
    pub(super) fn new(all: Vec<ServedCert>, managed_certs: Arc<ManagedCerts>) -> Self {
        let mut resolver = Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            all,
            managed_certs,
        };
        for cert in &resolver.all {
            for name in cert.names() {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut resolver.wildcard, parent),
                    None => (&mut resolver.exact, name.as_str()),
                };
                names.entry(name.to_owned()).or_default().push(cert.clone());
            }
        }
        resolver
    }

    /// The certificate for a server name in lower case; `name` is `None` if the client sent none.
    fn select(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<Certificate>> {
        let usable = |cert: &ServedCert| {
            let found = cert.certificate()?;
            found
                .key
                .key
                .choose_scheme(schemes)
                .is_some()
                .then_some(found)
        };
        let named = name.and_then(|name| self.certs_for(name));
        let of_name = named.and_then(|certs| certs.iter().find_map(usable));
        let not_issued =
            |certs: &ServedCerts| certs.iter().all(|cert| cert.certificate().is_none());
        if named.is_some_and(not_issued) {
            // No certificate is better than a wrong one: the right one will be issued soon, and a client may
            // remember the error.
            return None;
        }
        // With a certificate for another name the client can report that the name is wrong.
        of_name.or_else(|| self.all.iter().find_map(usable))
    }

    /// The TLS-ALPN-01 certificate for `name`. For a challenge of another process this reads a small file and
    /// blocks, as rustls cannot wait here; so only for names with an ACME certificate.
    fn challenge_cert(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let is_managed = |cert: &ServedCert| matches!(cert, ServedCert::Managed(_));
        let has_name = || {
            self.exact
                .get(name)
                .is_some_and(|certs| certs.iter().any(is_managed))
        };
        let shared = || {
            let challenges = || self.managed_certs.shared_challenges();
            has_name().then(challenges).flatten()
        };
        let own = self.managed_certs.alpn_cert(name);
        own.or_else(|| shared()?.alpn_cert(name))
    }

    fn certs_for(&self, name: &str) -> Option<&ServedCerts> {
        let parent = || name.split_once('.').map(|(_, parent)| parent);
        self.exact
            .get(name)
            .or_else(|| self.wildcard.get(parent()?))
    }
}

impl ResolvesServerCert for CertResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        if hello
            .alpn()
            .is_some_and(|mut protocols| protocols.any(|protocol| protocol == ALPN_ACME))
        {
            // An ACME authority validates the name (RFC 8737 §3).
            return self.challenge_cert(name.as_deref()?);
        }
        let found = self.select(name.as_deref(), hello.signature_schemes())?;
        Some(Arc::clone(found.certified_key(clock::wall().as_second())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: [SignatureScheme; 1] = [SignatureScheme::ECDSA_NISTP256_SHA256];

    fn certificate(names: &[&str]) -> Certificate {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = made.signing_key.serialize_pem();
        Certificate::read(made.cert.pem().as_bytes(), key.as_bytes(), None).unwrap()
    }

    #[test]
    fn certificate_selection_prefers_exact_then_wildcard_then_first() {
        let made = [
            certificate(&["default.test"]),
            certificate(&["*.example.com"]),
            certificate(&["www.example.com", "Example.org"]),
        ];
        let files = made
            .iter()
            .map(|one| ServedCert::Files(Arc::new(one.clone())));
        let resolver = CertResolver::new(files.collect(), Arc::default());
        for (name, expected) in [
            (None, 0),
            (Some("elsewhere.test"), 0),
            (Some("a.example.com"), 1),
            (Some("www.example.com"), 2),
            (Some("a.b.example.com"), 0),
            (Some("example.com"), 0),
            (Some("example.org"), 2),
        ] {
            let found = resolver.select(name, &ANY).unwrap();
            assert!(Arc::ptr_eq(&found.key, &made[expected].key), "{name:?}");
        }
    }

    #[test]
    fn certificate_with_unsupported_signature_is_not_selected() {
        let made = certificate(&["a.test"]);
        let resolver = CertResolver::new(vec![ServedCert::Files(Arc::new(made))], Arc::default());
        let found = resolver.select(Some("a.test"), &[SignatureScheme::RSA_PKCS1_SHA256]);
        assert!(found.is_none());
    }
}
