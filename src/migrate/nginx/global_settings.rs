//! Directives of `http` and `server` whose settings hold for the whole process here.

use super::syntax::Directive;
use super::{real_ip, units};
use crate::migrate::draft::{ConfigDraft, DownstreamDraft};
use crate::migrate::notes::Notes;

/// Limits of clients, which we have for all listeners together; `false` if it is none.
pub(super) fn apply(directive: &Directive, setup: &mut ConfigDraft, notes: &Notes<'_>) -> bool {
    let argument = directive.argument(0);
    let time = units::duration(argument).filter(|time| !time.is_zero());
    let before = setup.downstream.clone();
    let down = &mut setup.downstream;
    match directive.name.text.as_str() {
        "client_header_timeout" => down.header_timeout = time,
        "client_body_timeout" => down.read_timeout = time,
        "send_timeout" => down.write_timeout = time,
        "keepalive_timeout" => down.keepalive = time,
        "keepalive_requests" => down.keepalive_requests = argument.parse().ok().filter(|n| *n > 0),
        "large_client_header_buffers" => {
            let size = units::bytes(directive.argument(1));
            let total = size.zip(argument.parse::<u64>().ok());
            down.max_uri_length = size.map(|size| size.clamp(256, 1 << 20));
            down.max_header_size =
                total.map(|(size, count)| size.saturating_mul(count.max(1)).clamp(1024, 1 << 20));
        }
        "access_log" => access_log(directive, setup, notes),
        "error_log" => error_log(directive, setup, notes),
        "set_real_ip_from" => real_ip::add_trusted_proxy(directive, setup, notes),
        "real_ip_header" if argument.eq_ignore_ascii_case("x-forwarded-for") => {}
        "real_ip_header" if argument == "proxy_protocol" => setup.client_from_proxy_header = true,
        _ => return false,
    }
    if overrides_earlier(&before, &setup.downstream) {
        let what = "this holds for all listeners and servers; the last one is written";
        setup
            .comments
            .push(notes.remark(directive.span(), &directive.text(), what));
    }
    true
}

/// Whether a value that was said before is another one now.
fn overrides_earlier(before: &DownstreamDraft, after: &DownstreamDraft) -> bool {
    let other = |before: Option<_>, after| before.is_some() && before != after;
    other(before.header_timeout, after.header_timeout)
        || other(before.read_timeout, after.read_timeout)
        || other(before.write_timeout, after.write_timeout)
        || other(before.keepalive, after.keepalive)
}

/// The level of the log; where it goes is standard error.
pub(super) fn error_log(directive: &Directive, setup: &mut ConfigDraft, notes: &Notes<'_>) {
    setup.error_level = match directive.argument(1) {
        "debug" => Some("debug"),
        "info" | "notice" => Some("info"),
        "warn" => Some("warn"),
        "error" | "crit" | "alert" | "emerg" => Some("error"),
        _ => setup.error_level,
    };
    let what = "messages go to standard error; let the service manager keep them";
    notes.remark(directive.span(), &directive.text(), what);
}

fn access_log(directive: &Directive, setup: &mut ConfigDraft, notes: &Notes<'_>) {
    let path = directive.argument(0);
    if path.is_empty() || path.ends_with('/') {
        let why = "this is no file";
        let comment = notes.gap(directive.span(), &directive.text(), why);
        setup.comments.push(comment);
        return;
    }
    let old = setup.access_log.replace(match path {
        "off" => "off".to_owned(),
        "/dev/stdout" => "stdout".to_owned(),
        path => path.to_owned(),
    });
    if path == "off" {
        return;
    }
    let what = match old {
        Some(old) if old != path => "one access log is kept for all; the last one is written",
        _ => "its lines are JSON here, whatever the format was",
    };
    setup
        .comments
        .push(notes.remark(directive.span(), &directive.text(), what));
}
