//! `option httpchk` and `http-check`: probes.

use super::backend_draft::BackendDraft;
use super::server_names;
use super::syntax::HaproxyLine;
use super::unknown::note_unknown;
use crate::migrate::clamp::NoteSubject;
use crate::migrate::draft::HealthDraft;
use crate::migrate::notes::Notes;
use crate::migrate::source::SourceSpan;

/// `option httpchk [METHOD] [URI [VERSION]]`.
pub(super) fn httpchk(line: &HaproxyLine, backend: &mut BackendDraft, notes: &Notes<'_>) {
    let words = line.tail(2);
    let path = words.iter().find(|word| word.text.starts_with('/'));
    backend.probe.http = Some(path.map_or("/", |word| &word.text).to_owned());
    let method = words.first().filter(|word| !word.text.starts_with('/'));
    note_probe_method(
        method.map_or("OPTIONS", |word| &word.text),
        line,
        backend,
        notes,
    );
    // Before `http-check send` existed, headers were written after the version.
    let version = words.get(2).map_or("", |word| &word.text);
    let host = version.lines().find_map(|text| text.strip_prefix("Host:"));
    backend.probe.host = host.map(|text| text.trim().to_owned());
}

/// `http-check send …` and `http-check expect …`.
pub(super) fn http_check(line: &HaproxyLine, backend: &mut BackendDraft, notes: &Notes<'_>) {
    match (line.word(1), line.word(2)) {
        ("send", _) => http_check_send(line, backend, notes),
        ("expect", "status") => {
            let good = |text: &&str| {
                let (first, last) = text.split_once('-').unwrap_or((text, text));
                let status = |text: &str| {
                    text.parse::<u16>()
                        .is_ok_and(|status| (100..600).contains(&status))
                };
                status(first) && status(last) && first <= last
            };
            let statuses = line.word(3).split(',').filter(good);
            backend.probe.expect = statuses.map(str::to_owned).collect();
        }
        _ => note_unknown(line, &mut backend.upstream.comments, notes),
    }
}

fn http_check_send(line: &HaproxyLine, backend: &mut BackendDraft, notes: &Notes<'_>) {
    let mut words = line.tail(2).iter().map(|word| word.text.as_str());
    while let Some(word) = words.next() {
        match word {
            "meth" => note_probe_method(words.next().unwrap_or_default(), line, backend, notes),
            "uri" => backend.probe.http = words.next().map(str::to_owned),
            "hdr"
                if words
                    .next()
                    .is_some_and(|name| name.eq_ignore_ascii_case("host")) =>
            {
                backend.probe.host = words.next().map(str::to_owned);
            }
            _ => {}
        }
    }
}

fn note_probe_method(
    method: &str,
    line: &HaproxyLine,
    backend: &mut BackendDraft,
    notes: &Notes<'_>,
) {
    if method != "GET" {
        let what = format!("a probe is a GET request, not {method}");
        backend
            .upstream
            .comments
            .push(notes.remark(line.span, &line.text(), &what));
    }
}

/// The health checks of a backend.
pub(super) fn health(
    span: SourceSpan,
    backend: &mut BackendDraft,
    notes: &Notes<'_>,
) -> HealthDraft {
    if !backend.has_checks {
        return HealthDraft::Off;
    }
    let text = "option httpchk";
    let probe = backend.probe.clone();
    let comments = &mut backend.upstream.comments;
    let mut health =
        HealthDraft::On(probe.clamp_to_limits(NoteSubject { span, text }, comments, notes));
    server_names::set_probe_host(&mut health, span, backend, notes);
    health
}
