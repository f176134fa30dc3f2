//! `etcd`: the cluster that sources of peers in etcd read.

use std::path::{Path, PathBuf};

use http::Uri;
use rustls_pki_types::CertificateDer;

use super::file_path::path_with_span;
use super::upstreams::Upstreams;
use super::{CertificateFiles, Credentials, PeerSource, Secret};
use crate::certificate::Identity;
use crate::config::credential_loader::CredentialLoader;
use crate::config::fields::{Fields, collect_until_full, items_or_one, parse_or_report, text};
use crate::config::raw::YamlNode;
use crate::config::report::{Problem, quote};
use crate::config::schema::SectionSchema;
use crate::config::values::InvalidValue;

/// The cluster, and how this process authenticates to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdConfig {
    /// URLs of members, without a path: all `http`, or all `https`; at least one.
    pub endpoints: Vec<String>,
    /// The user and its password; `None`: none, or the one that the client certificate names.
    pub login: Option<EtcdLogin>,
    /// PEM: the issuers that are trusted; `None`: those of the system.
    pub ca: Option<PathBuf>,
    /// The client certificate.
    pub certificate: Option<CertificateFiles>,
}

/// A user of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdLogin {
    /// Its name.
    pub user: String,
    /// The file of its password; the content is in [`Credentials`](super::Credentials::etcd_password).
    pub password_file: PathBuf,
}

/// All that a client of the cluster needs, with the content of the files.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct EtcdAccess {
    /// URLs of members; at least one.
    pub endpoints: Vec<String>,
    /// A user and its password; `None`: the client has no password.
    pub login: Option<(String, Secret)>,
    /// The issuers that are trusted; `None`: those of the system.
    pub issuers: Option<Vec<CertificateDer<'static>>>,
    /// The client certificate with its key.
    pub identity: Option<Identity>,
}

impl EtcdConfig {
    /// The files that are read when the configuration is loaded.
    pub(super) fn files(&self) -> impl Iterator<Item = &Path> {
        let password = self
            .login
            .as_ref()
            .map(|login| login.password_file.as_path());
        let certificate = self.certificate.iter();
        let certificate = certificate.flat_map(|files| [files.cert.as_path(), &files.key]);
        password
            .into_iter()
            .chain(self.ca.as_deref())
            .chain(certificate)
    }

    /// The access to the cluster, with the credentials that were read with the configuration.
    pub(crate) fn access(&self, credentials: &Credentials) -> EtcdAccess {
        let login = self.login.as_ref().and_then(|login| {
            let password = credentials.etcd_password.clone()?;
            Some((login.user.clone(), password))
        });
        let (issuers, identity) = (self.ca.as_ref(), self.certificate.as_ref());
        EtcdAccess {
            endpoints: self.endpoints.clone(),
            login,
            issuers: issuers.and_then(|ca| credentials.issuers.get(ca).cloned()),
            identity: identity.and_then(|files| credentials.identities.get(files).cloned()),
        }
    }
}

const MAX_ENDPOINTS: usize = 16;
const ENDPOINTS_HELP: &str =
    "list the URLs of its members, as in `endpoints: [\"http://127.0.0.1:2379\"]`";

pub(super) static ETCD: SectionSchema = SectionSchema {
    title: "`etcd`",
    path: "etcd",
    example: "{endpoints: [\"http://127.0.0.1:2379\"]}",
    keys: &["endpoints", "user", "password_file", "tls"],
    nested: &[&ETCD_TLS],
    ..SectionSchema::EMPTY
};

pub(super) static ETCD_TLS: SectionSchema = SectionSchema {
    title: "`tls`",
    path: "etcd.tls",
    example: "{ca: FILE}",
    keys: &["ca", "cert", "key"],
    ..SectionSchema::EMPTY
};

/// `None`: `etcd` is not configured, or invalid.
pub(super) fn read(root: &Fields<'_>, loader: &mut CredentialLoader) -> Option<EtcdConfig> {
    let fields = root.section("etcd", &ETCD)?;
    let endpoints = endpoints(&fields);
    let login = login(&fields, loader);
    let tls = fields.section("tls", &ETCD_TLS);
    if let Some(tls) = &tls
        && endpoints.iter().any(|url| !url.starts_with(HTTPS))
    {
        let problem = Problem::error("`tls` with endpoints without TLS", tls.header_span());
        fields
            .problems
            .add(problem.help("write `https://` in each of `endpoints`, or remove `tls`"));
    }
    Some(EtcdConfig {
        endpoints,
        login,
        ca: tls.as_ref().and_then(|tls| ca(tls, loader)),
        certificate: tls.as_ref().and_then(|tls| certificate(tls, loader)),
    })
}

/// Refuses sources in etcd without the cluster, or if this program cannot read them.
pub(super) fn check_sources(root: &Fields<'_>, upstreams: &Upstreams<'_>) {
    let sources = upstreams.resolved.iter().flat_map(|(name, upstream)| {
        let spans = upstreams.sources.get(name).into_iter().flatten();
        upstream.sources.iter().zip(spans)
    });
    for (_, span) in sources.filter(|(source, _)| matches!(source, PeerSource::Etcd(_))) {
        let (message, help) = if !cfg!(feature = "etcd") {
            (
                "this program was built without etcd",
                "use a package of Clockwise, or build it with the feature `etcd`: `cargo build --features etcd`",
            )
        } else if root.get("etcd").is_none() {
            (
                "a source in etcd needs the cluster",
                "add `etcd: {endpoints: [\"http://127.0.0.1:2379\"]}` at the top level",
            )
        } else {
            continue;
        };
        root.problems.add(Problem::error(message, *span).help(help));
    }
}

const HTTPS: &str = "https://";

fn endpoints(fields: &Fields<'_>) -> Vec<String> {
    let problems = fields.problems;
    let Some(node) = fields.require("endpoints", ENDPOINTS_HELP) else {
        return Vec::new();
    };
    let urls = collect_until_full(items_or_one(node), problems, |item| {
        let url = parse_or_report(item, problems, endpoint)?;
        Some((url, item))
    });
    if items_or_one(node).is_empty() {
        fields.error(node, "`endpoints` has no member", ENDPOINTS_HELP);
    }
    for (index, (url, item)) in urls.iter().enumerate() {
        let mut earlier = urls.iter().take(index);
        if let Some((_, first)) = earlier.find(|(first, _)| first == url) {
            let message = format!("endpoint {} twice", quote(url));
            let problem = Problem::error(message, item.error_span())
                .secondary(first.error_span(), "first here");
            problems.add(problem.help("remove one of the two"));
        }
    }
    let with_tls = urls
        .iter()
        .filter(|(url, _)| url.starts_with(HTTPS))
        .count();
    if with_tls != 0 && with_tls != urls.len() {
        let help = "write `https://` in each of them";
        fields.error(node, "only some of `endpoints` have TLS", help);
    }
    if let Some((_, item)) = urls.get(MAX_ENDPOINTS) {
        let message = format!("more than {MAX_ENDPOINTS} endpoints");
        fields.error(item, message, "list only members that are near");
    }
    urls.into_iter().map(|(url, _)| url).collect()
}

/// A URL with a port and without a path.
fn endpoint(node: &YamlNode) -> Result<String, InvalidValue> {
    const EXAMPLE: &str = "write `http://HOST:2379`, or `https://HOST:2379` with TLS";
    let written = text(node, "a URL like `http://127.0.0.1:2379`")?;
    let wrong = |why: &str| (format!("{} {why}", quote(written)), EXAMPLE.to_owned());
    let url: Uri = written
        .parse()
        .map_err(|_| wrong("is not the URL of a member of etcd"))?;
    if !matches!(url.scheme_str(), Some("http" | "https")) {
        return Err(wrong("is not the URL of a member of etcd"));
    }
    let Some(authority) = url.authority() else {
        return Err(wrong("has no host"));
    };
    if authority.as_str().contains('@') {
        let message = "the URL has a user or a password".to_owned();
        return Err((
            message,
            "write them as `user` and `password_file`".to_owned(),
        ));
    }
    if authority.port_u16().is_none_or(|port| port == 0) {
        return Err(wrong("has no port"));
    }
    if url
        .path_and_query()
        .is_some_and(|path| path.as_str() != "/")
    {
        return Err(wrong("has a path"));
    }
    Ok(written.trim_end_matches('/').to_owned())
}

fn login(fields: &Fields<'_>, loader: &mut CredentialLoader) -> Option<EtcdLogin> {
    if fields.has("user") != fields.has("password_file") {
        let help = "write both, or neither: a client certificate may name the user";
        fields.refuse_key("user", "needs `password_file`", help);
        fields.refuse_key("password_file", "needs `user`", help);
    }
    let user = fields.read("user", user)?;
    let file = path_with_span(fields, "password_file")?;
    loader.load_etcd_password(&file, fields.problems);
    Some(EtcdLogin {
        user,
        password_file: file.path,
    })
}

fn user(node: &YamlNode) -> Result<String, InvalidValue> {
    let user = text(node, "the name of a user of etcd")?;
    if user.is_empty() {
        let help = "write the name of a user of etcd, or remove the line";
        return Err(("`user` is empty".to_owned(), help.to_owned()));
    }
    Ok(user.to_owned())
}

fn ca(tls: &Fields<'_>, loader: &mut CredentialLoader) -> Option<PathBuf> {
    let ca = path_with_span(tls, "ca")?;
    loader.load_trust_anchors(&ca, tls.problems);
    Some(ca.path)
}

fn certificate(tls: &Fields<'_>, loader: &mut CredentialLoader) -> Option<CertificateFiles> {
    let help = "write both: `{cert: FILE, key: FILE}`";
    if tls.has("cert") != tls.has("key") {
        tls.refuse_key("cert", "needs `key`", help);
        tls.refuse_key("key", "needs `cert`", help);
    }
    let (cert, key) = (path_with_span(tls, "cert"), path_with_span(tls, "key"));
    Some(loader.load_identity(cert?, key?, tls.problems))
}
