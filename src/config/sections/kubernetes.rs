//! `kubernetes`: the API server; and `kubernetes` of a source: the service with the peers.

use std::fmt;
use std::path::PathBuf;

use http::Uri;

use super::file_path::path_with_span;
use crate::config::fields::{Fields, text};
use crate::config::raw::YamlNode;
use crate::config::report::quote;
use crate::config::schema::SectionSchema;
use crate::config::values::InvalidValue;

/// How the API server is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KubernetesConfig {
    /// The API server; `None`: that of the cluster in which this process runs, with the token and the certificate
    /// authority of the pod as defaults.
    pub server: Option<ApiServer>,
    /// A file with the token of a service account, which may change.
    pub token_file: Option<PathBuf>,
    /// A file with the certificates that the server is verified with; `None`: those of the pod or of the system.
    pub ca: Option<PathBuf>,
}

/// The address of an API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiServer {
    /// Whether the scheme is `https`.
    pub is_tls: bool,
    /// A name or an IP address, without brackets.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// What comes before the paths of the API; empty, or a path without `/` at the end.
    pub base_path: String,
}

/// A service, of which each endpoint is a peer.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub struct KubernetesService {
    /// The namespace.
    pub namespace: String,
    /// The name of the service.
    pub service: String,
    /// The port of the endpoints.
    pub port: ServicePort,
}

/// A port of the endpoints of a service.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServicePort {
    /// The name that the service gives it.
    Name(String),
    /// The number at the endpoints (`targetPort`), not that of the service.
    Number(u16),
}

impl fmt::Display for KubernetesService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            namespace,
            service,
            port,
        } = self;
        write!(f, "kubernetes:{namespace}/{service}:{port}")
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Number(number) => number.fmt(f),
        }
    }
}

pub(super) static KUBERNETES: SectionSchema = SectionSchema {
    title: "`kubernetes`",
    path: "kubernetes",
    example: "{server: \"https://10.0.0.1:6443\", token_file: /etc/clockwise/token, ca: /etc/clockwise/cluster-ca.crt}",
    keys: &["server", "token_file", "ca"],
    ..SectionSchema::EMPTY
};

pub(super) static KUBERNETES_SERVICE: SectionSchema = SectionSchema {
    title: "`kubernetes` of a source",
    path: "upstreams.NAME.peers[].kubernetes",
    example: "{namespace: prod, service: app, port: http}",
    keys: &["namespace", "service", "port"],
    ..SectionSchema::EMPTY
};

const NAME_HELP: &str =
    "use 1 to 63 lower-case letters, digits, or `-` between them, as Kubernetes does";

/// Reads `kubernetes`.
pub(super) fn read(root: &Fields<'_>) -> KubernetesConfig {
    let Some(fields) = root.section("kubernetes", &KUBERNETES) else {
        return KubernetesConfig::default();
    };
    let config = KubernetesConfig {
        server: fields.read("server", server),
        token_file: path_with_span(&fields, "token_file").map(|file| file.path),
        ca: path_with_span(&fields, "ca").map(|file| file.path),
    };
    if config.server.as_ref().is_some_and(|server| !server.is_tls) {
        let help = "write a `server` with `https`, or remove the line";
        fields.refuse_key("token_file", "would be sent without encryption", help);
        fields.refuse_key("ca", "needs a `server` with `https`", help);
    }
    config
}

/// Reads `kubernetes` of a source.
pub(super) fn service(source: &Fields<'_>) -> Option<KubernetesService> {
    let fields = source.section("kubernetes", &KUBERNETES_SERVICE)?;
    let required = |key, help| {
        fields.require(key, help)?;
        fields.read(key, object_name)
    };
    let namespace = required("namespace", "add the namespace, as in `namespace: prod`");
    let service = required(
        "service",
        "add the name of the service, as in `service: app`",
    );
    let port = fields.require(
        "port",
        "add a port of the service, by name or by its number at the pods, as in `port: http`",
    );
    let port = port.and_then(|_| fields.read("port", port_of_service));
    Some(KubernetesService {
        namespace: namespace?,
        service: service?,
        port: port?,
    })
}

/// The name of a namespace or service (RFC 1123 §2.1, in lower case).
fn object_name(node: &YamlNode) -> Result<String, InvalidValue> {
    match text(node, "a name like `app`")? {
        name if is_object_name(name) => Ok(name.to_owned()),
        name => Err((
            format!("{} is not a name in Kubernetes", quote(name)),
            NAME_HELP.to_owned(),
        )),
    }
}

fn is_object_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let hyphens = name.starts_with('-') || name.ends_with('-');
    (1..=63).contains(&name.len()) && !hyphens && name.bytes().all(good)
}

fn port_of_service(node: &YamlNode) -> Result<ServicePort, InvalidValue> {
    let written = text(node, "a port like `http` or `8080`")?;
    if written.bytes().all(|byte| byte.is_ascii_digit()) {
        return match written.parse() {
            Ok(number) if number != 0 => Ok(ServicePort::Number(number)),
            _ => Err((
                format!("{} is not a port", quote(written)),
                "use a number from 1 to 65535, or the name of a port".to_owned(),
            )),
        };
    }
    if is_object_name(written) {
        return Ok(ServicePort::Name(written.to_owned()));
    }
    let message = format!("{} is not the name of a port", quote(written));
    Err((message, NAME_HELP.to_owned()))
}

fn server(node: &YamlNode) -> Result<ApiServer, InvalidValue> {
    let written = text(node, "a URL like `https://10.0.0.1:6443`")?;
    parse_server(written).ok_or_else(|| {
        (
            format!("{} is not the URL of an API server", quote(written)),
            "write its scheme and its address, as in `https://10.0.0.1:6443`".to_owned(),
        )
    })
}

fn parse_server(url: &str) -> Option<ApiServer> {
    let url: Uri = url.parse().ok()?;
    let (is_tls, default_port) = match url.scheme_str()? {
        "https" => (true, 443),
        "http" => (false, 80),
        _ => return None,
    };
    let authority = url.authority()?;
    if authority.as_str().contains('@') || url.query().is_some() {
        return None;
    }
    let host = authority.host();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let has_port = authority.as_str().len() > authority.host().len();
    let port = match authority.port_u16() {
        None if has_port => return None,
        port => port.unwrap_or(default_port),
    };
    (!host.is_empty() && port != 0).then(|| ApiServer {
        is_tls,
        host: host.to_owned(),
        port,
        base_path: url.path().trim_end_matches('/').to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_of_an_api_server_has_a_scheme_and_an_address() {
        for (url, expected) in [
            ("https://10.0.0.1:6443", Some((true, "10.0.0.1", 6443, ""))),
            ("https://api.test/", Some((true, "api.test", 443, ""))),
            ("https://[::1]:6443", Some((true, "::1", 6443, ""))),
            (
                "http://127.0.0.1:8001",
                Some((false, "127.0.0.1", 8001, "")),
            ),
            ("http://a/k8s/c-1/", Some((false, "a", 80, "/k8s/c-1"))),
            ("10.0.0.1:6443", None),
            ("ftp://10.0.0.1", None),
            ("https://a@b", None),
            ("https://a:0", None),
            ("https://a:99999", None),
            ("https://a:", None),
            ("https://a/?watch=1", None),
            ("https:///", None),
        ] {
            let expected = expected.map(|(is_tls, host, port, base_path)| ApiServer {
                is_tls,
                host: host.to_owned(),
                port,
                base_path: base_path.to_owned(),
            });
            assert_eq!(parse_server(url), expected, "{url}");
        }
    }
}
