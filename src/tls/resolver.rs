//! Which certificate a client is shown: by the name it asks for (SNI, RFC 6066, 3).
//!
//! Exact names before wildcards, the first certificate for everybody else. A wildcard stands for
//! exactly one label (RFC 9525, 6.3). Where several certificates have a name, the first whose key
//! the client can verify is taken: so ECDSA and RSA may be served side by side. An OCSP response goes
//! along for as long as it is fresh.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::ALPN_ACME;
use super::managed_certs::{ManagedCert, ManagedCerts};
use crate::certificate::Certificate;
use crate::clock;

#[derive(Debug)]
pub(super) struct CertResolver {
    exact: HashMap<String, ServedCerts>,
    /// By what follows the `*.`
    wildcard: HashMap<String, ServedCerts>,
    all: ServedCerts,
    managed_certs: Arc<ManagedCerts>,
}

/// Where a certificate is taken from when a client comes.
#[derive(Clone, Debug)]
pub(super) enum ServedCert {
    /// What the operator's files held.
    Files(Arc<Certificate>),
    /// What was ordered, once it is there.
    Managed(Arc<ManagedCert>),
}

type ServedCerts = Vec<ServedCert>;

impl ServedCert {
    fn names(&self) -> &[String] {
        match self {
            Self::Files(certificate) => &certificate.names,
            Self::Managed(slot) => slot.names.as_slice(),
        }
    }

    fn certificate(&self) -> Option<Arc<Certificate>> {
        match self {
            Self::Files(certificate) => Some(Arc::clone(certificate)),
            Self::Managed(slot) => slot.certificate.load_full(),
        }
    }
}

impl CertResolver {
    pub(super) fn new(all: Vec<ServedCert>, issued: Arc<ManagedCerts>) -> Self {
        let mut resolver = Self {
            exact: HashMap::new(),
            wildcard: HashMap::new(),
            all,
            managed_certs: issued,
        };
        for source in &resolver.all {
            for name in source.names() {
                let (names, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut resolver.wildcard, parent),
                    None => (&mut resolver.exact, name.as_str()),
                };
                names
                    .entry(name.to_owned())
                    .or_default()
                    .push(source.clone());
            }
        }
        resolver
    }

    /// The certificate for a name in lower case; `None`: the client told none.
    fn select(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<Certificate>> {
        let usable = |source: &ServedCert| {
            let found = source.certificate()?;
            found
                .key
                .key
                .choose_scheme(schemes)
                .is_some()
                .then_some(found)
        };
        let named = name.and_then(|name| self.certs_for(name));
        let of_name = named.and_then(|known| known.iter().find_map(usable));
        let awaited =
            |known: &ServedCerts| known.iter().all(|source| source.certificate().is_none());
        if named.is_some_and(awaited) {
            // It is on its way. What a client is shown instead, it may remember for longer than that.
            return None;
        }
        // The wrong name is more use to a client than none: it can say what is wrong.
        of_name.or_else(|| self.all.iter().find_map(usable))
    }

    /// What proves that `name` is served here. Others are asked for names that are ordered only: a
    /// handshake cannot wait, and what they have is a small file.
    fn challenge_cert(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        let ordered = |source: &ServedCert| matches!(source, ServedCert::Managed(_));
        let known = || self.exact.get(name)?.iter().find(|one| ordered(one));
        let others = || known().and_then(|_| self.managed_certs.shared_challenges());
        let ours = self.managed_certs.alpn_cert(name);
        ours.or_else(|| others()?.alpn_cert(name))
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
            .is_some_and(|mut all| all.any(|one| one == ALPN_ACME))
        {
            // An authority looks who is here (RFC 8737, 3).
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
