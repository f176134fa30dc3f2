//! `DownstreamTlsContext`: the end of TLS at a listener.

use super::message_fields::{FieldValue, MessageFields};
use super::tls::{
    self, CERTIFICATE_PINS, SAN_MATCHERS, TransportSocket, VALIDATION_IGNORED, ValidationContext,
};
use crate::migrate::notes::Notes;
use crate::migrate::source::SourceSpan;
use crate::migrate::tls::{ClientAuthDraft, HstsDraft, TlsTerminationDraft};
use crate::migrate::unsupported::NO_REWRITE;

const NO_CERTIFICATE: &str =
    "there is no certificate in a file: name one, as in `tls: {cert: FILE, key: FILE}`";
const UNSUPPORTED_SOCKET: &str = "listeners are plain or speak TLS over TCP";
const ANY_NAME: &str = "every certificate of `ca` is taken, whatever name it is for";
const NO_CA_FILE: &str =
    "clients are known by issuers in a file: write `client_auth: {mode: required, ca: FILE}`";
const CLIENTS_REFUSED: &str = "it is not known whose certificates are taken: until `client_auth` says it, these routes refuse all clients but those that show one which another filter chain or listener takes";
const UNTRUSTED_REFUSED: &str = "certificates whose issuer is not in `ca` are not taken";
const STAPLING_OPTIONAL: &str =
    "a response is sent along where there is one, and nothing depends on it";
const HSTS_WHOLE_LISTENER: &str = "it is sent with all responses of the listener";
const HSTS_OVER_TLS: &str = "browsers look at it over TLS only, and it is sent over TLS only here";
const HSTS_NEEDS_AGE: &str = "`hsts` of a listener has a `max_age` above 0";

/// What a filter chain says of TLS.
#[derive(Default)]
pub(super) struct DownstreamTls {
    /// `None`: plain.
    pub(super) termination: Option<TlsTerminationDraft>,
    /// Who shows no certificate is not served.
    pub(super) requires_client_cert: bool,
}

/// The `transport_socket` of a filter chain. One that is not known has no certificate either.
pub(super) fn read_transport_socket(
    socket: Option<FieldValue<'_>>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> DownstreamTls {
    let Some(element) = socket else {
        return DownstreamTls::default();
    };
    match TransportSocket::of(MessageFields::of(element)) {
        TransportSocket::RawBuffer => DownstreamTls::default(),
        TransportSocket::Tls(context) => {
            read_tls_context(element.span(), &context, comments, notes)
        }
        TransportSocket::Other(_) => {
            comments.push(notes.gap(element.span(), "transport_socket", UNSUPPORTED_SOCKET));
            DownstreamTls {
                termination: Some(TlsTerminationDraft::default()),
                requires_client_cert: false,
            }
        }
    }
}

fn read_tls_context(
    place: SourceSpan,
    context: &MessageFields<'_>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> DownstreamTls {
    context.ignore(&[
        "session_ticket_keys",
        "session_ticket_keys_sds_secret_config",
        "disable_stateless_session_resumption",
        "disable_stateful_session_resumption",
    ]);
    context.ignore(&[
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
        comments.push(notes.gap(policy.span(), &shown, STAPLING_OPTIONAL));
    }
    let mut tls = TlsTerminationDraft::default();
    let common = context.message("common_tls_context");
    if let Some(common) = &common {
        let protocols = common.list("alpn_protocols");
        tls = TlsTerminationDraft {
            certificates: tls::certificates(common, comments, notes),
            min_version: tls::min_version(common, comments, notes),
            http2: Some(protocols.into_iter().any(|one| one.text() == "h2")),
            hsts: None,
            client_auth: None,
        };
    }
    let judging = common
        .as_ref()
        .map(|common| ValidationContext::of(common, comments, notes));
    let judging = judging.unwrap_or_default();
    tls.client_auth = client_auth(judging, required, comments, notes);
    if required && tls.client_auth.is_none() {
        comments.push(notes.gap(place, "require_client_certificate", CLIENTS_REFUSED));
    }
    if let Some(common) = common {
        common.note_unread(comments, notes);
    }
    context.note_unread(comments, notes);
    if tls.certificates.is_empty() {
        comments.push(notes.gap(place, "transport_socket", NO_CERTIFICATE));
    }
    DownstreamTls {
        termination: Some(tls),
        requires_client_cert: required,
    }
}

/// Whom a client's certificate must be from.
fn client_auth(
    judging: ValidationContext<'_>,
    required: bool,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Option<ClientAuthDraft> {
    let fields = judging.fields?;
    fields.ignore(VALIDATION_IGNORED);
    let ca = tls::file_path(&fields, "trusted_ca");
    let crl = tls::file_path(&fields, "crl");
    if let Some(crl) = fields.get("crl").filter(|_| crl.is_none()) {
        let why = "revoked certificates are named in a file here, and are taken without";
        comments.push(notes.wider_access(crl.span(), "crl", why));
    }
    for name in SAN_MATCHERS.into_iter().chain(CERTIFICATE_PINS) {
        if let Some(element) = fields.get(name) {
            comments.push(notes.wider_access(element.span(), name, ANY_NAME));
        }
    }
    if let Some(chain) = fields
        .get("trust_chain_verification")
        .filter(|chain| chain.text() == "ACCEPT_UNTRUSTED")
    {
        comments.push(notes.gap(chain.span(), "trust_chain_verification", UNTRUSTED_REFUSED));
    }
    fields.note_unread(comments, notes);
    let Some(ca) = ca else {
        comments.push(notes.gap(fields.span(), "validation_context", NO_CA_FILE));
        return None;
    };
    Some(ClientAuthDraft { required, ca, crl })
}

/// Joins what a further filter chain says, and tells what cannot be said of both. It comes before
/// what was said so far where it is the one for clients that ask for no name of another.
pub(super) fn merge(
    all: &mut Option<TlsTerminationDraft>,
    further: TlsTerminationDraft,
    before: bool,
    place: SourceSpan,
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
    let least = |tls: &TlsTerminationDraft| tls.min_version.unwrap_or("1.2");
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
        first.client_auth.is_some() != further.client_auth.is_some(),
        "validation_context",
        "all clients of the listener are asked for a certificate, and may show none; routes require one",
    );
    let required =
        |tls: &TlsTerminationDraft| tls.client_auth.as_ref().map(|clients| clients.required);
    let asked = required(first).zip(required(&further));
    tell(
        asked.is_some_and(|(one, other)| one != other),
        "require_client_certificate",
        "clients of the listener may show no certificate; routes require one",
    );
    for (what, why) in first.merge(further, before) {
        comments.push(notes.gap(place, what, why));
    }
}

/// `response_headers_to_add`: of one of them we know what is meant.
pub(super) fn response_headers(
    fields: &MessageFields<'_>,
    whole: bool,
    mut tls: Option<&mut TlsTerminationDraft>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) {
    for element in fields.list("response_headers_to_add") {
        let option = MessageFields::of(element);
        let header = option.message("header");
        let (name, value) = header.as_ref().map_or(("", ""), |header| {
            let text = |name| header.text(name).unwrap_or_default();
            (text("key"), text("value"))
        });
        let shown = format!("response_headers_to_add: {name}");
        if !name.eq_ignore_ascii_case("strict-transport-security") {
            comments.push(notes.gap(element.span(), &shown, NO_REWRITE));
            continue;
        }
        let said = match &mut tls {
            None => Some(notes.remark(element.span(), &shown, HSTS_OVER_TLS)),
            Some(tls) => match HstsDraft::parse(value) {
                None => Some(notes.gap(element.span(), &shown, HSTS_NEEDS_AGE)),
                Some(hsts) => set_hsts(tls, hsts, whole)
                    .map(|what| notes.remark(element.span(), &shown, what)),
            },
        };
        comments.extend(said);
    }
}

/// Says it of the listener; gives what is different from there.
fn set_hsts(tls: &mut TlsTerminationDraft, hsts: HstsDraft, whole: bool) -> Option<&'static str> {
    let first = *tls.hsts.get_or_insert(hsts);
    if first != hsts {
        return Some("a listener has one `hsts`, the first");
    }
    (!whole).then_some(HSTS_WHOLE_LISTENER)
}
