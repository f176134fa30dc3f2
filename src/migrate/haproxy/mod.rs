//! `HAProxy`: its syntax and its sections.
//!
//! A section is read with the lines of its `defaults` first. A `frontend` becomes listeners and routes, a
//! `backend` an upstream, a `listen` both. `use_backend` rules are tried in order, so their routes go through
//! [`super::route_order`].

mod acl;
mod address;
mod backend_draft;
mod balance;
mod bind;
mod frontend;
mod health_check;
mod http_rules;
mod proxy_section;
mod rewrites;
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

/// Translates all sections.
pub(super) fn translate(sections: &[HaproxySection], notes: &Notes<'_>) -> ConfigDraft {
    let mut draft = ConfigDraft::default();
    let mut defaults: Vec<&HaproxySection> = Vec::new();
    let mut frontends = 0;
    let mut global_tls = GlobalTls::default();
    for section in sections {
        match section.kind.as_str() {
            "global" => section
                .lines
                .iter()
                .for_each(|line| global_line(line, &mut global_tls, &mut draft, notes)),
            "defaults" => defaults.push(section),
            "frontend" | "backend" | "listen" => {
                let inherited = section.inherited_lines(&defaults);
                let proxy =
                    ProxySection::read(section, inherited, &global_tls, &draft.downstream, notes);
                frontends += usize::from(proxy.finish(&mut draft, notes, frontends));
            }
            kind => {
                let why = section_advice(kind);
                draft
                    .comments
                    .push(notes.gap(section.span, &section.text(), why));
            }
        }
    }
    rewrites::note_differences(sections, &mut draft, notes);
    draft.normalize_path.get_or_insert("off");
    draft
}

fn section_advice(kind: &str) -> &'static str {
    match kind {
        "peers" => "Clockwise has no tables to share; every instance has the same ring",
        "resolvers" => {
            "Clockwise resolves names with the system's resolver, when the configuration is loaded"
        }
        "userlist" => "Clockwise does not check passwords",
        "cache" => "Clockwise does not cache",
        "crt-store" => "name each file in `certificates` of the listener's `tls`",
        "acme" => "see `acme`, and write `{acme: [NAME]}` in `certificates` of a listener",
        _ => "Clockwise has no counterpart",
    }
}

fn global_line(
    line: &HaproxyLine,
    global_tls: &mut GlobalTls,
    draft: &mut ConfigDraft,
    notes: &Notes<'_>,
) {
    match line.keyword() {
        "nbthread" => draft.threads = clamp::threads(line.word(1)),
        "maxconn" => {
            draft.downstream.max_connections = line.word(1).parse().ok().filter(|n| *n > 0);
        }
        "hard-stop-after" => draft.drain_timeout = units::duration(line.word(1)),
        _ if global_tls.read_line(line, notes) => {}
        _ => note_unknown(line, &mut draft.comments, notes),
    }
}
