//! For how long a session of a client that has shown a certificate may be taken up again: for no longer
//! than the certificate is valid.
//!
//! With a session rustls restores the certificate from the ticket, and judges it no more. So each
//! connection whose client may show one has terms of its own, in which the judge of the certificate tells
//! the maker of tickets until when it is valid:
//!
//! ```text
//!  a full handshake   certificate ─► Judge ── until ──► Dated ─► ticket: until | session
//!  a resumed one      ticket ─► Dated: is it later than that? then it is none, and the handshake a full one
//!                                 └── until ──► the tickets that follow
//! ```
//!
//! Not to resume is all that follows from a certificate that has expired: its client may have another.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::ProducesTickets;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};

use crate::certificate::not_after;
use crate::clock;

/// Terms for one connection: who judges its client's certificate, and what makes and takes its tickets.
pub(super) fn per_connection(
    judge: &Arc<dyn ClientCertVerifier>,
    tickets: &Arc<dyn ProducesTickets>,
) -> (Arc<dyn ClientCertVerifier>, Arc<dyn ProducesTickets>) {
    let until = Arc::new(AtomicI64::new(i64::MAX));
    let judge = ExpiryVerifier {
        inner: Arc::clone(judge),
        not_after: Arc::clone(&until),
    };
    let tickets = ExpiringTickets {
        inner: Arc::clone(tickets),
        not_after: until,
    };
    (Arc::new(judge), Arc::new(tickets))
}

/// Judges a certificate, and notes until when it counts, in seconds since 1970.
///
/// One task works on a connection, so the note only carries a value; `Relaxed` is enough for it.
#[derive(Debug)]
struct ExpiryVerifier {
    inner: Arc<dyn ClientCertVerifier>,
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
        let ends = chain.map(|one| not_after(one).unwrap_or(i64::MIN));
        self.not_after
            .store(ends.min().unwrap_or(i64::MIN), Relaxed);
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

/// Makes tickets that say until when they count, and takes those that still do.
#[derive(Debug)]
struct ExpiringTickets {
    inner: Arc<dyn ProducesTickets>,
    not_after: Arc<AtomicI64>,
}

impl ExpiringTickets {
    fn encrypt_with_expiry(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let until = self.not_after.load(Relaxed).to_be_bytes();
        self.inner.encrypt(&[&until, plain].concat())
    }

    /// `None`: it is no ticket, or was one; `now` in seconds since 1970.
    fn decrypt_unexpired(&self, ticket: &[u8], now: i64) -> Option<Vec<u8>> {
        let dated = self.inner.decrypt(ticket)?;
        let (until, plain) = dated.split_first_chunk()?;
        let until = i64::from_be_bytes(*until);
        self.not_after.store(until, Relaxed);
        (now <= until).then(|| plain.to_vec())
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

    fn dated(tickets: &Arc<dyn ProducesTickets>, until: i64) -> ExpiringTickets {
        ExpiringTickets {
            inner: Arc::clone(tickets),
            not_after: Arc::new(AtomicI64::new(until)),
        }
    }

    #[test]
    fn session_ticket_expires_with_the_client_certificate() {
        let tickets = SessionTickets::scoped(&SessionTickets::new(), b"");
        let first = dated(&tickets, 100)
            .encrypt_with_expiry(b"session")
            .unwrap();
        let next = dated(&tickets, i64::MAX);
        assert_eq!(next.decrypt_unexpired(&first, 100).unwrap(), b"session");
        let second = next.encrypt_with_expiry(b"session").unwrap();
        let last = dated(&tickets, i64::MAX);
        assert_eq!(last.decrypt_unexpired(&second, 101), None);
        assert_eq!(last.decrypt_unexpired(&second, 100).unwrap(), b"session");
    }

    #[test]
    fn session_ticket_without_client_certificate_has_no_expiry() {
        let tickets = SessionTickets::scoped(&SessionTickets::new(), b"");
        let one = dated(&tickets, i64::MAX);
        let ticket = one.encrypt(b"session").unwrap();
        assert_eq!(one.decrypt(&ticket).unwrap(), b"session");
        let undated = tickets.encrypt(b"short").unwrap();
        assert_eq!(one.decrypt(&undated), None);
    }
}
