//! Flow maps: the values of keys that hold more than one setting.

use std::fmt::Write;

use super::scalars::{YamlPairs, clamped_duration, duration_text, flow_map, scalar};
use crate::migrate::draft::{
    HealthDraft, KeySourceDraft, OutlierDetectionDraft, ProbeDraft, RingDraft, SendProxyDraft,
};
use crate::migrate::tls::{CertificateDraft, TlsOriginationDraft, TlsTerminationDraft};

pub(super) fn keys(sources: &[KeySourceDraft]) -> Option<String> {
    match sources {
        [] => None,
        [one] => Some(source(one)),
        several => Some(source_list(several)),
    }
}

fn source_list(sources: &[KeySourceDraft]) -> String {
    let each: Vec<_> = sources.iter().map(source).collect();
    format!("[{}]", each.join(", "))
}

fn source(key: &KeySourceDraft) -> String {
    match key {
        KeySourceDraft::ClientIp => "client_ip".to_owned(),
        KeySourceDraft::ClientIpBinary => "{client_ip: {form: binary}}".to_owned(),
        KeySourceDraft::ClientNetwork { v4, v6 } => {
            format!("{{client_ip: {{v4: {v4}, v6: {v6}}}}}")
        }
        KeySourceDraft::Header(name) => format!("{{header: {}}}", scalar(name)),
        KeySourceDraft::HeaderElement(name, end) => {
            format!("{{header: {{name: {}, element: {end}}}}}", scalar(name))
        }
        KeySourceDraft::HeaderLines(name, values) => {
            let name = scalar(name);
            format!("{{header: {{name: {name}, values: {values}, empty: value}}}}")
        }
        KeySourceDraft::CookieOrEmpty(name) => {
            format!("{{cookie: {{name: {}, empty: value}}}}", scalar(name))
        }
        KeySourceDraft::QueryOrEmpty(name) => {
            format!("{{query: {{name: {}, empty: value}}}}", scalar(name))
        }
        KeySourceDraft::Cookie(name) => format!("{{cookie: {}}}", scalar(name)),
        KeySourceDraft::Query(name) => format!("{{query: {}}}", scalar(name)),
        KeySourceDraft::Path => "path".to_owned(),
        KeySourceDraft::NormalizedPath => "{path: normalized}".to_owned(),
        KeySourceDraft::PathAndQuery => "path_and_query".to_owned(),
        KeySourceDraft::Host => "host".to_owned(),
        KeySourceDraft::Any(sources, None) => format!("{{any: {}}}", source_list(sources)),
        KeySourceDraft::Any(sources, Some(separator)) => {
            format!(
                "{{any: {}, separator: {}}}",
                source_list(sources),
                scalar(separator)
            )
        }
    }
}

/// `None` without a certificate.
pub(super) fn tls_termination(tls: &TlsTerminationDraft) -> Option<String> {
    let files = |one: &CertificateDraft| -> YamlPairs {
        vec![
            ("cert", Some(scalar(&one.cert))),
            ("key", Some(scalar(&one.key))),
            ("ocsp", one.ocsp.as_deref().map(scalar)),
        ]
    };
    let mut pairs = match tls.certificates.as_slice() {
        [] => return None,
        [one] => files(one),
        several => {
            let each: Vec<_> = several
                .iter()
                .filter_map(|one| flow_map(files(one)))
                .collect();
            vec![("certificates", Some(format!("[{}]", each.join(", "))))]
        }
    };
    let hsts = tls.hsts.and_then(|hsts| {
        flow_map(vec![
            ("max_age", Some(duration_text(hsts.max_age))),
            ("subdomains", hsts.subdomains.then(|| "true".to_owned())),
            ("preload", hsts.preload.then(|| "true".to_owned())),
        ])
    });
    let clients = tls.client_auth.as_ref().and_then(|clients| {
        let mode = if clients.required {
            "required"
        } else {
            "optional"
        };
        flow_map(vec![
            ("mode", Some(mode.to_owned())),
            ("ca", Some(scalar(&clients.ca))),
            ("crl", clients.crl.as_deref().map(scalar)),
        ])
    });
    pairs.extend([
        ("min_version", tls.min_version.map(str::to_owned)),
        ("http2", tls.http2.map(|http2| http2.to_string())),
        ("hsts", hsts),
        ("client_auth", clients),
    ]);
    flow_map(pairs)
}

pub(super) fn tls_origination(tls: &TlsOriginationDraft) -> String {
    let client_certificate = tls.client_certificate.as_ref();
    let pairs = vec![
        ("server_name", tls.server_name.as_deref().map(scalar)),
        ("ca", tls.ca.as_deref().map(scalar)),
        ("cert", client_certificate.map(|(cert, _)| scalar(cert))),
        ("key", client_certificate.map(|(_, key)| scalar(key))),
        ("min_version", tls.min_version.map(str::to_owned)),
        ("verify", (!tls.verify).then(|| "false".to_owned())),
    ];
    flow_map(pairs).unwrap_or_else(|| "true".to_owned())
}

pub(super) fn send_proxy(header: &SendProxyDraft) -> String {
    let SendProxyDraft { version, tlvs } = header;
    if tlvs.is_empty() {
        return (*version).to_owned();
    }
    format!("{{version: {version}, tlvs: [{}]}}", tlvs.join(", "))
}

pub(super) fn ring(ring: &RingDraft) -> String {
    let mut text = format!("{{dialect: {}", ring.dialect);
    for (key, value) in &ring.options {
        let _ = write!(text, ", {key}: {value}");
    }
    text + "}"
}

pub(super) fn health(health: &HealthDraft) -> Option<String> {
    match health {
        HealthDraft::Unset => None,
        HealthDraft::Off => Some("off".to_owned()),
        HealthDraft::On(probe) => Some(probe_map(probe)),
    }
}

fn probe_map(probe: &ProbeDraft) -> String {
    let tcp = probe.http.is_none().then(|| "true".to_owned());
    // A TCP probe has no host and expects no status.
    let host = probe.host.as_deref().filter(|_| probe.http.is_some());
    let expect = match probe.expect.as_slice() {
        _ if probe.http.is_none() => None,
        [] => None,
        [one] => Some(one.clone()),
        several => Some(format!("[{}]", several.join(", "))),
    };
    let pairs = vec![
        ("tcp", tcp),
        ("http", probe.http.as_deref().map(scalar)),
        ("host", host.map(scalar)),
        ("expect", expect),
        ("interval", probe.interval.map(clamped_duration)),
        ("timeout", probe.timeout.map(clamped_duration)),
        ("fall", probe.fall.map(|number| number.to_string())),
        ("rise", probe.rise.map(|number| number.to_string())),
    ];
    flow_map(pairs).unwrap_or_default()
}

pub(super) fn outlier_detection(detection: OutlierDetectionDraft) -> Option<String> {
    match detection {
        OutlierDetectionDraft::Unset => None,
        OutlierDetectionDraft::Off => Some("off".to_owned()),
        OutlierDetectionDraft::On { failures, eject } => Some(format!(
            "{{failures: {failures}, count: [connect, timeout, reset], eject: {}}}",
            clamped_duration(eject)
        )),
    }
}

/// The protocols of `upgrade`.
pub(super) fn upgrade(protocols: &[String]) -> String {
    if protocols.is_empty() {
        return "off".to_owned();
    }
    let protocols: Vec<_> = protocols.iter().map(|it| scalar(it)).collect();
    format!("[{}]", protocols.join(", "))
}
