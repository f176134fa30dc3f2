//! `HAProxy`: its syntax, and what its sections mean to us.
//!
//! A proxy section is read with the lines of its `defaults` before its own. A `frontend` becomes
//! listeners and routes, a `backend` an upstream, a `listen` both. `use_backend` rules are tried in
//! order, so they go through [`super::order`].

mod acl;
mod backend;
mod bind;
mod dial;
mod frontend;
mod proxy;
mod rules;
mod server;
mod syntax;
mod tls;
mod units;

pub(super) use syntax::parse;

use self::proxy::Proxy;
use self::syntax::{Line, Section};
use self::tls::Global;
use super::model::Setup;
use super::notes::Notes;
use super::{bounds, reasons};

/// What all sections say.
pub(super) fn translate(sections: &[Section], notes: &Notes<'_>) -> Setup {
    let mut setup = Setup::default();
    let mut defaults: Vec<&Section> = Vec::new();
    let mut frontends = 0;
    let mut general = Global::default();
    for section in sections {
        match section.kind.as_str() {
            "global" => section
                .lines
                .iter()
                .for_each(|line| global(line, &mut general, &mut setup, notes)),
            "defaults" => defaults.push(section),
            "frontend" | "backend" | "listen" => {
                let inherited = inherited(section, &defaults);
                let proxy = Proxy::read(section, inherited, &general, &mut setup, notes);
                frontends += usize::from(proxy.finish(&mut setup, notes, frontends));
            }
            kind => {
                let why = section_advice(kind);
                setup
                    .comments
                    .push(notes.gap(section.place, &section.shown(), why));
            }
        }
    }
    setup
}

/// The lines of the `defaults` that a section asks for, or of the last one before it.
fn inherited<'a>(section: &Section, defaults: &[&'a Section]) -> &'a [Line] {
    let named = defaults
        .iter()
        .find(|found| section.from.is_some() && Some(&found.name) == section.from.as_ref());
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

fn global(line: &Line, general: &mut Global, setup: &mut Setup, notes: &Notes<'_>) {
    match line.keyword() {
        "nbthread" => setup.threads = bounds::threads(line.word(1)),
        "maxconn" => {
            setup.downstream.max_connections = line.word(1).parse().ok().filter(|n| *n > 0);
        }
        "hard-stop-after" => setup.drain_timeout = units::duration(line.word(1)),
        _ if general.line(line, notes) => {}
        _ => unknown(line, &mut setup.comments, notes),
    }
}

/// A line that we have no counterpart of: in silence if it only concerns `HAProxy` itself.
fn unknown(line: &Line, comments: &mut Vec<String>, notes: &Notes<'_>) {
    let shown = line.shown();
    if reasons::HAPROXY_OWN.contains(&line.keyword()) {
        notes.remark(line.place, &shown, tls::OWN);
        return;
    }
    comments.push(notes.gap(line.place, &shown, reasons::haproxy(&shown)));
}
