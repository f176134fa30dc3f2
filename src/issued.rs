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

use crate::certificate::{Certificate, Concern};
use crate::config::Names;

/// Everything that was ordered.
#[derive(Debug, Default)]
pub struct Issued {
    slots: Mutex<BTreeMap<Names, Weak<Slot>>>,
    /// What is answered to whoever asks for a token on port 80 (RFC 8555, 8.3).
    tokens: RwLock<HashMap<String, String>>,
    /// What is shown in a handshake for `acme-tls/1` (RFC 8737, 3), by name.
    proofs: RwLock<HashMap<String, Arc<CertifiedKey>>>,
    others: RwLock<Option<Arc<dyn Others>>>,
    /// `None`: nobody hears them.
    wishes: Mutex<Option<VecDeque<Wish>>>,
    news: Notify,
}

/// What other processes answer that order certificates for the same names. To ask them blocks.
pub trait Others: fmt::Debug + Send + Sync {
    /// As [`Issued::token`].
    fn token(&self, token: &str) -> Option<String>;
    /// As [`Issued::proof`].
    fn proof(&self, name: &str) -> Option<Arc<CertifiedKey>>;
}

/// One certificate, and what is known of it.
#[derive(Debug)]
pub struct Slot {
    /// What it is for.
    pub names: Names,
    /// The certificate; empty until it was issued for the first time.
    pub certificate: ArcSwapOption<Certificate>,
    /// How its orders go.
    pub status: ArcSwap<Status>,
}

/// How the orders of a certificate go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// When it is ordered next, in seconds since 1970; `None`: that is not known yet.
    pub next: Option<i64>,
    /// An order is under way.
    pub busy: bool,
    /// Another process orders it.
    pub elsewhere: bool,
    /// Failures since the last success.
    pub failures: u32,
    /// The last failure, and when it was.
    pub error: Option<(i64, String)>,
}

/// What an operator wants of a certificate.
#[derive(Debug)]
pub struct Wish {
    /// What the certificate is called.
    pub name: String,
    /// What is to be done.
    pub what: Deed,
    /// Who waits for it.
    pub reply: oneshot::Sender<Result<(), String>>,
}

/// What can be done with a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// Order it anew.
    Renew,
    /// Order it anew, and have the one before revoked.
    Revoke,
}

impl Issued {
    /// The place of the certificate for these names; made where there is none.
    pub fn slot(&self, names: &Names) -> Arc<Slot> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(names).and_then(Weak::upgrade) {
            return slot;
        }
        slots.retain(|_, slot| slot.strong_count() > 0);
        let slot = Arc::new(Slot {
            names: names.clone(),
            certificate: ArcSwapOption::empty(),
            status: ArcSwap::default(),
        });
        slots.insert(names.clone(), Arc::downgrade(&slot));
        slot
    }

    /// What there is to say of these certificates at this time (seconds since 1970), each with its name.
    pub fn concerns<'a>(
        &self,
        ordered: impl IntoIterator<Item = &'a Names>,
        now: i64,
    ) -> Vec<(String, Concern)> {
        let concerns = ordered.into_iter().filter_map(|names| {
            let certificate = self.slot(names).certificate.load_full()?;
            let concern = certificate.concerns(now).next()?;
            Some((names.first().to_owned(), concern))
        });
        concerns.collect()
    }

    /// What to answer to whoever asks for `token`; `None`: it is not ours.
    pub fn token(&self, token: &str) -> Option<String> {
        self.tokens.read().get(token).cloned()
    }

    /// What to show in a handshake for `acme-tls/1`; `None`: nobody should ask.
    pub fn proof(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.proofs.read().get(name).cloned()
    }

    /// Whom to ask for what is not ours; `None`: nobody else orders.
    pub fn others(&self) -> Option<Arc<dyn Others>> {
        self.others.read().clone()
    }

    /// From now on these are asked.
    pub fn ask_others(&self, others: Option<Arc<dyn Others>>) {
        *self.others.write() = others;
    }

    /// Answers to `token` until the value is dropped.
    pub fn answer(self: &Arc<Self>, token: String, answer: String) -> Answer {
        self.tokens.write().insert(token.clone(), answer);
        Answer(Arc::clone(self), What::Token(token))
    }

    /// Shows `proof` for `name` until the value is dropped.
    pub fn prove(self: &Arc<Self>, name: String, proof: Arc<CertifiedKey>) -> Answer {
        self.proofs.write().insert(name.clone(), proof);
        Answer(Arc::clone(self), What::Proof(name))
    }

    /// Asks for something, and waits until it is done.
    ///
    /// # Errors
    /// What to tell the operator.
    pub async fn wish(&self, name: &str, what: Deed) -> Result<(), String> {
        let (reply, done) = oneshot::channel();
        let name = name.to_owned();
        if let Some(wishes) = &mut *self.wishes.lock() {
            wishes.push_back(Wish { name, what, reply });
        } else {
            drop(reply);
        }
        self.tell();
        let gone = |_| "this process orders no certificates now; ask again".to_owned();
        done.await.unwrap_or_else(|error| Err(gone(error)))
    }

    /// From now on wishes are heard, or not; those that wait are told so.
    pub fn hear_wishes(&self, heard: bool) {
        *self.wishes.lock() = heard.then(VecDeque::new);
    }

    /// What was asked for first and not taken yet.
    pub fn next_wish(&self) -> Option<Wish> {
        self.wishes.lock().as_mut()?.pop_front()
    }

    /// There is something new: a wish, or another configuration.
    pub fn tell(&self) {
        self.news.notify_one();
    }

    /// Waits for something new.
    pub async fn news(&self) {
        self.news.notified().await;
    }
}

impl Slot {
    /// Changes what is known of its orders.
    pub fn note(&self, change: impl Fn(&mut Status)) {
        self.status.rcu(|status| {
            let mut status = Status::clone(status);
            change(&mut status);
            status
        });
    }
}

/// An answer to a challenge; taken back when dropped.
#[derive(Debug)]
pub struct Answer(Arc<Issued>, What);

#[derive(Debug)]
enum What {
    Token(String),
    Proof(String),
}

impl Drop for Answer {
    fn drop(&mut self) {
        match &self.1 {
            What::Token(token) => drop(self.0.tokens.write().remove(token)),
            What::Proof(name) => drop(self.0.proofs.write().remove(name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &str) -> Names {
        Names::new(vec![name.to_owned()]).unwrap()
    }

    #[test]
    fn one_place_for_the_same_names() {
        let issued = Issued::default();
        let slot = issued.slot(&names("a.test"));
        assert!(Arc::ptr_eq(&slot, &issued.slot(&names("a.test"))));
        issued.slot(&names("b.test"));
        issued.slot(&names("c.test"));
        let kept: Vec<_> = issued.slots.lock().keys().cloned().collect();
        assert_eq!(
            kept,
            [names("a.test"), names("c.test")],
            "nobody shows b.test"
        );
    }

    #[test]
    fn an_answer_is_given_as_long_as_it_is_held() {
        let issued = Arc::new(Issued::default());
        let held = issued.answer("token".to_owned(), "token.thumb".to_owned());
        assert_eq!(issued.token("token").as_deref(), Some("token.thumb"));
        drop(held);
        assert_eq!(issued.token("token"), None);
    }

    #[tokio::test]
    async fn a_wish_that_nobody_hears_is_told_so() {
        let issued = Arc::new(Issued::default());
        assert!(issued.wish("a.test", Deed::Renew).await.is_err());
        issued.news().await;
        issued.hear_wishes(true);
        let asked = Arc::clone(&issued);
        let asking = tokio::spawn(async move { asked.wish("a.test", Deed::Renew).await });
        issued.news().await;
        issued.hear_wishes(false);
        assert!(asking.await.unwrap().is_err());
    }
}
