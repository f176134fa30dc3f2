//! `tls` of a listener: certificates, versions, client authentication, HSTS.

use std::time::Duration;

use super::acme;
use super::file_path::path_with_span;
use crate::config::credential_loader::CredentialLoader;
use crate::config::fields::{Fields, collect_until_full, items};
use crate::config::raw::YamlNode;
use crate::config::report::{Problem, Problems};
use crate::config::schema;
use crate::config::settings::{
    CertificateSource, ClientAuthConfig, HstsConfig, ListenerConfig, RouteConfig, TlsConfig,
    TlsVersion,
};
use crate::config::span::Span;
use crate::config::values::DURATION_BOUNDS;

const HELP: &str = "write `tls: {cert: FILE, key: FILE}`";
const LIST_HELP: &str = "list them, as in `certificates: [{cert: FILE, key: FILE}]`";
const CLIENT_AUTH_HELP: &str =
    "add `mode: required` here, too, or `client_cert: required` to the routes that need it";
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) const VERSIONS: &[(&str, TlsVersion)] =
    &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
const CLIENT_AUTH_MODES: &[(&str, bool)] = &[("required", true), ("optional", false)];

/// `None`: the listener has no TLS.
pub(super) fn read(listener: &Fields<'_>, loader: &mut CredentialLoader) -> Option<TlsConfig> {
    let fields = listener.section_or_off("tls", &schema::TLS).ok()??;
    let tls = TlsConfig {
        certificates: certificates(&fields, loader),
        min_version: fields.choice("min_version", TlsVersion::Tls12, VERSIONS),
        handshake_timeout: fields.duration("handshake_timeout", HANDSHAKE_TIMEOUT, DURATION_BOUNDS),
        http2: fields.flag("http2", true),
        client_auth: client_auth(&fields, loader),
        hsts: hsts(&fields),
    };
    Some(tls)
}

/// A list, or in short form one certificate in the keys of `tls` itself.
fn certificates(fields: &Fields<'_>, loader: &mut CredentialLoader) -> Vec<CertificateSource> {
    let Some(list) = fields.get("certificates") else {
        return certificate(fields, loader).into_iter().collect();
    };
    let short = ["cert", "key", "ocsp", "acme"];
    if let Some(one) = short.iter().find_map(|key| fields.get(key)) {
        let problem = Problem::error("a certificate outside of `certificates`", one.header_span());
        let problem = problem.secondary(list.header_span(), "the list");
        fields.problems.add(problem.help("move it into the list"));
    }
    let problems = fields.problems;
    let listed = collect_until_full(items(list, LIST_HELP, problems), problems, |item| {
        let fields = Fields::open(item, &schema::CERTIFICATE, problems)?;
        let at = fields
            .get("cert")
            .map_or_else(|| fields.header_span(), YamlNode::error_span);
        Some((certificate(&fields, loader)?, at))
    });
    loader.warn_duplicate_names(&listed, problems);
    listed.into_iter().map(|(files, _)| files).collect()
}

fn certificate(fields: &Fields<'_>, loader: &mut CredentialLoader) -> Option<CertificateSource> {
    if fields.get("acme").is_some() {
        return acme::names(fields).map(CertificateSource::Acme);
    }
    let cert = fields.require("cert", HELP);
    let key = fields.require("key", HELP);
    let ocsp = path_with_span(fields, "ocsp");
    let (_, _) = (cert?, key?);
    let (cert, key) = (
        path_with_span(fields, "cert")?,
        path_with_span(fields, "key")?,
    );
    let files = loader.load_certificate(cert, key, ocsp, fields.problems);
    Some(CertificateSource::Files(files))
}

fn client_auth(fields: &Fields<'_>, loader: &mut CredentialLoader) -> Option<ClientAuthConfig> {
    let help = "write `client_auth: {mode: required, ca: FILE}`";
    let problems = fields.problems;
    let fields = fields
        .section_or_off("client_auth", &schema::CLIENT_AUTH)
        .ok()??;
    fields.require("mode", help);
    fields.require("ca", help)?;
    let ca = path_with_span(&fields, "ca")?;
    let crl = path_with_span(&fields, "crl");
    let auth = ClientAuthConfig {
        required: fields.choice("mode", true, CLIENT_AUTH_MODES),
        ca: ca.path.clone(),
        crl: crl.as_ref().map(|crl| crl.path.clone()),
    };
    loader.load_client_auth(auth.required, &ca, crl.as_ref(), problems);
    Some(auth)
}

/// Warns of listeners that do not require client certificates next to one that does, unless a route
/// requires them: all listeners share the routes. Also warns of a route that requires a certificate when
/// no listener requests one.
pub(super) fn warn_client_auth_gaps(
    listeners: &[(ListenerConfig, Span)],
    routes: &[(RouteConfig, Span)],
    problems: &Problems,
) {
    // The requirements of listeners and routes are incomplete if one of them has an error.
    if problems.has_errors() {
        return;
    }
    let auth =
        |listener: &ListenerConfig| Some(listener.tls.as_ref()?.client_auth.as_ref()?.required);
    let requires = |listener: &ListenerConfig| auth(listener) == Some(true);
    let requiring = listeners.iter().find(|(listener, _)| requires(listener));
    let by_route = routes.iter().find(|(route, _)| route.client_cert);
    if let Some((_, required)) = requiring.filter(|_| by_route.is_none()) {
        let others = listeners
            .iter()
            .filter(|(listener, _)| !requires(listener) && listener.https_redirect.is_none());
        for (_, span) in others {
            let message = "clients of this listener reach the routes without a certificate";
            let problem = Problem::warning(message, *span).secondary(*required, "required here");
            problems.add(problem.help(CLIENT_AUTH_HELP));
        }
    }
    let requested = listeners
        .iter()
        .any(|(listener, _)| auth(listener).is_some());
    if let Some((_, at)) = by_route.filter(|_| !requested) {
        let message = "the route requires a client certificate, but no listener requests one";
        let help = "add `client_auth: {mode: optional, ca: FILE}` to the `tls` of a listener";
        problems.add(Problem::warning(message, *at).help(help));
    }
}

/// Preload lists of browsers require one or two years; ten years are forever.
pub(crate) const MAX_HSTS_AGE: Duration = Duration::from_secs(10 * 365 * 86_400);

fn hsts(fields: &Fields<'_>) -> Option<HstsConfig> {
    let fields = fields.section_or_off("hsts", &schema::HSTS).ok()??;
    fields.require("max_age", "write `hsts: {max_age: 8760h}`")?;
    Some(HstsConfig {
        max_age: fields.duration("max_age", Duration::ZERO, Duration::ZERO..=MAX_HSTS_AGE),
        subdomains: fields.flag("subdomains", false),
        preload: fields.flag("preload", false),
    })
}
