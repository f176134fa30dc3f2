//! `forwarding`: the headers that Clockwise adds to requests for peers, on all routes.

use http::HeaderName;

use super::key;
use crate::config::fields::{Fields, is_switch};
use crate::config::raw::YamlNode;
use crate::config::schema::SectionSchema;
use crate::config::values::{InvalidValue, describe_node};

/// The request headers that tell peers about the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardingConfig {
    /// `X-Forwarded-For`, `X-Forwarded-Proto` and `X-Forwarded-Host`.
    pub x_forwarded: bool,
    /// `Forwarded` (RFC 7239).
    pub forwarded: bool,
    /// `Client-Cert` (RFC 9440): the client's certificate.
    pub client_cert: bool,
    /// The header with the request id; `None`: not sent.
    pub request_id: Option<HeaderName>,
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Headers that cannot carry the request id without breaking the request.
const RESERVED_HEADERS: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

pub(super) static FORWARDING: SectionSchema = SectionSchema {
    title: "`forwarding`",
    path: "forwarding",
    example: "{x_forwarded: true}",
    keys: &["x_forwarded", "forwarded", "client_cert", "request_id"],
    ..SectionSchema::EMPTY
};

pub(super) fn read(root: &Fields<'_>) -> ForwardingConfig {
    let Some(fields) = root.section("forwarding", &FORWARDING) else {
        return ForwardingConfig {
            x_forwarded: true,
            forwarded: false,
            client_cert: false,
            request_id: Some(REQUEST_ID),
        };
    };
    ForwardingConfig {
        x_forwarded: fields.flag("x_forwarded", true),
        forwarded: fields.flag("forwarded", false),
        client_cert: fields.flag("client_cert", false),
        request_id: fields.or_off("request_id", Some(REQUEST_ID), request_id),
    }
}

fn request_id(node: &YamlNode) -> Result<HeaderName, InvalidValue> {
    if node.text().is_some_and(is_switch) {
        let message = format!(
            "expected the name of a header, found {}",
            describe_node(node)
        );
        return Err((message, "write a name, as in `x-request-id`".to_owned()));
    }
    let name = key::header_name(node)?;
    if RESERVED_HEADERS.contains(&name.as_str()) {
        let help = "use another header, as in `x-request-id`".to_owned();
        return Err((format!("`{name}` cannot carry the request id"), help));
    }
    Ok(name)
}
