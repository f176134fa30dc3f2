//! TLS in our words: what a listener shows and asks for, and how an upstream's peers are spoken to.

use std::time::Duration;

/// The end of TLS at a listener.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ending {
    /// The first is shown to clients that ask for no name of another.
    pub(super) certificates: Vec<Certificate>,
    /// `1.2` or `1.3`.
    pub(super) min_version: Option<&'static str>,
    pub(super) http2: Option<bool>,
    pub(super) hsts: Option<Hsts>,
    pub(super) clients: Option<Clients>,
}

/// Files, PEM; of the OCSP response, DER.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certificate {
    pub(super) cert: String,
    pub(super) key: String,
    pub(super) ocsp: Option<String>,
}

/// `Strict-Transport-Security`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hsts {
    pub(super) max_age: Duration,
    pub(super) subdomains: bool,
    pub(super) preload: bool,
}

/// The certificates that clients are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clients {
    /// A client without one is refused.
    pub(super) required: bool,
    pub(super) ca: String,
    pub(super) crl: Option<String>,
}

/// TLS to the peers of an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Beginning {
    /// `host` is the client's; `None`: the one in the peer's address.
    pub(super) server_name: Option<String>,
    pub(super) ca: Option<String>,
    /// What we show: certificate and key.
    pub(super) shown: Option<(String, String)>,
    pub(super) min_version: Option<&'static str>,
    pub(super) verify: bool,
}

impl Default for Beginning {
    fn default() -> Self {
        Self {
            server_name: None,
            ca: None,
            shown: None,
            min_version: None,
            verify: true,
        }
    }
}

impl Hsts {
    /// The value of the field (RFC 6797, 6.1); `None` where it says nothing, or takes back what was said.
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
            max_age: Duration::from_secs(max_age),
            subdomains,
            preload,
        })
    }
}

impl Ending {
    /// Takes in another server's of the same address, the default one's before this one. What
    /// holds for the whole listener here is that of the first; clients are asked by the one, and must only
    /// answer where both want that.
    pub(super) fn join(&mut self, other: Self, before: bool) {
        let (mut first, second) = if before {
            (other, std::mem::take(self))
        } else {
            (std::mem::take(self), other)
        };
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
        first.hsts = first.hsts.or(second.hsts);
        let both = first.clients.is_some() && second.clients.is_some();
        let required = |clients: &Option<Clients>| clients.as_ref().is_some_and(|one| one.required);
        let all = both && required(&first.clients) && required(&second.clients);
        first.clients = first.clients.or(second.clients).map(|clients| Clients {
            required: all,
            ..clients
        });
        *self = first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_field_is_read_as_browsers_do() {
        let read = |text| {
            Hsts::parse(text).map(|hsts| (hsts.max_age.as_secs(), hsts.subdomains, hsts.preload))
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
    fn of_two_servers_the_default_comes_first_and_clients_must_answer_where_both_want_that() {
        let ending = |name: &str, required| Ending {
            certificates: vec![Certificate {
                cert: format!("{name}.crt"),
                key: format!("{name}.key"),
                ocsp: None,
            }],
            clients: Some(Clients {
                required,
                ca: "ca.pem".to_owned(),
                crl: None,
            }),
            ..Ending::default()
        };
        let mut both = ending("a", true);
        both.join(ending("b", false), true);
        let names: Vec<_> = both
            .certificates
            .iter()
            .map(|one| one.cert.as_str())
            .collect();
        assert_eq!(names, ["b.crt", "a.crt"]);
        assert!(!both.clients.as_ref().unwrap().required);
        let mut same = ending("a", true);
        same.join(ending("a", true), false);
        assert_eq!(same, ending("a", true));
        same.join(Ending::default(), false);
        assert!(!same.clients.unwrap().required);
    }
}
