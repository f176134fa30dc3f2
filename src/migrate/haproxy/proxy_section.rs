//! One `frontend`, `backend` or `listen`, line by line.

use super::acl::{self, Acl};
use super::backend::{self, HashType};
use super::bind::{self, BindListener};
use super::http_rules::{self, ListenerRules};
use super::server::{self, BackendServer};
use super::server_tls::{self, ServerTransport};
use super::syntax::{HaproxyLine, HaproxySection, HaproxyWord};
use super::tls::GlobalTls;
use super::{frontend, note_unknown};
use crate::migrate::clamp::NoteSubject;
use crate::migrate::draft::{ConfigDraft, DownstreamDraft, ProbeDraft, RouteDraft, UpstreamDraft};
use crate::migrate::notes::Notes;
use crate::migrate::route_order;
use crate::migrate::source::SourceSpan;

const HTTP_MODE_ONLY: &str =
    "only HTTP is passed on; HAProxy's mode is `tcp` where no `mode http` is in force";

/// What a section says so far.
pub(super) struct ProxySection {
    kind: String,
    pub(super) span: SourceSpan,
    http: bool,
    /// What `global` says of TLS.
    pub(super) global_tls: GlobalTls,
    pub(super) binds: Vec<BindListener>,
    pub(super) rules: ListenerRules,
    /// Nobody gets through who shows no certificate.
    pub(super) client_cert: bool,
    pub(super) acls: Vec<Acl>,
    pub(super) routes: Vec<RouteDraft>,
    default_backend: Option<(String, SourceSpan)>,
    pub(super) downstream: DownstreamDraft,
    pub(super) upstream: UpstreamDraft,
    pub(super) servers: Vec<BackendServer>,
    /// How the first of them is spoken to.
    pub(super) transport: Option<ServerTransport>,
    /// What probes ask for where only clients know the name.
    pub(super) check_sni: Option<String>,
    pub(super) default_server: Vec<HaproxyWord>,
    pub(super) hash_type: HashType,
    balance: Option<HaproxyLine>,
    pub(super) probe: ProbeDraft,
    pub(super) has_checks: bool,
    /// Comments for the top of the file.
    pub(super) file_comments: Vec<String>,
}

impl ProxySection {
    /// Reads a section, the lines of its `defaults` first.
    pub(super) fn read(
        section: &HaproxySection,
        inherited: &[HaproxyLine],
        global: &GlobalTls,
        setup: &mut ConfigDraft,
        notes: &Notes<'_>,
    ) -> Self {
        let mut proxy = Self {
            kind: section.kind.clone(),
            span: section.span,
            http: false,
            global_tls: global.clone(),
            binds: Vec::new(),
            rules: ListenerRules::default(),
            client_cert: false,
            acls: Vec::new(),
            routes: Vec::new(),
            default_backend: None,
            downstream: setup.downstream.clone(),
            upstream: UpstreamDraft {
                name: section.name.clone(),
                ..UpstreamDraft::default()
            },
            servers: Vec::new(),
            transport: None,
            check_sni: None,
            default_server: Vec::new(),
            hash_type: HashType::default(),
            balance: None,
            probe: ProbeDraft::default(),
            has_checks: false,
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
            proxy.file_comments.append(&mut proxy.upstream.comments);
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
            let shown = format!("{} {}", self.kind, self.upstream.name);
            setup
                .comments
                .push(notes.gap(self.span, &shown, HTTP_MODE_ONLY));
            return false;
        }
        setup.comments.append(&mut self.file_comments);
        let name = self.upstream.name.clone();
        if self.kind != "frontend" && !self.servers.is_empty() {
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
    pub(super) fn has_listeners(&self) -> bool {
        self.kind != "backend"
    }

    /// The port of HTTPS, if there is one.
    pub(super) fn https_port(&self) -> Option<u16> {
        let secure = self.binds.iter().filter(|bind| bind.listener.tls.is_some());
        let port = |bind: &BindListener| {
            let (_, port) = bind.listener.address.rsplit_once(':')?;
            port.parse::<u16>().ok().filter(|port| *port > 0)
        };
        let mut ports: Vec<_> = secure.filter_map(port).collect();
        ports.sort_unstable();
        ports.dedup();
        match ports.as_slice() {
            [port] => Some(*port),
            _ => None,
        }
    }

    fn read_line(&mut self, line: &HaproxyLine, notes: &Notes<'_>) {
        match (line.keyword(), line.word(1)) {
            ("acl" | "mode", _) | ("option", "forwardfor") => {}
            ("bind", _) => bind::bind(line, self, notes),
            ("use_backend", _) => frontend::use_backend(line, self, notes),
            ("default_backend", name) => self.default_backend = Some((name.to_owned(), line.span)),
            ("balance", _) => self.balance = Some(line.clone()),
            ("hash-type", _) => self.hash_type = backend::hash_type(line),
            ("hash-balance-factor", text) => {
                let shown = &line.text();
                let place = line.span;
                let percent = text.parse().unwrap_or(0);
                self.upstream.set_bounded_load(
                    percent,
                    NoteSubject {
                        span: place,
                        text: shown,
                    },
                    notes,
                );
            }
            ("server", _) => server::server(line, self, notes),
            ("default-server", _) => self.default_server.extend_from_slice(line.tail(1)),
            ("option", "httpchk") => backend::httpchk(line, self, notes),
            ("http-check", _) => backend::http_check(line, self, notes),
            ("timeout", _) if backend::timeout(line, self) => {}
            ("retries", text) => {
                let retries = text.parse::<u64>().ok();
                self.upstream.retry.attempts =
                    retries.map(|retries| retries.saturating_add(1).clamp(1, 16));
            }
            ("cookie", name) => self.cookie(name, line, notes),
            ("maxconn", text) if self.kind == "listen" || self.kind == "frontend" => {
                self.maxconn(text.parse().ok());
            }
            _ if http_rules::read_rule(line, self, notes) => {}
            _ => note_unknown(line, &mut self.upstream.comments, notes),
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
        self.upstream
            .comments
            .push(notes.gap(line.span, &line.text(), &why));
    }

    fn finish_backend(&mut self, setup: &mut ConfigDraft, notes: &Notes<'_>) {
        if let Some(line) = self.balance.take() {
            backend::balance(&line, self, notes);
        }
        let mut servers = std::mem::take(&mut self.servers);
        server_tls::set_server_names(&mut self.upstream, &mut servers, notes);
        self.upstream.health = backend::health(self, notes);
        let mut upstream = std::mem::take(&mut self.upstream);
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
        http_rules::apply_to_listeners(&mut self, notes);
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
                setup.comments.extend(self.upstream.comments);
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
            first.comments.splice(0..0, self.upstream.comments);
        }
        for route in &mut routes {
            route.client_cert = self.client_cert;
        }
        setup.routes.extend(routes);
        setup.listeners.extend(listeners);
        setup.downstream = self.downstream;
        true
    }
}
