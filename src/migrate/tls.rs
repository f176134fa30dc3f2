//! TLS of listeners and of upstreams.

use std::time::Duration;

use rustls_pki_types::ServerName;

use crate::config;

/// TLS of a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TlsTerminationDraft {
    /// The first is the default certificate.
    pub(super) certificates: Vec<CertificateDraft>,
    /// `1.2` or `1.3`.
    pub(super) min_version: Option<&'static str>,
    pub(super) http2: Option<bool>,
    pub(super) hsts: Option<HstsDraft>,
    pub(super) client_auth: Option<ClientAuthDraft>,
}

/// Paths of files: certificate and key in PEM, the OCSP response in DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct CertificateDraft {
    pub(super) cert: String,
    pub(super) key: String,
    pub(super) ocsp: Option<String>,
}

/// `Strict-Transport-Security`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct HstsDraft {
    pub(super) max_age: Duration,
    pub(super) subdomains: bool,
    pub(super) preload: bool,
}

/// Client certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClientAuthDraft {
    /// A client without one is refused.
    pub(super) required: bool,
    pub(super) ca: String,
    pub(super) crl: Option<String>,
}

/// TLS to the peers of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct TlsOriginationDraft {
    /// `host` is the client's `Host`; `None` is the host of the peer's address.
    pub(super) server_name: Option<String>,
    pub(super) ca: Option<String>,
    /// Paths of the client certificate and its key.
    pub(super) client_certificate: Option<(String, String)>,
    pub(super) min_version: Option<&'static str>,
    pub(super) verify: bool,
}

impl Default for TlsOriginationDraft {
    fn default() -> Self {
        Self {
            server_name: None,
            ca: None,
            client_certificate: None,
            min_version: None,
            verify: true,
        }
    }
}

/// Whether the name can be sent as SNI and verified. The word `host` has another meaning in the YAML.
pub(super) fn is_verifiable_name(name: &str) -> bool {
    name != "host" && ServerName::try_from(name).is_ok()
}

impl HstsDraft {
    /// Parses the header (RFC 6797 §6.1); `None` without a `max-age` above 0.
    pub(super) fn parse(value: &str) -> Option<Self> {
        let mut found = None;
        let (mut subdomains, mut preload) = (false, false);
        for directive in value.split(';').map(str::trim) {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "max-age" => found = value.trim().trim_matches('"').parse::<u64>().ok(),
                "includesubdomains" => subdomains = true,
                "preload" => preload = true,
                _ => {}
            }
        }
        let max_age = found.filter(|seconds| *seconds > 0)?;
        Some(Self {
            max_age: Duration::from_secs(max_age).min(config::MAX_HSTS_AGE),
            subdomains,
            preload,
        })
    }
}

impl TlsTerminationDraft {
    /// Merges the TLS of another server on the same address; `before` puts the other one first. Returns the
    /// lost settings of the second, each with the reason. A client certificate is required only if both require
    /// it; routes require it otherwise.
    pub(super) fn merge(&mut self, other: Self, before: bool) -> Vec<(&'static str, &'static str)> {
        let (mut first, second) = if before {
            (other, std::mem::take(self))
        } else {
            (std::mem::take(self), other)
        };
        let mut lost = Vec::new();
        for certificate in second.certificates {
            if !first.certificates.contains(&certificate) {
                first.certificates.push(certificate);
            }
        }
        first.http2 = match (first.http2, second.http2) {
            (Some(one), Some(other)) => Some(one || other),
            (one, other) => one.or(other),
        };
        first.min_version = first.min_version.or(second.min_version);
        if first.hsts != second.hsts {
            first.hsts = None;
            lost.push(("Strict-Transport-Security", SAME_HSTS));
        }
        let (one, other) = (first.client_auth.take(), second.client_auth);
        let required =
            |clients: &Option<ClientAuthDraft>| clients.as_ref().is_some_and(|one| one.required);
        let all = required(&one) && required(&other);
        if let (Some(one), Some(other)) = (&one, &other)
            && (&one.ca, &one.crl) != (&other.ca, &other.crl)
        {
            lost.push(("client certificates", SAME_ISSUERS));
        }
        first.client_auth = one.or(other).map(|clients| ClientAuthDraft {
            required: all,
            ..clients
        });
        *self = first;
        lost
    }
}

const SAME_HSTS: &str = "a listener sends it for all its hosts or for none, and these hosts differ; let the servers send it";
const SAME_ISSUERS: &str = "a listener has one `ca`, that of the default server; clients with a certificate from it also reach the other servers";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hsts_header_is_parsed_as_in_browsers() {
        let read = |text| {
            HstsDraft::parse(text)
                .map(|hsts| (hsts.max_age.as_secs(), hsts.subdomains, hsts.preload))
        };
        assert_eq!(read("max-age=60"), Some((60, false, false)));
        assert_eq!(
            read("Max-Age=\"31536000\" ; includeSubDomains; preload"),
            Some((31_536_000, true, true))
        );
        assert_eq!(read("max-age=0"), None);
        assert_eq!(read("includeSubDomains"), None);
    }

    #[test]
    fn merged_tls_servers_list_the_default_first_and_join_client_auth() {
        let termination = |name: &str, required| TlsTerminationDraft {
            certificates: vec![CertificateDraft {
                cert: format!("{name}.crt"),
                key: format!("{name}.key"),
                ocsp: None,
            }],
            client_auth: Some(ClientAuthDraft {
                required,
                ca: "ca.pem".to_owned(),
                crl: None,
            }),
            ..TlsTerminationDraft::default()
        };
        let mut both = termination("a", true);
        assert_eq!(both.merge(termination("b", false), true), []);
        let names: Vec<_> = both
            .certificates
            .iter()
            .map(|one| one.cert.as_str())
            .collect();
        assert_eq!(names, ["b.crt", "a.crt"]);
        assert!(!both.client_auth.as_ref().unwrap().required);
        let mut same = termination("a", true);
        assert_eq!(same.merge(termination("a", true), false), []);
        assert_eq!(same, termination("a", true));
        assert_eq!(same.merge(TlsTerminationDraft::default(), false), []);
        assert!(!same.client_auth.unwrap().required);
    }
}
