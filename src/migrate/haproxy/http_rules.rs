//! `http-request`, `redirect`, `http-response`: the rules that listeners have a word for.

use super::acl;
use super::proxy_section::ProxySection;
use super::syntax::{HaproxyLine, HaproxyWord};
use crate::migrate::notes::Notes;
use crate::migrate::source::SourceSpan;
use crate::migrate::tls::HstsDraft;

const REDIRECT_ALL_OR_NONE: &str = "a listener sends all its requests to HTTPS or none; let the servers send those there that have to go";
const REDIRECT_AT_LISTENER: &str =
    "say it where clients connect: `https_redirect: 443` of the plain listener";
const REDIRECT_CODE: &str = "the code is 308, with which clients repeat the request as it was";
const REDIRECT_PORT: &str = "HAProxy keeps the port that the client named, none for most; here it is that of HTTPS in this section: write 443 where something in front of it maps ports";
const NO_PLAIN_LISTENER: &str = "there is no listener without TLS that it would hold for";
const REDIRECT_LOOP: &str = "HTTPS is sent to HTTPS";
const FORWARDED_PROTO_SENT: &str = "peers are told by `X-Forwarded-Proto` anyway";
const HSTS_ALL_OR_NONE: &str =
    "it is told with every response or none; see `hsts` of the listener's `tls`";
const HSTS_AT_TLS_LISTENER: &str = "it is told where clients connect with TLS, for at least a second: see `hsts` of the listener's `tls`";

/// A rule for all requests, and where it is said.
#[derive(Clone)]
pub(super) struct HttpRule<T> {
    value: T,
    text: String,
    span: SourceSpan,
}

/// The rules of a section that hold for its listeners.
#[derive(Default)]
pub(super) struct ListenerRules {
    /// All that comes without TLS is sent to HTTPS.
    https_redirect: Option<HttpRule<()>>,
    hsts: Option<HttpRule<HstsDraft>>,
    /// Who has shown no certificate is refused.
    requires_client_cert: bool,
}

/// Takes in a rule; `false` if listeners have no word for it.
pub(super) fn read_rule(line: &HaproxyLine, proxy: &mut ProxySection, notes: &Notes<'_>) -> bool {
    match (line.keyword(), line.word(1)) {
        ("redirect", _) => redirect_rule(line, line.tail(1), proxy, notes),
        ("http-request", "redirect") => redirect_rule(line, line.tail(2), proxy, notes),
        ("http-request", "set-header" | "add-header") => forwarded_proto_rule(line, proxy, notes),
        ("http-request", "deny") => deny_rule(line, proxy),
        ("http-response" | "http-after-response", "set-header" | "add-header") => {
            hsts_rule(line, proxy, notes)
        }
        _ => false,
    }
}

/// What comes before the condition, and the condition.
fn split_condition(words: &[HaproxyWord]) -> (Vec<&str>, &[HaproxyWord]) {
    let condition = |word: &HaproxyWord| matches!(word.text.as_str(), "if" | "unless");
    let at = words.iter().position(condition).unwrap_or(words.len());
    let (before, condition) = words.split_at(at);
    (
        before.iter().map(|word| word.text.as_str()).collect(),
        condition,
    )
}

/// `redirect scheme https [code N] [if !{ ssl_fc }]`.
fn redirect_rule(
    line: &HaproxyLine,
    words: &[HaproxyWord],
    proxy: &mut ProxySection,
    notes: &Notes<'_>,
) -> bool {
    let (what, condition) = split_condition(words);
    let (["scheme", "https"] | ["scheme", "https", "code", _] | ["code", _, "scheme", "https"]) =
        what.as_slice()
    else {
        return false;
    };
    let (place, shown) = (line.span, line.text());
    let asked = acl::single_fetch(condition, &proxy.acls);
    let plain = asked
        .as_ref()
        .is_some_and(|(name, wanted)| name == "ssl_fc" && !wanted);
    let why = if !proxy.has_listeners() {
        REDIRECT_AT_LISTENER
    } else if condition.is_empty() || plain {
        let said = HttpRule {
            value: (),
            text: shown,
            span: place,
        };
        proxy.rules.https_redirect.get_or_insert(said);
        return true;
    } else if asked.is_some_and(|(name, _)| name == "ssl_fc") {
        REDIRECT_LOOP
    } else {
        REDIRECT_ALL_OR_NONE
    };
    let comment = notes.gap(place, &shown, why);
    proxy.upstream.comments.push(comment);
    true
}

/// `http-request set-header X-Forwarded-Proto https if { ssl_fc }`, which needs no saying.
fn forwarded_proto_rule(line: &HaproxyLine, proxy: &mut ProxySection, notes: &Notes<'_>) -> bool {
    let (what, condition) = split_condition(line.tail(2));
    let [name, value] = what.as_slice() else {
        return false;
    };
    if !name.eq_ignore_ascii_case("x-forwarded-proto") {
        return false;
    }
    let asked = acl::single_fetch(condition, &proxy.acls);
    let asked = asked.filter(|(name, _)| name == "ssl_fc");
    let same = match *value {
        "https" => asked.is_some_and(|(_, wanted)| wanted),
        "http" => asked.is_some_and(|(_, wanted)| !wanted),
        "%[ssl_fc,iif(https,http)]" => condition.is_empty(),
        _ => false,
    };
    if same {
        notes.remark(line.span, &line.text(), FORWARDED_PROTO_SENT);
    }
    same
}

/// `http-request deny unless { ssl_c_used }`.
fn deny_rule(line: &HaproxyLine, proxy: &mut ProxySection) -> bool {
    let (what, condition) = split_condition(line.tail(2));
    let asked = acl::single_fetch(condition, &proxy.acls);
    let same = asked.is_some_and(|(name, wanted)| name == "ssl_c_used" && !wanted);
    let plain = matches!(what.as_slice(), [] | ["deny_status" | "status", "403"]);
    let refused = same && plain && proxy.has_listeners();
    proxy.rules.requires_client_cert |= refused;
    refused
}

/// `http-response set-header Strict-Transport-Security VALUE`.
fn hsts_rule(line: &HaproxyLine, proxy: &mut ProxySection, notes: &Notes<'_>) -> bool {
    if !line
        .word(2)
        .eq_ignore_ascii_case("strict-transport-security")
    {
        return false;
    }
    let (place, shown) = (line.span, line.text());
    let (what, condition) = split_condition(line.tail(3));
    let secure = acl::single_fetch(condition, &proxy.acls)
        .is_some_and(|(name, wanted)| name == "ssl_fc" && wanted);
    let read = HstsDraft::parse(&what.join(" "));
    let why = match read.filter(|_| proxy.has_listeners()) {
        None => HSTS_AT_TLS_LISTENER,
        Some(_) if !condition.is_empty() && !secure => HSTS_ALL_OR_NONE,
        Some(what) => {
            proxy.rules.hsts = Some(HttpRule {
                value: what,
                text: shown,
                span: place,
            });
            return true;
        }
    };
    let comment = notes.gap(place, &shown, why);
    proxy.upstream.comments.push(comment);
    true
}

/// Gives the listeners of a section its rules.
pub(super) fn apply_to_listeners(proxy: &mut ProxySection, notes: &Notes<'_>) {
    let rules = std::mem::take(&mut proxy.rules);
    if let Some(said) = rules.https_redirect {
        apply_https_redirect(&said, proxy, notes);
    }
    if let Some(said) = rules.hsts {
        apply_hsts(&said, proxy, notes);
    }
    // A listener that sends all away is no way in.
    let mut ways = proxy
        .binds
        .iter()
        .filter(|bind| bind.listener.https_redirect.is_none())
        .peekable();
    let asked = ways.peek().is_some() && ways.all(|bind| bind.requires_client_cert);
    proxy.client_cert = asked || rules.requires_client_cert;
}

fn apply_https_redirect(said: &HttpRule<()>, proxy: &mut ProxySection, notes: &Notes<'_>) {
    let port = proxy.https_port().unwrap_or(443);
    let mut found = false;
    for bind in &mut proxy.binds {
        let listener = &mut bind.listener;
        if listener.tls.is_some() {
            continue;
        }
        listener.https_redirect = Some((port, said.span));
        let whats = [REDIRECT_CODE, REDIRECT_PORT].into_iter();
        for what in whats.filter(|what| port != 443 || *what != REDIRECT_PORT) {
            let comment = notes.remark(said.span, &said.text, what);
            listener.comments.push(comment);
        }
        found = true;
    }
    if !found {
        let comment = notes.remark(said.span, &said.text, NO_PLAIN_LISTENER);
        proxy.upstream.comments.push(comment);
    }
}

fn apply_hsts(said: &HttpRule<HstsDraft>, proxy: &mut ProxySection, notes: &Notes<'_>) {
    let mut found = false;
    for bind in &mut proxy.binds {
        let Some(tls) = &mut bind.listener.tls else {
            continue;
        };
        tls.hsts = Some(said.value);
        found = true;
    }
    if !found {
        let comment = notes.gap(said.span, &said.text, HSTS_AT_TLS_LISTENER);
        proxy.upstream.comments.push(comment);
    }
}
