//! What both sides of Envoy's TLS have in common: sockets, files, versions and whom is believed.

use super::message_fields::MessageFields;
use crate::config;
use crate::migrate::notes::Notes;
use crate::migrate::tls::CertificateDraft;

const TWO_FILES: &str = "certificate and key are in files here: write them into two";
const STAPLE_IN_FILE: &str = "an OCSP response is in a file here";
const SDS: &str = "what comes by SDS is not in the file; name the issuers' file as `ca`";
const NO_OLD_TLS: &str = "TLS 1.2 and 1.3 are spoken here, older versions are not";
const ALWAYS_TLS13: &str = "TLS 1.3 is spoken here, too";

/// What a connection goes through.
pub(super) enum TransportSocket<'a> {
    RawBuffer,
    /// With the terms.
    Tls(MessageFields<'a>),
    /// With what is known of it.
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

/// The name of the file that a field says to read.
pub(super) fn file_path(fields: &MessageFields<'_>, name: &'static str) -> Option<String> {
    let source = fields.message(name)?;
    let path = source.text("filename")?;
    config::is_file_path(path).then(|| path.to_owned())
}

/// `tls_certificates`, those that are in files.
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

/// The least version; `None` is our default, which is Envoy's.
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
        let shown = format!("tls_maximum_protocol_version: {}", most.text());
        comments.push(notes.remark(most.span(), &shown, ALWAYS_TLS13));
    }
    let least = least?;
    match least.text() {
        "TLSv1_2" => Some("1.2"),
        "TLSv1_3" => Some("1.3"),
        "TLS_AUTO" => None,
        other => {
            let shown = format!("tls_minimum_protocol_version: {other}");
            comments.push(notes.remark(least.span(), &shown, NO_OLD_TLS));
            None
        }
    }
}

/// By what the other side's certificate is judged.
#[derive(Default)]
pub(super) struct ValidationContext<'a> {
    pub(super) fields: Option<MessageFields<'a>>,
    /// Some of it is not in the file.
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
        let mut elsewhere = false;
        for fields in [Some(common), combined.as_ref()].into_iter().flatten() {
            if let Some(secret) = fields.get(SECRET) {
                elsewhere = true;
                comments.push(notes.gap(secret.span(), SECRET, SDS));
            }
        }
        if let Some(combined) = combined {
            combined.note_unread(comments, notes);
        }
        Self {
            fields: common.message("validation_context").or(inner),
            uses_sds: elsewhere,
        }
    }
}

/// What only tells Envoy how to judge.
pub(super) const VALIDATION_IGNORED: &[&str] = &["watched_directory"];

/// The fields that name whom a certificate may be for.
pub(super) const SAN_MATCHERS: [&str; 3] = [
    "match_typed_subject_alt_names",
    "match_subject_alt_names",
    "verify_subject_alt_name",
];

/// The fields that name certificates, whoever has issued them.
pub(super) const CERTIFICATE_PINS: [&str; 2] =
    ["verify_certificate_spki", "verify_certificate_hash"];
