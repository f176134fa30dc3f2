//! The files that a configuration names for TLS: read with it, so that what is wrong with one has
//! its place in the text, and what is in force is what was checked.
//!
//! Like the configuration itself they are regular files of bounded size. What they hold is never
//! shown: one of them is a private key, and any of them may be the wrong file.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use super::acme::Secret;
use super::raw::Span;
use super::report::{Problem, Problems, quote};
use super::settings::{CertificateFiles, CertificateSource, Credentials};
use crate::certificate::{
    self, CertFile, CertWarning, Certificate, Identity, RevocationLists, VerifierError,
};
use crate::clock;

/// The largest bundle of issuers that is in use has a quarter of a MiB.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// `st_mode`: whoever is neither the owner nor of the group may read.
const READABLE_BY_ALL: u32 = 0o004;

const ISSUERS: &str =
    "give the certificates of those who issue the clients', `-----BEGIN CERTIFICATE-----`";

const VOUCHERS: &str =
    "give the certificates of those who issued the server's, `-----BEGIN CERTIFICATE-----`";

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
        Self::read_at(clock::wall())
    }

    /// They are read and judged as on that day.
    pub(super) fn read_at(day: Timestamp) -> Self {
        Self {
            now: Some(day),
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
            warn_of_no_name(&read, cert.span, problems);
            for concern in read.warnings(now.as_second()) {
                let file = place(concern.file(), &cert, &key, ocsp.as_ref());
                warn(concern, file, problems);
            }
            let files = names(cert, key, ocsp);
            self.credentials.certificates.insert(files.clone(), read);
            return files;
        }
        names(cert, key, ocsp)
    }

    /// Warns of names that no client is ever shown the certificate of, as one before it has them too.
    pub(super) fn warn_of_twins(&self, list: &[(CertificateSource, Span)], problems: &Problems) {
        let mut first = HashMap::new();
        for (source, at) in list {
            let CertificateSource::Files(files) = source else {
                continue;
            };
            let Some(read) = self.credentials.certificates.get(files) else {
                continue;
            };
            let kind = read.key_kind();
            let mut earlier = |name| *first.entry((name, kind)).or_insert(*at);
            let names = read.names.iter().map(|name| (name, earlier(name)));
            let twins: Vec<_> = names.filter(|(_, first)| first != at).collect();
            if let Some((name, first)) = twins.first() {
                problems.add(twin(name, twins.len(), *at, *first));
            }
        }
    }

    /// What peers are shown that ask who we are.
    pub(super) fn identity(
        &mut self,
        cert: Placed,
        key: Placed,
        problems: &Problems,
    ) -> CertificateFiles {
        let read = self.now.and_then(|now| {
            let identity = read_identity(&cert, &key, problems)?;
            for concern in identity.certificate.warnings(now.as_second()) {
                warn(concern, place(concern.file(), &cert, &key, None), problems);
            }
            Some(identity)
        });
        let files = names(cert, key, None);
        if let Some(identity) = read {
            self.credentials.identities.insert(files.clone(), identity);
        }
        files
    }

    /// Who vouches for the servers that this program asks: peers, or an authority.
    pub(super) fn anchors(&mut self, ca: &Placed, problems: &Problems) {
        if self.now.is_none() {
            return;
        }
        let Some(issuers) = read_issuers(ca, VOUCHERS, problems) else {
            return;
        };
        if let Err(error) = certificate::root_store(&issuers) {
            let message = format!("{}: {error}", shown(&ca.path));
            problems.add(Problem::error(message, ca.span).help(VOUCHERS));
        }
        self.credentials.issuers.insert(ca.path.clone(), issuers);
    }

    /// What the clients' certificates are judged by.
    pub(super) fn client_auth(
        &mut self,
        required: bool,
        ca: &Placed,
        crl: Option<&Placed>,
        problems: &Problems,
    ) {
        let Some(now) = self.now else {
            return;
        };
        let (issuers, revoked) = (
            read_issuers(ca, ISSUERS, problems),
            read_crl(crl, now, problems),
        );
        let (Some(issuers), Some(revoked)) = (issuers, revoked) else {
            return;
        };
        if let Err(error) = certificate::client_verifier(&issuers, &revoked.lists, required) {
            let file = match (&error, crl) {
                (VerifierError::Crl(_), Some(crl)) => crl,
                _ => ca,
            };
            let message = format!("{}: {error}", shown(&file.path));
            problems.add(Problem::error(message, file.span).help(ISSUERS));
        }
        self.credentials.issuers.insert(ca.path.clone(), issuers);
        if let Some(crl) = crl {
            self.credentials.crls.insert(crl.path.clone(), revoked);
        }
    }

    /// The key of an account with a certificate authority, base64url (RFC 8555, 7.3.4) or base64, which
    /// some authorities give.
    pub(super) fn account_key(&mut self, file: &Placed, problems: &Problems) {
        let Some((text, metadata)) = self.now.and_then(|_| read(file, problems)) else {
            return;
        };
        warn_of_readers(file, &metadata, problems);
        let key = secret(&text);
        if key.is_empty() {
            let message = format!("{}: the file holds no key", shown(&file.path));
            let help = "write what the authority gave as the HMAC key, base64url on one line";
            problems.add(Problem::error(message, file.span).help(help));
        }
        self.credentials.external_account = Some(Secret(key));
    }
}

/// What was written in base64 of either alphabet (RFC 4648, 4 and 5), padded or not; empty: nothing.
fn secret(text: &[u8]) -> Vec<u8> {
    let text = text.trim_ascii();
    let end = text.iter().rposition(|&byte| byte != b'=');
    let text = text.get(..end.map_or(0, |end| end + 1)).unwrap_or_default();
    let key = BASE64_URL_SAFE_NO_PAD.decode(text);
    key.or_else(|_| BASE64_STANDARD_NO_PAD.decode(text))
        .unwrap_or_default()
}

fn twin(name: &str, names: usize, at: Span, earlier: Span) -> Problem {
    let more = match names {
        1 => String::new(),
        _ => format!(" and {} more", names - 1),
    };
    let message = format!(
        "{}{more} is in a certificate before this one already",
        quote(name)
    );
    Problem::warning(message, at)
        .also(earlier, "this one is shown")
        .help("take one of them out; only with another kind of key both are of use")
}

fn read_issuers(
    file: &Placed,
    help: &str,
    problems: &Problems,
) -> Option<Vec<CertificateDer<'static>>> {
    let (pem, _) = read(file, problems)?;
    let issuers = certificate::certificates(&pem);
    let wrong = |error| match error {
        certificate::Error::NoCertificate => wrong(file, &error).help(help),
        _ => wrong(file, &error),
    };
    issuers.map_err(|error| problems.add(wrong(error))).ok()
}

/// Empty where there is no list to read.
fn read_crl(file: Option<&Placed>, now: Timestamp, problems: &Problems) -> Option<RevocationLists> {
    let Some(file) = file else {
        return Some(RevocationLists::default());
    };
    let (pem, _) = read(file, problems)?;
    let revoked = RevocationLists::read(&pem);
    if revoked.is_none() {
        let message = format!("{}: the file holds no revocation list", shown(&file.path));
        let help =
            "give PEM, `-----BEGIN X509 CRL-----`; convert DER with `openssl crl -inform der`";
        problems.add(Problem::error(message, file.span).help(help));
    }
    let concern = |read: &RevocationLists| read.warning(now.as_second());
    if let Some(concern) = revoked.as_ref().and_then(concern) {
        warn(concern, file, problems);
    }
    revoked
}

fn warn(concern: CertWarning, file: &Placed, problems: &Problems) {
    let warning = Problem::warning(concern.to_string(), file.span);
    problems.add(warning.help(concern.help()));
}

fn names(cert: Placed, key: Placed, ocsp: Option<Placed>) -> CertificateFiles {
    CertificateFiles {
        cert: cert.path,
        key: key.path,
        ocsp: ocsp.map(|ocsp| ocsp.path),
    }
}

fn read_identity(cert: &Placed, key: &Placed, problems: &Problems) -> Option<Identity> {
    let (chain, secret) = (read(cert, problems), read(key, problems));
    let ((chain, _), (secret, metadata)) = (chain?, secret?);
    warn_of_readers(key, &metadata, problems);
    let read = Identity::read(&chain, &secret);
    let wrong = |error: &certificate::Error| wrong(place(error.file(), cert, key, None), error);
    read.map_err(|error| problems.add(wrong(&error))).ok()
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
            let file = place(error.file(), cert, key, ocsp);
            problems.add(wrong(file, &error));
            None
        }
    }
}

fn place<'a>(
    part: CertFile,
    cert: &'a Placed,
    key: &'a Placed,
    ocsp: Option<&'a Placed>,
) -> &'a Placed {
    match part {
        CertFile::Chain => cert,
        CertFile::Key => key,
        CertFile::Ocsp => ocsp.unwrap_or(cert),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_be_written_in_either_alphabet_with_or_without_padding() {
        let key = [0xfb, 0xff, 0xfe, 0x01];
        for written in ["-__-AQ", "-__-AQ==", "+//+AQ", "+//+AQ==\n", " -__-AQ= "] {
            assert_eq!(secret(written.as_bytes()), key, "{written}");
        }
        for written in ["", "=", "==", "no key", "-/", "a"] {
            assert!(secret(written.as_bytes()).is_empty(), "{written}");
        }
    }
}
