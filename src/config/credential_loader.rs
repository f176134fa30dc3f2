//! Loads the certificate and key files that a configuration names.
//!
//! They are read together with the configuration: a problem of a file has the span of its path, and the
//! content that was checked is the content that is used. Files must be regular, and their size is
//! bounded. Messages never show their content: some are private keys, and any may be the wrong file.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD_NO_PAD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use jiff::Timestamp;
use rustls_pki_types::CertificateDer;

use super::bounded_file::{self, ReadError};
use super::report::{Problem, Problems, quote};
use super::sections::{CertificateFiles, CertificateSource, Credentials, Secret};
use super::span::Span;
use crate::certificate::{
    self, CertFile, CertWarning, Certificate, Identity, RevocationLists, VerifierError,
};
use crate::clock;

/// The bit of `st_mode` by which every user may read.
const WORLD_READABLE: u32 = 0o004;

const CLIENT_CA_HELP: &str =
    "use a PEM file with the issuers of the clients' certificates, `-----BEGIN CERTIFICATE-----`";

const SERVER_CA_HELP: &str =
    "use a PEM file with the issuers of the servers' certificates, `-----BEGIN CERTIFICATE-----`";

/// A path, and its place in the configuration.
pub(super) struct SpannedPath {
    pub(super) path: PathBuf,
    pub(super) span: Span,
}

/// Loads and checks the files, and collects their content.
pub(super) struct CredentialLoader {
    /// The content of the files so far.
    pub(super) credentials: Credentials,
    /// The time for which validity is checked; `None`: no file is read.
    now: Option<Timestamp>,
}

impl CredentialLoader {
    /// A loader that reads no files.
    pub(super) fn disabled() -> Self {
        Self {
            credentials: Credentials::default(),
            now: None,
        }
    }

    /// A loader that checks validity at the current time.
    pub(super) fn load_now() -> Self {
        Self::load_at(clock::wall())
    }

    /// A loader that checks validity at `now`.
    pub(super) fn load_at(now: Timestamp) -> Self {
        Self {
            now: Some(now),
            ..Self::disabled()
        }
    }

    /// Loads a certificate of a listener.
    pub(super) fn load_certificate(
        &mut self,
        cert: SpannedPath,
        key: SpannedPath,
        ocsp: Option<SpannedPath>,
        problems: &Problems,
    ) -> CertificateFiles {
        if let Some(now) = self.now
            && let Some(read) = read_certificate(&cert, &key, ocsp.as_ref(), problems)
        {
            warn_no_dns_name(&read, cert.span, problems);
            for warning in read.warnings(now.as_second()) {
                let file = file_of_part(warning.file(), &cert, &key, ocsp.as_ref());
                add_warning(warning, file, problems);
            }
            let files = certificate_files(cert, key, ocsp);
            self.credentials.certificates.insert(files.clone(), read);
            return files;
        }
        certificate_files(cert, key, ocsp)
    }

    /// Warns of names that an earlier certificate with the same kind of key has, too: clients get the
    /// earlier one.
    pub(super) fn warn_duplicate_names(
        &self,
        list: &[(CertificateSource, Span)],
        problems: &Problems,
    ) {
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
            let duplicates: Vec<_> = names.filter(|(_, first)| first != at).collect();
            if let Some((name, first)) = duplicates.first() {
                problems.add(duplicate_name_problem(name, duplicates.len(), *at, *first));
            }
        }
    }

    /// Loads a client certificate for peers.
    pub(super) fn load_identity(
        &mut self,
        cert: SpannedPath,
        key: SpannedPath,
        problems: &Problems,
    ) -> CertificateFiles {
        let read = self.now.and_then(|now| {
            let identity = read_identity(&cert, &key, problems)?;
            for warning in identity.certificate.warnings(now.as_second()) {
                add_warning(
                    warning,
                    file_of_part(warning.file(), &cert, &key, None),
                    problems,
                );
            }
            Some(identity)
        });
        let files = certificate_files(cert, key, None);
        if let Some(identity) = read {
            self.credentials.identities.insert(files.clone(), identity);
        }
        files
    }

    /// Loads the issuers that are trusted for peers, or for an ACME server.
    pub(super) fn load_trust_anchors(&mut self, ca: &SpannedPath, problems: &Problems) {
        if self.now.is_none() {
            return;
        }
        let Some(issuers) = read_issuers(ca, SERVER_CA_HELP, problems) else {
            return;
        };
        if let Err(error) = certificate::root_store(&issuers) {
            let message = format!("{}: {error}", quote_path(&ca.path));
            problems.add(Problem::error(message, ca.span).help(SERVER_CA_HELP));
        }
        self.credentials.issuers.insert(ca.path.clone(), issuers);
    }

    /// Loads the issuers and revocation lists for client certificates.
    pub(super) fn load_client_auth(
        &mut self,
        required: bool,
        ca: &SpannedPath,
        crl: Option<&SpannedPath>,
        problems: &Problems,
    ) {
        let Some(now) = self.now else {
            return;
        };
        let (issuers, revoked) = (
            read_issuers(ca, CLIENT_CA_HELP, problems),
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
            let message = format!("{}: {error}", quote_path(&file.path));
            problems.add(Problem::error(message, file.span).help(CLIENT_CA_HELP));
        }
        self.credentials.issuers.insert(ca.path.clone(), issuers);
        if let Some(crl) = crl {
            self.credentials.crls.insert(crl.path.clone(), revoked);
        }
    }

    /// Loads the HMAC key of an external account: base64url (RFC 8555 §7.3.4), or base64, which some
    /// authorities hand out.
    pub(super) fn load_account_key(&mut self, file: &SpannedPath, problems: &Problems) {
        let Some((text, metadata)) = self.now.and_then(|_| read_file(file, problems)) else {
            return;
        };
        warn_world_readable(file, &metadata, problems);
        let key = decode_hmac_key(&text);
        if key.is_empty() {
            let message = format!("{}: the file contains no key", quote_path(&file.path));
            let help = "write the HMAC key from the authority into it, base64url on one line";
            problems.add(Problem::error(message, file.span).help(help));
        }
        self.credentials.external_account = Some(Secret(key));
    }

    /// Loads the password of a user of etcd: the first line of the file.
    pub(super) fn load_etcd_password(&mut self, file: &SpannedPath, problems: &Problems) {
        let Some((text, metadata)) = self.now.and_then(|_| read_file(file, problems)) else {
            return;
        };
        warn_world_readable(file, &metadata, problems);
        let password = first_line(&text);
        if password.is_empty() || std::str::from_utf8(password).is_err() {
            let message = format!(
                "{}: the first line is not a password",
                quote_path(&file.path)
            );
            let help = "write the password of the user into it, on one line";
            problems.add(Problem::error(message, file.span).help(help));
        }
        self.credentials.etcd_password = Some(Secret(password.to_vec()));
    }
}

/// The first line of a file with a password.
fn first_line(text: &[u8]) -> &[u8] {
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Decodes base64 of either alphabet (RFC 4648 §4 and §5), padded or not; empty if `text` is neither.
fn decode_hmac_key(text: &[u8]) -> Vec<u8> {
    let text = text.trim_ascii();
    let end = text.iter().rposition(|&byte| byte != b'=');
    let text = text.get(..end.map_or(0, |end| end + 1)).unwrap_or_default();
    let key = BASE64_URL_SAFE_NO_PAD.decode(text);
    key.or_else(|_| BASE64_STANDARD_NO_PAD.decode(text))
        .unwrap_or_default()
}

fn duplicate_name_problem(name: &str, names: usize, at: Span, earlier: Span) -> Problem {
    let more = match names {
        1 => String::new(),
        _ => format!(" and {} more", names - 1),
    };
    let message = format!("{}{more} is already in an earlier certificate", quote(name));
    Problem::warning(message, at)
        .secondary(earlier, "this one is used")
        .help("remove one of the two; both are used only if they have different kinds of keys")
}

fn read_issuers(
    file: &SpannedPath,
    help: &str,
    problems: &Problems,
) -> Option<Vec<CertificateDer<'static>>> {
    let (pem, _) = read_file(file, problems)?;
    let issuers = certificate::certificates(&pem);
    let wrong = |error| match error {
        certificate::Error::NoCertificate => certificate_problem(file, &error).help(help),
        _ => certificate_problem(file, &error),
    };
    issuers.map_err(|error| problems.add(wrong(error))).ok()
}

/// Reads the revocation lists; empty if no file is configured.
fn read_crl(
    file: Option<&SpannedPath>,
    now: Timestamp,
    problems: &Problems,
) -> Option<RevocationLists> {
    let Some(file) = file else {
        return Some(RevocationLists::default());
    };
    let (pem, _) = read_file(file, problems)?;
    let revoked = RevocationLists::read(&pem);
    if revoked.is_none() {
        let message = format!(
            "{}: the file contains no revocation list",
            quote_path(&file.path)
        );
        let help =
            "use PEM, `-----BEGIN X509 CRL-----`; convert DER with `openssl crl -inform der`";
        problems.add(Problem::error(message, file.span).help(help));
    }
    let warning = revoked
        .as_ref()
        .and_then(|lists| lists.warning(now.as_second()));
    if let Some(warning) = warning {
        add_warning(warning, file, problems);
    }
    revoked
}

fn add_warning(warning: CertWarning, file: &SpannedPath, problems: &Problems) {
    let problem = Problem::warning(warning.to_string(), file.span);
    problems.add(problem.help(warning.help()));
}

fn certificate_files(
    cert: SpannedPath,
    key: SpannedPath,
    ocsp: Option<SpannedPath>,
) -> CertificateFiles {
    CertificateFiles {
        cert: cert.path,
        key: key.path,
        ocsp: ocsp.map(|ocsp| ocsp.path),
    }
}

fn read_identity(cert: &SpannedPath, key: &SpannedPath, problems: &Problems) -> Option<Identity> {
    let (chain, secret) = (read_file(cert, problems), read_file(key, problems));
    let ((chain, _), (secret, metadata)) = (chain?, secret?);
    warn_world_readable(key, &metadata, problems);
    let read = Identity::read(&chain, &secret);
    let wrong = |error: &certificate::Error| {
        certificate_problem(file_of_part(error.file(), cert, key, None), error)
    };
    read.map_err(|error| problems.add(wrong(&error))).ok()
}

fn read_certificate(
    cert: &SpannedPath,
    key: &SpannedPath,
    ocsp: Option<&SpannedPath>,
    problems: &Problems,
) -> Option<Certificate> {
    let chain = read_file(cert, problems);
    let secret = read_file(key, problems);
    let response = ocsp.map(|ocsp| read_file(ocsp, problems));
    let ((chain, _), (secret, metadata)) = (chain?, secret?);
    warn_world_readable(key, &metadata, problems);
    let response = match response {
        Some(response) => Some(response?.0),
        None => None,
    };
    match Certificate::read(&chain, &secret, response) {
        Ok(certificate) => Some(certificate),
        Err(error) => {
            let file = file_of_part(error.file(), cert, key, ocsp);
            problems.add(certificate_problem(file, &error));
            None
        }
    }
}

fn file_of_part<'a>(
    part: CertFile,
    cert: &'a SpannedPath,
    key: &'a SpannedPath,
    ocsp: Option<&'a SpannedPath>,
) -> &'a SpannedPath {
    match part {
        CertFile::Chain => cert,
        CertFile::Key => key,
        CertFile::Ocsp => ocsp.unwrap_or(cert),
    }
}

fn certificate_problem(file: &SpannedPath, error: &certificate::Error) -> Problem {
    Problem::error(format!("{}: {error}", quote_path(&file.path)), file.span).help(error.help())
}

fn warn_world_readable(key: &SpannedPath, metadata: &Metadata, problems: &Problems) {
    if metadata.mode() & WORLD_READABLE != 0 {
        let message = format!("{}: every user can read this key", quote_path(&key.path));
        let help = format!("`chmod 600 {}`", key.path.display());
        problems.add(Problem::warning(message, key.span).help(help));
    }
}

fn warn_no_dns_name(certificate: &Certificate, at: Span, problems: &Problems) {
    if certificate.names.is_empty() {
        let help = "clients check the subject alternative names only (RFC 9525)";
        problems.add(Problem::warning("the certificate has no DNS name", at).help(help));
    }
}

/// The content and metadata of a file; reports a problem if it cannot be read.
fn read_file(file: &SpannedPath, problems: &Problems) -> Option<(Vec<u8>, Metadata)> {
    let report = |error: ReadError| {
        let message = format!("{}: {error}", quote_path(&file.path));
        let problem = Problem::error(message, file.span);
        let help = match error {
            ReadError::Io(error) if error.kind() == io::ErrorKind::NotFound => {
                "use the path of an existing file; a relative path starts at the working directory"
            }
            ReadError::Io(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                "allow the user that runs clockwise to read the file"
            }
            _ => return problems.add(problem),
        };
        problems.add(problem.help(help));
    };
    bounded_file::read(&file.path).map_err(report).ok()
}

fn quote_path(path: &Path) -> String {
    quote(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_is_the_first_line_without_its_end() {
        for text in [
            "pass word",
            "pass word\n",
            "pass word\r\n",
            "pass word\nmore\n",
        ] {
            assert_eq!(first_line(text.as_bytes()), b"pass word", "{text:?}");
        }
        assert_eq!(first_line(b" a \n"), b" a ", "spaces may be part of it");
        assert_eq!(first_line(b"\n"), b"");
    }

    #[test]
    fn base64_secret_may_be_standard_or_url_safe_with_or_without_padding() {
        let key = [0xfb, 0xff, 0xfe, 0x01];
        for written in ["-__-AQ", "-__-AQ==", "+//+AQ", "+//+AQ==\n", " -__-AQ= "] {
            assert_eq!(decode_hmac_key(written.as_bytes()), key, "{written}");
        }
        for written in ["", "=", "==", "no key", "-/", "a"] {
            assert!(decode_hmac_key(written.as_bytes()).is_empty(), "{written}");
        }
    }
}
