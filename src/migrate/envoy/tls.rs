//! TLS settings that listeners and clusters share: sockets, files, versions, validation.

use super::message_fields::MessageFields;
use crate::config;
use crate::migrate::notes::Notes;
use crate::migrate::tls::CertificateDraft;

const TWO_FILES: &str = "Clockwise reads certificate and key from files; name one file for each";
const STAPLE_IN_FILE: &str = "Clockwise reads an OCSP response from a file; name it as `ocsp`";
const SDS: &str = "secrets from SDS are not in the file; name the CA file as `ca`";
const NO_OLD_TLS: &str = "Clockwise speaks TLS 1.2 and 1.3 only";
const ALWAYS_TLS13: &str = "Clockwise always offers TLS 1.3";

/// The kind of a transport socket.
pub(super) enum TransportSocket<'a> {
    RawBuffer,
    /// With its TLS context.
    Tls(MessageFields<'a>),
    /// With its configuration.
    Other(MessageFields<'a>),
}

impl<'a> TransportSocket<'a> {
    /// `socket` is a `transport_socket`.
    pub(super) fn of(socket: MessageFields<'a>) -> Self {
        let kind = socket.extension_type();
        let config = socket.message("typed_config").unwrap_or(socket);
        config.ignore(&[]);
        if kind.contains("rawbuffer") {
            Self::RawBuffer
        } else if kind.contains("tls") && !kind.contains("starttls") {
            Self::Tls(config)
        } else {
            Self::Other(config)
        }
    }
}

/// The `filename` of a data source.
pub(super) fn file_path(fields: &MessageFields<'_>, name: &'static str) -> Option<String> {
    let source = fields.message(name)?;
    let path = source.text("filename")?;
    config::is_file_path(path).then(|| path.to_owned())
}

/// The `tls_certificates` in files.
pub(super) fn certificates(
    common: &MessageFields<'_>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Vec<CertificateDraft> {
    let mut found = Vec::new();
    for element in common.list("tls_certificates") {
        let fields = MessageFields::of(element);
        fields.ignore(&["watched_directory"]);
        let ocsp = file_path(&fields, "ocsp_staple");
        if let Some(staple) = fields.get("ocsp_staple").filter(|_| ocsp.is_none()) {
            comments.push(notes.gap(staple.span(), "ocsp_staple", STAPLE_IN_FILE));
        }
        let cert = file_path(&fields, "certificate_chain");
        match cert.zip(file_path(&fields, "private_key")) {
            Some((cert, key)) => found.push(CertificateDraft { cert, key, ocsp }),
            None => comments.push(notes.gap(element.span(), "tls_certificates", TWO_FILES)),
        }
        fields.note_unread(comments, notes);
    }
    found
}

/// The oldest version; `None` is the default, 1.2 in both.
pub(super) fn min_version(
    common: &MessageFields<'_>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Option<&'static str> {
    let params = common.message("tls_params")?;
    params.ignore(&["cipher_suites", "ecdh_curves", "signature_algorithms"]);
    let least = params.get("tls_minimum_protocol_version");
    let most = params.get("tls_maximum_protocol_version");
    params.note_unread(comments, notes);
    if let Some(most) = most.filter(|most| !["TLSv1_3", "TLS_AUTO"].contains(&most.text())) {
        let subject = format!("tls_maximum_protocol_version: {}", most.text());
        comments.push(notes.remark(most.span(), &subject, ALWAYS_TLS13));
    }
    let least = least?;
    match least.text() {
        "TLSv1_2" => Some("1.2"),
        "TLSv1_3" => Some("1.3"),
        "TLS_AUTO" => None,
        other => {
            let subject = format!("tls_minimum_protocol_version: {other}");
            comments.push(notes.remark(least.span(), &subject, NO_OLD_TLS));
            None
        }
    }
}

/// How the peer's certificate is verified.
#[derive(Default)]
pub(super) struct ValidationContext<'a> {
    pub(super) fields: Option<MessageFields<'a>>,
    /// A part comes from SDS.
    pub(super) uses_sds: bool,
}

impl<'a> ValidationContext<'a> {
    pub(super) fn of(
        common: &MessageFields<'a>,
        comments: &mut Vec<String>,
        notes: &Notes<'_>,
    ) -> Self {
        const SECRET: &str = "validation_context_sds_secret_config";
        let combined = common.message("combined_validation_context");
        let inner = combined
            .as_ref()
            .and_then(|combined| combined.message("default_validation_context"));
        let mut uses_sds = false;
        for fields in [Some(common), combined.as_ref()].into_iter().flatten() {
            if let Some(secret) = fields.get(SECRET) {
                uses_sds = true;
                comments.push(notes.gap(secret.span(), SECRET, SDS));
            }
        }
        if let Some(combined) = combined {
            combined.note_unread(comments, notes);
        }
        Self {
            fields: common.message("validation_context").or(inner),
            uses_sds,
        }
    }
}

/// Fields of a validation context that are internal to Envoy.
pub(super) const VALIDATION_IGNORED: &[&str] = &["watched_directory"];

/// Fields that match the names in a certificate.
pub(super) const SAN_MATCHERS: [&str; 3] = [
    "match_typed_subject_alt_names",
    "match_subject_alt_names",
    "verify_subject_alt_name",
];

/// Fields that pin certificates or keys.
pub(super) const CERTIFICATE_PINS: [&str; 2] =
    ["verify_certificate_spki", "verify_certificate_hash"];
