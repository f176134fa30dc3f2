//! The system's settings for names: `/etc/resolv.conf` and `/etc/hosts`, as the C library reads them.
//!
//! They are read before lookups, once a second at most: containers and DHCP clients replace them while programs run.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::Hosts;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use parking_lot::Mutex;

use super::records::AddressSet;
use crate::clock;

const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
const DNS_PORT: u16 = 53;

/// Seconds for which an address of the hosts file is valid.
const HOSTS_TTL: u32 = 10;

/// The texts of both files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct SystemFiles {
    resolv_conf: Vec<u8>,
    hosts: Vec<u8>,
}

impl SystemFiles {
    /// Reads the files; one that does not exist is empty. Blocks.
    ///
    /// # Errors
    /// A file cannot be read.
    fn read() -> Result<Self, String> {
        Ok(Self {
            resolv_conf: read(RESOLV_CONF.as_ref())?,
            hosts: read(HOSTS.as_ref())?,
        })
    }

    /// What `/etc/resolv.conf` says.
    ///
    /// # Errors
    /// Its text has an error.
    fn search_rules(&self) -> Result<(Vec<SocketAddr>, SearchRules), String> {
        let text = String::from_utf8_lossy(&self.resolv_conf);
        let mut servers = name_servers(&text)?;
        let mut lines: Vec<_> = text.lines().filter(|line| !is_name_server(line)).collect();
        // The library takes a text without any for an error.
        lines.push("nameserver 127.0.0.1");
        let (config, options) = parse_resolv_conf(lines.join("\n"))
            .map_err(|error| format!("`{RESOLV_CONF}`: {error}"))?;
        let mut domains = config.search().to_vec();
        if domains.is_empty() {
            domains.extend(config.domain().cloned());
        }
        let rules = SearchRules {
            domains,
            dots: options.ndots,
        };
        if servers.is_empty() {
            // resolv.conf(5): without `nameserver` the one on this host is used.
            servers.push(SocketAddr::from((Ipv4Addr::LOCALHOST, DNS_PORT)));
        }
        Ok((servers, rules))
    }

    /// The names of `/etc/hosts`.
    fn hosts(&self) -> HostsFile {
        let mut hosts = Hosts::default();
        // Reading from memory fails only at text that is not UTF-8; the lines before it are kept.
        if let Err(error) = hosts.read_hosts_conf(&*self.hosts) {
            log::warn!("`{HOSTS}`: {error}; the rest of the file is ignored");
        }
        HostsFile(hosts)
    }
}

/// resolv.conf(5): further servers are ignored.
const MAX_SERVERS: usize = 3;

/// The word after `nameserver`; `None`: the line is another.
fn name_server(line: &str) -> Option<&str> {
    let mut words = line.split([';', '#']).next()?.split_whitespace();
    (words.next()? == "nameserver").then(|| words.next())?
}

fn is_name_server(line: &str) -> bool {
    name_server(line).is_some()
}

/// The name servers of a text. A zone (`fe80::1%eth0`) is not supported: hickory-resolver 0.26.3 has no place for it.
///
/// # Errors
/// All of them have a zone.
fn name_servers(resolv_conf: &str) -> Result<Vec<SocketAddr>, String> {
    let mut servers = Vec::new();
    let mut with_zone = None;
    for text in resolv_conf.lines().filter_map(name_server) {
        match text.parse::<IpAddr>() {
            Ok(ip) => servers.push(SocketAddr::new(ip, DNS_PORT)),
            Err(_) if text.contains('%') => with_zone = Some(text),
            Err(_) => log::warn!("`{RESOLV_CONF}`: name server `{text}` is not an IP address"),
        }
    }
    servers.truncate(MAX_SERVERS);
    match with_zone {
        Some(server) if servers.is_empty() => Err(format!(
            "`{RESOLV_CONF}`: name server `{server}` has a zone, which is not supported; list other servers in `resolver`"
        )),
        Some(server) => {
            log::warn!(
                "`{RESOLV_CONF}`: name server `{server}` is not used: it has a zone, which is not supported"
            );
            Ok(servers)
        }
        None => Ok(servers),
    }
}

/// What both files say.
pub(super) struct SystemSettings {
    files: SystemFiles,
    /// The addresses of the name servers.
    pub(super) servers: Vec<SocketAddr>,
    pub(super) search: SearchRules,
    pub(super) hosts: HostsFile,
}

impl SystemSettings {
    /// The present settings: all names share them. Blocks.
    ///
    /// # Errors
    /// A file cannot be read, or has an error.
    pub(super) fn current() -> Result<Arc<Self>, String> {
        SHARED.lock().read(clock::since_start(), SystemFiles::read)
    }

    fn of(files: SystemFiles) -> Result<Self, String> {
        let (servers, search) = files.search_rules()?;
        Ok(Self {
            servers,
            search,
            hosts: files.hosts(),
            files,
        })
    }
}

/// A process has one pair of these files. A hosts file may have a megabyte, and an instance a thousand names.
static SHARED: Mutex<SharedSettings> = Mutex::new(SharedSettings { last: None });

/// The settings that were read last, with the time.
struct SharedSettings {
    last: Option<(Duration, Arc<SystemSettings>)>,
}

/// How long settings are used without another look at the files.
const READ_INTERVAL: Duration = Duration::from_secs(1);

impl SharedSettings {
    fn read(
        &mut self,
        now: Duration,
        read: impl FnOnce() -> Result<SystemFiles, String>,
    ) -> Result<Arc<SystemSettings>, String> {
        if let Some((at, settings)) = &self.last
            && now.saturating_sub(*at) < READ_INTERVAL
        {
            return Ok(settings.clone());
        }
        let files = read()?;
        let last = self.last.take().map(|(_, settings)| settings);
        let settings = match last.filter(|settings| settings.files == files) {
            Some(settings) => settings,
            None => Arc::new(SystemSettings::of(files)?),
        };
        self.last = Some((now, settings.clone()));
        Ok(settings)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    match std::fs::read(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(format!("`{}`: {error}", path.display())),
    }
}

/// Which names a short name stands for.
#[derive(Clone, Debug, Default)]
pub(super) struct SearchRules {
    domains: Vec<Name>,
    /// A name with at least this many dots is looked up as it is first.
    dots: usize,
}

impl SearchRules {
    /// The names to look up for `name`, one after the other until one has records.
    ///
    /// # Errors
    /// `name` is not a name.
    pub(super) fn candidates(&self, name: &str) -> Result<Vec<Name>, String> {
        let mut written = Name::from_ascii(name).map_err(|error| error.to_string())?;
        if written.is_fqdn() {
            return Ok(vec![written]);
        }
        let dots = name.bytes().filter(|byte| *byte == b'.').count();
        // A name that gets too long with a domain is not one.
        let searched = self.domains.iter().filter_map(|domain| {
            let mut name = written.clone().append_domain(domain).ok()?;
            name.set_fqdn(true);
            Some(name)
        });
        let mut candidates: Vec<_> = searched.collect();
        written.set_fqdn(true);
        let at = if dots >= self.dots {
            0
        } else {
            candidates.len()
        };
        candidates.insert(at, written);
        Ok(candidates)
    }
}

/// The hosts file. A name in it is not looked up elsewhere.
pub(super) struct HostsFile(Hosts);

impl HostsFile {
    /// The addresses of a name; `None`: it is not in the file.
    pub(super) fn addresses(&self, name: &Name) -> Option<AddressSet> {
        let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
        for kind in [RecordType::A, RecordType::AAAA] {
            let question = Query::query(name.to_lowercase(), kind);
            if let Some(lookup) = self.0.lookup_static_host(&question) {
                let records = lookup.answers().iter();
                addresses.extend(records.filter_map(|record| record.data.ip_addr()));
            }
        }
        (!addresses.is_empty()).then_some(AddressSet {
            addresses,
            ttl: HOSTS_TTL,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(resolv_conf: &str, hosts: &str) -> SystemFiles {
        SystemFiles {
            resolv_conf: resolv_conf.into(),
            hosts: hosts.into(),
        }
    }

    fn servers(resolv_conf: &str) -> Vec<String> {
        let (servers, _) = files(resolv_conf, "").search_rules().unwrap();
        servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn name_servers_are_those_of_the_system_or_the_one_on_this_host() {
        for (resolv_conf, expected) in [
            (
                "nameserver 10.0.0.1\nnameserver ::1\n",
                &["10.0.0.1:53", "[::1]:53"][..],
            ),
            ("", &["127.0.0.1:53"]),
            ("# nameserver 10.0.0.1\nsearch test\n", &["127.0.0.1:53"]),
            (
                "nameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\nnameserver 10.0.0.4",
                &["10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53"],
            ),
            (
                "nameserver fe80::1%eth0\nnameserver 10.0.0.1 # office\nnameserver router\n",
                &["10.0.0.1:53"],
            ),
        ] {
            assert_eq!(servers(resolv_conf), expected, "{resolv_conf}");
        }
        let only_zone = files("nameserver fe80::1%eth0\n", "").search_rules();
        let error = only_zone.unwrap_err();
        assert!(error.contains("`fe80::1%eth0` has a zone"), "{error}");
    }

    #[test]
    fn short_names_are_looked_up_in_the_search_domains_as_resolv_conf_says() {
        let conf = "nameserver 10.0.0.1\nsearch a.test b.test\noptions ndots:2\n";
        let (_, rules) = files(conf, "").search_rules().unwrap();
        for (name, expected) in [
            ("app", &["app.a.test.", "app.b.test.", "app."][..]),
            ("app.x", &["app.x.a.test.", "app.x.b.test.", "app.x."]),
            (
                "app.x.y",
                &["app.x.y.", "app.x.y.a.test.", "app.x.y.b.test."],
            ),
            ("app.", &["app."]),
        ] {
            let candidates = rules.candidates(name).unwrap();
            let texts: Vec<_> = candidates.iter().map(Name::to_ascii).collect();
            assert_eq!(texts, expected, "{name}");
        }
        let (_, rules) = files("search a.test\n", "").search_rules().unwrap();
        let names = rules.candidates("app").unwrap();
        let texts: Vec<_> = names.iter().map(Name::to_ascii).collect();
        assert_eq!(texts, ["app.a.test.", "app."], "without a name server");
        let plain = SearchRules::default().candidates("app").unwrap();
        assert_eq!(plain.len(), 1);
    }

    #[test]
    fn names_share_the_settings_which_are_read_once_a_second() {
        let mut shared = SharedSettings { last: None };
        let mut reads = 0;
        let mut at = |milliseconds: u64, hosts: &str| {
            let read = || {
                reads += 1;
                Ok(files("", hosts))
            };
            let settings = shared.read(Duration::from_millis(milliseconds), read);
            (settings.unwrap(), reads)
        };
        let (first, _) = at(5_000, "10.0.0.1 a.test");
        let (soon, reads) = at(5_999, "10.0.0.2 a.test");
        assert_eq!((Arc::ptr_eq(&first, &soon), reads), (true, 1));
        let (same, reads) = at(6_000, "10.0.0.1 a.test");
        assert_eq!((Arc::ptr_eq(&first, &same), reads), (true, 2));
        let (changed, reads) = at(7_000, "10.0.0.2 a.test");
        assert_eq!((Arc::ptr_eq(&first, &changed), reads), (false, 3));
        let failed = shared.read(Duration::from_secs(9), || Err("no access".to_owned()));
        assert_eq!(failed.err().as_deref(), Some("no access"));
        let again = shared.read(Duration::from_secs(9), || Ok(files("", "")));
        assert!(again.is_ok());
    }

    #[test]
    fn hosts_file_has_the_addresses_of_all_lines_with_a_name() {
        let hosts = files(
            "",
            "10.0.0.1 a.test A2.test # comment\n::1 a.test\nnonsense\n",
        )
        .hosts();
        let addresses = |name: &str| {
            let mut name = Name::from_ascii(name).unwrap();
            name.set_fqdn(true);
            let set = hosts.addresses(&name)?;
            Some(
                set.addresses
                    .iter()
                    .map(ToString::to_string)
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(
            addresses("A.test"),
            Some(vec!["10.0.0.1".to_owned(), "::1".to_owned()])
        );
        assert_eq!(addresses("a2.test"), Some(vec!["10.0.0.1".to_owned()]));
        assert_eq!(addresses("b.test"), None);
    }
}
