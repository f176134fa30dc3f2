//! `http-request`, `redirect`, `http-response`: the rules that become settings of listeners.

use super::acl::{self, Acl};
use super::bind::BindListener;
use super::syntax::{HaproxyLine, HaproxyWord};
use crate::migrate::notes::Notes;
use crate::migrate::source::SourceSpan;
use crate::migrate::tls::HstsDraft;

const REDIRECT_ALL_OR_NONE: &str = "a listener redirects all its requests to HTTPS or none; let the servers redirect these requests";
const REDIRECT_AT_LISTENER: &str = "write `https_redirect: 443` for the plain listener";
const REDIRECT_CODE: &str = "the status is 308, which keeps method and body";
const REDIRECT_PORT: &str = "HAProxy keeps the port of the client's URL, and Clockwise writes the HTTPS port of this section; write 443 if ports are mapped in front of it";
const NO_PLAIN_LISTENER: &str = "the section has no plain listener to redirect";
const REDIRECT_LOOP: &str = "it redirects HTTPS to HTTPS";
const FORWARDED_PROTO_SENT: &str = "left out; servers always get `X-Forwarded-Proto`";
const HSTS_ALL_OR_NONE: &str =
    "a listener sends it with every response or none; see `hsts` of the listener's `tls`";
const HSTS_AT_TLS_LISTENER: &str =
    "it belongs to a TLS listener and has a `max-age` above 0; see `hsts` of the listener's `tls`";

/// A rule for all requests, with its text and span.
#[derive(Clone)]
pub(super) struct HttpRule<T> {
    value: T,
    text: String,
    span: SourceSpan,
}

/// The rules of a section that become settings of its listeners.
#[derive(Default)]
pub(super) struct ListenerRules {
    /// Plain requests are redirected to HTTPS.
    https_redirect: Option<HttpRule<()>>,
    hsts: Option<HttpRule<HstsDraft>>,
    /// Requests without a client certificate are refused.
    requires_client_cert: bool,
    /// Paths are rewritten to their normal form.
    pub(super) normalizes_paths: bool,
    /// `http-request del-header Upgrade`.
    pub(super) removes_upgrade: bool,
}

/// The section of a rule.
pub(super) struct RuleContext<'a> {
    pub(super) acls: &'a [Acl],
    pub(super) has_listeners: bool,
}

impl ListenerRules {
    /// Reads a rule; `false` if listeners have no setting for it.
    pub(super) fn read(
        &mut self,
        line: &HaproxyLine,
        context: &RuleContext<'_>,
        comments: &mut Vec<String>,
        notes: &Notes<'_>,
    ) -> bool {
        match (line.keyword(), line.word(1)) {
            ("redirect", _) => self.redirect(line, line.tail(1), context, comments, notes),
            ("http-request", "redirect") => {
                self.redirect(line, line.tail(2), context, comments, notes)
            }
            ("http-request", "set-header" | "add-header") => {
                is_forwarded_proto(line, context, notes)
            }
            ("http-request", "normalize-uri") => self.normalize_uri(line, context),
            ("http-request", "deny") => self.deny(line, context),
            ("http-request", "del-header") => self.remove_upgrade(line, context),
            ("http-response" | "http-after-response", "set-header" | "add-header") => {
                self.hsts(line, context, comments, notes)
            }
            _ => false,
        }
    }

    /// Applies the rules to the listeners; returns whether the routes require a client certificate.
    pub(super) fn apply(
        self,
        binds: &mut [BindListener],
        comments: &mut Vec<String>,
        notes: &Notes<'_>,
    ) -> bool {
        if let Some(rule) = self.https_redirect {
            comments.extend(apply_https_redirect(&rule, binds, notes));
        }
        if let Some(rule) = self.hsts {
            comments.extend(apply_hsts(&rule, binds, notes));
        }
        // A listener that redirects every request reaches no route.
        let mut serving = binds
            .iter()
            .filter(|bind| bind.listener.https_redirect.is_none())
            .peekable();
        let by_bind = serving.peek().is_some() && serving.all(|bind| bind.requires_client_cert);
        by_bind || self.requires_client_cert
    }

    /// `redirect scheme https [code N] [if !{ ssl_fc }]`.
    fn redirect(
        &mut self,
        line: &HaproxyLine,
        words: &[HaproxyWord],
        context: &RuleContext<'_>,
        comments: &mut Vec<String>,
        notes: &Notes<'_>,
    ) -> bool {
        let (what, condition) = split_condition(words);
        let (["scheme", "https"] | ["scheme", "https", "code", _] | ["code", _, "scheme", "https"]) =
            what.as_slice()
        else {
            return false;
        };
        let (span, subject) = (line.span, line.text());
        let fetch = acl::single_fetch(condition, context.acls);
        let plain = fetch
            .as_ref()
            .is_some_and(|(name, wanted)| name == "ssl_fc" && !wanted);
        let why = if !context.has_listeners {
            REDIRECT_AT_LISTENER
        } else if condition.is_empty() || plain {
            let rule = HttpRule {
                value: (),
                text: subject,
                span,
            };
            self.https_redirect.get_or_insert(rule);
            return true;
        } else if fetch.is_some_and(|(name, _)| name == "ssl_fc") {
            REDIRECT_LOOP
        } else {
            REDIRECT_ALL_OR_NONE
        };
        comments.push(notes.gap(span, &subject, why));
        true
    }

    /// `http-request normalize-uri path-strip-dotdot`, and other rules for paths.
    fn normalize_uri(&mut self, line: &HaproxyLine, context: &RuleContext<'_>) -> bool {
        const OF_PATHS: &[&str] = &[
            "path-merge-slashes",
            "path-strip-dot",
            "path-strip-dotdot",
            "percent-decode-unreserved",
            "percent-to-uppercase",
        ];
        let is_for_paths = context.has_listeners && OF_PATHS.contains(&line.word(2));
        self.normalizes_paths |= is_for_paths;
        is_for_paths
    }

    /// `http-request deny unless { ssl_c_used }`.
    fn deny(&mut self, line: &HaproxyLine, context: &RuleContext<'_>) -> bool {
        let (what, condition) = split_condition(line.tail(2));
        let fetch = acl::single_fetch(condition, context.acls);
        let same = fetch.is_some_and(|(name, wanted)| name == "ssl_c_used" && !wanted);
        let plain = matches!(what.as_slice(), [] | ["deny_status" | "status", "403"]);
        let refused = same && plain && context.has_listeners;
        self.requires_client_cert |= refused;
        refused
    }

    /// `http-request del-header Upgrade`.
    fn remove_upgrade(&mut self, line: &HaproxyLine, context: &RuleContext<'_>) -> bool {
        let (what, condition) = split_condition(line.tail(2));
        let is_upgrade = matches!(*what, [name] if name.eq_ignore_ascii_case("upgrade"));
        let removed = is_upgrade && condition.is_empty() && context.has_listeners;
        self.removes_upgrade |= removed;
        removed
    }

    /// `http-response set-header Strict-Transport-Security VALUE`.
    fn hsts(
        &mut self,
        line: &HaproxyLine,
        context: &RuleContext<'_>,
        comments: &mut Vec<String>,
        notes: &Notes<'_>,
    ) -> bool {
        if !line
            .word(2)
            .eq_ignore_ascii_case("strict-transport-security")
        {
            return false;
        }
        let (span, subject) = (line.span, line.text());
        let (what, condition) = split_condition(line.tail(3));
        let secure = acl::single_fetch(condition, context.acls)
            .is_some_and(|(name, wanted)| name == "ssl_fc" && wanted);
        let read = HstsDraft::parse(&what.join(" "));
        let why = match read.filter(|_| context.has_listeners) {
            None => HSTS_AT_TLS_LISTENER,
            Some(_) if !condition.is_empty() && !secure => HSTS_ALL_OR_NONE,
            Some(what) => {
                self.hsts = Some(HttpRule {
                    value: what,
                    text: subject,
                    span,
                });
                return true;
            }
        };
        comments.push(notes.gap(span, &subject, why));
        true
    }
}

/// The words before the condition, and the condition.
fn split_condition(words: &[HaproxyWord]) -> (Vec<&str>, &[HaproxyWord]) {
    let condition = |word: &HaproxyWord| matches!(word.text.as_str(), "if" | "unless");
    let at = words.iter().position(condition).unwrap_or(words.len());
    let (before, condition) = words.split_at(at);
    (
        before.iter().map(|word| word.text.as_str()).collect(),
        condition,
    )
}

/// `http-request set-header X-Forwarded-Proto https if { ssl_fc }`, which Clockwise always does.
fn is_forwarded_proto(line: &HaproxyLine, context: &RuleContext<'_>, notes: &Notes<'_>) -> bool {
    let (what, condition) = split_condition(line.tail(2));
    let [name, value] = what.as_slice() else {
        return false;
    };
    if !name.eq_ignore_ascii_case("x-forwarded-proto") {
        return false;
    }
    let fetch = acl::single_fetch(condition, context.acls);
    let fetch = fetch.filter(|(name, _)| name == "ssl_fc");
    let same = match *value {
        "https" => fetch.is_some_and(|(_, wanted)| wanted),
        "http" => fetch.is_some_and(|(_, wanted)| !wanted),
        "%[ssl_fc,iif(https,http)]" => condition.is_empty(),
        _ => false,
    };
    if same {
        notes.remark(line.span, &line.text(), FORWARDED_PROTO_SENT);
    }
    same
}

fn apply_https_redirect(
    rule: &HttpRule<()>,
    binds: &mut [BindListener],
    notes: &Notes<'_>,
) -> Option<String> {
    let port = https_port(binds).unwrap_or(443);
    let mut found = false;
    for bind in binds {
        let listener = &mut bind.listener;
        if listener.tls.is_some() {
            continue;
        }
        listener.https_redirect = Some((port, rule.span));
        let whats = [REDIRECT_CODE, REDIRECT_PORT].into_iter();
        for what in whats.filter(|what| port != 443 || *what != REDIRECT_PORT) {
            let comment = notes.remark(rule.span, &rule.text, what);
            listener.comments.push(comment);
        }
        found = true;
    }
    (!found).then(|| notes.remark(rule.span, &rule.text, NO_PLAIN_LISTENER))
}

fn apply_hsts(
    rule: &HttpRule<HstsDraft>,
    binds: &mut [BindListener],
    notes: &Notes<'_>,
) -> Option<String> {
    let mut found = false;
    for bind in binds {
        let Some(tls) = &mut bind.listener.tls else {
            continue;
        };
        tls.hsts = Some(rule.value);
        found = true;
    }
    (!found).then(|| notes.gap(rule.span, &rule.text, HSTS_AT_TLS_LISTENER))
}

/// The port of the TLS listeners, if they have one port.
fn https_port(binds: &[BindListener]) -> Option<u16> {
    let secure = binds.iter().filter(|bind| bind.listener.tls.is_some());
    let port = |bind: &BindListener| {
        let (_, port) = bind.listener.address.rsplit_once(':')?;
        port.parse::<u16>().ok().filter(|port| *port > 0)
    };
    let mut ports: Vec<_> = secure.filter_map(port).collect();
    ports.sort_unstable();
    ports.dedup();
    match ports.as_slice() {
        [port] => Some(*port),
        _ => None,
    }
}
