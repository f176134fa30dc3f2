//! `set_real_ip_from`, `real_ip_header`: the proxies that may name the client.

use super::syntax::Directive;
use crate::migrate::draft::ConfigDraft;
use crate::migrate::notes::Notes;

pub(super) fn add_trusted_proxy(directive: &Directive, draft: &mut ConfigDraft, notes: &Notes<'_>) {
    let text = directive.argument(0);
    let address = text
        .parse::<std::net::IpAddr>()
        .map(|ip| ipnet::IpNet::from(ip).to_string());
    match address.or_else(|_| {
        text.parse::<ipnet::IpNet>()
            .map(|net| net.trunc().to_string())
    }) {
        Ok(network) if !draft.trusted_proxies.contains(&network) => {
            draft.trusted_proxies.push(network);
        }
        Ok(_) => {}
        Err(_) => {
            let why = "`trusted_proxies` takes networks, such as `10.0.0.0/8`";
            draft
                .comments
                .push(notes.gap(directive.span(), &directive.text(), why));
        }
    }
}

/// Adds a note for each setting with which nginx finds another client address behind a trusted proxy.
pub(super) fn note_differences(all: &[&Directive], draft: &mut ConfigDraft, notes: &Notes<'_>) {
    let find = |name: &str| all.iter().copied().find(|found| found.name.text == name);
    let Some(trusted) = find("set_real_ip_from") else {
        return;
    };
    let mut note = |what| {
        let comment = notes.remark(trusted.span(), &trusted.text(), what);
        draft.comments.push(comment);
    };
    let forwarded = |header: &Directive| header.argument(0).eq_ignore_ascii_case("x-forwarded-for");
    let is_on = |recursive: &Directive| recursive.argument(0) == "on";
    let header = find("real_ip_header");
    if header.is_none() {
        note(
            "without `real_ip_header`, nginx reads `X-Real-IP`; Clockwise reads `X-Forwarded-For`",
        );
    }
    if header.is_some_and(forwarded) && !find("real_ip_recursive").is_some_and(is_on) {
        note(
            "behind several trusted proxies, nginx takes the last proxy as the client; Clockwise takes the last address that is not a trusted proxy, as with `real_ip_recursive on`",
        );
    }
}

/// Moves the trusted proxies to the listeners with `proxy_protocol`, if they name the client there.
pub(super) fn set_accept_proxy(draft: &mut ConfigDraft, notes: &Notes<'_>) {
    let mut trusted = Vec::new();
    if draft.client_from_proxy_header {
        std::mem::swap(&mut trusted, &mut draft.trusted_proxies);
    }
    for listener in &mut draft.listeners {
        let Some(from) = &mut listener.accept_proxy_from else {
            continue;
        };
        let subject = format!("listen {} proxy_protocol", listener.address);
        let comment = if trusted.is_empty() {
            listener.accept_proxy_from = None;
            let why = "no trusted sources are given (`set_real_ip_from` with `real_ip_header proxy_protocol`); write `proxy_protocol: {from: [...]}`";
            notes.gap(listener.accept_proxy_span, &subject, why)
        } else {
            from.clone_from(&trusted);
            let what = "connections from other sources are refused; nginx accepts them and ignores the address in their header";
            notes.remark(listener.accept_proxy_span, &subject, what)
        };
        listener.comments.push(comment);
    }
}
