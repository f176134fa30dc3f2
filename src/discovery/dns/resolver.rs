//! Resolves names to records: hosts file, search domains, aliases.

use std::collections::BTreeMap;
use std::sync::Arc;

use hickory_resolver::proto::rr::{Name, RecordType};

use super::answer::{Families, FamilyResult};
use super::name_servers::{NameServers, ServerAnswer};
use super::records::{self, AddressSet, AliasChain, ServiceSet};
use super::system::{HostsFile, SearchRules, SystemFiles};
use crate::config::{ResolverConfig, SrvWeights};

/// Resolves names with the settings of the configuration, or else of the system as they are now.
pub(super) struct DnsResolver {
    config: ResolverConfig,
    current: Option<CurrentSettings>,
}

struct CurrentSettings {
    /// `None`: the settings are the configuration's.
    files: Option<SystemFiles>,
    resolution: Arc<NameResolution>,
}

impl DnsResolver {
    pub(super) fn new(config: ResolverConfig) -> Self {
        Self {
            config,
            current: None,
        }
    }

    /// The resolution with the present settings.
    ///
    /// # Errors
    /// The system's settings cannot be read.
    pub(super) async fn current(&mut self) -> Result<Arc<NameResolution>, String> {
        let files = if self.config.servers.is_empty() {
            let read = tokio::task::spawn_blocking(SystemFiles::read).await;
            Some(read.map_err(|error| error.to_string())??)
        } else {
            None
        };
        if let Some(current) = self
            .current
            .as_ref()
            .filter(|current| current.files == files)
        {
            return Ok(current.resolution.clone());
        }
        let resolution = Arc::new(NameResolution::new(&self.config, files.as_ref())?);
        self.current = Some(CurrentSettings {
            files,
            resolution: resolution.clone(),
        });
        Ok(resolution)
    }
}

/// One set of name servers, search domains and hosts.
pub(super) struct NameResolution {
    servers: NameServers,
    search: SearchRules,
    hosts: HostsFile,
}

/// The services of a name, and the addresses that the name server has added to them.
#[derive(Debug)]
pub(super) struct FoundServices {
    pub(super) services: ServiceSet,
    pub(super) addresses: BTreeMap<String, AddressSet>,
}

/// The records of one type at the end of a name's aliases.
struct RecordsAtEnd {
    chain: AliasChain,
    answer: ServerAnswer,
}

impl NameResolution {
    fn new(config: &ResolverConfig, files: Option<&SystemFiles>) -> Result<Self, String> {
        let Some(files) = files else {
            return Ok(Self {
                servers: NameServers::new(&config.servers, config.timeout)?,
                search: SearchRules::default(),
                hosts: HostsFile::empty(),
            });
        };
        let (servers, search) = files.search_rules()?;
        Ok(Self {
            servers: NameServers::new(&servers, config.timeout)?,
            search,
            hosts: files.hosts(),
        })
    }

    /// The addresses of a name. With search domains: of the first name that has any; a name that cannot be looked up ends
    /// the search, since the next one could be another service.
    ///
    /// # Errors
    /// `name` is not a name.
    pub(super) async fn addresses(&self, name: &str) -> Result<Families, String> {
        let candidates = self.search.candidates(name)?;
        let mut found = Families::known(AddressSet::default());
        for candidate in candidates {
            found = match self.hosts.addresses(&candidate) {
                Some(set) => Families::known(set),
                None => self.families(&candidate).await,
            };
            if !found.is_negative() {
                break;
            }
        }
        Ok(found)
    }

    async fn families(&self, name: &Name) -> Families {
        let (v4, v6) = tokio::join!(
            self.family(name, RecordType::A),
            self.family(name, RecordType::AAAA)
        );
        Families { v4, v6 }
    }

    /// The addresses of one family.
    async fn family(&self, name: &Name, kind: RecordType) -> FamilyResult {
        let RecordsAtEnd { chain, answer } = self.records(name, kind).await?;
        let set = records::addresses(chain.end(), &answer.records).unwrap_or_else(|| AddressSet {
            ttl: answer.negative_ttl.unwrap_or_default(),
            ..AddressSet::default()
        });
        Ok(AddressSet {
            ttl: chain.ttl_of(set.ttl),
            ..set
        })
    }

    /// The services of a name; none, if there are no records.
    ///
    /// # Errors
    /// They cannot be looked up.
    pub(super) async fn services(
        &self,
        name: &str,
        weights: SrvWeights,
    ) -> Result<FoundServices, String> {
        let mut found = FoundServices {
            services: ServiceSet::default(),
            addresses: BTreeMap::new(),
        };
        for candidate in self.search.candidates(name)? {
            let RecordsAtEnd { chain, answer } = self.records(&candidate, RecordType::SRV).await?;
            let mut services = ServiceSet::of(chain.end(), &answer.records, weights);
            let ttl = answer.negative_ttl.filter(|_| services.is_empty());
            services.ttl = chain.ttl_of(ttl.unwrap_or(services.ttl));
            let is_found = !services.is_empty();
            found = FoundServices {
                addresses: records::addresses_by_host(&answer.additional),
                services,
            };
            if is_found {
                break;
            }
        }
        Ok(found)
    }

    /// Asks for the records of a name, and of the names that its aliases lead to. A server for many zones answers with the
    /// aliases only, if they lead to a zone of another.
    async fn records(&self, name: &Name, kind: RecordType) -> Result<RecordsAtEnd, String> {
        let mut chain = AliasChain::new(name.clone());
        loop {
            let asked = chain.end().clone();
            let answer = self.servers.ask(&asked, kind).await?;
            chain
                .follow(&answer.records)
                .map_err(|error| error.to_string())?;
            let end = chain.end();
            let has_end = answer
                .records
                .iter()
                .any(|record| record.name == *end && record.record_type() == kind);
            if has_end || *end == asked || answer.negative_ttl.is_some() {
                return Ok(RecordsAtEnd { chain, answer });
            }
        }
    }
}
