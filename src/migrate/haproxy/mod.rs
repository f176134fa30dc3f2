//! `HAProxy`: its syntax, and what its sections mean to us.
//!
//! A proxy section is read with the lines of its `defaults` before its own. A `frontend` becomes
//! listeners and routes, a `backend` an upstream, a `listen` both. `use_backend` rules are tried in
//! order, so they go through [`super::order`].

mod acl;
mod address;
mod backend_draft;
mod balance;
mod bind;
mod frontend;
mod health_check;
mod http_rules;
mod proxy_section;
mod server;
mod server_names;
mod server_tls;
mod syntax;
mod tls;
mod units;
mod unknown;

pub(super) use syntax::parse;

use self::proxy_section::ProxySection;
use self::syntax::{HaproxyLine, HaproxySection};
use self::tls::GlobalTls;
use self::unknown::note_unknown;
use super::clamp;
use super::draft::ConfigDraft;
use super::notes::Notes;

/// What all sections say.
pub(super) fn translate(sections: &[HaproxySection], notes: &Notes<'_>) -> ConfigDraft {
    let mut setup = ConfigDraft::default();
    let mut defaults: Vec<&HaproxySection> = Vec::new();
    let mut frontends = 0;
    let mut general = GlobalTls::default();
    for section in sections {
        match section.kind.as_str() {
            "global" => section
                .lines
                .iter()
                .for_each(|line| global_line(line, &mut general, &mut setup, notes)),
            "defaults" => defaults.push(section),
            "frontend" | "backend" | "listen" => {
                let inherited = defaults_lines(section, &defaults);
                let proxy =
                    ProxySection::read(section, inherited, &general, &setup.downstream, notes);
                frontends += usize::from(proxy.finish(&mut setup, notes, frontends));
            }
            kind => {
                let why = section_advice(kind);
                setup
                    .comments
                    .push(notes.gap(section.span, &section.text(), why));
            }
        }
    }
    setup
}

/// The lines of the `defaults` that a section asks for, or of the last one before it.
fn defaults_lines<'a>(
    section: &HaproxySection,
    defaults: &[&'a HaproxySection],
) -> &'a [HaproxyLine] {
    let named = defaults
        .iter()
        .find(|found| section.defaults.is_some() && Some(&found.name) == section.defaults.as_ref());
    named
        .or(defaults.last())
        .map_or(&[], |found| found.lines.as_slice())
}

fn section_advice(kind: &str) -> &'static str {
    match kind {
        "peers" => "there are no tables to share: the ring is the same in every instance",
        "resolvers" => "names are looked up by the system, when the configuration is loaded",
        "userlist" => "nobody is asked for a password here",
        "cache" => "nothing is cached here",
        "crt-store" => "name each file in `certificates` of the listener's `tls`",
        "acme" => "see `acme`, and `{acme: [NAME]}` among the certificates of a listener",
        _ => "there is nothing like it here",
    }
}

fn global_line(
    line: &HaproxyLine,
    general: &mut GlobalTls,
    setup: &mut ConfigDraft,
    notes: &Notes<'_>,
) {
    match line.keyword() {
        "nbthread" => setup.threads = clamp::threads(line.word(1)),
        "maxconn" => {
            setup.downstream.max_connections = line.word(1).parse().ok().filter(|n| *n > 0);
        }
        "hard-stop-after" => setup.drain_timeout = units::duration(line.word(1)),
        _ if general.read_line(line, notes) => {}
        _ => note_unknown(line, &mut setup.comments, notes),
    }
}
