//! Session tickets: with one, a client resumes a session without a full handshake.
//!
//! A ticket is `key name | nonce | ciphertext`, sealed with AES-256-GCM. The key is replaced every
//! [`ROTATION_PERIOD`]; tickets of the previous key are still accepted, so a ticket is valid for at most two
//! periods (RFC 8446 §4.6.1 allows a week). The keys stay in use after a reload, and a hot restart passes them
//! to the next process; they are never written to a disk.
//!
//! A ticket is valid only in the scope that it was made for (see [`SessionTickets::scoped`]): the scope is the
//! additional authenticated data of the encryption.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::server::ProducesTickets;
use serde::{Deserialize, Serialize};

use crate::clock;

/// The time for which a key encrypts new tickets. Random nonces are safe for 2^32 tickets (NIST SP 800-38D
/// §8.3), far more than are made in this time.
const ROTATION_PERIOD: Duration = Duration::from_secs(6 * 3600);

/// Bytes of the name of a key.
const KEY_NAME_LEN: usize = 16;

/// The ticket keys of the process.
pub(crate) struct SessionTickets {
    ring: Mutex<TicketKeyRing>,
}

/// The current key and the previous one.
struct TicketKeyRing {
    current: Option<TicketKey>,
    previous: Option<TicketKey>,
    /// When `current` is replaced, on the clock of [`clock::since_start`].
    rotate_at: Duration,
}

#[derive(Clone)]
struct TicketKey {
    raw: RawTicketKey,
    aead: Arc<LessSafeKey>,
}

#[derive(Clone, Deserialize, Serialize)]
struct RawTicketKey {
    name: [u8; KEY_NAME_LEN],
    secret: [u8; 32],
}

/// The ticket keys as sent to the next process.
#[derive(Clone, Default, Deserialize, Serialize)]
pub(crate) struct TicketKeys {
    current: Option<RawTicketKey>,
    previous: Option<RawTicketKey>,
    /// The time until the current key is replaced.
    left: Duration,
}

impl SessionTickets {
    /// Creates keys. If the system's random generator fails, there are none, and every handshake is a full one.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            ring: Mutex::new(TicketKeyRing {
                current: TicketKey::generate(),
                previous: None,
                rotate_at: clock::since_start() + ROTATION_PERIOD,
            }),
        })
    }

    /// The keys for the next process.
    pub(crate) fn export_keys(&self) -> TicketKeys {
        let ring = self.ring.lock();
        let raw = |key: &Option<TicketKey>| key.as_ref().map(|key| key.raw.clone());
        TicketKeys {
            current: raw(&ring.current),
            previous: raw(&ring.previous),
            left: ring.rotate_at.saturating_sub(clock::since_start()),
        }
    }

    /// Takes over the keys of the previous process, if it had any.
    pub(crate) fn import_keys(&self, keys: TicketKeys) {
        let Some(current) = keys.current.and_then(TicketKey::new) else {
            return;
        };
        *self.ring.lock() = TicketKeyRing {
            current: Some(current),
            previous: keys.previous.and_then(TicketKey::new),
            rotate_at: clock::since_start() + keys.left.min(ROTATION_PERIOD),
        };
    }

    /// A ticketer for a scope. Its tickets are valid in any listener and configuration with the same scope.
    pub(crate) fn scoped(tickets: &Arc<Self>, scope: &[u8]) -> Arc<dyn ProducesTickets> {
        let mut scope_hash = [0; 32];
        scope_hash.copy_from_slice(digest(&SHA256, scope).as_ref());
        Arc::new(ScopedTickets {
            tickets: Arc::clone(tickets),
            scope: scope_hash,
        })
    }

    /// The key that encrypts new tickets.
    fn current_key(&self, now: Duration) -> Option<TicketKey> {
        let mut ring = self.ring.lock();
        ring.rotate_if_due(now);
        ring.current.clone()
    }

    fn key_by_name(&self, name: &[u8], now: Duration) -> Option<TicketKey> {
        let mut ring = self.ring.lock();
        ring.rotate_if_due(now);
        let keys = [&ring.current, &ring.previous];
        let found = keys.into_iter().flatten().find(|key| key.raw.name == name);
        found.cloned()
    }
}

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TicketKeys").finish_non_exhaustive()
    }
}

impl fmt::Debug for SessionTickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionTickets").finish_non_exhaustive()
    }
}

impl TicketKeyRing {
    /// Replaces the current key after its period. The old key becomes the previous one, unless it is older than
    /// two periods.
    fn rotate_if_due(&mut self, now: Duration) {
        let Some(overdue) = now.checked_sub(self.rotate_at) else {
            return;
        };
        let expired = self.current.take();
        self.previous = expired.filter(|_| overdue < ROTATION_PERIOD);
        self.current = TicketKey::generate();
        self.rotate_at = now + ROTATION_PERIOD;
    }
}

impl TicketKey {
    fn generate() -> Option<Self> {
        let random = SystemRandom::new();
        let (mut name, mut secret) = ([0; KEY_NAME_LEN], [0; 32]);
        random.fill(&mut name).ok()?;
        random.fill(&mut secret).ok()?;
        Self::new(RawTicketKey { name, secret })
    }

    fn new(raw: RawTicketKey) -> Option<Self> {
        let key = UnboundKey::new(&AES_256_GCM, &raw.secret).ok()?;
        Some(Self {
            raw,
            aead: Arc::new(LessSafeKey::new(key)),
        })
    }

    fn seal(&self, plain: &[u8], scope: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        SystemRandom::new().fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let aad = Aad::from(scope);
        self.aead
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .ok()?;
        Some([&self.raw.name[..], &nonce, &sealed].concat())
    }

    fn open(&self, nonce: &[u8], sealed: &[u8], scope: &[u8]) -> Option<Vec<u8>> {
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut sealed = sealed.to_vec();
        let plain = self
            .aead
            .open_in_place(nonce, Aad::from(scope), &mut sealed);
        plain.ok().map(|plain| plain.to_vec())
    }
}

/// The ticketer of one scope.
#[derive(Debug)]
struct ScopedTickets {
    tickets: Arc<SessionTickets>,
    scope: [u8; 32],
}

impl ProducesTickets for ScopedTickets {
    fn enabled(&self) -> bool {
        true
    }

    /// The time for which a ticket made now is accepted in any case; seconds.
    fn lifetime(&self) -> u32 {
        u32::try_from(ROTATION_PERIOD.as_secs()).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let key = self.tickets.current_key(clock::since_start())?;
        key.seal(plain, &self.scope)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_at_checked(KEY_NAME_LEN)?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let key = self.tickets.key_by_name(name, clock::since_start())?;
        key.open(nonce, sealed, &self.scope)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_ticket_is_valid_only_in_its_scope() {
        let tickets = SessionTickets::new();
        let (one, same) = (
            SessionTickets::scoped(&tickets, b"a"),
            SessionTickets::scoped(&tickets, b"a"),
        );
        let other = SessionTickets::scoped(&tickets, b"b");
        let ticket = one.encrypt(b"session").unwrap();
        assert_eq!(same.decrypt(&ticket).unwrap(), b"session");
        assert_eq!(other.decrypt(&ticket), None);
    }

    #[test]
    fn session_ticket_that_is_damaged_is_rejected() {
        let tickets = SessionTickets::scoped(&SessionTickets::new(), b"");
        let ticket = tickets.encrypt(b"session").unwrap();
        for length in 0..ticket.len() {
            assert_eq!(tickets.decrypt(&ticket[..length]), None);
            let mut damaged = ticket.clone();
            damaged[length] ^= 1;
            assert_eq!(tickets.decrypt(&damaged), None);
        }
    }

    #[test]
    fn session_ticket_key_issues_for_one_period_and_accepts_for_two() {
        let tickets = SessionTickets::new();
        let start = tickets
            .ring
            .lock()
            .rotate_at
            .saturating_sub(ROTATION_PERIOD);
        let name = |after| tickets.current_key(start + after).unwrap().raw.name;
        let first = name(Duration::ZERO);
        assert_eq!(name(ROTATION_PERIOD / 2), first);
        let second = name(ROTATION_PERIOD);
        assert_ne!(second, first);
        assert!(
            tickets
                .key_by_name(&first, start + ROTATION_PERIOD * 3 / 2)
                .is_some()
        );
        assert!(
            tickets
                .key_by_name(&first, start + ROTATION_PERIOD * 2)
                .is_none()
        );
        assert!(
            tickets
                .key_by_name(&second, start + ROTATION_PERIOD * 2)
                .is_some()
        );
    }

    #[test]
    fn session_ticket_key_expires_during_inactivity() {
        let tickets = SessionTickets::new();
        let start = tickets
            .ring
            .lock()
            .rotate_at
            .saturating_sub(ROTATION_PERIOD);
        let first = tickets.current_key(start).unwrap().raw.name;
        assert!(
            tickets
                .key_by_name(&first, start + ROTATION_PERIOD * 2)
                .is_none()
        );
    }

    #[test]
    fn session_ticket_of_the_previous_process_is_accepted() {
        let (old, new) = (SessionTickets::new(), SessionTickets::new());
        let ticket = SessionTickets::scoped(&old, b"a")
            .encrypt(b"session")
            .unwrap();
        let exported = serde_json::to_string(&old.export_keys()).unwrap();
        new.import_keys(serde_json::from_str(&exported).unwrap());
        let found = SessionTickets::scoped(&new, b"a").decrypt(&ticket);
        assert_eq!(found.unwrap(), b"session");
        new.import_keys(TicketKeys::default());
        assert!(
            SessionTickets::scoped(&new, b"a")
                .decrypt(&ticket)
                .is_some()
        );
    }
}
