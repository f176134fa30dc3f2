//! `tls` of a listener: certificates, versions, and whom clients are known by.

use std::path::PathBuf;
use std::time::Duration;

use super::{BOUNDS, acme};
use crate::config::fields::{Fields, collect, items, text};
use crate::config::files::{Files, Placed};
use crate::config::raw::{Node, Span};
use crate::config::report::{Problem, Problems};
use crate::config::schema;
use crate::config::settings::{
    CertificateSource, ClientAuth, Hsts, Listener, Route, Tls, TlsVersion,
};
use crate::config::values::{Fault, shown};

const HELP: &str = "write `tls: {cert: FILE, key: FILE}`";
const LIST: &str = "list them, as in `certificates: [{cert: FILE, key: FILE}]`";
const WAYS: &str =
    "require one here too, or set `client_cert: required` for the routes that need one";
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) const VERSIONS: &[(&str, TlsVersion)] =
    &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
const MODES: &[(&str, bool)] = &[("required", true), ("optional", false)];

/// `None`: the listener speaks no TLS.
pub(super) fn read(listener: &Fields<'_>, files: &mut Files) -> Option<Tls> {
    let fields = listener.section_or_off("tls", &schema::TLS).ok()??;
    let tls = Tls {
        certificates: certificates(&fields, files),
        min_version: fields.choice("min_version", TlsVersion::Tls12, VERSIONS),
        handshake_timeout: fields.duration("handshake_timeout", HANDSHAKE_TIMEOUT, BOUNDS),
        http2: fields.flag("http2", true),
        client_auth: client_auth(&fields, files),
        hsts: hsts(&fields),
    };
    Some(tls)
}

/// One, in its short form, or a list.
fn certificates(fields: &Fields<'_>, files: &mut Files) -> Vec<CertificateSource> {
    let Some(list) = fields.get("certificates") else {
        return certificate(fields, files).into_iter().collect();
    };
    let short = ["cert", "key", "ocsp", "acme"];
    if let Some(one) = short.iter().find_map(|key| fields.get(key)) {
        let problem = Problem::error("one certificate beside a list of them", one.head());
        let problem = problem.also(list.head(), "list here");
        fields.problems.add(problem.help("move it into the list"));
    }
    let problems = fields.problems;
    let listed = collect(items(list, LIST, problems), problems, |item| {
        let fields = Fields::open(item, &schema::CERTIFICATE, problems)?;
        let at = fields
            .get("cert")
            .map_or_else(|| fields.head(), Node::place);
        Some((certificate(&fields, files)?, at))
    });
    files.warn_of_twins(&listed, problems);
    listed.into_iter().map(|(files, _)| files).collect()
}

fn certificate(fields: &Fields<'_>, files: &mut Files) -> Option<CertificateSource> {
    if fields.get("acme").is_some() {
        return acme::names(fields).map(CertificateSource::Acme);
    }
    let cert = fields.require("cert", HELP);
    let key = fields.require("key", HELP);
    let ocsp = placed(fields, "ocsp");
    let (_, _) = (cert?, key?);
    let (cert, key) = (placed(fields, "cert")?, placed(fields, "key")?);
    let files = files.certificate(cert, key, ocsp, fields.problems);
    Some(CertificateSource::Files(files))
}

fn client_auth(fields: &Fields<'_>, files: &mut Files) -> Option<ClientAuth> {
    let help = "write `client_auth: {mode: required, ca: FILE}`";
    let problems = fields.problems;
    let fields = fields
        .section_or_off("client_auth", &schema::CLIENT_AUTH)
        .ok()??;
    fields.require("mode", help);
    fields.require("ca", help)?;
    let ca = placed(&fields, "ca")?;
    let crl = placed(&fields, "crl");
    let auth = ClientAuth {
        required: fields.choice("mode", true, MODES),
        ca: ca.path.clone(),
        crl: crl.as_ref().map(|crl| crl.path.clone()),
    };
    files.client_auth(auth.required, &ca, crl.as_ref(), problems);
    Some(auth)
}

/// Routes are those of all listeners: warns of listeners by which clients reach them without the
/// certificate that another listener demands, where no route demands one itself; and of routes that demand
/// what nobody is asked for.
pub(super) fn warn_of_client_auth(
    listeners: &[(Listener, Span)],
    routes: &[(Route, Span)],
    problems: &Problems,
) {
    // With an error in one of them, what it would have demanded is not known.
    if problems.has_errors() {
        return;
    }
    let auth = |listener: &Listener| Some(listener.tls.as_ref()?.client_auth.as_ref()?.required);
    let demands = |listener: &Listener| auth(listener) == Some(true);
    let demanding = listeners.iter().find(|(listener, _)| demands(listener));
    let by_route = routes.iter().find(|(route, _)| route.client_cert);
    if let Some((_, demanded)) = demanding.filter(|_| by_route.is_none()) {
        let ways = listeners
            .iter()
            .filter(|(listener, _)| !demands(listener) && listener.https_redirect.is_none());
        for (_, way) in ways {
            let message = "clients reach the routes here without a certificate";
            let problem = Problem::warning(message, *way).also(*demanded, "required here");
            problems.add(problem.help(WAYS));
        }
    }
    let asks = listeners
        .iter()
        .any(|(listener, _)| auth(listener).is_some());
    if let Some((_, at)) = by_route.filter(|_| !asks) {
        let message = "a certificate is required, and no listener asks clients for one";
        let help = "add `client_auth: {mode: optional, ca: FILE}` to the `tls` of a listener";
        problems.add(Problem::warning(message, *at).help(help));
    }
}

/// Lists of hosts that browsers bring along ask for a year or two; ten years are for ever.
pub(crate) const MAX_HSTS: Duration = Duration::from_secs(10 * 365 * 86_400);

fn hsts(fields: &Fields<'_>) -> Option<Hsts> {
    let fields = fields.section_or_off("hsts", &schema::HSTS).ok()??;
    fields.require("max_age", "write `hsts: {max_age: 8760h}`")?;
    Some(Hsts {
        max_age: fields.duration("max_age", Duration::ZERO, Duration::ZERO..=MAX_HSTS),
        subdomains: fields.flag("subdomains", false),
        preload: fields.flag("preload", false),
    })
}

/// The path of a file, and where it is written.
pub(super) fn placed(fields: &Fields<'_>, key: &'static str) -> Option<Placed> {
    let path = fields.read(key, path)?;
    let span = fields.get(key)?.place();
    Some(Placed { path, span })
}

/// Whether this can be the path of a file.
pub(crate) fn is_file(path: &str) -> bool {
    !path.is_empty() && !path.ends_with('/')
}

fn path(node: &Node) -> Result<PathBuf, Fault> {
    match text(node, "the path of a file")? {
        path if !is_file(path) => {
            let message = format!("expected the path of a file, found {}", shown(node));
            Err((
                message,
                "write a path, as in `/etc/clockwise/tls/server.crt`".to_owned(),
            ))
        }
        path => Ok(PathBuf::from(path)),
    }
}
