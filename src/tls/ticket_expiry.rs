//! Session tickets that expire with the client certificate.
//!
//! rustls restores the client certificate of a resumed session from the ticket, and does not verify it again.
//! Without this module, an expired certificate would be accepted in each resumption. On a listener that
//! requests client certificates, each connection has its own verifier and its own ticketer. The verifier
//! passes the expiry of the certificate to the ticketer:
//!
//! ```text
//!  full handshake   certificate ─► ExpiryVerifier ─ not_after ─► ExpiringTickets ─► ticket: not_after | session
//!  resumption       ticket ─► ExpiringTickets: now > not_after: ticket rejected, full handshake
//!                                    └── not_after ──► new tickets of the session
//! ```
//!
//! A client with an expired certificate can still connect: it may send a newer one in the full handshake.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::ProducesTickets;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::certificate::not_after;
use crate::clock;

/// Wraps the verifier and the ticketer of a listener for one connection.
pub(super) fn per_connection(
    verifier: &Arc<dyn ClientCertVerifier>,
    tickets: &Arc<dyn ProducesTickets>,
) -> (Arc<dyn ClientCertVerifier>, Arc<dyn ProducesTickets>) {
    let not_after = Arc::new(AtomicI64::new(i64::MAX));
    let verifier = ExpiryVerifier {
        inner: Arc::clone(verifier),
        not_after: Arc::clone(&not_after),
    };
    let tickets = ExpiringTickets {
        inner: Arc::clone(tickets),
        not_after,
    };
    (Arc::new(verifier), Arc::new(tickets))
}

/// Verifies a client certificate, and stores the earliest expiry in its chain.
#[derive(Debug)]
struct ExpiryVerifier {
    inner: Arc<dyn ClientCertVerifier>,
    /// Seconds since 1970; `i64::MAX`: no certificate was verified. Only the connection's task uses it, so
    /// `Relaxed` is enough.
    not_after: Arc<AtomicI64>,
}

impl ClientCertVerifier for ExpiryVerifier {
    fn offer_client_auth(&self) -> bool {
        self.inner.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.inner.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .inner
            .verify_client_cert(end_entity, intermediates, now)?;
        let chain = std::iter::once(end_entity).chain(intermediates);
        // A certificate without a readable expiry counts as expired.
        let expiries = chain.map(|cert| not_after(cert).unwrap_or(i64::MIN));
        self.not_after
            .store(expiries.min().unwrap_or(i64::MIN), Relaxed);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

/// Stores the expiry of the client certificate in each ticket, and rejects a ticket after that time.
#[derive(Debug)]
struct ExpiringTickets {
    inner: Arc<dyn ProducesTickets>,
    /// Shared with the [`ExpiryVerifier`].
    not_after: Arc<AtomicI64>,
}

impl ExpiringTickets {
    fn encrypt_with_expiry(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let not_after = self.not_after.load(Relaxed).to_be_bytes();
        self.inner.encrypt(&[&not_after, plain].concat())
    }

    /// Decrypts a ticket; `None` if it is invalid or expired. `now`: seconds since 1970.
    fn decrypt_unexpired(&self, ticket: &[u8], now: i64) -> Option<Vec<u8>> {
        let decrypted = self.inner.decrypt(ticket)?;
        let (not_after, plain) = decrypted.split_first_chunk()?;
        let not_after = i64::from_be_bytes(*not_after);
        // New tickets of this session expire at the same time.
        self.not_after.store(not_after, Relaxed);
        (now <= not_after).then(|| plain.to_vec())
    }
}

impl ProducesTickets for ExpiringTickets {
    fn enabled(&self) -> bool {
        self.inner.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.inner.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.encrypt_with_expiry(plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.decrypt_unexpired(ticket, clock::wall().as_second())
    }
}

#[cfg(test)]
mod tests {
    use super::super::SessionTickets;
    use super::*;

    fn expiring(tickets: &Arc<dyn ProducesTickets>, not_after: i64) -> ExpiringTickets {
        ExpiringTickets {
            inner: Arc::clone(tickets),
            not_after: Arc::new(AtomicI64::new(not_after)),
        }
    }

    #[test]
    fn session_ticket_expires_with_the_client_certificate() {
        let tickets = SessionTickets::scoped(&SessionTickets::new(), b"");
        let first = expiring(&tickets, 100)
            .encrypt_with_expiry(b"session")
            .unwrap();
        let next = expiring(&tickets, i64::MAX);
        assert_eq!(next.decrypt_unexpired(&first, 100).unwrap(), b"session");
        let second = next.encrypt_with_expiry(b"session").unwrap();
        let last = expiring(&tickets, i64::MAX);
        assert_eq!(last.decrypt_unexpired(&second, 101), None);
        assert_eq!(last.decrypt_unexpired(&second, 100).unwrap(), b"session");
    }

    #[test]
    fn session_ticket_without_client_certificate_has_no_expiry() {
        let tickets = SessionTickets::scoped(&SessionTickets::new(), b"");
        let one = expiring(&tickets, i64::MAX);
        let ticket = one.encrypt(b"session").unwrap();
        assert_eq!(one.decrypt(&ticket).unwrap(), b"session");
        let without_expiry = tickets.encrypt(b"short").unwrap();
        assert_eq!(one.decrypt(&without_expiry), None);
    }
}
