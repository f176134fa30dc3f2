//! `bind`, `use_backend` and `default_backend`: listeners and routes.

use std::net::Ipv4Addr;

use super::acl;
use super::proxy::Proxy;
use super::syntax::{Line, Word};
use crate::migrate::model::{Listener, Route};
use crate::migrate::notes::Notes;
use crate::migrate::tls::Ending;

const SEGMENTS: &str = "paths are matched up to a `/` here: with `/a` also `/a/b`, but not `/ab`";

/// The listeners of a `bind`.
pub(super) fn bind(line: &Line, proxy: &mut Proxy, notes: &Notes<'_>) {
    for text in line.word(1).split(',') {
        let Some(address) = address(text) else {
            let why = "listeners have an IP address and one port";
            proxy
                .top
                .push(notes.gap(line.place, &format!("bind {text}"), why));
            continue;
        };
        let mut listener = Listener::new(address);
        let mut words = line.tail(2).iter();
        while let Some(word) = words.next() {
            option(word, &mut words, &mut listener, notes);
        }
        proxy.listeners.push(listener);
    }
}

fn option(
    word: &Word,
    rest: &mut std::slice::Iter<'_, Word>,
    listener: &mut Listener,
    notes: &Notes<'_>,
) {
    let why = match word.text.as_str() {
        "ssl" => {
            listener.tls = Some(Ending::default());
            "no TLS is spoken here; let something in front end it, and pass HTTP on"
        }
        "accept-proxy" => {
            let everybody = ["0.0.0.0/0", "::/0"].map(str::to_owned);
            listener.introduced_by = Some(everybody.to_vec());
            let what = "everybody is believed, as there; name the networks of those in front";
            let shown = format!("bind {} accept-proxy", listener.address);
            listener
                .comments
                .push(notes.remark(word.place, &shown, what));
            return;
        }
        "v6only" => {
            listener.ipv6_only = listener.address.starts_with('[');
            return;
        }
        "backlog" => {
            let number = rest.next().and_then(|word| word.text.parse().ok());
            listener.backlog = number.filter(|number| (1..=65_535).contains(number));
            return;
        }
        _ => return,
    };
    listener.comments.push(notes.gap(
        word.place,
        &format!("bind {} {}", listener.address, word.text),
        why,
    ));
}

/// `:80`, `*:80`, `10.0.0.1:80`, `[::]:80`, `:::80` as an address to bind.
pub(super) fn address(text: &str) -> Option<String> {
    let text = text
        .strip_prefix("ipv4@")
        .or(text.strip_prefix("ipv6@"))
        .unwrap_or(text);
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse::<u16>().ok()?;
    if matches!(host, "" | "*") {
        return Some(format!("0.0.0.0:{port}"));
    }
    if host.parse::<Ipv4Addr>().is_ok() {
        return Some(format!("{host}:{port}"));
    }
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let ip = bare.parse::<std::net::Ipv6Addr>().ok()?;
    Some(format!("[{ip}]:{port}"))
}

/// The routes of `use_backend NAME if CONDITION`.
pub(super) fn use_backend(line: &Line, proxy: &mut Proxy, notes: &Notes<'_>) {
    let (name, shown) = (line.word(1), line.shown());
    let regions = match line.word(2) {
        _ if name.contains("%[") => Err("an upstream is a fixed name".to_owned()),
        "" => acl::regions(&[], &proxy.acls),
        "if" => acl::regions(line.tail(3), &proxy.acls),
        _ => Err("routes cannot say what is not meant".to_owned()),
    };
    let regions = match regions {
        Ok(regions) => regions,
        Err(why) => {
            proxy.top.push(notes.gap(line.place, &shown, &why));
            return;
        }
    };
    let mut comments = Vec::new();
    if regions
        .iter()
        .any(|region| region.paths.iter().any(|path| path.to_string() != "/"))
    {
        comments.push(notes.remark(line.place, &shown, SEGMENTS));
    }
    for region in regions {
        for (host, path) in region
            .hosts
            .iter()
            .flat_map(|host| region.paths.iter().map(move |path| (host, path)))
        {
            proxy.routes.push(Route {
                host: host.clone(),
                path: path.clone(),
                comments: std::mem::take(&mut comments),
                ..Route::all(name, line.place)
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_an_address_is_read() {
        for (text, read) in [
            (":80", Some("0.0.0.0:80")),
            ("*:80", Some("0.0.0.0:80")),
            ("ipv4@10.0.0.1:80", Some("10.0.0.1:80")),
            ("[::1]:80", Some("[::1]:80")),
            (":::80", Some("[::]:80")),
            ("80", None),
            (":80-90", None),
            ("/run/a", None),
            ("unix@/run/a", None),
            ("", None),
        ] {
            assert_eq!(address(text).as_deref(), read, "{text}");
        }
    }
}
