//! Reasons and advice for directives without a counterpart, by the beginning of their names.

pub(super) mod envoy;
pub(super) mod haproxy;
pub(super) mod nginx;

type ReasonTable = &'static [(&'static str, &'static str)];

const NO_COUNTERPART: &str = "Clockwise has no counterpart";
const NO_CACHE: &str = "Clockwise does not cache";
const NO_PEER_CRL: &str = "Clockwise does not check the certificates of servers against a CRL";
const SEE_UPSTREAM_TLS: &str = "see `tls` of an upstream";
const NO_LOCAL_REPLY: &str =
    "Clockwise passes every request to an upstream; let a server answer these requests";
const NO_ACCESS_RULES: &str =
    "Clockwise has no such access rule; let a firewall or the servers refuse requests";
const NO_RATE_LIMIT: &str = "Clockwise does not limit request rates; let the servers do it";
pub(super) const NO_REWRITE: &str =
    "Clockwise does not change requests and responses; let the servers do it";
const NO_XDS: &str = "resources from xDS are not in the file";

fn find_reason(table: ReasonTable, name: &str) -> &'static str {
    let found = table.iter().find(|(begins, _)| name.starts_with(begins));
    found.map_or(NO_COUNTERPART, |(_, why)| why)
}
