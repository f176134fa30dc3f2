//! The certificates that were ordered, as the listeners show them; and what the authority is answered.
//!
//! One [`Issued`] lives as long as the process: configurations come and go, and a certificate that was
//! renewed is shown from the next handshake on. A [`Slot`] lives as long as a configuration that shows it,
//! one that is still being built included: while it does, the same names have the same slot. Nothing here
//! orders anything.
//!
//! ```text
//!  acme ── a certificate, answers to challenges ──► Issued ◄── handshakes, requests on port 80
//!    ▲                                                │
//!    └───────────── wishes of operators ──────────────┘
//! ```

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Weak};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::{Mutex, RwLock};
use rustls::sign::CertifiedKey;
use tokio::sync::{Notify, oneshot};

use crate::certificate::{CertWarning, Certificate};
use crate::config::DomainNames;

/// Everything that was ordered.
#[derive(Debug, Default)]
pub struct ManagedCerts {
    certs: Mutex<BTreeMap<DomainNames, Weak<ManagedCert>>>,
    /// What is answered to whoever asks for a token on port 80 (RFC 8555, 8.3).
    http01_answers: RwLock<HashMap<String, String>>,
    /// What is shown in a handshake for `acme-tls/1` (RFC 8737, 3), by name.
    alpn_certs: RwLock<HashMap<String, Arc<CertifiedKey>>>,
    shared_challenges: RwLock<Option<Arc<dyn SharedChallenges>>>,
    /// `None`: nobody hears them.
    requests: Mutex<Option<VecDeque<CertRequest>>>,
    changed: Notify,
}

/// What other processes answer that order certificates for the same names. To ask them blocks.
pub trait SharedChallenges: fmt::Debug + Send + Sync {
    /// As [`Issued::token`].
    fn key_authorization(&self, token: &str) -> Option<String>;
    /// As [`Issued::proof`].
    fn alpn_cert(&self, name: &str) -> Option<Arc<CertifiedKey>>;
}

/// One certificate, and what is known of it.
#[derive(Debug)]
pub struct ManagedCert {
    /// What it is for.
    pub names: DomainNames,
    /// The certificate; empty until it was issued for the first time.
    pub certificate: ArcSwapOption<Certificate>,
    /// How its orders go.
    pub status: ArcSwap<CertStatus>,
}

/// How the orders of a certificate go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertStatus {
    /// When it is ordered next, in seconds since 1970; `None`: that is not known yet.
    pub next_order: Option<i64>,
    /// An order is under way.
    pub order_in_progress: bool,
    /// Another process orders it.
    pub ordered_elsewhere: bool,
    /// Failures since the last success.
    pub failures: u32,
    /// The last failure, and when it was.
    pub error: Option<(i64, String)>,
}

/// What an operator wants of a certificate.
#[derive(Debug)]
pub struct CertRequest {
    /// What the certificate is called.
    pub name: String,
    /// What is to be done.
    pub action: CertAction,
    /// Who waits for it.
    pub reply: oneshot::Sender<Result<(), String>>,
}

/// What can be done with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertAction {
    /// Order it anew.
    Renew,
    /// Order it anew, and have the one before revoked.
    Revoke,
}

impl ManagedCerts {
    /// The place of the certificate for these names; made where there is none.
    pub fn get_or_insert(&self, names: &DomainNames) -> Arc<ManagedCert> {
        let mut slots = self.certs.lock();
        if let Some(slot) = slots.get(names).and_then(Weak::upgrade) {
            return slot;
        }
        slots.retain(|_, slot| slot.strong_count() > 0);
        let slot = Arc::new(ManagedCert {
            names: names.clone(),
            certificate: ArcSwapOption::empty(),
            status: ArcSwap::default(),
        });
        slots.insert(names.clone(), Arc::downgrade(&slot));
        slot
    }

    /// What there is to say of these certificates at this time (seconds since 1970), each with its name.
    pub fn warnings<'a>(
        &self,
        ordered: impl IntoIterator<Item = &'a DomainNames>,
        now: i64,
    ) -> Vec<(String, CertWarning)> {
        let concerns = ordered.into_iter().filter_map(|names| {
            let certificate = self.get_or_insert(names).certificate.load_full()?;
            let concern = certificate.warnings(now).next()?;
            Some((names.primary().to_owned(), concern))
        });
        concerns.collect()
    }

    /// What to answer to whoever asks for `token`; `None`: it is not ours.
    pub fn key_authorization(&self, token: &str) -> Option<String> {
        self.http01_answers.read().get(token).cloned()
    }

    /// What to show in a handshake for `acme-tls/1`; `None`: nobody should ask.
    pub fn alpn_cert(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.alpn_certs.read().get(name).cloned()
    }

    /// Whom to ask for what is not ours; `None`: nobody else orders.
    pub fn shared_challenges(&self) -> Option<Arc<dyn SharedChallenges>> {
        self.shared_challenges.read().clone()
    }

    /// From now on these are asked.
    pub fn set_shared_challenges(&self, others: Option<Arc<dyn SharedChallenges>>) {
        *self.shared_challenges.write() = others;
    }

    /// Answers to `token` until the value is dropped.
    pub fn serve_http01(self: &Arc<Self>, token: String, answer: String) -> ChallengeGuard {
        self.http01_answers.write().insert(token.clone(), answer);
        ChallengeGuard(Arc::clone(self), ChallengeId::Http01(token))
    }

    /// Shows `proof` for `name` until the value is dropped.
    pub fn serve_tls_alpn01(
        self: &Arc<Self>,
        name: String,
        proof: Arc<CertifiedKey>,
    ) -> ChallengeGuard {
        self.alpn_certs.write().insert(name.clone(), proof);
        ChallengeGuard(Arc::clone(self), ChallengeId::TlsAlpn01(name))
    }

    /// Asks for something, and waits until it is done.
    ///
    /// # Errors
    /// What to tell the operator.
    pub async fn request(&self, name: &str, what: CertAction) -> Result<(), String> {
        let (reply, done) = oneshot::channel();
        let name = name.to_owned();
        if let Some(wishes) = &mut *self.requests.lock() {
            wishes.push_back(CertRequest {
                name,
                action: what,
                reply,
            });
        } else {
            drop(reply);
        }
        self.notify();
        let gone = |_| "this process orders no certificates now; ask again".to_owned();
        done.await.unwrap_or_else(|error| Err(gone(error)))
    }

    /// From now on wishes are heard, or not; those that wait are told so.
    pub fn accept_requests(&self, heard: bool) {
        *self.requests.lock() = heard.then(VecDeque::new);
    }

    /// What was asked for first and not taken yet.
    pub fn next_request(&self) -> Option<CertRequest> {
        self.requests.lock().as_mut()?.pop_front()
    }

    /// There is something new: a wish, or another configuration.
    pub fn notify(&self) {
        self.changed.notify_one();
    }

    /// Waits for something new.
    pub async fn wait_changed(&self) {
        self.changed.notified().await;
    }
}

impl ManagedCert {
    /// Changes what is known of its orders.
    pub fn update_status(&self, change: impl Fn(&mut CertStatus)) {
        self.status.rcu(|status| {
            let mut status = CertStatus::clone(status);
            change(&mut status);
            status
        });
    }
}

/// An answer to a challenge; taken back when dropped.
#[derive(Debug)]
pub struct ChallengeGuard(Arc<ManagedCerts>, ChallengeId);

#[derive(Debug)]
enum ChallengeId {
    Http01(String),
    TlsAlpn01(String),
}

impl Drop for ChallengeGuard {
    fn drop(&mut self) {
        match &self.1 {
            ChallengeId::Http01(token) => drop(self.0.http01_answers.write().remove(token)),
            ChallengeId::TlsAlpn01(name) => drop(self.0.alpn_certs.write().remove(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &str) -> DomainNames {
        DomainNames::new(vec![name.to_owned()]).unwrap()
    }

    #[test]
    fn managed_cert_is_shared_for_equal_names() {
        let issued = ManagedCerts::default();
        let slot = issued.get_or_insert(&names("a.test"));
        assert!(Arc::ptr_eq(&slot, &issued.get_or_insert(&names("a.test"))));
        issued.get_or_insert(&names("b.test"));
        issued.get_or_insert(&names("c.test"));
        let kept: Vec<_> = issued.certs.lock().keys().cloned().collect();
        assert_eq!(
            kept,
            [names("a.test"), names("c.test")],
            "nobody shows b.test"
        );
    }

    #[test]
    fn managed_cert_token_is_served_while_its_guard_is_held() {
        let issued = Arc::new(ManagedCerts::default());
        let held = issued.serve_http01("token".to_owned(), "token.thumb".to_owned());
        assert_eq!(
            issued.key_authorization("token").as_deref(),
            Some("token.thumb")
        );
        drop(held);
        assert_eq!(issued.key_authorization("token"), None);
    }

    #[tokio::test]
    async fn cert_request_without_a_listener_returns_an_error() {
        let issued = Arc::new(ManagedCerts::default());
        assert!(issued.request("a.test", CertAction::Renew).await.is_err());
        issued.wait_changed().await;
        issued.accept_requests(true);
        let asked = Arc::clone(&issued);
        let asking = tokio::spawn(async move { asked.request("a.test", CertAction::Renew).await });
        issued.wait_changed().await;
        issued.accept_requests(false);
        assert!(asking.await.unwrap().is_err());
    }
}
