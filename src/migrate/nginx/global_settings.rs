//! Directives of `http` and `server` that Clockwise has once for the whole process.

use super::syntax::Directive;
use super::{real_ip, units};
use crate::migrate::draft::{ConfigDraft, DownstreamDraft};
use crate::migrate::notes::Notes;

/// Applies a directive; `false` if it is another one.
pub(super) fn apply(directive: &Directive, draft: &mut ConfigDraft, notes: &Notes<'_>) -> bool {
    let argument = directive.argument(0);
    let time = units::duration(argument).filter(|time| !time.is_zero());
    let before = draft.downstream.clone();
    let downstream = &mut draft.downstream;
    match directive.name.text.as_str() {
        "client_header_timeout" => downstream.header_timeout = time,
        "client_body_timeout" => downstream.read_timeout = time,
        "send_timeout" => downstream.write_timeout = time,
        "keepalive_timeout" => downstream.keepalive = time,
        "keepalive_requests" => {
            downstream.keepalive_requests = argument.parse().ok().filter(|n| *n > 0);
        }
        "large_client_header_buffers" => {
            let size = units::bytes(directive.argument(1));
            let total = size.zip(argument.parse::<u64>().ok());
            downstream.max_uri_length = size.map(|size| size.clamp(256, 1 << 20));
            downstream.max_header_size =
                total.map(|(size, count)| size.saturating_mul(count.max(1)).clamp(1024, 1 << 20));
        }
        "access_log" => access_log(directive, draft, notes),
        "error_log" => error_log(directive, draft, notes),
        "set_real_ip_from" => real_ip::add_trusted_proxy(directive, draft, notes),
        "real_ip_header" if argument.eq_ignore_ascii_case("x-forwarded-for") => {}
        "real_ip_header" if argument == "proxy_protocol" => draft.client_from_proxy_header = true,
        _ => return false,
    }
    if overrides_earlier(&before, &draft.downstream) {
        let what = "this setting holds for all listeners and servers; the last value is written";
        draft
            .comments
            .push(notes.remark(directive.span(), &directive.text(), what));
    }
    true
}

/// Whether a value that was set before has changed.
fn overrides_earlier(before: &DownstreamDraft, after: &DownstreamDraft) -> bool {
    let other = |before: Option<_>, after| before.is_some() && before != after;
    other(before.header_timeout, after.header_timeout)
        || other(before.read_timeout, after.read_timeout)
        || other(before.write_timeout, after.write_timeout)
        || other(before.keepalive, after.keepalive)
}

/// Takes the level only: the log goes to standard error.
pub(super) fn error_log(directive: &Directive, draft: &mut ConfigDraft, notes: &Notes<'_>) {
    draft.error_level = match directive.argument(1) {
        "debug" => Some("debug"),
        "info" | "notice" => Some("info"),
        "warn" => Some("warn"),
        "error" | "crit" | "alert" | "emerg" => Some("error"),
        _ => draft.error_level,
    };
    let what = "error messages go to standard error; let the service manager store them";
    notes.remark(directive.span(), &directive.text(), what);
}

fn access_log(directive: &Directive, draft: &mut ConfigDraft, notes: &Notes<'_>) {
    let path = directive.argument(0);
    if path.is_empty() || path.ends_with('/') {
        let why = "this is not a file path";
        let comment = notes.gap(directive.span(), &directive.text(), why);
        draft.comments.push(comment);
        return;
    }
    let old = draft.access_log.replace(match path {
        "off" => "off".to_owned(),
        "/dev/stdout" => "stdout".to_owned(),
        path => path.to_owned(),
    });
    if path == "off" {
        return;
    }
    let what = match old {
        Some(old) if old != path => {
            "there is one access log for all servers; the last one is written"
        }
        _ => "lines of the access log are JSON in a fixed format",
    };
    draft
        .comments
        .push(notes.remark(directive.span(), &directive.text(), what));
}
