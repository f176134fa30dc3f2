//! Name servers, asked one after the other.
//!
//! Of `hickory-resolver` 0.26.3 only the exchange with one server is used: UDP with repetitions, and TCP after a
//! truncated answer. Its resolver is not, since what it makes of an answer loses what a list of peers needs: the time to
//! live of an alias, of a cached answer, and the failure of one of two questions. Its pool of servers is not, since it
//! takes the first SERVFAIL of any server for the answer of all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{DnsRequestOptions, DnsResponse, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, Record, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};

/// What a name server says to one question.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerAnswer {
    /// Aliases and records; empty: there are none.
    pub(super) records: Vec<Record>,
    /// Records that were not asked for, as the addresses of services.
    pub(super) additional: Vec<Record>,
    /// Seconds for which the end of the aliases is known to have no records; `None`: the server did not say whether it has.
    pub(super) negative_ttl: Option<u32>,
}

/// The name servers of a resolver, in order.
pub(super) struct NameServers {
    servers: Vec<NameServerConnection>,
    /// The index of the server that has answered last: it is asked first.
    preferred: AtomicUsize,
    timeout: Duration,
}

struct NameServerConnection {
    address: SocketAddr,
    /// A pool of one.
    pool: NameServerPool<TokioRuntimeProvider>,
}

impl NameServers {
    /// Connects to no server yet. `timeout`: for the answer of each.
    ///
    /// # Errors
    /// The library cannot be set up.
    pub(super) fn new(addresses: &[SocketAddr], timeout: Duration) -> Result<Self, String> {
        let servers = addresses.iter();
        let servers = servers.map(|address| NameServerConnection::new(*address, timeout));
        Ok(Self {
            servers: servers
                .collect::<Result<_, NetError>>()
                .map_err(|error| error.to_string())?,
            preferred: AtomicUsize::new(0),
            timeout,
        })
    }

    /// Asks one server after the other until one answers, also that there are no such records.
    ///
    /// # Errors
    /// The reason of each server for not answering.
    pub(super) async fn ask(&self, name: &Name, kind: RecordType) -> Result<ServerAnswer, String> {
        let preferred = self.preferred.load(Ordering::Relaxed);
        let (before, after) = self.servers.split_at(preferred.min(self.servers.len()));
        let mut reasons = Vec::new();
        for server in after.iter().chain(before) {
            match server.ask(name, kind, self.timeout).await {
                Ok(answer) => {
                    let index = (preferred + reasons.len()) % self.servers.len();
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(reason) => reasons.push(format!("{}: {reason}", server.address)),
            }
        }
        Err(reasons.join("; "))
    }
}

impl NameServerConnection {
    fn new(address: SocketAddr, timeout: Duration) -> Result<Self, NetError> {
        let mut transports = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
        for transport in &mut transports {
            transport.port = address.port();
        }
        let server = NameServerConfig::new(address.ip(), true, transports);
        let mut options = ResolverOpts::default();
        options.timeout = timeout;
        let context = Arc::new(PoolContext::new(options, TlsConfig::new()?));
        let provider = TokioRuntimeProvider::default();
        Ok(Self {
            address,
            pool: NameServerPool::from_config([server], context, provider),
        })
    }

    async fn ask(
        &self,
        name: &Name,
        kind: RecordType,
        timeout: Duration,
    ) -> Result<ServerAnswer, String> {
        let mut options = DnsRequestOptions::default();
        // EDNS: answers of up to 1,232 bytes by UDP.
        options.use_edns = true;
        let question = Query::query(name.clone(), kind);
        let answer = self.pool.lookup(question, options).first_answer();
        // The library applies its time limit to UDP and TCP each.
        match tokio::time::timeout(timeout, answer).await {
            Ok(answer) => read_answer(answer).map_err(|error| describe(&error, timeout)),
            Err(_) => Err(describe(&NetError::Timeout, timeout)),
        }
    }
}

fn read_answer(answer: Result<DnsResponse, NetError>) -> Result<ServerAnswer, NetError> {
    match answer {
        Ok(response) => {
            let is_missing = response.response_code == ResponseCode::NXDomain;
            // RFC 2308 §2.2: an answer that ends without records has the SOA of their zone; a referral has none.
            let negative_ttl = response
                .negative_ttl()
                .or(is_missing.then_some(UNTOLD_NEGATIVE_TTL));
            let message = response.into_message();
            Ok(ServerAnswer {
                records: message.answers,
                additional: message.additionals,
                negative_ttl,
            })
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Ok(ServerAnswer {
            negative_ttl: Some(none.negative_ttl.unwrap_or(UNTOLD_NEGATIVE_TTL)),
            ..ServerAnswer::default()
        }),
        Err(error) => Err(error),
    }
}

/// Seconds for which a name without records is taken to have none, if the server does not say: short, since caches do
/// not keep such an answer, either (RFC 2308 §5).
const UNTOLD_NEGATIVE_TTL: u32 = 5;

/// The reason in the words that other tools for DNS use.
fn describe(error: &NetError, timeout: Duration) -> String {
    match error {
        NetError::Timeout => format!("no answer within {timeout:?}"),
        NetError::Truncated => {
            "the answer is too long for UDP, and there is none by TCP".to_owned()
        }
        NetError::Io(error) => error.to_string(),
        NetError::Dns(DnsError::ResponseCode(code)) => match code {
            ResponseCode::ServFail => "SERVFAIL".to_owned(),
            ResponseCode::Refused => "REFUSED".to_owned(),
            ResponseCode::NotImp => "NOTIMP".to_owned(),
            ResponseCode::FormErr => "FORMERR".to_owned(),
            other => other.to_string(),
        },
        other => other.to_string(),
    }
}
