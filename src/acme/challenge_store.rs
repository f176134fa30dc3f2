//! Answers to challenges, for the other processes that share the storage: the authority looks at any of
//! them, and one orders.
//!
//! ```text
//!  STORAGE/HOST-PATH/answers/      0700
//!    TOKEN.token                   0600, what to answer (RFC 8555, 8.3)
//!    example.org.proof             0600, the key and the certificate to show (RFC 8737, 3)
//! ```
//!
//! A file is there from before the authority is asked to look until it has looked; whoever begins to lead
//! removes what a process has left that was killed. A token comes from whoever asks: it names a file only
//! where it is one (RFC 8555, 8.3: base64url), and so no way leads out of the directory.
//!
//! Everything here blocks.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::storage::{Error, io_error, replace_file};
use crate::tls::SharedChallenges;

/// The authorities that there are have 43 bytes.
const MAX_TOKEN_LEN: usize = 128;

/// An answer is a tenth of that.
const MAX_FILE_BYTES: u64 = 16 * 1024;

/// The answers in a storage.
#[derive(Clone, Debug)]
pub(super) struct ChallengeStore {
    directory: PathBuf,
}

/// An answer that the other processes find; removed when dropped.
#[derive(Debug)]
pub(super) struct StoredChallenge(PathBuf);

impl ChallengeStore {
    pub(super) fn in_directory(root: &Path) -> Self {
        Self {
            directory: root.join("answers"),
        }
    }

    /// Empties the place: nobody else puts anything there.
    pub(super) fn clear(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("cannot empty", &self.directory)(error))
            }
            _ => self.create_directory(),
        }
    }

    /// What to answer to whoever asks for the token; `None`: this is none that could be asked for.
    pub(super) fn put_token(
        &self,
        token: &str,
        answer: &str,
    ) -> Result<Option<StoredChallenge>, Error> {
        let path = self.token_path(token);
        path.map(|path| self.put(path, answer)).transpose()
    }

    /// What to show for the name, PEM.
    pub(super) fn put_certificate(
        &self,
        name: &str,
        pem: &str,
    ) -> Result<Option<StoredChallenge>, Error> {
        let path = self.certificate_path(name);
        path.map(|path| self.put(path, pem)).transpose()
    }

    fn put(&self, path: PathBuf, contents: &str) -> Result<StoredChallenge, Error> {
        self.create_directory()?;
        replace_file(&path, contents.as_bytes())?;
        Ok(StoredChallenge(path))
    }

    fn create_directory(&self) -> Result<(), Error> {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.directory);
        made.map_err(io_error("cannot make", &self.directory))
    }

    fn token_path(&self, token: &str) -> Option<PathBuf> {
        let of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let is_token = (1..=MAX_TOKEN_LEN).contains(&token.len()) && token.bytes().all(of_token);
        is_token.then(|| self.directory.join(format!("{token}.token")))
    }

    fn certificate_path(&self, name: &str) -> Option<PathBuf> {
        let leads_on = name.contains('/');
        (!leads_on).then(|| self.directory.join(format!("{name}.proof")))
    }
}

impl SharedChallenges for ChallengeStore {
    fn key_authorization(&self, token: &str) -> Option<String> {
        String::from_utf8(read_file(&self.token_path(token)?)?).ok()
    }

    fn alpn_cert(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        parse_challenge_cert(&read_file(&self.certificate_path(name)?)?)
            .ok()
            .map(Arc::new)
    }
}

impl Drop for StoredChallenge {
    fn drop(&mut self) {
        // What stays answers nobody: whoever leads next removes it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Where it cannot be read, nothing is said of it: clients choose how often that is.
fn read_file(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The key and the certificate of a proof, which is not one that anybody could verify.
pub(super) fn parse_challenge_cert(pem: &[u8]) -> Result<CertifiedKey, rustls::Error> {
    let unreadable =
        |error: rustls_pki_types::pem::Error| rustls::Error::General(error.to_string());
    let certificate = CertificateDer::from_pem_slice(pem).map_err(unreadable)?;
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(unreadable)?;
    let key = any_supported_type(&key)?;
    Ok(CertifiedKey::new(vec![certificate], key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers() -> (tempfile::TempDir, ChallengeStore) {
        let directory = tempfile::tempdir().unwrap();
        let answers = ChallengeStore::in_directory(directory.path());
        (directory, answers)
    }

    #[test]
    fn acme_token_is_served_only_while_its_guard_is_held() {
        let (_directory, answers) = answers();
        assert_eq!(answers.key_authorization("abc_-9"), None);
        let held = answers.put_token("abc_-9", "abc_-9.thumb").unwrap();
        assert_eq!(
            answers.key_authorization("abc_-9").as_deref(),
            Some("abc_-9.thumb")
        );
        drop(held);
        assert_eq!(answers.key_authorization("abc_-9"), None);
    }

    #[test]
    fn tls_alpn_proof_is_found_by_name_with_its_certificate() {
        let (_directory, answers) = answers();
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let pem = made.signing_key.serialize_pem() + &made.cert.pem();
        let _held = answers.put_certificate("a.test", &pem).unwrap();
        let found = answers.alpn_cert("a.test").unwrap();
        assert_eq!(found.cert.first(), Some(made.cert.der()));
        assert!(answers.alpn_cert("b.test").is_none());
    }

    #[test]
    fn challenge_token_with_path_traversal_is_rejected() {
        let (directory, answers) = answers();
        answers.clear().unwrap();
        fs::write(directory.path().join("secret.token"), "secret").unwrap();
        let long = "a".repeat(MAX_TOKEN_LEN + 1);
        for token in ["../secret", "", ".", "a/b", "a%2fb", "a.b", &long] {
            assert_eq!(answers.key_authorization(token), None, "{token}");
            assert!(answers.put_token(token, "").unwrap().is_none(), "{token}");
        }
        assert!(answers.alpn_cert("../secret").is_none());
    }

    #[test]
    fn challenge_store_at_start_drops_tokens_of_the_previous_process() {
        let (_directory, answers) = answers();
        let left = answers.put_token("abc", "answer").unwrap();
        std::mem::forget(left);
        answers.clear().unwrap();
        assert_eq!(answers.key_authorization("abc"), None);
    }
}
