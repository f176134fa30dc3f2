//! Looks up the peers of a source: the questions, and their answers put together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::answer::{DnsAnswer, Families};
use super::resolver::{DnsResolver, FoundServices, NameResolution};
use crate::config::DnsQuestion;

/// The longest time for all answers of one lookup together.
const LOOKUP_LIMIT: Duration = Duration::from_secs(30);

/// The most hosts of services that are looked up at the same time.
const MAX_CONCURRENT: usize = 32;

/// Asks the name servers. `previous`: the answer before, which fills the gaps of this one.
///
/// # Errors
/// No name server has answered, or the answers say too little.
pub(super) async fn look_up(
    question: &DnsQuestion,
    resolver: &mut DnsResolver,
    previous: Option<&DnsAnswer>,
) -> Result<DnsAnswer, String> {
    let resolution = resolver.current().await?;
    let answer = async {
        match question {
            DnsQuestion::Addresses { name, port } => {
                let families = addresses(&resolution, name, previous.is_none()).await?;
                DnsAnswer::of_addresses(*port, &families, previous)
            }
            DnsQuestion::Services { name, weights } => {
                let found = resolution.services(name, *weights).await?;
                Ok(services(resolution, found, previous).await)
            }
        }
    };
    let answer = tokio::time::timeout(LOOKUP_LIMIT, answer).await;
    answer.unwrap_or_else(|_| Err(format!("no complete answer within {LOOKUP_LIMIT:?}")))
}

/// The addresses of a name. The first lookup asks again for a family that could not be read: without an answer before, its
/// peers would be missing.
async fn addresses(
    resolution: &NameResolution,
    name: &str,
    is_first: bool,
) -> Result<Families, String> {
    let families = resolution.addresses(name).await?;
    if is_first && families.v4.is_err() != families.v6.is_err() {
        tokio::time::sleep(SECOND_TRY_AFTER).await;
        return resolution.addresses(name).await;
    }
    Ok(families)
}

/// A name server that has just started needs a moment.
const SECOND_TRY_AFTER: Duration = Duration::from_millis(250);

/// The peers of services. The addresses that the name server has added to its answer are perhaps not all of a host, as those
/// of one family: without the one in use, the host is looked up.
async fn services(
    resolution: Arc<NameResolution>,
    found: FoundServices,
    previous: Option<&DnsAnswer>,
) -> DnsAnswer {
    let FoundServices {
        services,
        mut addresses,
    } = found;
    let in_use = previous.map(|previous| previous.addresses_of_hosts(&services));
    let in_use = in_use.unwrap_or_default();
    let mut hosts = BTreeMap::new();
    let permits = Arc::new(Semaphore::new(MAX_CONCURRENT));
    let mut lookups = JoinSet::new();
    for host in services.hosts() {
        let added = addresses.remove(host).unwrap_or_default();
        if added.has_all_of(in_use.get(host)) {
            hosts.insert(host.to_owned(), Families::known(added));
            continue;
        }
        let (host, resolution) = (host.to_owned(), resolution.clone());
        let permits = permits.clone();
        lookups.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire().await;
            // The last dot: a host of a record is a full name, without search domains.
            let families = resolution.addresses(&format!("{host}.")).await;
            let families = families.unwrap_or_else(|error| Families::failed(&error));
            (host, families.or_added(&added))
        });
    }
    // A lookup that panicked counts as one without an answer.
    while let Some(joined) = lookups.join_next().await {
        hosts.extend(joined);
    }
    DnsAnswer::of_services(&services, hosts, previous)
}
