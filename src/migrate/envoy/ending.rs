//! `DownstreamTlsContext`: the end of TLS at a listener.

use super::fields::{Element, Fields};
use super::listener::PASSED;
use super::tls::{self, JUDGING_OWN, Judging, NAMES, PINS, Socket};
use crate::migrate::notes::Notes;
use crate::migrate::source::Place;
use crate::migrate::tls::{Clients, Ending, Hsts};

const NO_CERTIFICATE: &str =
    "there is no certificate in a file: name one, as in `tls: {cert: FILE, key: FILE}`";
const OTHER: &str = "listeners are plain or speak TLS over TCP";
const ANY_NAME: &str = "every certificate of `ca` is taken, whatever name it is for";
const NO_ISSUER: &str =
    "clients are known by issuers in a file: write `client_auth: {mode: required, ca: FILE}`";
const REFUSED: &str = "it is not known whose certificates are taken: until `client_auth` says it, these routes refuse all clients but those that show one which another filter chain or listener takes";
const UNTRUSTED: &str = "certificates whose issuer is not in `ca` are not taken";
const STAPLING: &str = "a response is sent along where there is one, and nothing depends on it";
const WHOLE: &str = "it is sent with all responses of the listener";
const OVER_TLS: &str = "browsers look at it over TLS only, and it is sent over TLS only here";
const NO_AGE: &str = "`hsts` of a listener has a `max_age` above 0";

/// What a filter chain says of TLS.
#[derive(Default)]
pub(super) struct Terms {
    /// `None`: plain.
    pub(super) tls: Option<Ending>,
    /// Who shows no certificate is not served.
    pub(super) required: bool,
}

/// The `transport_socket` of a filter chain. One that is not known has no certificate either.
pub(super) fn terms(
    socket: Option<Element<'_>>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Terms {
    let Some(element) = socket else {
        return Terms::default();
    };
    match Socket::of(Fields::of(element)) {
        Socket::Plain => Terms::default(),
        Socket::Tls(context) => given(element.place(), &context, comments, notes),
        Socket::Other(_) => {
            comments.push(notes.gap(element.place(), "transport_socket", OTHER));
            Terms {
                tls: Some(Ending::default()),
                required: false,
            }
        }
    }
}

fn given(
    place: Place,
    context: &Fields<'_>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Terms {
    context.leave(&[
        "session_ticket_keys",
        "session_ticket_keys_sds_secret_config",
        "disable_stateless_session_resumption",
        "disable_stateful_session_resumption",
    ]);
    context.leave(&[
        "session_timeout",
        "prefer_client_ciphers",
        "full_scan_certs_on_sni_mismatch",
    ]);
    let required = context.flag("require_client_certificate");
    if let Some(policy) = context
        .get("ocsp_staple_policy")
        .filter(|policy| policy.text() != "LENIENT_STAPLING")
    {
        let shown = format!("ocsp_staple_policy: {}", policy.text());
        comments.push(notes.gap(policy.place(), &shown, STAPLING));
    }
    let mut tls = Ending::default();
    let common = context.map("common_tls_context");
    if let Some(common) = &common {
        let protocols = common.list("alpn_protocols");
        tls = Ending {
            certificates: tls::certificates(common, comments, notes),
            min_version: tls::min_version(common, comments, notes),
            http2: Some(protocols.into_iter().any(|one| one.text() == "h2")),
            hsts: None,
            clients: None,
        };
    }
    let judging = common
        .as_ref()
        .map(|common| Judging::of(common, comments, notes));
    let judging = judging.unwrap_or_default();
    tls.clients = clients(judging, required, comments, notes);
    if required && tls.clients.is_none() {
        comments.push(notes.gap(place, "require_client_certificate", REFUSED));
    }
    if let Some(common) = common {
        common.tell_rest(comments, notes);
    }
    context.tell_rest(comments, notes);
    if tls.certificates.is_empty() {
        comments.push(notes.gap(place, "transport_socket", NO_CERTIFICATE));
    }
    Terms {
        tls: Some(tls),
        required,
    }
}

/// Whom a client's certificate must be from.
fn clients(
    judging: Judging<'_>,
    required: bool,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Option<Clients> {
    let fields = judging.given?;
    fields.leave(JUDGING_OWN);
    let ca = tls::file(&fields, "trusted_ca");
    let crl = tls::file(&fields, "crl");
    if let Some(crl) = fields.get("crl").filter(|_| crl.is_none()) {
        let why = "revoked certificates are named in a file here, and are taken without";
        comments.push(notes.widened(crl.place(), "crl", why));
    }
    for name in NAMES.into_iter().chain(PINS) {
        if let Some(element) = fields.get(name) {
            comments.push(notes.widened(element.place(), name, ANY_NAME));
        }
    }
    if let Some(chain) = fields
        .get("trust_chain_verification")
        .filter(|chain| chain.text() == "ACCEPT_UNTRUSTED")
    {
        comments.push(notes.gap(chain.place(), "trust_chain_verification", UNTRUSTED));
    }
    fields.tell_rest(comments, notes);
    let Some(ca) = ca else {
        comments.push(notes.gap(fields.place(), "validation_context", NO_ISSUER));
        return None;
    };
    Some(Clients { required, ca, crl })
}

/// Joins what a further filter chain says, and tells what cannot be said of both. It comes before
/// what was said so far where it is the one for clients that ask for no name of another.
pub(super) fn join(
    all: &mut Option<Ending>,
    further: Ending,
    before: bool,
    place: Place,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) {
    let Some(first) = all else {
        *all = Some(further);
        return;
    };
    let mut tell = |differ: bool, what: &str, why: &str| {
        if differ {
            comments.push(notes.remark(place, what, why));
        }
    };
    let least = |tls: &Ending| tls.min_version.unwrap_or("1.2");
    tell(
        first.http2 != further.http2,
        "alpn_protocols",
        "the filter chains of the listener differ; HTTP/2 is offered to all its clients",
    );
    tell(
        least(first) != least(&further),
        "tls_minimum_protocol_version",
        "the filter chains of the listener differ; one version is written for all",
    );
    tell(
        first.clients.is_some() != further.clients.is_some(),
        "validation_context",
        "all clients of the listener are asked for a certificate, and may show none; routes require one",
    );
    let required = |tls: &Ending| tls.clients.as_ref().map(|clients| clients.required);
    let asked = required(first).zip(required(&further));
    tell(
        asked.is_some_and(|(one, other)| one != other),
        "require_client_certificate",
        "clients of the listener may show no certificate; routes require one",
    );
    for (what, why) in first.join(further, before) {
        comments.push(notes.gap(place, what, why));
    }
}

/// `response_headers_to_add`: of one of them we know what is meant.
pub(super) fn response_headers(
    fields: &Fields<'_>,
    whole: bool,
    mut tls: Option<&mut Ending>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) {
    for element in fields.list("response_headers_to_add") {
        let option = Fields::of(element);
        let header = option.map("header");
        let (name, value) = header.as_ref().map_or(("", ""), |header| {
            let text = |name| header.text(name).unwrap_or_default();
            (text("key"), text("value"))
        });
        let shown = format!("response_headers_to_add: {name}");
        if !name.eq_ignore_ascii_case("strict-transport-security") {
            comments.push(notes.gap(element.place(), &shown, PASSED));
            continue;
        }
        let said = match &mut tls {
            None => Some(notes.remark(element.place(), &shown, OVER_TLS)),
            Some(tls) => match Hsts::parse(value) {
                None => Some(notes.gap(element.place(), &shown, NO_AGE)),
                Some(hsts) => {
                    strict(tls, hsts, whole).map(|what| notes.remark(element.place(), &shown, what))
                }
            },
        };
        comments.extend(said);
    }
}

/// Says it of the listener; gives what is different from there.
fn strict(tls: &mut Ending, hsts: Hsts, whole: bool) -> Option<&'static str> {
    let first = *tls.hsts.get_or_insert(hsts);
    if first != hsts {
        return Some("a listener has one `hsts`, the first");
    }
    (!whole).then_some(WHOLE)
}
