//! Why a directive is not translated, or what to do instead, by how its name begins.

pub(super) mod envoy;
pub(super) mod haproxy;
pub(super) mod nginx;

type ReasonTable = &'static [(&'static str, &'static str)];

const NO_COUNTERPART: &str = "there is nothing like it here";
const NO_CACHE: &str = "nothing is cached here";
const NO_PEER_CRL: &str = "servers' certificates are not looked up in lists of revoked ones";
const SEE_UPSTREAM_TLS: &str = "see `tls` of an upstream";
const NO_LOCAL_REPLY: &str =
    "every request is passed to an upstream; let a server behind it answer";
const NO_ACCESS_RULES: &str = "nobody is refused here; let a firewall or the servers decide";
const NO_RATE_LIMIT: &str = "rates are not limited here; let the servers do it";
pub(super) const NO_REWRITE: &str =
    "requests and responses are passed on as they are; let the servers do it";
const NO_XDS: &str = "what comes by xDS is not in the file";

fn find_reason(table: ReasonTable, name: &str) -> &'static str {
    let found = table.iter().find(|(begins, _)| name.starts_with(begins));
    found.map_or(NO_COUNTERPART, |(_, why)| why)
}
