//! The files that a configuration names for TLS: read with it, so that what is wrong with one has
//! its place in the text, and what is in force is what was checked.
//!
//! Like the configuration itself they are regular files of bounded size. What they hold is never
//! shown: one of them is a private key, and any of them may be the wrong file.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateRevocationListDer};

use super::raw::Span;
use super::report::{Problem, Problems, quote};
use super::settings::{CertificateFiles, Credentials};
use crate::certificate::{self, Certificate, Part, VerifierError};
use crate::clock;

/// The largest bundle of issuers that is in use has a quarter of a MiB.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// `st_mode`: whoever is neither the owner nor of the group may read.
const READABLE_BY_ALL: u32 = 0o004;

/// A path, and where it is written.
pub(super) struct Placed {
    pub(super) path: PathBuf,
    pub(super) span: Span,
}

/// What becomes of the files that are named.
pub(super) struct Files {
    /// What was read so far.
    pub(super) credentials: Credentials,
    /// `None`: nothing is read.
    now: Option<Timestamp>,
}

impl Files {
    /// They are only named.
    pub(super) fn unread() -> Self {
        Self {
            credentials: Credentials::default(),
            now: None,
        }
    }

    /// They are read and judged.
    pub(super) fn read_now() -> Self {
        Self {
            now: Some(clock::wall()),
            ..Self::unread()
        }
    }

    /// A server's certificate.
    pub(super) fn certificate(
        &mut self,
        cert: Placed,
        key: Placed,
        ocsp: Option<Placed>,
        problems: &Problems,
    ) -> CertificateFiles {
        if let Some(now) = self.now
            && let Some(read) = read_certificate(&cert, &key, ocsp.as_ref(), problems)
        {
            warn_of_dates(&read, now, cert.span, problems);
            warn_of_no_name(&read, cert.span, problems);
            let files = names(cert, key, ocsp);
            self.credentials.certificates.insert(files.clone(), read);
            return files;
        }
        names(cert, key, ocsp)
    }

    /// What the clients' certificates are judged by.
    pub(super) fn client_auth(
        &mut self,
        required: bool,
        ca: &Placed,
        crl: Option<&Placed>,
        problems: &Problems,
    ) {
        if self.now.is_none() {
            return;
        }
        let (issuers, revoked) = (read_issuers(ca, problems), read_crl(crl, problems));
        let (Some(issuers), Some(revoked)) = (issuers, revoked) else {
            return;
        };
        if let Err(error) = certificate::verifier(&issuers, &revoked, required) {
            let file = match (&error, crl) {
                (VerifierError::Revoked(_), Some(crl)) => crl,
                _ => ca,
            };
            let message = format!("{}: {error}", shown(&file.path));
            problems.add(Problem::error(message, file.span));
        }
        self.credentials.issuers.insert(ca.path.clone(), issuers);
        if let Some(crl) = crl {
            self.credentials.crls.insert(crl.path.clone(), revoked);
        }
    }
}

fn read_issuers(file: &Placed, problems: &Problems) -> Option<Vec<CertificateDer<'static>>> {
    let (pem, _) = read(file, problems)?;
    let issuers = certificate::certificates(&pem);
    issuers
        .map_err(|error| problems.add(wrong(file, &error)))
        .ok()
}

/// Empty where there is no list to read.
fn read_crl(
    file: Option<&Placed>,
    problems: &Problems,
) -> Option<Vec<CertificateRevocationListDer<'static>>> {
    let Some(file) = file else {
        return Some(Vec::new());
    };
    let (pem, _) = read(file, problems)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
    let lists = lists.ok().filter(|lists| !lists.is_empty());
    if lists.is_none() {
        let message = format!("{}: the file holds no revocation list", shown(&file.path));
        let help =
            "give PEM, `-----BEGIN X509 CRL-----`; convert DER with `openssl crl -inform der`";
        problems.add(Problem::error(message, file.span).help(help));
    }
    lists
}

fn names(cert: Placed, key: Placed, ocsp: Option<Placed>) -> CertificateFiles {
    CertificateFiles {
        cert: cert.path,
        key: key.path,
        ocsp: ocsp.map(|ocsp| ocsp.path),
    }
}

fn read_certificate(
    cert: &Placed,
    key: &Placed,
    ocsp: Option<&Placed>,
    problems: &Problems,
) -> Option<Certificate> {
    let chain = read(cert, problems);
    let secret = read(key, problems);
    let response = ocsp.map(|ocsp| read(ocsp, problems));
    let ((chain, _), (secret, metadata)) = (chain?, secret?);
    warn_of_readers(key, &metadata, problems);
    let response = match response {
        Some(response) => Some(response?.0),
        None => None,
    };
    match Certificate::read(&chain, &secret, response) {
        Ok(certificate) => Some(certificate),
        Err(error) => {
            let file = match error.part() {
                Part::Chain => cert,
                Part::Key => key,
            };
            problems.add(wrong(file, &error));
            None
        }
    }
}

fn wrong(file: &Placed, error: &certificate::Error) -> Problem {
    Problem::error(format!("{}: {error}", shown(&file.path)), file.span).help(error.help())
}

fn warn_of_readers(key: &Placed, metadata: &Metadata, problems: &Problems) {
    if metadata.mode() & READABLE_BY_ALL != 0 {
        let message = format!("{}: every user can read this key", shown(&key.path));
        let help = format!("`chmod 600 {}`", key.path.display());
        problems.add(Problem::warning(message, key.span).help(help));
    }
}

fn warn_of_dates(certificate: &Certificate, now: Timestamp, at: Span, problems: &Problems) {
    let (from, until) = certificate.valid;
    let (said, date) = match now.as_second() {
        now if now > until => ("expired on", until),
        now if now < from => ("is not valid before", from),
        _ => return,
    };
    let date = Timestamp::from_second(date).map_or_else(|_| date.to_string(), |at| at.to_string());
    let message = format!("the certificate {said} {date}");
    problems.add(Problem::warning(message, at).help("clients refuse it; give a valid one"));
}

fn warn_of_no_name(certificate: &Certificate, at: Span, problems: &Problems) {
    if certificate.names.is_empty() {
        let help = "clients look at the subject alternative names only (RFC 9525)";
        problems.add(Problem::warning("the certificate is for no DNS name", at).help(help));
    }
}

/// What a file holds, and what is known of it; a problem at its place where it cannot be read.
fn read(file: &Placed, problems: &Problems) -> Option<(Vec<u8>, Metadata)> {
    match bytes(&file.path) {
        Ok(read) => Some(read),
        Err(why) => {
            let message = format!("{} cannot be read: {why}", shown(&file.path));
            let problem = Problem::error(message, file.span);
            problems.add(match why.kind() {
                io::ErrorKind::NotFound => problem.help(
                    "give the path of a file that exists; a relative one starts where the program does",
                ),
                io::ErrorKind::PermissionDenied => {
                    problem.help("let the user that runs this read the file")
                }
                _ => problem,
            });
            None
        }
    }
}

fn bytes(path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    // Before the open: to open a FIFO waits for its writer.
    if !path.metadata()?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!(
            "it is bigger than {} MiB",
            MAX_BYTES >> 20
        )));
    }
    Ok((bytes, metadata))
}

fn shown(path: &Path) -> String {
    quote(&path.display().to_string())
}
