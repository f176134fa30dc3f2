//! A response of the admin API: status, media type, body.

use std::fmt::Display;

use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, VARY,
};
use http::{Response, StatusCode};
use serde_json::{Value, json};

/// The media type of a drawn ring.
pub(super) const SVG_TYPE: &str = "image/svg+xml";

/// The dashboard can drain peers: it must not load anything from another site, nor be framed by one.
const CSP: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A complete response.
pub(super) struct AdminResponse {
    status: StatusCode,
    content_type: &'static str,
    /// The value of `Allow`.
    allow: Option<&'static str>,
    /// Whether the format depends on `Accept`.
    negotiated: bool,
    body: Vec<u8>,
}

impl AdminResponse {
    /// Status 200 with a body of any media type.
    pub(super) fn ok(content_type: &'static str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: StatusCode::OK,
            content_type,
            allow: None,
            negotiated: false,
            body: body.into(),
        }
    }

    pub(super) fn html(html: &str) -> Self {
        Self::ok("text/html; charset=utf-8", html)
    }

    pub(super) fn json(value: &Value) -> Self {
        Self::ok("application/json", format!("{value}\n"))
    }

    /// Says that the format depends on `Accept` (RFC 9110 §12.5.5).
    pub(super) fn negotiated(self) -> Self {
        Self {
            negotiated: true,
            ..self
        }
    }

    /// JSON, one value per line.
    pub(super) fn ndjson(lines: String) -> Self {
        Self::ok("application/x-ndjson", lines)
    }

    pub(super) fn svg(svg: String) -> Self {
        Self::ok(SVG_TYPE, svg)
    }

    pub(super) fn text(status: StatusCode, text: &str) -> Self {
        Self {
            status,
            ..Self::ok("text/plain; charset=utf-8", text)
        }
    }

    /// `{"error": MESSAGE}`
    pub(super) fn error(status: StatusCode, message: &str) -> Self {
        Self::json_with_status(status, &json!({ "error": message }))
    }

    pub(super) fn json_with_status(status: StatusCode, value: &Value) -> Self {
        Self {
            status,
            ..Self::json(value)
        }
    }

    /// 409 for a command that `force` would carry out: the body has `"can_force": true`, which tells it from others with
    /// this status.
    pub(super) fn needs_force(message: &str) -> Self {
        let body = json!({ "error": message, "can_force": true });
        Self::json_with_status(StatusCode::CONFLICT, &body)
    }

    /// 405, with the methods that the path has (RFC 9110 §15.5.6).
    pub(super) fn method_not_allowed(allow: &'static str) -> Self {
        Self {
            allow: Some(allow),
            ..Self::error(StatusCode::METHOD_NOT_ALLOWED, &format!("use {allow}"))
        }
    }

    /// 400: the request is not understood.
    pub(super) fn bad_request(message: &str) -> Self {
        Self::error(StatusCode::BAD_REQUEST, message)
    }

    /// 422: the request is understood, but cannot be answered for this upstream.
    pub(super) fn unprocessable(reason: impl Display) -> Self {
        Self::error(StatusCode::UNPROCESSABLE_ENTITY, &reason.to_string())
    }

    pub(super) fn into_http(self) -> Response<Vec<u8>> {
        let length = self.body.len();
        let mut response = Response::new(self.body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(CONTENT_LENGTH, length.into());
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(CSP));
        if let Some(allow) = self.allow {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if self.negotiated {
            headers.insert(VARY, HeaderValue::from_static("accept"));
        }
        response
    }
}
