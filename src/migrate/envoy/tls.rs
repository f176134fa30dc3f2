//! What both sides of Envoy's TLS have in common: sockets, files, versions and whom is believed.

use super::fields::Fields;
use crate::config;
use crate::migrate::notes::Notes;
use crate::migrate::tls::Certificate;

const FILES: &str = "certificate and key are in files here: write them into two";
const STAPLE: &str = "an OCSP response is in a file here";
const SDS: &str = "what comes by SDS is not in the file; name the issuers' file as `ca`";
const OLD: &str = "TLS 1.2 and 1.3 are spoken here, older versions are not";
const NEW: &str = "TLS 1.3 is spoken here, too";

/// What a connection goes through.
pub(super) enum Socket<'a> {
    Plain,
    /// With the terms.
    Tls(Fields<'a>),
    /// With what is known of it.
    Other(Fields<'a>),
}

impl<'a> Socket<'a> {
    /// `socket` is a `transport_socket`.
    pub(super) fn of(socket: Fields<'a>) -> Self {
        let kind = socket.kind();
        let config = socket.map("typed_config").unwrap_or(socket);
        config.leave(&[]);
        if kind.contains("rawbuffer") {
            Self::Plain
        } else if kind.contains("tls") && !kind.contains("starttls") {
            Self::Tls(config)
        } else {
            Self::Other(config)
        }
    }
}

/// The name of the file that a field says to read.
pub(super) fn file(fields: &Fields<'_>, name: &'static str) -> Option<String> {
    let source = fields.map(name)?;
    let path = source.text("filename")?;
    config::is_file_path(path).then(|| path.to_owned())
}

/// `tls_certificates`, those that are in files.
pub(super) fn certificates(
    common: &Fields<'_>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Vec<Certificate> {
    let mut found = Vec::new();
    for element in common.list("tls_certificates") {
        let fields = Fields::of(element);
        fields.leave(&["watched_directory"]);
        let ocsp = file(&fields, "ocsp_staple");
        if let Some(staple) = fields.get("ocsp_staple").filter(|_| ocsp.is_none()) {
            comments.push(notes.gap(staple.place(), "ocsp_staple", STAPLE));
        }
        let cert = file(&fields, "certificate_chain");
        match cert.zip(file(&fields, "private_key")) {
            Some((cert, key)) => found.push(Certificate { cert, key, ocsp }),
            None => comments.push(notes.gap(element.place(), "tls_certificates", FILES)),
        }
        fields.tell_rest(comments, notes);
    }
    found
}

/// The least version; `None` is our default, which is Envoy's.
pub(super) fn min_version(
    common: &Fields<'_>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Option<&'static str> {
    let params = common.map("tls_params")?;
    params.leave(&["cipher_suites", "ecdh_curves", "signature_algorithms"]);
    let least = params.get("tls_minimum_protocol_version");
    let most = params.get("tls_maximum_protocol_version");
    params.tell_rest(comments, notes);
    if let Some(most) = most.filter(|most| !["TLSv1_3", "TLS_AUTO"].contains(&most.text())) {
        let shown = format!("tls_maximum_protocol_version: {}", most.text());
        comments.push(notes.remark(most.place(), &shown, NEW));
    }
    let least = least?;
    match least.text() {
        "TLSv1_2" => Some("1.2"),
        "TLSv1_3" => Some("1.3"),
        "TLS_AUTO" => None,
        other => {
            let shown = format!("tls_minimum_protocol_version: {other}");
            comments.push(notes.remark(least.place(), &shown, OLD));
            None
        }
    }
}

/// By what the other side's certificate is judged.
#[derive(Default)]
pub(super) struct Judging<'a> {
    pub(super) given: Option<Fields<'a>>,
    /// Some of it is not in the file.
    pub(super) elsewhere: bool,
}

impl<'a> Judging<'a> {
    pub(super) fn of(common: &Fields<'a>, comments: &mut Vec<String>, notes: &Notes<'_>) -> Self {
        const SECRET: &str = "validation_context_sds_secret_config";
        let combined = common.map("combined_validation_context");
        let inner = combined
            .as_ref()
            .and_then(|combined| combined.map("default_validation_context"));
        let mut elsewhere = false;
        for fields in [Some(common), combined.as_ref()].into_iter().flatten() {
            if let Some(secret) = fields.get(SECRET) {
                elsewhere = true;
                comments.push(notes.gap(secret.place(), SECRET, SDS));
            }
        }
        if let Some(combined) = combined {
            combined.tell_rest(comments, notes);
        }
        Self {
            given: common.map("validation_context").or(inner),
            elsewhere,
        }
    }
}

/// What only tells Envoy how to judge.
pub(super) const JUDGING_OWN: &[&str] = &["watched_directory"];

/// The fields that name whom a certificate may be for.
pub(super) const NAMES: [&str; 3] = [
    "match_typed_subject_alt_names",
    "match_subject_alt_names",
    "verify_subject_alt_name",
];

/// The fields that name certificates, whoever has issued them.
pub(super) const PINS: [&str; 2] = ["verify_certificate_spki", "verify_certificate_hash"];
