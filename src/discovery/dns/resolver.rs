//! Resolves names to records: hosts file, search domains, aliases.

use std::collections::BTreeMap;
use std::sync::Arc;

use hickory_resolver::proto::rr::{Name, RecordType};

use super::answer::{Families, FamilyResult};
use super::name_servers::{NameServers, ServerAnswer};
use super::records::{self, AddressSet, AliasChain, ServiceSet};
use super::system::{SearchRules, SystemSettings};
use crate::config::{ResolverConfig, SrvWeights};

/// Resolves names with the settings of the configuration, or else of the system as they are now.
pub(super) struct DnsResolver {
    config: ResolverConfig,
    current: Option<CurrentSettings>,
}

struct CurrentSettings {
    /// `None`: the settings are the configuration's.
    system: Option<Arc<SystemSettings>>,
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
        let system = if self.config.servers.is_empty() {
            let read = tokio::task::spawn_blocking(SystemSettings::current).await;
            Some(read.map_err(|error| error.to_string())??)
        } else {
            None
        };
        let is_current = |current: &&CurrentSettings| match (&current.system, &system) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            _ => true,
        };
        if let Some(current) = self.current.as_ref().filter(is_current) {
            return Ok(current.resolution.clone());
        }
        let resolution = Arc::new(NameResolution::new(&self.config, system.clone())?);
        self.current = Some(CurrentSettings {
            system,
            resolution: resolution.clone(),
        });
        Ok(resolution)
    }
}

/// The name servers; without those of the configuration also the search domains and hosts of the system.
pub(super) struct NameResolution {
    servers: NameServers,
    system: Option<Arc<SystemSettings>>,
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
    fn new(config: &ResolverConfig, system: Option<Arc<SystemSettings>>) -> Result<Self, String> {
        let servers = system.as_ref().map(|system| &system.servers);
        let servers = servers.unwrap_or(&config.servers);
        Ok(Self {
            servers: NameServers::new(servers, config.timeout)?,
            system,
        })
    }

    /// The names that a name may stand for.
    fn candidates(&self, name: &str) -> Result<Vec<Name>, String> {
        match &self.system {
            Some(system) => system.search.candidates(name),
            None => SearchRules::default().candidates(name),
        }
    }

    /// The addresses of a name in the hosts file.
    fn listed_addresses(&self, name: &Name) -> Option<AddressSet> {
        self.system.as_ref()?.hosts.addresses(name)
    }

    /// The addresses of a name. With search domains: of the first name that has any; a name that cannot be looked up ends
    /// the search, since the next one could be another service.
    ///
    /// # Errors
    /// `name` is not a name.
    pub(super) async fn addresses(&self, name: &str) -> Result<Families, String> {
        let candidates = self.candidates(name)?;
        let mut found = Families::known(AddressSet::default());
        for candidate in candidates {
            found = match self.listed_addresses(&candidate) {
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
        for candidate in self.candidates(name)? {
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
