//! `set_real_ip_from`, `real_ip_header`: the proxies that may name the client.

use super::syntax::Directive;
use crate::migrate::draft::ConfigDraft;
use crate::migrate::notes::Notes;

pub(super) fn add_trusted_proxy(directive: &Directive, setup: &mut ConfigDraft, notes: &Notes<'_>) {
    let text = directive.argument(0);
    let address = text
        .parse::<std::net::IpAddr>()
        .map(|ip| ipnet::IpNet::from(ip).to_string());
    match address.or_else(|_| {
        text.parse::<ipnet::IpNet>()
            .map(|net| net.trunc().to_string())
    }) {
        Ok(network) if !setup.trusted_proxies.contains(&network) => {
            setup.trusted_proxies.push(network);
        }
        Ok(_) => {}
        Err(_) => {
            let why = "trusted proxies are networks like `10.0.0.0/8`";
            setup
                .comments
                .push(notes.gap(directive.span(), &directive.text(), why));
        }
    }
}

/// Where nginx finds another client behind a trusted proxy than we do.
pub(super) fn note_differences(all: &[&Directive], setup: &mut ConfigDraft, notes: &Notes<'_>) {
    let find = |name: &str| all.iter().copied().find(|found| found.name.text == name);
    let Some(trusted) = find("set_real_ip_from") else {
        return;
    };
    let mut tell = |what| {
        let comment = notes.remark(trusted.span(), &trusted.text(), what);
        setup.comments.push(comment);
    };
    let forwarded = |header: &Directive| header.argument(0).eq_ignore_ascii_case("x-forwarded-for");
    let is_on = |recursive: &Directive| recursive.argument(0) == "on";
    let header = find("real_ip_header");
    if header.is_none() {
        tell(
            "without `real_ip_header` nginx reads `X-Real-IP`, here `X-Forwarded-For` tells the client",
        );
    }
    if header.is_some_and(forwarded) && !find("real_ip_recursive").is_some_and(is_on) {
        tell(
            "where several trusted proxies stand one behind the other, nginx takes the last for the client, here it is who is in front of them, as with `real_ip_recursive on`",
        );
    }
}

/// Whom nginx believes about the client's address: here that is said of each listener.
pub(super) fn set_accept_proxy(setup: &mut ConfigDraft, notes: &Notes<'_>) {
    let mut trusted = Vec::new();
    if setup.client_from_proxy_header {
        std::mem::swap(&mut trusted, &mut setup.trusted_proxies);
    }
    for listener in &mut setup.listeners {
        let Some(from) = &mut listener.accept_proxy_from else {
            continue;
        };
        let shown = format!("listen {} proxy_protocol", listener.address);
        let comment = if trusted.is_empty() {
            listener.accept_proxy_from = None;
            let why = "whom to believe is not said (`set_real_ip_from` with `real_ip_header proxy_protocol`); write `proxy_protocol: {from: [...]}`";
            notes.gap(listener.accept_proxy_span, &shown, why)
        } else {
            from.clone_from(&trusted);
            let what = "who connects from elsewhere is refused; nginx reads a header of them, too, and does not believe it";
            notes.remark(listener.accept_proxy_span, &shown, what)
        };
        listener.comments.push(comment);
    }
}
