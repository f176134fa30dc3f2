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

use crate::certificate::valid_until;
use crate::clock;

/// Terms for one connection: who judges its client's certificate, and what makes and takes its tickets.
pub(super) fn bind(
    judge: &Arc<dyn ClientCertVerifier>,
    tickets: &Arc<dyn ProducesTickets>,
) -> (Arc<dyn ClientCertVerifier>, Arc<dyn ProducesTickets>) {
    let until = Arc::new(AtomicI64::new(i64::MAX));
    let judge = Judge {
        judge: Arc::clone(judge),
        until: Arc::clone(&until),
    };
    let tickets = Dated {
        tickets: Arc::clone(tickets),
        until,
    };
    (Arc::new(judge), Arc::new(tickets))
}

/// Judges a certificate, and notes until when it counts, in seconds since 1970.
///
/// One task works on a connection, so the note only carries a value; `Relaxed` is enough for it.
#[derive(Debug)]
struct Judge {
    judge: Arc<dyn ClientCertVerifier>,
    until: Arc<AtomicI64>,
}

impl ClientCertVerifier for Judge {
    fn offer_client_auth(&self) -> bool {
        self.judge.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.judge.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.judge.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .judge
            .verify_client_cert(end_entity, intermediates, now)?;
        let chain = std::iter::once(end_entity).chain(intermediates);
        let ends = chain.map(|one| valid_until(one).unwrap_or(i64::MIN));
        self.until.store(ends.min().unwrap_or(i64::MIN), Relaxed);
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}

/// Makes tickets that say until when they count, and takes those that still do.
#[derive(Debug)]
struct Dated {
    tickets: Arc<dyn ProducesTickets>,
    until: Arc<AtomicI64>,
}

impl Dated {
    fn make(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let until = self.until.load(Relaxed).to_be_bytes();
        self.tickets.encrypt(&[&until, plain].concat())
    }

    /// `None`: it is no ticket, or was one; `now` in seconds since 1970.
    fn take(&self, ticket: &[u8], now: i64) -> Option<Vec<u8>> {
        let dated = self.tickets.decrypt(ticket)?;
        let (until, plain) = dated.split_first_chunk()?;
        let until = i64::from_be_bytes(*until);
        self.until.store(until, Relaxed);
        (now <= until).then(|| plain.to_vec())
    }
}

impl ProducesTickets for Dated {
    fn enabled(&self) -> bool {
        self.tickets.enabled()
    }

    fn lifetime(&self) -> u32 {
        self.tickets.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.make(plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.take(ticket, clock::wall().as_second())
    }
}

#[cfg(test)]
mod tests {
    use super::super::Tickets;
    use super::*;

    fn dated(tickets: &Arc<dyn ProducesTickets>, until: i64) -> Dated {
        Dated {
            tickets: Arc::clone(tickets),
            until: Arc::new(AtomicI64::new(until)),
        }
    }

    #[test]
    fn a_ticket_counts_as_long_as_the_certificate_and_so_do_those_that_follow() {
        let tickets = Tickets::within(&Tickets::new(), b"");
        let first = dated(&tickets, 100).make(b"session").unwrap();
        let next = dated(&tickets, i64::MAX);
        assert_eq!(next.take(&first, 100).unwrap(), b"session");
        let second = next.make(b"session").unwrap();
        let last = dated(&tickets, i64::MAX);
        assert_eq!(last.take(&second, 101), None);
        assert_eq!(last.take(&second, 100).unwrap(), b"session");
    }

    #[test]
    fn who_shows_none_has_tickets_without_an_end() {
        let tickets = Tickets::within(&Tickets::new(), b"");
        let one = dated(&tickets, i64::MAX);
        let ticket = one.encrypt(b"session").unwrap();
        assert_eq!(one.decrypt(&ticket).unwrap(), b"session");
        let undated = tickets.encrypt(b"short").unwrap();
        assert_eq!(one.decrypt(&undated), None);
    }
}
