//! Proxy settings that `location` inherits from `server`, and `server` from `http`.

use std::borrow::Cow;
use std::time::Duration;

use super::syntax::Directive;
use super::tls::ProxySsl;
use super::units;
use crate::migrate::draft::{RetryDraft, SizeLimit, TimeoutsDraft, UpstreamDraft};
use crate::migrate::notes::Notes;
use crate::route::UpgradeProtocols;

/// nginx's default of `client_max_body_size`.
const DEFAULT_MAX_BODY_SIZE: SizeLimit = SizeLimit::Bytes(1 << 20);

/// The settings of one block, inherited ones included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ProxySettings {
    max_body_size: Option<SizeLimit>,
    timeouts: TimeoutsDraft,
    retry: RetryDraft,
    host_header: ProxyHostHeader,
    upgrade: ProxyUpgrade,
    pub(super) proxy_ssl: ProxySsl,
}

/// The `Host` that servers get.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ProxyHostHeader {
    /// The authority of `proxy_pass`, nginx's default.
    ProxyPassHost,
    Keep,
    Set(String),
}

/// The `Upgrade` that servers get.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum ProxyUpgrade {
    /// None, nginx's default: it answers no client with 101.
    #[default]
    Removed,
    /// That of the client.
    Passed,
    Set(String),
}

impl Default for ProxySettings {
    fn default() -> Self {
        let (timeouts, retry) = Default::default();
        Self {
            max_body_size: None,
            timeouts,
            retry,
            host_header: ProxyHostHeader::ProxyPassHost,
            upgrade: ProxyUpgrade::Removed,
            proxy_ssl: ProxySsl::default(),
        }
    }
}

impl ProxySettings {
    /// The settings that a block with these directives inherits. Headers are inherited only if it sets none.
    pub(super) fn for_block(&self, directives: &[Directive]) -> Self {
        let sets = directives
            .iter()
            .any(|directive| as_proxy_directive(&directive.name.text) == "proxy_set_header");
        let mut inner = self.clone();
        if sets {
            inner.host_header = ProxyHostHeader::ProxyPassHost;
            inner.upgrade = ProxyUpgrade::Removed;
        }
        inner
    }

    /// `client_max_body_size`.
    pub(super) fn max_body_size(&self) -> SizeLimit {
        self.max_body_size.unwrap_or(DEFAULT_MAX_BODY_SIZE)
    }

    /// The protocols to which the clients of a route may switch. With `$http_upgrade` nginx passes any; the default is the
    /// usual one.
    pub(super) fn upgrade(&self) -> Option<Vec<String>> {
        match &self.upgrade {
            ProxyUpgrade::Removed => Some(Vec::new()),
            ProxyUpgrade::Passed => None,
            ProxyUpgrade::Set(protocol) if protocol.eq_ignore_ascii_case("websocket") => None,
            ProxyUpgrade::Set(protocol) => Some(vec![protocol.clone()]),
        }
    }

    /// Applies a directive; `false` if it is another one.
    pub(super) fn apply(
        &mut self,
        directive: &Directive,
        comments: &mut Vec<String>,
        notes: &Notes<'_>,
    ) -> bool {
        let argument = directive.argument(0);
        let time = units::duration(argument).filter(|time| *time > Duration::ZERO);
        let name = as_proxy_directive(&directive.name.text);
        if let Some(rest) = name.strip_prefix("proxy_ssl_") {
            return self.proxy_ssl.apply(rest, directive, notes);
        }
        match &*name {
            "proxy_connect_timeout" => self.timeouts.connect = time,
            "proxy_send_timeout" => self.timeouts.write = time,
            "proxy_read_timeout" => (self.timeouts.first_byte, self.timeouts.read) = (time, time),
            "client_max_body_size" => self.max_body_size = units::size_limit(argument),
            "proxy_next_upstream" => self.next_upstream(directive, comments, notes),
            "proxy_next_upstream_tries" => {
                let tries = argument.parse::<u64>().ok().filter(|tries| *tries > 0);
                self.retry.attempts = tries.map(|tries| tries.min(16));
            }
            "proxy_next_upstream_timeout" => self.retry.timeout = time,
            "proxy_set_header" => self.set_header(directive, comments, notes),
            _ => return false,
        }
        true
    }

    /// Writes the settings to an upstream; `authority` is that of the `proxy_pass`.
    pub(super) fn write_to(&self, upstream: &mut UpstreamDraft, authority: &str) {
        upstream.timeouts = TimeoutsDraft {
            idle: upstream.timeouts.idle,
            ..self.timeouts
        };
        upstream.retry = self.retry;
        upstream.host_header = match &self.host_header {
            ProxyHostHeader::Keep => None,
            ProxyHostHeader::ProxyPassHost => Some(authority.to_owned()),
            ProxyHostHeader::Set(text) => Some(text.clone()),
        };
    }

    /// Whether both give the same upstream; the body limit and `Upgrade` belong to the route.
    pub(super) fn is_same_for_upstream(&self, other: &Self) -> bool {
        let of_upstream = |settings: &Self| Self {
            max_body_size: None,
            upgrade: ProxyUpgrade::Removed,
            ..settings.clone()
        };
        of_upstream(self) == of_upstream(other)
    }

    fn next_upstream(
        &mut self,
        directive: &Directive,
        comments: &mut Vec<String>,
        notes: &Notes<'_>,
    ) {
        for word in &directive.arguments {
            match word.text.as_str() {
                "off" => self.retry.attempts = Some(1),
                "error" | "timeout" => {}
                other => {
                    let subject = format!("proxy_next_upstream {other}");
                    let why = "Clockwise retries a request only if it got no response";
                    comments.push(notes.gap(word.span, &subject, why));
                }
            }
        }
    }

    fn set_header(&mut self, directive: &Directive, comments: &mut Vec<String>, notes: &Notes<'_>) {
        let value = directive.argument(1);
        let name = directive.argument(0).to_ascii_lowercase();
        let simple = !value.is_empty() && !value.contains('$');
        match (name.as_str(), value) {
            ("host", "$host" | "$http_host") => self.host_header = ProxyHostHeader::Keep,
            ("host", "$proxy_host") => self.host_header = ProxyHostHeader::ProxyPassHost,
            ("host", text) if simple => self.host_header = ProxyHostHeader::Set(text.to_owned()),
            ("x-forwarded-for", "$proxy_add_x_forwarded_for" | "$remote_addr")
            | ("x-forwarded-proto", "$scheme")
            | ("x-forwarded-host", "$host" | "$http_host")
            | ("x-request-id", "$request_id")
            | ("connection", _) => {}
            ("upgrade", "") => self.upgrade = ProxyUpgrade::Removed,
            ("upgrade", text) if is_protocol(text) => {
                self.upgrade = ProxyUpgrade::Set(text.to_owned());
            }
            ("upgrade", _) => self.upgrade = ProxyUpgrade::Passed,
            _ => {
                comments.push(notes.gap(directive.span(), &directive.text(), header_advice(&name)));
            }
        }
    }
}

/// Whether a route can list the text in `upgrade`.
fn is_protocol(text: &str) -> bool {
    !text.contains('$') && UpgradeProtocols::none().add(text).is_ok()
}

/// The `proxy_` name of a `grpc_` directive, which has the same meaning.
fn as_proxy_directive(name: &str) -> Cow<'_, str> {
    match name.strip_prefix("grpc_") {
        Some(rest) => format!("proxy_{rest}").into(),
        None => name.into(),
    }
}

fn header_advice(name: &str) -> &'static str {
    match name {
        "host" => "`host_header` is `keep`, `peer` or a fixed host",
        "x-real-ip" => "let the servers read `X-Forwarded-For`, which is always sent",
        _ => "Clockwise does not set request headers; let the servers do without this one",
    }
}
