//! A connection to one member of etcd.
//!
//! `etcd-client` 0.21.1 balances requests over all members and connects again by itself, without a limit in time, an order
//! or a report. Here a connection has one member and ends with its first error; the next one authenticates again, too.

use std::error::Error as StdError;
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use etcd_client::{
    Client, ConnectOptions, Error, EventType, GetOptions, GetResponse, Identity, KeyValue,
    KvClient, ResponseHeader, TlsOptions, WatchClient, WatchOptions, WatchResponse, WatchStream,
};
use rustls::RootCertStore;
use rustls_pki_types::PrivateKeyDer;

use super::entries::{KeyEvent, KeyState};
use super::position::StorePosition;
use crate::config::{EtcdAccess, Secret};

/// For a TCP connect to one address of a member.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// For the answer to one request, with the connect before it.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Between two PINGs while a watch waits. A member closes connections with PINGs that are less than 5 s apart.
const PING_INTERVAL: Duration = Duration::from_secs(6);

/// For the answer to a PING.
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// The keys of one page of a list.
const PAGE_KEYS: i64 = 1000;

/// The largest answer, in bytes: as a file with a list. The value of a key has at most 1.5 MiB.
const MAX_ANSWER: usize = 16 << 20;

/// The error of a cluster that has no users.
const NO_AUTHENTICATION: &str = "authentication is not enabled";

/// A connection to one member.
pub(super) struct EtcdConnection {
    url: String,
    kv: KvClient,
    watch: WatchClient,
}

/// A page of a list.
pub(super) struct ListPage {
    pub(super) keys: Vec<KeyState>,
    /// Of the first page: the list is that of this position.
    pub(super) position: StorePosition,
    /// The keys of the whole prefix.
    pub(super) total: usize,
    /// Where the next page starts; `None`: this is the last one.
    pub(super) next: Option<Vec<u8>>,
}

/// What the store says of the changes after a revision.
pub(super) struct PrefixCheck {
    pub(super) position: StorePosition,
    /// The keys of the whole prefix.
    pub(super) total: usize,
    /// Whether one of them has changed since.
    pub(super) has_changed: bool,
}

impl EtcdConnection {
    /// Connects, and authenticates the user if there is one.
    ///
    /// # Errors
    /// The member cannot be reached, or refuses the user.
    pub(super) async fn open(url: &str, access: &EtcdAccess) -> Result<Self, String> {
        let login = access.login.as_ref();
        let client = match connect(url, access, login).await {
            Err(error) if login.is_some() && error.contains(NO_AUTHENTICATION) => {
                connect(url, access, None).await?
            }
            result => result?,
        };
        Ok(Self {
            url: url.to_owned(),
            kv: client.kv_client().max_decoding_message_size(MAX_ANSWER),
            watch: client.watch_client().max_decoding_message_size(MAX_ANSWER),
        })
    }

    /// Reads a page of the keys with this prefix, from `start` on; `at`: the position of the first page.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub(super) async fn list_page(
        &mut self,
        prefix: &str,
        start: Option<Vec<u8>>,
        at: Option<StorePosition>,
    ) -> Result<ListPage, String> {
        let options = GetOptions::new().with_limit(PAGE_KEYS);
        let options = match &start {
            None => options.with_prefix(),
            Some(_) => options.with_range(prefix_end(prefix)),
        };
        let options = match at {
            None => options,
            Some(at) => options.with_revision(at.revision),
        };
        let first = start.unwrap_or_else(|| prefix.as_bytes().to_vec());
        let mut answer = self.get(first, options).await?;
        let position = self.position(answer.header())?;
        let (total, more) = (count(&answer), answer.more());
        let keys: Vec<_> = answer.take_kvs().into_iter().map(key_state).collect();
        let last = keys.last().filter(|_| more);
        Ok(ListPage {
            position: at.unwrap_or(position),
            total,
            next: last.map(|last| [last.key.as_slice(), &[0]].concat()),
            keys,
        })
    }

    /// Asks for what has changed after this revision.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub(super) async fn check(&mut self, prefix: &str, after: i64) -> Result<PrefixCheck, String> {
        let options = GetOptions::new()
            .with_prefix()
            .with_keys_only()
            .with_min_mod_revision(after.saturating_add(1));
        let answer = self.get(prefix.as_bytes().to_vec(), options).await?;
        Ok(PrefixCheck {
            position: self.position(answer.header())?,
            total: count(&answer),
            has_changed: !answer.kvs().is_empty(),
        })
    }

    async fn get(&mut self, key: Vec<u8>, options: GetOptions) -> Result<GetResponse, String> {
        limited(&self.url, self.kv.get(key, Some(options))).await
    }

    /// Watches the keys with this prefix, from this revision on.
    ///
    /// # Errors
    /// No answer, or a refusal.
    pub(super) async fn watch(&mut self, prefix: &str, from: i64) -> Result<EtcdWatch, String> {
        let options = WatchOptions::new()
            .with_prefix()
            .with_start_revision(from)
            .with_progress_notify();
        let watch = self.watch.watch(prefix, Some(options));
        Ok(EtcdWatch {
            stream: limited(&self.url, watch).await?,
            url: self.url.clone(),
        })
    }

    fn position(&self, header: Option<&ResponseHeader>) -> Result<StorePosition, String> {
        let position = header.map(position);
        position.ok_or_else(|| format!("{}: an answer without a header", self.url))
    }
}

/// A watch on one connection.
pub(super) struct EtcdWatch {
    stream: WatchStream,
    url: String,
}

/// A message of a watch.
#[derive(Debug)]
pub(super) struct WatchMessage {
    /// `None`: the message has none.
    pub(super) position: Option<StorePosition>,
    pub(super) events: Vec<KeyEvent>,
    /// The highest revision of the events.
    pub(super) revision: Option<i64>,
}

impl EtcdWatch {
    /// Waits for the next message. Cancel-safe.
    ///
    /// # Errors
    /// The watch has ended: the reason.
    pub(super) async fn next(&mut self) -> Result<WatchMessage, String> {
        let url = &self.url;
        match self.stream.message().await {
            Ok(Some(message)) if message.canceled() => {
                Err(format!("{url}: {}", cancel_reason(&message)))
            }
            Ok(Some(message)) => Ok(watch_message(&message)),
            Ok(None) => Err(format!("{url}: the member has ended the watch")),
            Err(error) => Err(format!("{url}: {}", describe(url, &error))),
        }
    }
}

fn cancel_reason(message: &WatchResponse) -> String {
    match (message.compact_revision(), message.cancel_reason()) {
        (0, "") => "the member has cancelled the watch".to_owned(),
        (0, reason) => format!("the member has cancelled the watch: {reason}"),
        (revision, _) => format!("the history before revision {revision} was compacted"),
    }
}

fn watch_message(message: &WatchResponse) -> WatchMessage {
    let events = message.events().iter();
    let events = events.filter_map(|event| Some((event.event_type(), event.kv()?)));
    // A message of a cancelled or a new watch may have the revision 0.
    let position = message.header().map(position);
    WatchMessage {
        position: position.filter(|position| position.revision != 0),
        revision: events.clone().map(|(_, key)| key.mod_revision()).max(),
        events: events
            .map(|(kind, key)| match kind {
                EventType::Put => KeyEvent::Put(key_state(key.clone())),
                EventType::Delete => KeyEvent::Delete(key.key().to_vec()),
            })
            .collect(),
    }
}

fn key_state(key: KeyValue) -> KeyState {
    let created = key.create_revision();
    let (key, value) = key.into_key_value();
    KeyState {
        key,
        value,
        created,
    }
}

fn position(header: &ResponseHeader) -> StorePosition {
    StorePosition {
        cluster: header.cluster_id(),
        revision: header.revision(),
    }
}

fn count(answer: &GetResponse) -> usize {
    usize::try_from(answer.count()).unwrap_or(usize::MAX)
}

/// The first key after all keys with a prefix that ends with a slash.
fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end
}

async fn connect(
    url: &str,
    access: &EtcdAccess,
    login: Option<&(String, Secret)>,
) -> Result<Client, String> {
    let mut options = ConnectOptions::new()
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_keep_alive(PING_INTERVAL, PING_TIMEOUT)
        // A member closes connections with PINGs but without a request.
        .with_keep_alive_while_idle(false)
        // Without it, a watch of a member that has lost the others is silent for ever.
        .with_require_leader(true);
    if url.starts_with("https:") {
        options = options.with_tls(tls(access)?);
    }
    if let Some((user, password)) = login {
        let password = String::from_utf8_lossy(&password.0);
        options = options.with_user(user, password);
    }
    limited(url, Client::connect([url], Some(options))).await
}

fn tls(access: &EtcdAccess) -> Result<TlsOptions, String> {
    let issuers = match &access.issuers {
        Some(issuers) => issuers.clone(),
        None => rustls_native_certs::load_native_certs().map_err(|error| error.to_string())?,
    };
    let mut roots = RootCertStore::empty();
    if roots.add_parsable_certificates(issuers).0 == 0 {
        let message = "no certificate of an issuer; install the package `ca-certificates`, or set `etcd.tls.ca`";
        return Err(message.to_owned());
    }
    let options = TlsOptions::new().trust_anchors(roots.roots);
    Ok(match &access.identity {
        None => options,
        Some(identity) => {
            let chain = identity.chain().iter();
            let chain: String = chain.map(|cert| pem("CERTIFICATE", cert)).collect();
            options.identity(Identity::from_pem(chain, pem_key(&identity.key)))
        }
    })
}

fn pem_key(key: &PrivateKeyDer<'_>) -> String {
    let label = match key {
        PrivateKeyDer::Pkcs1(_) => "RSA PRIVATE KEY",
        PrivateKeyDer::Sec1(_) => "EC PRIVATE KEY",
        _ => "PRIVATE KEY",
    };
    pem(label, key.secret_der())
}

/// The textual encoding (RFC 7468).
fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let lines = text.as_bytes().chunks(64);
    let lines: Vec<_> = lines.map(String::from_utf8_lossy).collect();
    let lines = lines.join("\n");
    format!("-----BEGIN {label}-----\n{lines}\n-----END {label}-----\n")
}

async fn limited<T>(
    url: &str,
    request: impl Future<Output = Result<T, Error>>,
) -> Result<T, String> {
    match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
        Ok(result) => result.map_err(|error| format!("{url}: {}", describe(url, &error))),
        Err(_) => Err(format!("{url}: no answer within {REQUEST_TIMEOUT:?}")),
    }
}

/// The reason of an error in one line: what the member says, or what the connection lacks.
fn describe(url: &str, error: &Error) -> String {
    let cause = root_cause(error);
    // With TLS 1.3 a refused client certificate is an alert after the handshake, which `tonic` 0.14.9 drops.
    if cause == "connection closed" && url.starts_with("https:") {
        return format!(
            "{cause}; a member closes it without a client certificate that it trusts: see `etcd.tls`"
        );
    }
    cause
}

fn root_cause(error: &Error) -> String {
    let first: &dyn StdError = match error {
        Error::GRpcStatus(status) => match status.source() {
            Some(source) => source,
            None => return status.message().to_owned(),
        },
        Error::TransportError(error) => error,
        other => return other.to_string(),
    };
    let mut cause = first;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_a_prefix_is_the_first_key_after_it() {
        assert_eq!(prefix_end("/app/"), b"/app0");
    }

    #[test]
    fn pem_has_lines_of_64_characters() {
        let text = pem("CERTIFICATE", &[7; 100]);
        let lines: Vec<_> = text.lines().map(str::len).collect();
        assert_eq!(lines, [27, 64, 64, 8, 25]);
    }
}
