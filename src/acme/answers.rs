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

use super::storage::{Error, replace, told};
use crate::issued::Others;

/// The authorities that there are have 43 bytes.
const LONGEST_TOKEN: usize = 128;

/// An answer is a tenth of that.
const MAX_BYTES: u64 = 16 * 1024;

/// The answers in a storage.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    directory: PathBuf,
}

/// An answer that the other processes find; removed when dropped.
#[derive(Debug)]
pub(super) struct Shared(PathBuf);

impl Answers {
    pub(super) fn in_directory(root: &Path) -> Self {
        Self {
            directory: root.join("answers"),
        }
    }

    /// Empties the place: nobody else puts anything there.
    pub(super) fn clear(&self) -> Result<(), Error> {
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(told("cannot empty", &self.directory)(error))
            }
            _ => self.make(),
        }
    }

    /// What to answer to whoever asks for the token; `None`: this is none that could be asked for.
    pub(super) fn share_token(&self, token: &str, answer: &str) -> Result<Option<Shared>, Error> {
        let path = self.of_token(token);
        path.map(|path| self.share(path, answer)).transpose()
    }

    /// What to show for the name, PEM.
    pub(super) fn share_proof(&self, name: &str, pem: &str) -> Result<Option<Shared>, Error> {
        let path = self.of_name(name);
        path.map(|path| self.share(path, pem)).transpose()
    }

    fn share(&self, path: PathBuf, contents: &str) -> Result<Shared, Error> {
        self.make()?;
        replace(&path, contents.as_bytes())?;
        Ok(Shared(path))
    }

    fn make(&self) -> Result<(), Error> {
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.directory);
        made.map_err(told("cannot make", &self.directory))
    }

    fn of_token(&self, token: &str) -> Option<PathBuf> {
        let of_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let is_token = (1..=LONGEST_TOKEN).contains(&token.len()) && token.bytes().all(of_token);
        is_token.then(|| self.directory.join(format!("{token}.token")))
    }

    fn of_name(&self, name: &str) -> Option<PathBuf> {
        let leads_on = name.contains('/');
        (!leads_on).then(|| self.directory.join(format!("{name}.proof")))
    }
}

impl Others for Answers {
    fn token(&self, token: &str) -> Option<String> {
        String::from_utf8(read(&self.of_token(token)?)?).ok()
    }

    fn proof(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        certified(&read(&self.of_name(name)?)?).ok().map(Arc::new)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // What stays answers nobody: whoever leads next removes it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Where it cannot be read, nothing is said of it: clients choose how often that is.
fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).ok()?;
    file.take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The key and the certificate of a proof, which is not one that anybody could verify.
pub(super) fn certified(pem: &[u8]) -> Result<CertifiedKey, rustls::Error> {
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

    fn answers() -> (tempfile::TempDir, Answers) {
        let directory = tempfile::tempdir().unwrap();
        let answers = Answers::in_directory(directory.path());
        (directory, answers)
    }

    #[test]
    fn an_answer_is_found_while_it_is_held() {
        let (_directory, answers) = answers();
        assert_eq!(answers.token("abc_-9"), None);
        let held = answers.share_token("abc_-9", "abc_-9.thumb").unwrap();
        assert_eq!(answers.token("abc_-9").as_deref(), Some("abc_-9.thumb"));
        drop(held);
        assert_eq!(answers.token("abc_-9"), None);
    }

    #[test]
    fn a_proof_is_found_as_it_was_given() {
        let (_directory, answers) = answers();
        let made = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let pem = made.signing_key.serialize_pem() + &made.cert.pem();
        let _held = answers.share_proof("a.test", &pem).unwrap();
        let found = answers.proof("a.test").unwrap();
        assert_eq!(found.cert.first(), Some(made.cert.der()));
        assert!(answers.proof("b.test").is_none());
    }

    #[test]
    fn no_token_leads_out_of_the_place() {
        let (directory, answers) = answers();
        answers.clear().unwrap();
        fs::write(directory.path().join("secret.token"), "secret").unwrap();
        let long = "a".repeat(LONGEST_TOKEN + 1);
        for token in ["../secret", "", ".", "a/b", "a%2fb", "a.b", &long] {
            assert_eq!(answers.token(token), None, "{token}");
            assert!(answers.share_token(token, "").unwrap().is_none(), "{token}");
        }
        assert!(answers.proof("../secret").is_none());
    }

    #[test]
    fn who_begins_finds_nothing_of_who_was_before() {
        let (_directory, answers) = answers();
        let left = answers.share_token("abc", "answer").unwrap();
        std::mem::forget(left);
        answers.clear().unwrap();
        assert_eq!(answers.token("abc"), None);
    }
}
