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
    "only HTTP is passed on; HAProxy's mode is `tcp` where no `mode http` is in force";

/// A section so far.
pub(super) struct ProxySection<'a> {
    kind: String,
    span: SourceSpan,
    /// `mode http` is in force.
    http: bool,
    /// What `global` says of TLS.
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
    /// Reads a section, the lines of its `defaults` first.
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
        // First, since `mode` decides on all other lines.
        let named = lines().filter(|line| line.keyword() == "acl");
        proxy.acls = named.map(acl::parse_acl).collect();
        proxy.http = lines()
            .rfind(|line| line.keyword() == "mode")
            .is_some_and(|line| line.word(1) == "http");
        if proxy.http {
            for line in inherited {
                proxy.read_line(line, notes);
            }
            // What was said for all is told once, and not in every upstream.
            proxy
                .file_comments
                .append(&mut proxy.backend.upstream.comments);
            for line in &section.lines {
                proxy.read_line(line, notes);
            }
        }
        proxy
    }

    /// Adds it to the rest; whether it had routes. `before` is how many fronts had.
    pub(super) fn finish(
        mut self,
        setup: &mut ConfigDraft,
        notes: &Notes<'_>,
        before: usize,
    ) -> bool {
        if !self.http {
            let shown = format!("{} {}", self.kind, self.backend.upstream.name);
            setup
                .comments
                .push(notes.gap(self.span, &shown, HTTP_MODE_ONLY));
            return false;
        }
        setup.comments.append(&mut self.file_comments);
        let name = self.backend.upstream.name.clone();
        if self.kind != "frontend" && !self.backend.servers.is_empty() {
            self.finish_backend(setup, notes);
            if self.kind == "listen" && self.default_backend.is_none() {
                self.default_backend = Some((name, self.span));
            }
        }
        if self.kind == "backend" {
            return false;
        }
        self.finish_frontend(setup, notes, before)
    }

    /// Clients connect to it.
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
                let shown = &line.text();
                let place = line.span;
                let percent = text.parse().unwrap_or(0);
                self.backend.upstream.set_bounded_load(
                    percent,
                    NoteSubject {
                        span: place,
                        text: shown,
                    },
                    notes,
                );
            }
            ("server", _) => server::server(line, self.global_tls, &mut self.backend, notes),
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

    /// The limit is one for all listeners: the highest, so that no front gets less than it had.
    fn maxconn(&mut self, limit: Option<u64>) {
        let limit = limit.filter(|limit| *limit > 0);
        self.downstream.max_connections = self.downstream.max_connections.max(limit);
    }

    fn cookie(&mut self, name: &str, line: &HaproxyLine, notes: &Notes<'_>) {
        let why = format!(
            "the cookie names no server here; `key: {{cookie: {{name: {name}, generate: true}}}}` gives clients a cookie that keeps them on theirs"
        );
        self.backend
            .upstream
            .comments
            .push(notes.gap(line.span, &line.text(), &why));
    }

    /// `timeout NAME DURATION`; `false` if we have none of that name.
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

    fn finish_backend(&mut self, setup: &mut ConfigDraft, notes: &Notes<'_>) {
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
        setup.upstreams.push(upstream);
    }

    fn finish_frontend(
        mut self,
        setup: &mut ConfigDraft,
        notes: &Notes<'_>,
        before: usize,
    ) -> bool {
        let mut comments = self.backend.upstream.comments;
        let client_cert = self.rules.apply(&mut self.binds, &mut comments, notes);
        let mut routes = self.routes;
        routes.extend(
            self.default_backend
                .map(|(name, place)| RouteDraft::catch_all(&name, place)),
        );
        let listeners = self.binds.into_iter().map(|bind| bind.listener);
        if routes.is_empty() {
            // One that sends all away needs no routes.
            let before = setup.listeners.len();
            let sent = listeners.filter(|listener| listener.https_redirect.is_some());
            setup.listeners.extend(sent);
            if setup.listeners.len() > before {
                setup.comments.extend(comments);
            }
            return false;
        }
        if before > 0 {
            setup
                .comments
                .push(notes.shared_listeners(self.span, &self.kind));
        }
        let mut routes = route_order::by_specificity(routes, notes, &mut setup.comments);
        // What was said in a front without servers of its own belongs to its first route.
        if let Some(first) = routes.first_mut() {
            first.comments.splice(0..0, comments);
        }
        for route in &mut routes {
            route.client_cert = client_cert;
        }
        setup.routes.extend(routes);
        setup.listeners.extend(listeners);
        setup.downstream = self.downstream;
        true
    }
}
