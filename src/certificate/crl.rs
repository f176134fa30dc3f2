//! Certificate revocation lists (RFC 5280 §5).

use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::prelude::{CertificateRevocationList, FromDer};

use super::warning::CertWarning;

/// The revocation lists of one PEM file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RevocationLists {
    /// The lists, in DER. Every CA of a client's chain needs one: rustls refuses a client if a list is missing.
    pub lists: Vec<CertificateRevocationListDer<'static>>,
    /// The earliest `nextUpdate` of the lists, in seconds since 1970; `None` if no list has one.
    pub next_update: Option<i64>,
}

impl RevocationLists {
    /// Parses all lists of a PEM file; `None` if it has no list, or one that cannot be parsed.
    pub fn read(pem: &[u8]) -> Option<Self> {
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
        let lists = lists.ok().filter(|lists| !lists.is_empty())?;
        let parse = |list| Some(CertificateRevocationList::from_der(list).ok()?.1);
        let parsed: Vec<_> = lists
            .iter()
            .map(|list| parse(list))
            .collect::<Option<_>>()?;
        let next_updates = parsed
            .iter()
            .filter_map(CertificateRevocationList::next_update);
        Some(Self {
            next_update: next_updates.map(|time| time.timestamp()).min(),
            lists,
        })
    }

    /// A warning if the earliest `nextUpdate` has passed at `now` (seconds since 1970).
    pub fn warning(&self, now: i64) -> Option<CertWarning> {
        let overdue = self.next_update.filter(|&next_update| now > next_update);
        overdue.map(CertWarning::StaleCrl)
    }
}
