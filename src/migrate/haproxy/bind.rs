//! `bind`: listeners, and TLS at them.

use std::net::Ipv4Addr;

use super::proxy::Proxy;
use super::syntax::{Line, Word};
use super::tls::{Global, OWN, Versions};
use crate::migrate::model::Listener;
use crate::migrate::notes::Notes;
use crate::migrate::source::Place;
use crate::migrate::tls::{Certificate, Clients, Ending};

const FILES: &str = "a certificate is one file with its key here; name each in `certificates` of the listener's `tls`";
const NOBODY: &str = "say whose certificates count, in one file: `client_auth` of the listener's `tls` has `ca`; until then the listener is left out";
const NO_CA: &str =
    "say whose certificates count, in one file: `client_auth` of the listener's `tls` has `ca`";
const HTTP1: &str = "HTTP/1.1 is spoken beside HTTP/2 here";
const H2C: &str = "add `h2c: true` to the listener; it speaks HTTP/1.1, too";
const PLAIN: &str = "nothing of TLS is read where no `ssl` is said";

/// Parameters that are followed by a value.
const VALUED: &[&str] = &[
    "accept-netscaler-cip",
    "alpn",
    "backlog",
    "ca-file",
    "ca-ignore-err",
    "ca-sign-file",
    "ca-sign-pass",
    "ca-verify-file",
    "cc",
    "ciphers",
    "ciphersuites",
    "client-sigalgs",
    "crl-file",
    "crt",
    "crt-ignore-err",
    "crt-list",
    "curves",
    "default-crt",
    "ecdhe",
    "expose-fd",
    "gid",
    "group",
    "guid-prefix",
    "id",
    "idle-ping",
    "interface",
    "label",
    "level",
    "maxconn",
    "mode",
    "mss",
    "name",
    "namespace",
    "nbconn",
    "nice",
    "npn",
    "ocsp-update",
    "process",
    "proto",
    "severity-output",
    "shards",
    "sigalgs",
    "ssl-max-ver",
    "ssl-min-ver",
    "tcp-md5sig",
    "tcp-ut",
    "thread",
    "tls-ticket-keys",
    "uid",
    "user",
    "verify",
];

/// What only says how `HAProxy` or its TLS works.
const ITS_OWN: &[&str] = &[
    "allow-0rtt",
    "ciphers",
    "ciphersuites",
    "client-sigalgs",
    "curves",
    "defer-accept",
    "ecdhe",
    "expose-fd",
    "gid",
    "group",
    "guid-prefix",
    "id",
    "label",
    "level",
    "mode",
    "mss",
    "name",
    "nice",
    "no-ca-names",
    "no-strict-sni",
    "no-tls-tickets",
    "npn",
    "prefer-client-ciphers",
    "process",
    "severity-output",
    "shards",
    "sigalgs",
    "tcp-ut",
    "tfo",
    "thread",
    "tls-ticket-keys",
    "tls-tickets",
    "uid",
    "user",
    "v4v6",
];

/// A listener, and what it asks of clients.
pub(super) struct Bind {
    pub(super) listener: Listener,
    /// Nobody gets through who shows no certificate.
    pub(super) demands: bool,
}

/// What one `bind` says of TLS.
#[derive(Default)]
struct Said<'a> {
    ssl: bool,
    /// Something of it stands there.
    any: bool,
    /// Where one is that could not be translated.
    untold: bool,
    certificates: Vec<Certificate>,
    /// What `alpn` names, or `no-alpn`, which names nothing.
    offered: Option<&'a Word>,
    /// `proto`.
    protocol: Option<&'a Word>,
    versions: Versions,
    /// Whether clients must show a certificate, or may.
    verify: Option<(bool, &'a Word)>,
    ca: Option<String>,
    crl: Option<String>,
}

/// A `bind` while it is read.
struct Reader<'a> {
    bind: Bind,
    said: Said<'a>,
    global: &'a Global,
    notes: &'a Notes<'a>,
}

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
        let mut reader = Reader {
            bind: Bind {
                listener: Listener::new(address),
                demands: false,
            },
            said: Said::default(),
            global: &proxy.global,
            notes,
        };
        let mut words = line.tail(2).iter();
        while let Some(word) = words.next() {
            let valued = VALUED.contains(&word.text.as_str());
            let value = if valued { words.next() } else { None };
            reader.option(word, value);
        }
        let bind = reader.finish(line.place);
        proxy.binds.push(bind);
    }
}

impl<'a> Reader<'a> {
    fn option(&mut self, word: &'a Word, value: Option<&'a Word>) {
        let text = value.map_or("", |value| value.text.as_str());
        let listener = &mut self.bind.listener;
        match word.text.as_str() {
            "accept-proxy" => {
                let everybody = ["0.0.0.0/0", "::/0"].map(str::to_owned);
                listener.introduced_by = Some(everybody.to_vec());
                let what = "everybody is believed, as there; name the networks of those in front";
                self.remark(word, "", what);
            }
            "v6only" => listener.ipv6_only = listener.address.starts_with('['),
            "backlog" => {
                let number = text.parse().ok();
                listener.backlog = number.filter(|number| (1..=65_535).contains(number));
            }
            "proto" => self.said.protocol = value,
            _ if self.tls(word, value) => self.said.any = true,
            name if ITS_OWN.contains(&name) => self.remark(word, text, OWN),
            name => self.gap(word, text, advice(name)),
        }
    }

    /// Takes in what is about TLS; `false` if it is about something else.
    fn tls(&mut self, word: &'a Word, value: Option<&'a Word>) -> bool {
        let text = value.map_or("", |value| value.text.as_str());
        let said = &mut self.said;
        match word.text.as_str() {
            "ssl" => said.ssl = true,
            "crt" | "default-crt" => self.certificate(word, text),
            "crt-list" => {
                said.untold = true;
                self.gap(word, text, FILES);
            }
            "alpn" => said.offered = value,
            "no-alpn" => said.offered = Some(word),
            "verify" => said.verify = (text != "none").then_some((text == "required", word)),
            "ca-file" => self.said.ca = self.authority(word, text),
            "crl-file" => self.said.crl = self.authority(word, text),
            name => return said.versions.read(name, text),
        }
        true
    }

    fn certificate(&mut self, word: &Word, text: &str) {
        let Some(file) = self.global.crt(text) else {
            self.said.untold = true;
            self.gap(word, text, FILES);
            return;
        };
        // HAProxy has both in one file.
        let certificate = Certificate {
            cert: file.clone(),
            key: file,
            ocsp: None,
        };
        let certificates = &mut self.said.certificates;
        if word.text == "default-crt" {
            certificates.insert(0, certificate);
        } else {
            certificates.push(certificate);
        }
    }

    fn authority(&mut self, word: &Word, text: &str) -> Option<String> {
        let file = self.global.ca(text);
        if file.is_none() {
            self.gap(word, text, "name one file");
        }
        file
    }

    fn finish(mut self, place: Place) -> Bind {
        let protocol = self.said.protocol.filter(|word| word.text == "h2");
        if self.said.ssl {
            self.end(place, protocol);
        } else {
            if self.said.any {
                let shown = format!("bind {}", self.bind.listener.address);
                self.notes.remark(place, &shown, PLAIN);
            }
            if let Some(word) = protocol {
                let shown = format!("bind {} proto h2", self.bind.listener.address);
                let comment = self.notes.gap(word.place, &shown, H2C);
                self.bind.listener.comments.push(comment);
            }
        }
        self.bind
    }

    /// What there is of TLS.
    fn end(&mut self, place: Place, protocol: Option<&Word>) {
        let clients = self.clients();
        let http2 = self.http2(protocol);
        let versions = self.said.versions;
        for what in versions.differences() {
            self.say(place, "", what);
        }
        if self.said.certificates.is_empty() && !self.said.untold {
            let shown = format!("bind {} ssl", self.bind.listener.address);
            let why = "no certificate is named; the listener is left out";
            let comment = self.notes.gap(place, &shown, why);
            self.bind.listener.comments.push(comment);
        }
        self.bind.listener.tls = Some(Ending {
            certificates: std::mem::take(&mut self.said.certificates),
            min_version: versions.over(self.global.bind).least(),
            http2,
            hsts: None,
            clients,
        });
    }

    fn clients(&mut self) -> Option<Clients> {
        let (required, word) = self.said.verify?;
        self.bind.demands = required;
        let Some(ca) = self.said.ca.take() else {
            let (mode, why) = if required {
                // Nobody gets in who did not before.
                self.said.certificates.clear();
                self.said.untold = true;
                ("required", NOBODY)
            } else {
                ("optional", NO_CA)
            };
            self.gap(word, mode, why);
            return None;
        };
        let crl = self.said.crl.take();
        Some(Clients { required, ca, crl })
    }

    fn http2(&mut self, protocol: Option<&Word>) -> Option<bool> {
        if let Some(word) = protocol {
            self.say(word.place, " proto h2", HTTP1);
            return Some(true);
        }
        let offered = self.said.offered?;
        let mut names = offered.text.split(',');
        let http2 = names.clone().any(|name| name == "h2");
        if http2 && !names.any(|name| name == "http/1.1") {
            self.say(offered.place, &format!(" alpn {}", offered.text), HTTP1);
        }
        Some(http2)
    }

    fn gap(&mut self, word: &Word, value: &str, why: &str) {
        let shown = self.shown(word, value);
        let comment = self.notes.gap(word.place, &shown, why);
        self.bind.listener.comments.push(comment);
    }

    fn remark(&mut self, word: &Word, value: &str, what: &str) {
        let shown = self.shown(word, value);
        let comment = self.notes.remark(word.place, &shown, what);
        // What only concerned HAProxy says nothing about the listener.
        if what != OWN {
            self.bind.listener.comments.push(comment);
        }
    }

    fn say(&mut self, place: Place, rest: &str, what: &str) {
        let shown = format!("bind {}{rest}", self.bind.listener.address);
        let comment = self.notes.remark(place, &shown, what);
        self.bind.listener.comments.push(comment);
    }

    fn shown(&self, word: &Word, value: &str) -> String {
        let address = &self.bind.listener.address;
        let shown = format!("bind {address} {} {value}", word.text);
        shown.trim_end().to_owned()
    }
}

fn advice(name: &str) -> &'static str {
    match name {
        "strict-sni" => "a client that asks for another name is shown the first certificate",
        "ca-verify-file" => "put its certificates into the file of `ca`",
        "ca-ignore-err" | "crt-ignore-err" => {
            "nothing that is wrong with a client's certificate is overlooked"
        }
        "ca-sign-file" | "ca-sign-pass" | "generate-certificates" => {
            "no certificates are made here; name each file, or see `acme`"
        }
        "ocsp-update" => "responses are not fetched here; give the file of one as `ocsp`",
        "maxconn" => "see `downstream.max_connections`, for all listeners together",
        _ => "there is nothing like it here",
    }
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
