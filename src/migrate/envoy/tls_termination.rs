//! `DownstreamTlsContext`: TLS of a listener.

use super::message_fields::{FieldValue, MessageFields};
use super::tls::{
    self, CERTIFICATE_PINS, SAN_MATCHERS, TransportSocket, VALIDATION_IGNORED, ValidationContext,
};
use crate::migrate::notes::Notes;
use crate::migrate::source::SourceSpan;
use crate::migrate::tls::{ClientAuthDraft, HstsDraft, TlsTerminationDraft};
use crate::migrate::unsupported::NO_REWRITE;

const NO_CERTIFICATE: &str = "no certificate file is given; write `tls: {cert: FILE, key: FILE}`";
const UNSUPPORTED_SOCKET: &str = "a listener is plain TCP or TLS over TCP";
const ANY_NAME: &str = "every certificate from `ca` is accepted, whatever its name";
const NO_CA_FILE: &str =
    "no CA file for client certificates is given; write `client_auth: {mode: required, ca: FILE}`";
const CLIENTS_REFUSED: &str = "no CA is given; until `client_auth` has one, these routes accept only clients with a certificate that another filter chain or listener accepts";
const UNTRUSTED_REFUSED: &str = "Clockwise accepts only certificates from `ca`";
const STAPLING_OPTIONAL: &str = "an OCSP response is stapled if there is one, and never required";
const HSTS_WHOLE_LISTENER: &str = "the header is sent with all responses of the listener";
const HSTS_OVER_TLS: &str = "the header is sent over TLS only, since browsers ignore it elsewhere";
const HSTS_NEEDS_AGE: &str = "`hsts` of a listener has a `max_age` above 0";

/// TLS of a filter chain.
#[derive(Default)]
pub(super) struct DownstreamTls {
    /// `None` is plain TCP.
    pub(super) termination: Option<TlsTerminationDraft>,
    /// Every client needs a certificate.
    pub(super) requires_client_cert: bool,
}

/// Reads the `transport_socket` of a filter chain. An unknown socket gives TLS without a certificate.
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
    span: SourceSpan,
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
        let subject = format!("ocsp_staple_policy: {}", policy.text());
        comments.push(notes.gap(policy.span(), &subject, STAPLING_OPTIONAL));
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
    let validation = common
        .as_ref()
        .map(|common| ValidationContext::of(common, comments, notes));
    let validation = validation.unwrap_or_default();
    tls.client_auth = client_auth(validation, required, comments, notes);
    if required && tls.client_auth.is_none() {
        comments.push(notes.gap(span, "require_client_certificate", CLIENTS_REFUSED));
    }
    if let Some(common) = common {
        common.note_unread(comments, notes);
    }
    context.note_unread(comments, notes);
    if tls.certificates.is_empty() {
        comments.push(notes.gap(span, "transport_socket", NO_CERTIFICATE));
    }
    DownstreamTls {
        termination: Some(tls),
        requires_client_cert: required,
    }
}

/// Reads how client certificates are verified.
fn client_auth(
    validation: ValidationContext<'_>,
    required: bool,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Option<ClientAuthDraft> {
    let fields = validation.fields?;
    fields.ignore(VALIDATION_IGNORED);
    let ca = tls::file_path(&fields, "trusted_ca");
    let crl = tls::file_path(&fields, "crl");
    if let Some(crl) = fields.get("crl").filter(|_| crl.is_none()) {
        let why =
            "Clockwise reads a CRL from a file; without it, revoked certificates are accepted";
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

/// Merges the TLS of a further filter chain and notes the differences; `before` puts it first, as the default.
pub(super) fn merge(
    all: &mut Option<TlsTerminationDraft>,
    further: TlsTerminationDraft,
    before: bool,
    span: SourceSpan,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) {
    let Some(first) = all else {
        *all = Some(further);
        return;
    };
    let mut note = |differ: bool, what: &str, why: &str| {
        if differ {
            comments.push(notes.remark(span, what, why));
        }
    };
    let least = |tls: &TlsTerminationDraft| tls.min_version.unwrap_or("1.2");
    note(
        first.http2 != further.http2,
        "alpn_protocols",
        "the filter chains of the listener differ; HTTP/2 is offered to all its clients",
    );
    note(
        least(first) != least(&further),
        "tls_minimum_protocol_version",
        "the filter chains of the listener differ; one version is written for all",
    );
    note(
        first.client_auth.is_some() != further.client_auth.is_some(),
        "validation_context",
        "the listener asks every client for a certificate without requiring it; routes require one",
    );
    let required =
        |tls: &TlsTerminationDraft| tls.client_auth.as_ref().map(|clients| clients.required);
    let modes = required(first).zip(required(&further));
    note(
        modes.is_some_and(|(one, other)| one != other),
        "require_client_certificate",
        "the listener does not require a client certificate; routes require one",
    );
    for (what, why) in first.merge(further, before) {
        comments.push(notes.gap(span, what, why));
    }
}

/// Reads `response_headers_to_add`: `Strict-Transport-Security` becomes `hsts`, other headers are noted.
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
        let subject = format!("response_headers_to_add: {name}");
        if !name.eq_ignore_ascii_case("strict-transport-security") {
            comments.push(notes.gap(element.span(), &subject, NO_REWRITE));
            continue;
        }
        let comment = match &mut tls {
            None => Some(notes.remark(element.span(), &subject, HSTS_OVER_TLS)),
            Some(tls) => match HstsDraft::parse(value) {
                None => Some(notes.gap(element.span(), &subject, HSTS_NEEDS_AGE)),
                Some(hsts) => set_hsts(tls, hsts, whole)
                    .map(|what| notes.remark(element.span(), &subject, what)),
            },
        };
        comments.extend(comment);
    }
}

/// Sets `hsts` of the listener; returns the difference to Envoy.
fn set_hsts(tls: &mut TlsTerminationDraft, hsts: HstsDraft, whole: bool) -> Option<&'static str> {
    let first = *tls.hsts.get_or_insert(hsts);
    if first != hsts {
        return Some("a listener has one `hsts`; the first is written");
    }
    (!whole).then_some(HSTS_WHOLE_LISTENER)
}
