//! `http-request`, `redirect`, `http-response`: the rules that listeners have a word for.

use super::acl;
use super::proxy::Proxy;
use super::syntax::{Line, Word};
use crate::migrate::notes::Notes;
use crate::migrate::source::Place;
use crate::migrate::tls::Hsts;

const ALL: &str = "a listener sends all its requests to HTTPS or none; let the servers send those there that have to go";
const ABOVE: &str = "say it where clients connect: `https_redirect: 443` of the plain listener";
const CODE: &str = "the code is 308, with which clients repeat the request as it was";
const PORT: &str = "HAProxy keeps the port that the client named, none for most; here it is that of HTTPS in this section: write 443 where something in front of it maps ports";
const NO_PLAIN: &str = "there is no listener without TLS that it would hold for";
const ENDLESS: &str = "HTTPS is sent to HTTPS";
const TOLD: &str = "peers are told by `X-Forwarded-Proto` anyway";
const NOT_ALL: &str = "it is told with every response or none; see `hsts` of the listener's `tls`";
const UNTOLD: &str = "it is told where clients connect with TLS, for at least a second: see `hsts` of the listener's `tls`";

/// A rule for all requests, and where it is said.
#[derive(Clone)]
pub(super) struct Said<T> {
    what: T,
    shown: String,
    place: Place,
}

/// The rules of a section that hold for its listeners.
#[derive(Default)]
pub(super) struct Rules {
    /// All that comes without TLS is sent to HTTPS.
    redirect: Option<Said<()>>,
    hsts: Option<Said<Hsts>>,
    /// Who has shown no certificate is refused.
    demands: bool,
}

/// Takes in a rule; `false` if listeners have no word for it.
pub(super) fn rule(line: &Line, proxy: &mut Proxy, notes: &Notes<'_>) -> bool {
    match (line.keyword(), line.word(1)) {
        ("redirect", _) => redirect(line, line.tail(1), proxy, notes),
        ("http-request", "redirect") => redirect(line, line.tail(2), proxy, notes),
        ("http-request", "set-header" | "add-header") => protocol(line, proxy, notes),
        ("http-request", "deny") => deny(line, proxy),
        ("http-response" | "http-after-response", "set-header" | "add-header") => {
            hsts(line, proxy, notes)
        }
        _ => false,
    }
}

/// What comes before the condition, and the condition.
fn split(words: &[Word]) -> (Vec<&str>, &[Word]) {
    let condition = |word: &Word| matches!(word.text.as_str(), "if" | "unless");
    let at = words.iter().position(condition).unwrap_or(words.len());
    let (before, condition) = words.split_at(at);
    (
        before.iter().map(|word| word.text.as_str()).collect(),
        condition,
    )
}

/// `redirect scheme https [code N] [if !{ ssl_fc }]`.
fn redirect(line: &Line, words: &[Word], proxy: &mut Proxy, notes: &Notes<'_>) -> bool {
    let (what, condition) = split(words);
    let (["scheme", "https"] | ["scheme", "https", "code", _] | ["code", _, "scheme", "https"]) =
        what.as_slice()
    else {
        return false;
    };
    let (place, shown) = (line.place, line.shown());
    let asked = acl::flag(condition, &proxy.acls);
    let plain = asked
        .as_ref()
        .is_some_and(|(name, wanted)| name == "ssl_fc" && !wanted);
    let why = if !proxy.has_listeners() {
        ABOVE
    } else if condition.is_empty() || plain {
        let said = Said {
            what: (),
            shown,
            place,
        };
        proxy.rules.redirect.get_or_insert(said);
        return true;
    } else if asked.is_some_and(|(name, _)| name == "ssl_fc") {
        ENDLESS
    } else {
        ALL
    };
    let comment = notes.gap(place, &shown, why);
    proxy.upstream.comments.push(comment);
    true
}

/// `http-request set-header X-Forwarded-Proto https if { ssl_fc }`, which needs no saying.
fn protocol(line: &Line, proxy: &mut Proxy, notes: &Notes<'_>) -> bool {
    let (what, condition) = split(line.tail(2));
    let [name, value] = what.as_slice() else {
        return false;
    };
    if !name.eq_ignore_ascii_case("x-forwarded-proto") {
        return false;
    }
    let asked = acl::flag(condition, &proxy.acls);
    let asked = asked.filter(|(name, _)| name == "ssl_fc");
    let same = match *value {
        "https" => asked.is_some_and(|(_, wanted)| wanted),
        "http" => asked.is_some_and(|(_, wanted)| !wanted),
        "%[ssl_fc,iif(https,http)]" => condition.is_empty(),
        _ => false,
    };
    if same {
        notes.remark(line.place, &line.shown(), TOLD);
    }
    same
}

/// `http-request deny unless { ssl_c_used }`.
fn deny(line: &Line, proxy: &mut Proxy) -> bool {
    let (what, condition) = split(line.tail(2));
    let asked = acl::flag(condition, &proxy.acls);
    let same = asked.is_some_and(|(name, wanted)| name == "ssl_c_used" && !wanted);
    let plain = matches!(what.as_slice(), [] | ["deny_status" | "status", "403"]);
    let refused = same && plain && proxy.has_listeners();
    proxy.rules.demands |= refused;
    refused
}

/// `http-response set-header Strict-Transport-Security VALUE`.
fn hsts(line: &Line, proxy: &mut Proxy, notes: &Notes<'_>) -> bool {
    if !line
        .word(2)
        .eq_ignore_ascii_case("strict-transport-security")
    {
        return false;
    }
    let (place, shown) = (line.place, line.shown());
    let (what, condition) = split(line.tail(3));
    let secure =
        acl::flag(condition, &proxy.acls).is_some_and(|(name, wanted)| name == "ssl_fc" && wanted);
    let read = Hsts::parse(&what.join(" "));
    let why = match read.filter(|_| proxy.has_listeners()) {
        None => UNTOLD,
        Some(_) if !condition.is_empty() && !secure => NOT_ALL,
        Some(what) => {
            proxy.rules.hsts = Some(Said { what, shown, place });
            return true;
        }
    };
    let comment = notes.gap(place, &shown, why);
    proxy.upstream.comments.push(comment);
    true
}

/// Gives the listeners of a section its rules.
pub(super) fn apply(proxy: &mut Proxy, notes: &Notes<'_>) {
    let rules = std::mem::take(&mut proxy.rules);
    if let Some(said) = rules.redirect {
        send_to_https(&said, proxy, notes);
    }
    if let Some(said) = rules.hsts {
        tell(&said, proxy, notes);
    }
    // A listener that sends all away is no way in.
    let mut ways = proxy
        .binds
        .iter()
        .filter(|bind| bind.listener.redirect.is_none())
        .peekable();
    let asked = ways.peek().is_some() && ways.all(|bind| bind.demands);
    proxy.client_cert = asked || rules.demands;
}

fn send_to_https(said: &Said<()>, proxy: &mut Proxy, notes: &Notes<'_>) {
    let port = proxy.https().unwrap_or(443);
    let mut found = false;
    for bind in &mut proxy.binds {
        let listener = &mut bind.listener;
        if listener.tls.is_some() {
            continue;
        }
        listener.redirect = Some((port, said.place));
        let whats = [CODE, PORT].into_iter();
        for what in whats.filter(|what| port != 443 || *what != PORT) {
            let comment = notes.remark(said.place, &said.shown, what);
            listener.comments.push(comment);
        }
        found = true;
    }
    if !found {
        let comment = notes.remark(said.place, &said.shown, NO_PLAIN);
        proxy.upstream.comments.push(comment);
    }
}

fn tell(said: &Said<Hsts>, proxy: &mut Proxy, notes: &Notes<'_>) {
    let mut found = false;
    for bind in &mut proxy.binds {
        let Some(tls) = &mut bind.listener.tls else {
            continue;
        };
        tls.hsts = Some(said.what);
        found = true;
    }
    if !found {
        let comment = notes.gap(said.place, &said.shown, UNTOLD);
        proxy.upstream.comments.push(comment);
    }
}
