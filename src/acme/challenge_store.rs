//! Answers to challenges, shared by all processes that use the same storage: one process orders, but the
//! authority may connect to any of them. All functions block.
//!
//! ```text
//!  STORAGE/HOST-PATH/answers/      0700
//!    TOKEN.token                   0600, the key authorization (RFC 8555 §8.3)
//!    example.org.proof             0600, key and certificate for TLS-ALPN-01 (RFC 8737 §3)
//! ```
//!
//! A file is written before the authority is asked to validate, and removed when it has validated; a new
//! leader removes files that a killed process has left. Any client can send a token: it becomes part of a file
//! name only if it is valid (RFC 8555 §8.3: base64url), so no path leads out of the directory.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::files::{Error, io_error, replace_file};
use crate::tls::SharedChallenges;

/// The longest token; bytes. Known authorities use 43.
const MAX_TOKEN_LEN: usize = 128;

/// At most this much of an answer is read; bytes. Real ones are about a tenth of this.
const MAX_FILE_BYTES: u64 = 16 * 1024;

/// The directory with the answers.
#[derive(Clone, Debug)]
pub(super) struct ChallengeStore {
    directory: PathBuf,
}

/// An answer in the directory; removed when dropped.
#[derive(Debug)]
pub(super) struct StoredChallenge(PathBuf);

impl ChallengeStore {
    pub(super) fn in_directory(root: &Path) -> Self {
        Self {
            directory: root.join("answers"),
        }
    }

    /// Removes all answers. Only the leader may call this: it is the only process that writes there.
    pub(super) fn clear(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("cannot empty", &self.directory)(error))
            }
            _ => self.create_directory(),
        }
    }

    /// Stores the answer for a token; `None`: the token is not valid, so no request can get its answer.
    pub(super) fn put_token(
        &self,
        token: &str,
        answer: &str,
    ) -> Result<Option<StoredChallenge>, Error> {
        let path = self.token_path(token);
        path.map(|path| self.put(path, answer)).transpose()
    }

    /// Stores key and certificate for a name, PEM; `None`: the name is not valid.
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
        let created = builder.recursive(true).mode(0o700).create(&self.directory);
        created.map_err(io_error("cannot create", &self.directory))
    }

    fn token_path(&self, token: &str) -> Option<PathBuf> {
        let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let is_token =
            (1..=MAX_TOKEN_LEN).contains(&token.len()) && token.bytes().all(is_base64url);
        is_token.then(|| self.directory.join(format!("{token}.token")))
    }

    fn certificate_path(&self, name: &str) -> Option<PathBuf> {
        let is_path = name.contains('/');
        (!is_path).then(|| self.directory.join(format!("{name}.proof")))
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
        // A failure is harmless: the next leader removes the file.
        let _ = fs::remove_file(&self.0);
    }
}

/// Reads a file. Errors are not logged: a client could fill the log with them.
fn read_file(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// Key and certificate for TLS-ALPN-01, from PEM. The certificate is self-signed.
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

    fn store() -> (tempfile::TempDir, ChallengeStore) {
        let directory = tempfile::tempdir().unwrap();
        let store = ChallengeStore::in_directory(directory.path());
        (directory, store)
    }

    #[test]
    fn acme_token_is_served_only_while_its_guard_is_held() {
        let (_directory, store) = store();
        assert_eq!(store.key_authorization("abc_-9"), None);
        let stored = store.put_token("abc_-9", "abc_-9.thumb").unwrap();
        assert_eq!(
            store.key_authorization("abc_-9").as_deref(),
            Some("abc_-9.thumb")
        );
        drop(stored);
        assert_eq!(store.key_authorization("abc_-9"), None);
    }

    #[test]
    fn tls_alpn_proof_is_found_by_name_with_its_certificate() {
        let (_directory, store) = store();
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let pem = made.signing_key.serialize_pem() + &made.cert.pem();
        let _stored = store.put_certificate("a.test", &pem).unwrap();
        let found = store.alpn_cert("a.test").unwrap();
        assert_eq!(found.cert.first(), Some(made.cert.der()));
        assert!(store.alpn_cert("b.test").is_none());
    }

    #[test]
    fn challenge_token_with_path_traversal_is_rejected() {
        let (directory, store) = store();
        store.clear().unwrap();
        fs::write(directory.path().join("secret.token"), "secret").unwrap();
        let long = "a".repeat(MAX_TOKEN_LEN + 1);
        for token in ["../secret", "", ".", "a/b", "a%2fb", "a.b", &long] {
            assert_eq!(store.key_authorization(token), None, "{token}");
            assert!(store.put_token(token, "").unwrap().is_none(), "{token}");
        }
        assert!(store.alpn_cert("../secret").is_none());
    }

    #[test]
    fn challenge_store_at_start_drops_tokens_of_the_previous_process() {
        let (_directory, store) = store();
        let leftover = store.put_token("abc", "answer").unwrap();
        std::mem::forget(leftover);
        store.clear().unwrap();
        assert_eq!(store.key_authorization("abc"), None);
    }
}
