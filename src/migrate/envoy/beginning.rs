//! `UpstreamTlsContext` and `HttpProtocolOptions`: how a cluster's endpoints are spoken to.

use rustls_pki_types::ServerName;

use super::fields::{Element, Fields};
use super::tls::{self, JUDGING_OWN, Judging, NAMES, PINS, Socket};
use crate::migrate::model::Upstream;
use crate::migrate::notes::Notes;
use crate::migrate::reasons;
use crate::migrate::source::Place;
use crate::migrate::tls::{Beginning, can_be_proven};

const UNVERIFIED: &str = "Envoy verifies no certificate without issuers, and none is verified here: name them as `ca` and remove `verify: false`";
const UNTRUSTED: &str = "every certificate is taken, as there";
const NAMELESS: &str =
    "Envoy looks at no name here; with us the certificate must be for the one that is asked for";
const MATCHED: &str = "a certificate must be for the name that is asked for, `server_name`, and nothing else of it is looked at";
const PINNED: &str =
    "certificates are judged by their issuers: name them as `ca`; the system's are written";
const REVOKED: &str = "revoked certificates of servers are not known here, and are taken";
const ISSUERS: &str = "issuers are in a file here: name it as `ca`; the system's are written";
const SHOWN: &str = "one certificate is shown to servers; the first is written";
const SDS: &str =
    "what comes by SDS is not in the file; name the files, as in `tls: {cert: FILE, key: FILE}`";
const OTHER: &str = "servers are spoken to plainly or by TLS over TCP";
const INTRODUCED: &str = "see `proxy_protocol` of the upstream";
const NO_CHOICE: &str =
    "servers choose between HTTP/1.1 and HTTP/2 within TLS only; HTTP/1.1 is written";

/// What `HttpProtocolOptions` says, or the older fields of the cluster.
#[derive(Default)]
pub(super) struct Options {
    http2: bool,
    /// Whichever the server chooses.
    auto: Option<Place>,
    /// Servers are asked for the name that the client asked for.
    by_host: bool,
    /// They must prove it.
    host_proven: bool,
}

impl Options {
    pub(super) fn of(cluster: &Fields<'_>, comments: &mut Vec<String>, notes: &Notes<'_>) -> Self {
        let mut options = Self::default();
        options.older(cluster, comments, notes);
        let Some(extensions) = cluster.map("typed_extension_protocol_options") else {
            return options;
        };
        if let Some(fields) =
            extensions.map("envoy.extensions.upstreams.http.v3.HttpProtocolOptions")
        {
            fields.leave(&["common_http_protocol_options"]);
            options.names(&fields, comments, notes);
            if let Some(explicit) = fields.map("explicit_http_config") {
                explicit.leave(&["http_protocol_options"]);
                options.http2 |= http2(&explicit, comments, notes);
                explicit.tell_rest(comments, notes);
            }
            if let Some(auto) = fields.map("auto_config") {
                auto.leave(&["http_protocol_options"]);
                options.auto = Some(auto.place());
                http2(&auto, comments, notes);
                auto.tell_rest(comments, notes);
            }
            fields.tell_rest(comments, notes);
        }
        extensions.tell_rest(comments, notes);
        options
    }

    /// The fields that stood in the cluster itself.
    fn older(&mut self, cluster: &Fields<'_>, comments: &mut Vec<String>, notes: &Notes<'_>) {
        cluster.leave(&["http_protocol_options"]);
        if cluster.text("protocol_selection") == Some("USE_DOWNSTREAM_PROTOCOL") {
            let place = cluster.place_of("protocol_selection");
            let why = reasons::envoy("protocol_selection");
            comments.push(notes.gap(place, "protocol_selection", why));
        }
        self.names(cluster, comments, notes);
        self.http2 = http2(cluster, comments, notes);
    }

    fn names(&mut self, fields: &Fields<'_>, comments: &mut Vec<String>, notes: &Notes<'_>) {
        if let Some(names) = fields.map("upstream_http_protocol_options") {
            self.by_host |= names.flag("auto_sni");
            self.host_proven |= names.flag("auto_san_validation");
            names.tell_rest(comments, notes);
        }
    }

    /// The protocol, once it is known whether there is TLS.
    pub(super) fn settle(&self, upstream: &mut Upstream, notes: &Notes<'_>) {
        let tls = upstream.tls.is_some();
        upstream.protocol = match (self.http2, self.auto) {
            (true, _) if tls => Some("h2"),
            (true, _) => Some("h2c"),
            (false, Some(_)) if tls => Some("auto"),
            (false, Some(place)) => {
                let comment = notes.gap(place, "auto_config", NO_CHOICE);
                upstream.comments.push(comment);
                None
            }
            (false, None) => None,
        };
    }
}

/// Whether `http2_protocol_options` is there.
fn http2(fields: &Fields<'_>, comments: &mut Vec<String>, notes: &Notes<'_>) -> bool {
    let Some(options) = fields.map("http2_protocol_options") else {
        return false;
    };
    options.leave(&[
        "initial_stream_window_size",
        "initial_connection_window_size",
        "hpack_table_size",
        "max_outbound_frames",
        "max_outbound_control_frames",
    ]);
    options.leave(&[
        "allow_connect",
        "allow_metadata",
        "override_stream_error_on_invalid_http_message",
        "stream_error_on_invalid_http_messaging",
    ]);
    options.tell_rest(comments, notes);
    true
}

/// The `transport_socket` of a cluster; gives whether each endpoint is asked for its own host name.
pub(super) fn tls(
    cluster: &Fields<'_>,
    options: &Options,
    upstream: &mut Upstream,
    notes: &Notes<'_>,
) -> bool {
    cluster
        .get("transport_socket")
        .is_some_and(|socket| self::socket(socket, options, upstream, notes))
}

/// A socket that wraps another leads to that.
fn socket(
    element: Element<'_>,
    options: &Options,
    upstream: &mut Upstream,
    notes: &Notes<'_>,
) -> bool {
    let kind = Fields::of(element).kind();
    match Socket::of(Fields::of(element)) {
        Socket::Plain => false,
        Socket::Tls(context) => given(&context, options, upstream, notes),
        Socket::Other(config) => {
            let why = if kind.contains("proxyprotocol") {
                INTRODUCED
            } else {
                OTHER
            };
            let comment = notes.gap(element.place(), "transport_socket", why);
            upstream.comments.push(comment);
            if let Some(context) = config.map("upstream_tls_context") {
                return given(&context, options, upstream, notes);
            }
            let inner = config.get("transport_socket");
            inner.is_some_and(|inner| socket(inner, options, upstream, notes))
        }
    }
}

fn given(
    context: &Fields<'_>,
    options: &Options,
    upstream: &mut Upstream,
    notes: &Notes<'_>,
) -> bool {
    let comments = &mut upstream.comments;
    context.leave(&[
        "allow_renegotiation",
        "max_session_keys",
        "enforce_rsa_key_usage",
    ]);
    let own = context.flag("auto_host_sni") && !options.by_host;
    let proven = options.host_proven || context.flag("auto_sni_san_validation");
    let mut tls = Beginning {
        server_name: asked(context, comments, notes),
        ..Beginning::default()
    };
    if options.by_host {
        tls.server_name = Some("host".to_owned());
    } else if own {
        tls.server_name = None;
    }
    if let Some(common) = context.map("common_tls_context") {
        common.leave(&["alpn_protocols", "key_log"]);
        shown(&common, &mut tls, comments, notes);
        tls.min_version = tls::min_version(&common, comments, notes);
        let judging = Judging::of(&common, comments, notes);
        judge(context.place(), judging, proven, &mut tls, comments, notes);
        common.tell_rest(comments, notes);
    } else {
        tls.verify = false;
        comments.push(notes.remark(context.place(), "transport_socket", UNVERIFIED));
    }
    context.tell_rest(comments, notes);
    upstream.tls = Some(tls);
    own
}

/// `sni`, if a certificate can be for it. `host` would mean the client's here.
fn asked(context: &Fields<'_>, comments: &mut Vec<String>, notes: &Notes<'_>) -> Option<String> {
    let element = context.get("sni")?;
    let name = element.text();
    if name.is_empty() || can_be_proven(name) {
        return Some(name.to_owned()).filter(|name| !name.is_empty());
    }
    let why = "no certificate can be for that name";
    comments.push(notes.gap(element.place(), &format!("sni: {name}"), why));
    None
}

/// The certificate that servers are shown.
fn shown(common: &Fields<'_>, tls: &mut Beginning, comments: &mut Vec<String>, notes: &Notes<'_>) {
    const SECRETS: &str = "tls_certificate_sds_secret_configs";
    let mut certificates = tls::certificates(common, comments, notes).into_iter();
    tls.shown = certificates.next().map(|first| (first.cert, first.key));
    if let Some(place) = common.get("tls_certificates").map(Element::place)
        && certificates.next().is_some()
    {
        comments.push(notes.gap(place, "tls_certificates", SHOWN));
    }
    if let Some(secrets) = common.get(SECRETS) {
        comments.push(notes.gap(secrets.place(), SECRETS, SDS));
    }
}

/// What the servers' certificates are verified by.
fn judge(
    place: Place,
    judging: Judging<'_>,
    proven: bool,
    tls: &mut Beginning,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) {
    let Some(fields) = judging.given else {
        if !judging.elsewhere {
            tls.verify = false;
            comments.push(notes.remark(place, "transport_socket", UNVERIFIED));
        }
        return;
    };
    fields.leave(JUDGING_OWN);
    tls.ca = tls::file(&fields, "trusted_ca");
    let known = tls.ca.is_some() || fields.get("system_root_certs").is_some();
    let pinned = pins(&fields, comments, notes);
    let named = match fields.get("trusted_ca").filter(|_| tls.ca.is_none()) {
        Some(issuers) => {
            comments.push(notes.gap(issuers.place(), "trusted_ca", ISSUERS));
            true
        }
        None => false,
    };
    if let Some(crl) = fields.get("crl") {
        comments.push(notes.widened(crl.place(), "crl", REVOKED));
    }
    let matched = names(&fields, tls, comments, notes);
    let chain = fields.get("trust_chain_verification");
    fields.tell_rest(comments, notes);
    if let Some(chain) = chain.filter(|chain| chain.text() == "ACCEPT_UNTRUSTED") {
        (tls.verify, tls.ca) = (false, None);
        comments.push(notes.remark(chain.place(), "trust_chain_verification", UNTRUSTED));
    } else if !(known || named || pinned || judging.elsewhere) {
        tls.verify = false;
        comments.push(notes.remark(fields.place(), "validation_context", UNVERIFIED));
    } else if known && !matched && !proven {
        comments.push(notes.remark(fields.place(), "validation_context", NAMELESS));
    }
}

fn pins(fields: &Fields<'_>, comments: &mut Vec<String>, notes: &Notes<'_>) -> bool {
    let before = comments.len();
    for name in PINS {
        if let Some(element) = fields.get(name) {
            comments.push(notes.gap(element.place(), name, PINNED));
        }
    }
    comments.len() > before
}

/// Whether it is said whom certificates must be for. The one name of it is that which is asked for,
/// if no other is.
fn names(
    fields: &Fields<'_>,
    tls: &mut Beginning,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> bool {
    let mut found = false;
    for name in NAMES {
        for element in fields.list(name) {
            found = true;
            let exact = exact(element).filter(|exact| can_be_proven(exact));
            let same = |asked: &str| exact.is_some_and(|exact| exact.eq_ignore_ascii_case(asked));
            match (&tls.server_name, exact) {
                (Some(asked), _) if same(asked) => {}
                (None, Some(exact)) => tls.server_name = Some(exact.to_owned()),
                _ => comments.push(notes.gap(element.place(), name, MATCHED)),
            }
        }
    }
    found
}

/// The one name that a matcher takes: of DNS, or an address.
fn exact(element: Element<'_>) -> Option<&str> {
    let fields = Fields::of(element);
    let kind = fields.text("san_type");
    let matcher = fields.map("matcher");
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

/// The host name of an endpoint, if a certificate can be for it.
pub(super) fn own_name(hostname: Option<&str>) -> Option<String> {
    let name = hostname.filter(|name| ServerName::try_from(*name).is_ok())?;
    Some(name.to_owned())
}
