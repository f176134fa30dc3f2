//! `UpstreamTlsContext` and `HttpProtocolOptions`: TLS and protocol to the endpoints of a cluster.

use rustls_pki_types::ServerName;

use super::message_fields::{FieldValue, MessageFields};
use super::tls::{
    self, CERTIFICATE_PINS, SAN_MATCHERS, TransportSocket, VALIDATION_IGNORED, ValidationContext,
};
use crate::migrate::draft::UpstreamDraft;
use crate::migrate::notes::Notes;
use crate::migrate::source::SourceSpan;
use crate::migrate::tls::{TlsOriginationDraft, is_verifiable_name};
use crate::migrate::unsupported;

const UNVERIFIED: &str = "without a CA, Envoy does not verify certificates, and `verify: false` is written; name a `ca` and remove it";
const ACCEPTS_UNTRUSTED: &str = "every server certificate is accepted, as before";
const NO_NAME_MATCHED: &str =
    "Envoy does not check the name in this certificate; Clockwise checks the SNI name";
const SAN_IS_SERVER_NAME: &str = "Clockwise checks a certificate against `server_name` only";
const NO_PINNING: &str = "Clockwise verifies certificates by their CA only; the CAs of the system are used, name yours as `ca`";
const NO_SERVER_CRL: &str =
    "Clockwise does not check the certificates of servers against a CRL; revoked ones are accepted";
const CA_IN_FILE: &str =
    "Clockwise reads the CA from a file; the CAs of the system are used, name yours as `ca`";
const ONE_CLIENT_CERTIFICATE: &str = "an upstream has one client certificate; the first is written";
const SDS: &str = "secrets from SDS are not in the file; write `tls: {cert: FILE, key: FILE}`";
const UNSUPPORTED_SOCKET: &str = "a connection to a server is plain TCP or TLS over TCP";
const SEE_PROXY_PROTOCOL: &str = "see `proxy_protocol` of the upstream";
const AUTO_NEEDS_TLS: &str = "a server can choose HTTP/2 over TLS only; HTTP/1.1 is written";

/// `HttpProtocolOptions`, or the older fields of the cluster.
#[derive(Default)]
pub(super) struct UpstreamHttpOptions {
    http2: bool,
    /// `auto_config`: the server chooses by ALPN.
    auto_config: Option<SourceSpan>,
    /// SNI is the client's `Host`.
    auto_sni: bool,
    /// The certificate must match it.
    auto_san_validation: bool,
}

impl UpstreamHttpOptions {
    pub(super) fn of(
        cluster: &MessageFields<'_>,
        comments: &mut Vec<String>,
        notes: &Notes<'_>,
    ) -> Self {
        let mut options = Self::default();
        options.read_cluster_fields(cluster, comments, notes);
        let Some(extensions) = cluster.message("typed_extension_protocol_options") else {
            return options;
        };
        if let Some(fields) =
            extensions.message("envoy.extensions.upstreams.http.v3.HttpProtocolOptions")
        {
            fields.ignore(&["common_http_protocol_options"]);
            options.read_upstream_options(&fields, comments, notes);
            if let Some(explicit) = fields.message("explicit_http_config") {
                explicit.ignore(&["http_protocol_options"]);
                options.http2 |= has_http2_options(&explicit, comments, notes);
                explicit.note_unread(comments, notes);
            }
            if let Some(auto) = fields.message("auto_config") {
                auto.ignore(&["http_protocol_options"]);
                options.auto_config = Some(auto.span());
                has_http2_options(&auto, comments, notes);
                auto.note_unread(comments, notes);
            }
            fields.note_unread(comments, notes);
        }
        extensions.note_unread(comments, notes);
        options
    }

    /// The older fields of the cluster itself.
    fn read_cluster_fields(
        &mut self,
        cluster: &MessageFields<'_>,
        comments: &mut Vec<String>,
        notes: &Notes<'_>,
    ) {
        cluster.ignore(&["http_protocol_options"]);
        if cluster.text("protocol_selection") == Some("USE_DOWNSTREAM_PROTOCOL") {
            let span = cluster.span_of("protocol_selection");
            let why = unsupported::envoy::reason("protocol_selection");
            comments.push(notes.gap(span, "protocol_selection", why));
        }
        self.read_upstream_options(cluster, comments, notes);
        self.http2 = has_http2_options(cluster, comments, notes);
    }

    fn read_upstream_options(
        &mut self,
        fields: &MessageFields<'_>,
        comments: &mut Vec<String>,
        notes: &Notes<'_>,
    ) {
        if let Some(names) = fields.message("upstream_http_protocol_options") {
            self.auto_sni |= names.flag("auto_sni");
            self.auto_san_validation |= names.flag("auto_san_validation");
            names.note_unread(comments, notes);
        }
    }

    /// Sets the protocol; `upstream.tls` must be set before.
    pub(super) fn set_protocol(&self, upstream: &mut UpstreamDraft, notes: &Notes<'_>) {
        let tls = upstream.tls.is_some();
        upstream.protocol = match (self.http2, self.auto_config) {
            (true, _) if tls => Some("h2"),
            (true, _) => Some("h2c"),
            (false, Some(_)) if tls => Some("auto"),
            (false, Some(span)) => {
                let comment = notes.gap(span, "auto_config", AUTO_NEEDS_TLS);
                upstream.comments.push(comment);
                None
            }
            (false, None) => None,
        };
    }
}

/// Whether `http2_protocol_options` is present.
fn has_http2_options(
    fields: &MessageFields<'_>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> bool {
    let Some(options) = fields.message("http2_protocol_options") else {
        return false;
    };
    options.ignore(&[
        "initial_stream_window_size",
        "initial_connection_window_size",
        "hpack_table_size",
        "max_outbound_frames",
        "max_outbound_control_frames",
    ]);
    options.ignore(&[
        "allow_connect",
        "allow_metadata",
        "override_stream_error_on_invalid_http_message",
        "stream_error_on_invalid_http_messaging",
    ]);
    options.note_unread(comments, notes);
    true
}

/// Reads the `transport_socket` of a cluster; returns whether the SNI name is the endpoint's host name.
pub(super) fn read_transport_socket(
    cluster: &MessageFields<'_>,
    options: &UpstreamHttpOptions,
    upstream: &mut UpstreamDraft,
    notes: &Notes<'_>,
) -> bool {
    cluster
        .get("transport_socket")
        .is_some_and(|socket| read_socket(socket, options, upstream, notes))
}

/// Reads a socket, or the socket inside it.
fn read_socket(
    element: FieldValue<'_>,
    options: &UpstreamHttpOptions,
    upstream: &mut UpstreamDraft,
    notes: &Notes<'_>,
) -> bool {
    let kind = MessageFields::of(element).extension_type();
    match TransportSocket::of(MessageFields::of(element)) {
        TransportSocket::RawBuffer => false,
        TransportSocket::Tls(context) => read_tls_context(&context, options, upstream, notes),
        TransportSocket::Other(config) => {
            let why = if kind.contains("proxyprotocol") {
                SEE_PROXY_PROTOCOL
            } else {
                UNSUPPORTED_SOCKET
            };
            let comment = notes.gap(element.span(), "transport_socket", why);
            upstream.comments.push(comment);
            if let Some(context) = config.message("upstream_tls_context") {
                return read_tls_context(&context, options, upstream, notes);
            }
            let inner = config.get("transport_socket");
            inner.is_some_and(|inner| read_socket(inner, options, upstream, notes))
        }
    }
}

fn read_tls_context(
    context: &MessageFields<'_>,
    options: &UpstreamHttpOptions,
    upstream: &mut UpstreamDraft,
    notes: &Notes<'_>,
) -> bool {
    let comments = &mut upstream.comments;
    context.ignore(&[
        "allow_renegotiation",
        "max_session_keys",
        "enforce_rsa_key_usage",
    ]);
    let sni_is_hostname = context.flag("auto_host_sni") && !options.auto_sni;
    let checks_sni = options.auto_san_validation || context.flag("auto_sni_san_validation");
    let mut tls = TlsOriginationDraft {
        server_name: read_sni(context, comments, notes),
        ..TlsOriginationDraft::default()
    };
    if options.auto_sni {
        tls.server_name = Some("host".to_owned());
    } else if sni_is_hostname {
        tls.server_name = None;
    }
    if let Some(common) = context.message("common_tls_context") {
        common.ignore(&["alpn_protocols", "key_log"]);
        set_client_certificate(&common, &mut tls, comments, notes);
        tls.min_version = tls::min_version(&common, comments, notes);
        let validation = ValidationContext::of(&common, comments, notes);
        set_validation(
            context.span(),
            validation,
            checks_sni,
            &mut tls,
            comments,
            notes,
        );
        common.note_unread(comments, notes);
    } else {
        tls.verify = false;
        comments.push(notes.remark(context.span(), "transport_socket", UNVERIFIED));
    }
    context.note_unread(comments, notes);
    upstream.tls = Some(tls);
    sni_is_hostname
}

/// `sni`, if it can be verified.
fn read_sni(
    context: &MessageFields<'_>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Option<String> {
    let element = context.get("sni")?;
    let name = element.text();
    if name.is_empty() || is_verifiable_name(name) {
        return Some(name.to_owned()).filter(|name| !name.is_empty());
    }
    let why = "this is not a valid server name";
    comments.push(notes.gap(element.span(), &format!("sni: {name}"), why));
    None
}

/// Sets the client certificate.
fn set_client_certificate(
    common: &MessageFields<'_>,
    tls: &mut TlsOriginationDraft,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) {
    const SECRETS: &str = "tls_certificate_sds_secret_configs";
    let mut certificates = tls::certificates(common, comments, notes).into_iter();
    tls.client_certificate = certificates.next().map(|first| (first.cert, first.key));
    if let Some(span) = common.get("tls_certificates").map(FieldValue::span)
        && certificates.next().is_some()
    {
        comments.push(notes.gap(span, "tls_certificates", ONE_CLIENT_CERTIFICATE));
    }
    if let Some(secrets) = common.get(SECRETS) {
        comments.push(notes.gap(secrets.span(), SECRETS, SDS));
    }
}

/// Sets how server certificates are verified.
fn set_validation(
    span: SourceSpan,
    validation: ValidationContext<'_>,
    checks_sni: bool,
    tls: &mut TlsOriginationDraft,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) {
    let Some(fields) = validation.fields else {
        if !validation.uses_sds {
            tls.verify = false;
            comments.push(notes.remark(span, "transport_socket", UNVERIFIED));
        }
        return;
    };
    fields.ignore(VALIDATION_IGNORED);
    tls.ca = tls::file_path(&fields, "trusted_ca");
    let known = tls.ca.is_some() || fields.get("system_root_certs").is_some();
    let pinned = note_pins(&fields, comments, notes);
    let named = match fields.get("trusted_ca").filter(|_| tls.ca.is_none()) {
        Some(issuers) => {
            comments.push(notes.gap(issuers.span(), "trusted_ca", CA_IN_FILE));
            true
        }
        None => false,
    };
    if let Some(crl) = fields.get("crl") {
        comments.push(notes.wider_access(crl.span(), "crl", NO_SERVER_CRL));
    }
    let matched = set_name_from_san(&fields, tls, comments, notes);
    let chain = fields.get("trust_chain_verification");
    fields.note_unread(comments, notes);
    if let Some(chain) = chain.filter(|chain| chain.text() == "ACCEPT_UNTRUSTED") {
        (tls.verify, tls.ca) = (false, None);
        comments.push(notes.remark(chain.span(), "trust_chain_verification", ACCEPTS_UNTRUSTED));
    } else if !(known || named || pinned || validation.uses_sds) {
        tls.verify = false;
        comments.push(notes.remark(fields.span(), "validation_context", UNVERIFIED));
    } else if known && !matched && !checks_sni {
        comments.push(notes.remark(fields.span(), "validation_context", NO_NAME_MATCHED));
    }
}

fn note_pins(fields: &MessageFields<'_>, comments: &mut Vec<String>, notes: &Notes<'_>) -> bool {
    let before = comments.len();
    for name in CERTIFICATE_PINS {
        if let Some(element) = fields.get(name) {
            comments.push(notes.gap(element.span(), name, NO_PINNING));
        }
    }
    comments.len() > before
}

/// Whether the names in certificates are matched. The first exact name becomes the SNI name if there is no
/// other.
fn set_name_from_san(
    fields: &MessageFields<'_>,
    tls: &mut TlsOriginationDraft,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> bool {
    let mut found = false;
    for name in SAN_MATCHERS {
        for element in fields.list(name) {
            found = true;
            let exact = exact_name(element).filter(|exact| is_verifiable_name(exact));
            let same = |sni: &str| exact.is_some_and(|exact| exact.eq_ignore_ascii_case(sni));
            match (&tls.server_name, exact) {
                (Some(sni), _) if same(sni) => {}
                (None, Some(exact)) => tls.server_name = Some(exact.to_owned()),
                _ => comments.push(notes.gap(element.span(), name, SAN_IS_SERVER_NAME)),
            }
        }
    }
    found
}

/// The exact DNS name or IP address of a matcher.
fn exact_name(element: FieldValue<'_>) -> Option<&str> {
    let fields = MessageFields::of(element);
    let kind = fields.text("san_type");
    let matcher = fields.message("matcher");
    let texts = matcher.as_ref().unwrap_or(&fields);
    let plain = !element.text().is_empty();
    let exact = if plain {
        element.text()
    } else {
        texts.text("exact")?
    };
    let known = kind.is_none_or(|kind| matches!(kind, "DNS" | "IP_ADDRESS"));
    (known && !texts.flag("ignore_case")).then_some(exact)
}

/// The host name of an endpoint, if it can be verified.
pub(super) fn endpoint_server_name(hostname: Option<&str>) -> Option<String> {
    let name = hostname.filter(|name| ServerName::try_from(*name).is_ok())?;
    Some(name.to_owned())
}
