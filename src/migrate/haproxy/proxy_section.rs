//! One `frontend`, `backend` or `listen`, line by line.

use super::acl::{self, Acl};
use super::backend_draft::BackendDraft;
use super::balance::{self, HashType};
use super::bind::{self, BindListener};
use super::http_rules::{ListenerRules, RuleContext};
use super::syntax::{HaproxyLine, HaproxySection};
use super::tls::GlobalTls;
use super::unknown::note_unknown;
use super::{frontend, health_check, server, server_names, units};
use crate::migrate::clamp::NoteSubject;
use crate::migrate::draft::{ConfigDraft, DownstreamDraft, RouteDraft, UpstreamDraft};
use crate::migrate::notes::Notes;
use crate::migrate::route_order;
use crate::migrate::source::SourceSpan;

const HTTP_MODE_ONLY: &str =
    "Clockwise proxies HTTP only, and without `mode http` the mode is `tcp`";

/// A section, while its lines are read.
pub(super) struct ProxySection<'a> {
    kind: String,
    span: SourceSpan,
    /// `mode http` is in force.
    http: bool,
    /// TLS settings of `global`.
    global_tls: &'a GlobalTls,
    binds: Vec<BindListener>,
    rules: ListenerRules,
    acls: Vec<Acl>,
    routes: Vec<RouteDraft>,
    default_backend: Option<(String, SourceSpan)>,
    downstream: DownstreamDraft,
    backend: BackendDraft,
    hash_type: HashType,
    balance: Option<HaproxyLine>,
    /// Comments for the top of the file.
    file_comments: Vec<String>,
}

impl<'a> ProxySection<'a> {
    /// Reads a section: the lines of its `defaults`, then its own.
    pub(super) fn read(
        section: &HaproxySection,
        inherited: &[HaproxyLine],
        global_tls: &'a GlobalTls,
        downstream: &DownstreamDraft,
        notes: &Notes<'_>,
    ) -> Self {
        let mut proxy = Self {
            kind: section.kind.clone(),
            span: section.span,
            http: false,
            global_tls,
            binds: Vec::new(),
            rules: ListenerRules::default(),
            acls: Vec::new(),
            routes: Vec::new(),
            default_backend: None,
            downstream: downstream.clone(),
            backend: BackendDraft {
                upstream: UpstreamDraft {
                    name: section.name.clone(),
                    ..UpstreamDraft::default()
                },
                ..BackendDraft::default()
            },
            hash_type: HashType::default(),
            balance: None,
            file_comments: Vec::new(),
        };
        let lines = || inherited.iter().chain(&section.lines);
        // `acl` and `mode` come first: other lines depend on them.
        let named = lines().filter(|line| line.keyword() == "acl");
        proxy.acls = named.map(acl::parse_acl).collect();
        proxy.http = lines()
            .rfind(|line| line.keyword() == "mode")
            .is_some_and(|line| line.word(1) == "http");
        if proxy.http {
            for line in inherited {
                proxy.read_line(line, notes);
            }
            // Comments on `defaults` go to the top of the file, not into every upstream.
            proxy
                .file_comments
                .append(&mut proxy.backend.upstream.comments);
            for line in &section.lines {
                proxy.read_line(line, notes);
            }
        }
        proxy
    }

    /// Adds the section to `draft`; returns whether it had routes. `before` is the number of sections with
    /// routes so far.
    pub(super) fn finish(
        mut self,
        draft: &mut ConfigDraft,
        notes: &Notes<'_>,
        before: usize,
    ) -> bool {
        if !self.http {
            let subject = format!("{} {}", self.kind, self.backend.upstream.name);
            draft
                .comments
                .push(notes.gap(self.span, &subject, HTTP_MODE_ONLY));
            return false;
        }
        draft.comments.append(&mut self.file_comments);
        let name = self.backend.upstream.name.clone();
        if self.kind != "frontend" && !self.backend.servers.is_empty() {
            self.finish_backend(draft, notes);
            if self.kind == "listen" && self.default_backend.is_none() {
                self.default_backend = Some((name, self.span));
            }
        }
        if self.kind == "backend" {
            return false;
        }
        self.finish_frontend(draft, notes, before)
    }

    /// Whether clients connect to the section.
    fn has_listeners(&self) -> bool {
        self.kind != "backend"
    }

    fn read_line(&mut self, line: &HaproxyLine, notes: &Notes<'_>) {
        match (line.keyword(), line.word(1)) {
            ("acl" | "mode", _) | ("option", "forwardfor") => {}
            ("bind", _) => {
                let comments = &mut self.file_comments;
                let binds = bind::bind(line, self.global_tls, comments, notes);
                self.binds.extend(binds);
            }
            ("use_backend", _) => {
                let comments = &mut self.file_comments;
                let routes = frontend::use_backend(line, &self.acls, comments, notes);
                self.routes.extend(routes);
            }
            ("default_backend", name) => self.default_backend = Some((name.to_owned(), line.span)),
            ("balance", _) => self.balance = Some(line.clone()),
            ("hash-type", _) => self.hash_type = balance::hash_type(line),
            ("hash-balance-factor", text) => {
                let subject = &line.text();
                let span = line.span;
                let percent = text.parse().unwrap_or(0);
                self.backend.upstream.set_bounded_load(
                    percent,
                    NoteSubject {
                        span,
                        text: subject,
                    },
                    notes,
                );
            }
            ("server", _) => server::server(line, self.global_tls, &mut self.backend, notes),
            ("server-template", _) => server::server_template(line, &mut self.backend, notes),
            ("default-server", _) => self.backend.default_server.extend_from_slice(line.tail(1)),
            ("option", "httpchk") => health_check::httpchk(line, &mut self.backend, notes),
            ("http-check", _) => health_check::http_check(line, &mut self.backend, notes),
            ("timeout", _) if self.timeout(line) => {}
            ("retries", text) => {
                let retries = text.parse::<u64>().ok();
                self.backend.upstream.retry.attempts =
                    retries.map(|retries| retries.saturating_add(1).clamp(1, 16));
            }
            ("cookie", name) => self.cookie(name, line, notes),
            ("maxconn", text) if self.kind == "listen" || self.kind == "frontend" => {
                self.maxconn(text.parse().ok());
            }
            _ if self.read_rule(line, notes) => {}
            _ => note_unknown(line, &mut self.backend.upstream.comments, notes),
        }
    }

    /// There is one limit for all listeners: the highest, so that no section gets a lower one.
    fn maxconn(&mut self, limit: Option<u64>) {
        let limit = limit.filter(|limit| *limit > 0);
        self.downstream.max_connections = self.downstream.max_connections.max(limit);
    }

    fn cookie(&mut self, name: &str, line: &HaproxyLine, notes: &Notes<'_>) {
        let why = format!(
            "a cookie of Clockwise does not name a server; write `key: {{cookie: {{name: {name}, generate: true}}}}` to keep each client on one server"
        );
        self.backend
            .upstream
            .comments
            .push(notes.gap(line.span, &line.text(), &why));
    }

    /// `timeout NAME DURATION`; `false` if Clockwise has no such timeout.
    fn timeout(&mut self, line: &HaproxyLine) -> bool {
        let time = units::duration(line.word(2));
        let (times, down) = (&mut self.backend.upstream.timeouts, &mut self.downstream);
        match line.word(1) {
            "connect" => times.connect = time,
            "server" => (times.first_byte, times.read, times.write) = (time, time, time),
            "tunnel" => times.tunnel = time,
            "check" => self.backend.probe.timeout = time,
            "client" => (down.read_timeout, down.write_timeout) = (time, time),
            "http-request" => down.header_timeout = time,
            "http-keep-alive" => down.keepalive = time,
            _ => return false,
        }
        true
    }

    fn read_rule(&mut self, line: &HaproxyLine, notes: &Notes<'_>) -> bool {
        let context = RuleContext {
            acls: &self.acls,
            has_listeners: self.has_listeners(),
        };
        let comments = &mut self.backend.upstream.comments;
        self.rules.read(line, &context, comments, notes)
    }

    fn finish_backend(&mut self, draft: &mut ConfigDraft, notes: &Notes<'_>) {
        let mut backend = std::mem::take(&mut self.backend);
        if let Some(line) = self.balance.take() {
            balance::balance(&line, &self.hash_type, &mut backend.upstream, notes);
        }
        let mut servers = std::mem::take(&mut backend.servers);
        server_names::set_server_names(&mut backend.upstream, &mut servers, notes);
        backend.upstream.health = health_check::health(self.span, &mut backend, notes);
        let mut upstream = backend.upstream;
        upstream.peers = server::peers(servers, &mut upstream.comments);
        if upstream.ring.is_none() {
            upstream.peers.iter_mut().for_each(|peer| peer.id = None);
        }
        draft.upstreams.push(upstream);
    }

    fn finish_frontend(
        mut self,
        draft: &mut ConfigDraft,
        notes: &Notes<'_>,
        before: usize,
    ) -> bool {
        let mut comments = self.backend.upstream.comments;
        if self.rules.normalizes_paths {
            draft.normalize_path = Some("rewrite");
        }
        // HAProxy passes any protocol; the default is the usual one.
        let upgrade = self.rules.removes_upgrade.then(Vec::new);
        let client_cert = self.rules.apply(&mut self.binds, &mut comments, notes);
        let mut routes = self.routes;
        routes.extend(
            self.default_backend
                .map(|(name, span)| RouteDraft::catch_all(&name, span)),
        );
        let listeners = self.binds.into_iter().map(|bind| bind.listener);
        if routes.is_empty() {
            // A listener that redirects every request needs no route.
            let before = draft.listeners.len();
            let sent = listeners.filter(|listener| listener.https_redirect.is_some());
            draft.listeners.extend(sent);
            if draft.listeners.len() > before {
                draft.comments.extend(comments);
            }
            return false;
        }
        if before > 0 {
            draft
                .comments
                .push(notes.shared_listeners(self.span, &self.kind));
        }
        let mut routes = route_order::by_specificity(routes, notes, &mut draft.comments);
        // Comments of a section without servers belong to its first route.
        if let Some(first) = routes.first_mut() {
            first.comments.splice(0..0, comments);
        }
        for route in &mut routes {
            route.client_cert = client_cert;
            route.upgrade.clone_from(&upgrade);
        }
        draft.routes.extend(routes);
        draft.listeners.extend(listeners);
        draft.downstream = self.downstream;
        true
    }
}
