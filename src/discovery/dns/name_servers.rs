//! Name servers, asked one after the other.
//!
//! Of `hickory-resolver` 0.26.3 only the exchange with one server is used: UDP with repetitions, and TCP after a
//! truncated answer. Its resolver is not, since what it makes of an answer loses what a list of peers needs: the time to
//! live of an alias, of a cached answer, and the failure of one of two questions. Its pool of servers is not, since it
//! takes the first SERVFAIL of any server for the answer of all.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::xfer::{DnsHandle, FirstAnswer};
use hickory_resolver::net::{DnsError, NetError, NoRecords};
use hickory_resolver::proto::op::{DnsRequestOptions, DnsResponse, Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, Record, RecordType};
use hickory_resolver::{NameServerPool, PoolContext, TlsConfig};
use parking_lot::Mutex;

use super::preferred_server::PreferredServer;
use crate::clock;

/// What a name server says to one question.
#[derive(Clone, Debug, Default)]
pub(super) struct ServerAnswer {
    /// Aliases and records; empty: there are none.
    pub(super) records: Vec<Record>,
    /// Records that were not asked for, as the addresses of services.
    pub(super) additional: Vec<Record>,
    /// Seconds for which the end of the aliases is known to have no records; `None`: it has some, or the server knows only
    /// the aliases.
    pub(super) negative_ttl: Option<u32>,
}

/// The name servers of a resolver, in order.
pub(super) struct NameServers {
    servers: Vec<NameServerConnection>,
    preferred: Mutex<PreferredServer>,
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
            preferred: Mutex::default(),
            timeout,
        })
    }

    /// Asks one server after the other until one answers, also that there are no such records.
    ///
    /// # Errors
    /// The reason of each server for not answering.
    pub(super) async fn ask(&self, name: &Name, kind: RecordType) -> Result<ServerAnswer, String> {
        let first = self.preferred.lock().index(clock::since_start());
        let (before, after) = self.servers.split_at(first.min(self.servers.len()));
        let mut reasons = Vec::new();
        for server in after.iter().chain(before) {
            match server.ask(name, kind, self.timeout).await {
                Ok(answer) => {
                    let index = (first + reasons.len()) % self.servers.len();
                    return Ok(self.note_answer(answer, index));
                }
                Err(reason) => reasons.push(format!("{}: {reason}", server.address)),
            }
        }
        Err(reasons.join("; "))
    }

    fn note_answer(&self, answer: ServerAnswer, index: usize) -> ServerAnswer {
        if answer.negative_ttl.is_none() {
            let now = clock::since_start();
            self.preferred.lock().note_records(index, now);
        }
        if index == 0 {
            answer
        } else {
            answer.of_later_server()
        }
    }
}

impl ServerAnswer {
    /// The answer of a server that is asked since the first one does not answer. It may not know the names of the first, so
    /// an answer without records is soon asked for again.
    fn of_later_server(mut self) -> Self {
        self.negative_ttl = self.negative_ttl.map(|ttl| ttl.min(UNTOLD_NEGATIVE_TTL));
        self
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
        let question = Query::query(name.clone(), kind);
        let answer = async {
            let answer = self.exchange(question.clone(), true).await;
            if refuses_edns(&answer) {
                return self.exchange(question, false).await;
            }
            answer
        };
        // The library applies its time limit to UDP and TCP each.
        match tokio::time::timeout(timeout, answer).await {
            Ok(answer) => read_answer(answer).map_err(|error| describe(&error, timeout)),
            Err(_) => Err(describe(&NetError::Timeout, timeout)),
        }
    }

    /// `use_edns`: for answers of up to 1,232 bytes by UDP, instead of 512.
    async fn exchange(&self, question: Query, use_edns: bool) -> Result<DnsResponse, NetError> {
        let mut options = DnsRequestOptions::default();
        options.use_edns = use_edns;
        self.pool.lookup(question, options).first_answer().await
    }
}

/// A server that does not know EDNS says FORMERR (RFC 6891 §7), and an old one NOTIMP (RFC 2671 §5.3).
fn refuses_edns(answer: &Result<DnsResponse, NetError>) -> bool {
    matches!(
        answer,
        Err(NetError::Dns(DnsError::ResponseCode(
            ResponseCode::FormErr | ResponseCode::NotImp
        )))
    )
}

fn read_answer(answer: Result<DnsResponse, NetError>) -> Result<ServerAnswer, NetError> {
    match answer {
        Ok(response) if is_referral(&response) => Err(REFERRAL.into()),
        Ok(response) => {
            let is_missing = response.response_code == ResponseCode::NXDomain;
            // The SOA says that the aliases end without records: RFC 2308 §2.1 and §2.2.
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
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) if has_only_referral(&none) => {
            Err(REFERRAL.into())
        }
        Err(NetError::Dns(DnsError::NoRecordsFound(none))) => Ok(ServerAnswer {
            negative_ttl: Some(none.negative_ttl.unwrap_or(UNTOLD_NEGATIVE_TTL)),
            ..ServerAnswer::default()
        }),
        Err(error) => Err(error),
    }
}

const REFERRAL: &str = "it refers to other name servers (a referral), and does not ask them";

/// Whether a message says nothing but that other servers know more. With glue for the name in question the library takes
/// it for an answer.
fn is_referral(response: &DnsResponse) -> bool {
    let mut authorities = response.authorities.iter();
    response.response_code == ResponseCode::NoError
        && response.answers.is_empty()
        && response.soa().is_none()
        && authorities.any(|record| record.record_type() == RecordType::NS)
}

/// RFC 2308 §2.2: a referral has the NS records of another zone, an answer that there are no records has a SOA or neither.
fn has_only_referral(none: &NoRecords) -> bool {
    none.response_code == ResponseCode::NoError && none.soa.is_none() && none.ns.is_some()
}

/// Seconds for which a name without records is taken to have none, if the server does not say, or may not know: short,
/// since caches do not keep an answer without this time, either (RFC 2308 §5).
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

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::op::{Message, OpCode};

    use super::*;
    use crate::discovery::dns::records::tests::{name, records};

    /// What the library makes of a message about the addresses of `a.test`, and this module of that.
    fn read(code: ResponseCode, sections: [&str; 3]) -> Result<ServerAnswer, String> {
        let [answers, authorities, additionals] = sections.map(records);
        let mut message = Message::response(1, OpCode::Query);
        message.metadata.response_code = code;
        message.add_query(Query::query(name("a.test"), RecordType::A));
        message.add_answers(answers);
        message.add_authorities(authorities);
        message.add_additionals(additionals);
        let response = DnsResponse::from_message(message).unwrap();
        let answer = DnsError::from_response(response).map_err(NetError::from);
        read_answer(answer).map_err(|error| error.to_string())
    }

    #[test]
    fn answer_without_records_of_a_later_server_is_valid_for_five_seconds_at_most() {
        for (ttl, expected) in [(None, None), (Some(30), Some(5)), (Some(2), Some(2))] {
            let answer = ServerAnswer {
                negative_ttl: ttl,
                ..ServerAnswer::default()
            };
            assert_eq!(answer.of_later_server().negative_ttl, expected);
        }
    }

    #[test]
    fn referral_is_a_failure_and_an_answer_without_records_is_none() {
        use ResponseCode::{NXDomain, NoError};
        const NS: &str = "test 60 NS ns.test";
        const SOA: &str = "test 60 SOA";
        for (code, authorities, expected) in [
            (NoError, NS, None),
            (NoError, ". 60 NS a.root", None),
            (NoError, SOA, Some(30)),
            (NoError, "test 60 SOA; test 60 NS ns.test", Some(30)),
            (NoError, "", Some(5)),
            (NXDomain, SOA, Some(30)),
            (NXDomain, NS, Some(5)),
            (NXDomain, "", Some(5)),
        ] {
            let answer = read(code, ["", authorities, "ns.test 60 A 10.0.0.1"]);
            let seconds = answer.as_ref().ok().and_then(|answer| answer.negative_ttl);
            assert_eq!(seconds, expected, "{code} {authorities}: {answer:?}");
            assert_eq!(answer.is_err(), expected.is_none(), "{code} {authorities}");
        }
        let with_glue = read(NoError, ["", "test 60 NS a.test", "a.test 60 A 10.0.0.1"]);
        assert!(with_glue.unwrap_err().contains("referral"));
        let alias = read(NoError, ["a.test 60 CNAME b.test", NS, ""]).unwrap();
        assert_eq!((alias.records.len(), alias.negative_ttl), (1, None));
    }
}
