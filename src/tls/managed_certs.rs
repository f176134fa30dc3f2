//! The ACME certificates that listeners serve, and the answers to ACME challenges.
//!
//! One [`ManagedCerts`] exists for the whole process: a renewed certificate is served from the next handshake
//! on, without a reload. A [`ManagedCert`] exists while a configuration uses it; configurations with the same
//! names share one. Certificates are ordered elsewhere, in `acme`.
//!
//! ```text
//!  acme ── certificates, challenge answers ──► ManagedCerts ◄── handshakes, requests on port 80
//!    ▲                                             │
//!    └──────────── requests of operators ──────────┘
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

/// All ACME certificates of the process.
#[derive(Debug, Default)]
pub(crate) struct ManagedCerts {
    certs: Mutex<BTreeMap<DomainNames, Weak<ManagedCert>>>,
    /// The key authorizations for HTTP-01 (RFC 8555 §8.3), by token.
    http01_answers: RwLock<HashMap<String, String>>,
    /// The certificates for TLS-ALPN-01 (RFC 8737 §3), by name.
    alpn_certs: RwLock<HashMap<String, Arc<CertifiedKey>>>,
    shared_challenges: RwLock<Option<Arc<dyn SharedChallenges>>>,
    /// `None`: no task handles requests.
    requests: Mutex<Option<VecDeque<CertRequest>>>,
    changed: Notify,
}

/// The challenge answers of other processes that order certificates for the same names. All methods block.
pub(crate) trait SharedChallenges: fmt::Debug + Send + Sync {
    /// Like [`ManagedCerts::key_authorization`].
    fn key_authorization(&self, token: &str) -> Option<String>;
    /// Like [`ManagedCerts::alpn_cert`].
    fn alpn_cert(&self, name: &str) -> Option<Arc<CertifiedKey>>;
}

/// One ACME certificate and the state of its orders.
#[derive(Debug)]
pub(crate) struct ManagedCert {
    /// The names of the certificate.
    pub names: DomainNames,
    /// The certificate; empty until the first one is issued.
    pub certificate: ArcSwapOption<Certificate>,
    /// The state of its orders.
    pub status: ArcSwap<CertStatus>,
}

/// The state of the orders of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct CertStatus {
    /// The time of the next order, in seconds since 1970; `None`: unknown so far.
    pub next_order: Option<i64>,
    /// Whether an order is in progress.
    pub order_in_progress: bool,
    /// Whether another process orders it.
    pub ordered_elsewhere: bool,
    /// Failures since the last success.
    pub failures: u32,
    /// The time of the last failure, in seconds since 1970, and its message.
    pub error: Option<(i64, String)>,
}

/// An operator's request to renew or revoke a certificate.
#[derive(Debug)]
pub(crate) struct CertRequest {
    /// The first name of the certificate.
    pub name: String,
    /// The requested action.
    pub action: CertAction,
    /// The channel for the result.
    pub reply: oneshot::Sender<Result<(), String>>,
}

/// An action on a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CertAction {
    /// Order a new one.
    Renew,
    /// Order a new one, then revoke the previous one.
    Revoke,
}

impl ManagedCerts {
    /// The certificate for these names, created if it does not exist.
    pub(crate) fn get_or_insert(&self, names: &DomainNames) -> Arc<ManagedCert> {
        let mut certs = self.certs.lock();
        if let Some(cert) = certs.get(names).and_then(Weak::upgrade) {
            return cert;
        }
        certs.retain(|_, cert| cert.strong_count() > 0);
        let cert = Arc::new(ManagedCert {
            names: names.clone(),
            certificate: ArcSwapOption::empty(),
            status: ArcSwap::default(),
        });
        certs.insert(names.clone(), Arc::downgrade(&cert));
        cert
    }

    /// The warnings about these certificates at time `now` (seconds since 1970), each with the certificate's
    /// first name.
    pub(crate) fn warnings<'a>(
        &self,
        names: impl IntoIterator<Item = &'a DomainNames>,
        now: i64,
    ) -> Vec<(String, CertWarning)> {
        let warnings = names.into_iter().filter_map(|names| {
            let certificate = self.get_or_insert(names).certificate.load_full()?;
            let warning = certificate.warnings(now).next()?;
            Some((names.primary().to_owned(), warning))
        });
        warnings.collect()
    }

    /// The HTTP-01 answer for `token`; `None`: this process has no challenge with this token.
    pub(crate) fn key_authorization(&self, token: &str) -> Option<String> {
        self.http01_answers.read().get(token).cloned()
    }

    /// The TLS-ALPN-01 certificate for `name`; `None`: this process has no challenge for this name.
    pub(crate) fn alpn_cert(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.alpn_certs.read().get(name).cloned()
    }

    /// The challenges of other processes; `None`: no ACME storage is open.
    pub(crate) fn shared_challenges(&self) -> Option<Arc<dyn SharedChallenges>> {
        self.shared_challenges.read().clone()
    }

    /// Sets the challenges of other processes.
    pub(crate) fn set_shared_challenges(&self, challenges: Option<Arc<dyn SharedChallenges>>) {
        *self.shared_challenges.write() = challenges;
    }

    /// Serves `answer` for `token` until the guard is dropped.
    pub(crate) fn serve_http01(self: &Arc<Self>, token: String, answer: String) -> ChallengeGuard {
        self.http01_answers.write().insert(token.clone(), answer);
        ChallengeGuard(Arc::clone(self), ChallengeId::Http01(token))
    }

    /// Serves `cert` in TLS-ALPN-01 handshakes for `name` until the guard is dropped.
    pub(crate) fn serve_tls_alpn01(
        self: &Arc<Self>,
        name: String,
        cert: Arc<CertifiedKey>,
    ) -> ChallengeGuard {
        self.alpn_certs.write().insert(name.clone(), cert);
        ChallengeGuard(Arc::clone(self), ChallengeId::TlsAlpn01(name))
    }

    /// Requests an action on a certificate, and waits until it is done.
    ///
    /// # Errors
    /// A message for the operator.
    pub(crate) async fn request(&self, name: &str, action: CertAction) -> Result<(), String> {
        let (reply, done) = oneshot::channel();
        let name = name.to_owned();
        if let Some(requests) = &mut *self.requests.lock() {
            requests.push_back(CertRequest {
                name,
                action,
                reply,
            });
        } else {
            drop(reply);
        }
        self.notify();
        // The sender is dropped if no task handles requests, or if that task ends.
        let message = "this process does not order certificates now; try again later";
        done.await.unwrap_or_else(|_| Err(message.to_owned()))
    }

    /// Starts or stops accepting requests; those that are waiting fail.
    pub(crate) fn accept_requests(&self, accept: bool) {
        *self.requests.lock() = accept.then(VecDeque::new);
    }

    /// Takes the oldest request.
    pub(crate) fn next_request(&self) -> Option<CertRequest> {
        self.requests.lock().as_mut()?.pop_front()
    }

    /// Wakes the ACME task: there is a new request or a new configuration.
    pub(crate) fn notify(&self) {
        self.changed.notify_one();
    }

    /// Waits for [`Self::notify`].
    pub(crate) async fn wait_changed(&self) {
        self.changed.notified().await;
    }
}

impl ManagedCert {
    /// Changes the state of its orders. `change` may run several times.
    pub(crate) fn update_status(&self, change: impl Fn(&mut CertStatus)) {
        self.status.rcu(|status| {
            let mut status = CertStatus::clone(status);
            change(&mut status);
            status
        });
    }
}

/// Keeps the answer to a challenge available until it is dropped.
#[derive(Debug)]
pub(crate) struct ChallengeGuard(Arc<ManagedCerts>, ChallengeId);

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
        let managed = ManagedCerts::default();
        let cert = managed.get_or_insert(&names("a.test"));
        assert!(Arc::ptr_eq(&cert, &managed.get_or_insert(&names("a.test"))));
        managed.get_or_insert(&names("b.test"));
        managed.get_or_insert(&names("c.test"));
        let names_left: Vec<_> = managed.certs.lock().keys().cloned().collect();
        assert_eq!(
            names_left,
            [names("a.test"), names("c.test")],
            "b.test is in no configuration"
        );
    }

    #[test]
    fn managed_cert_token_is_served_while_its_guard_is_held() {
        let managed = Arc::new(ManagedCerts::default());
        let guard = managed.serve_http01("token".to_owned(), "token.thumb".to_owned());
        assert_eq!(
            managed.key_authorization("token").as_deref(),
            Some("token.thumb")
        );
        drop(guard);
        assert_eq!(managed.key_authorization("token"), None);
    }

    #[tokio::test]
    async fn cert_request_without_a_listener_returns_an_error() {
        let managed = Arc::new(ManagedCerts::default());
        assert!(managed.request("a.test", CertAction::Renew).await.is_err());
        managed.wait_changed().await;
        managed.accept_requests(true);
        let requester = Arc::clone(&managed);
        let requesting =
            tokio::spawn(async move { requester.request("a.test", CertAction::Renew).await });
        managed.wait_changed().await;
        managed.accept_requests(false);
        assert!(requesting.await.unwrap().is_err());
    }
}
