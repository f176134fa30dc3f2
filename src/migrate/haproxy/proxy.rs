//! One `frontend`, `backend` or `listen`, line by line.

use super::acl::{self, Acl};
use super::backend::{self, HashType};
use super::bind::{self, Bind};
use super::dial::{self, Link};
use super::rules::{self, Rules};
use super::server::{self, Server};
use super::syntax::{Line, Section, Word};
use super::tls::Global;
use super::{frontend, unknown};
use crate::migrate::bounds::Said;
use crate::migrate::model::{Downstream, Probe, Route, Setup, Upstream};
use crate::migrate::notes::Notes;
use crate::migrate::order;
use crate::migrate::source::Place;

const MODE: &str =
    "only HTTP is passed on; HAProxy's mode is `tcp` where no `mode http` is in force";

/// What a section says so far.
pub(super) struct Proxy {
    kind: String,
    pub(super) place: Place,
    http: bool,
    /// What `global` says of TLS.
    pub(super) global: Global,
    pub(super) binds: Vec<Bind>,
    pub(super) rules: Rules,
    /// Nobody gets through who shows no certificate.
    pub(super) client_cert: bool,
    pub(super) acls: Vec<Acl>,
    pub(super) routes: Vec<Route>,
    default_backend: Option<(String, Place)>,
    pub(super) downstream: Downstream,
    pub(super) upstream: Upstream,
    pub(super) servers: Vec<Server>,
    /// How the first of them is spoken to.
    pub(super) link: Option<Link>,
    /// What probes ask for where only clients know the name.
    pub(super) probe_name: Option<String>,
    pub(super) default_server: Vec<Word>,
    pub(super) hash_type: HashType,
    balance: Option<Line>,
    pub(super) probe: Probe,
    pub(super) checked: bool,
    /// Comments for the top of the file.
    pub(super) top: Vec<String>,
}

impl Proxy {
    /// Reads a section, the lines of its `defaults` first.
    pub(super) fn read(
        section: &Section,
        inherited: &[Line],
        global: &Global,
        setup: &mut Setup,
        notes: &Notes<'_>,
    ) -> Self {
        let mut proxy = Self {
            kind: section.kind.clone(),
            place: section.place,
            http: false,
            global: global.clone(),
            binds: Vec::new(),
            rules: Rules::default(),
            client_cert: false,
            acls: Vec::new(),
            routes: Vec::new(),
            default_backend: None,
            downstream: setup.downstream.clone(),
            upstream: Upstream {
                name: section.name.clone(),
                ..Upstream::default()
            },
            servers: Vec::new(),
            link: None,
            probe_name: None,
            default_server: Vec::new(),
            hash_type: HashType::default(),
            balance: None,
            probe: Probe::default(),
            checked: false,
            top: Vec::new(),
        };
        let lines = || inherited.iter().chain(&section.lines);
        // First, since `mode` decides on all other lines.
        let named = lines().filter(|line| line.keyword() == "acl");
        proxy.acls = named.map(acl::acl).collect();
        proxy.http = lines()
            .rfind(|line| line.keyword() == "mode")
            .is_some_and(|line| line.word(1) == "http");
        if proxy.http {
            for line in inherited {
                proxy.line(line, notes);
            }
            // What was said for all is told once, and not in every upstream.
            proxy.top.append(&mut proxy.upstream.comments);
            for line in &section.lines {
                proxy.line(line, notes);
            }
        }
        proxy
    }

    /// Adds it to the rest; whether it had routes. `before` is how many fronts had.
    pub(super) fn finish(mut self, setup: &mut Setup, notes: &Notes<'_>, before: usize) -> bool {
        if !self.http {
            let shown = format!("{} {}", self.kind, self.upstream.name);
            setup.comments.push(notes.gap(self.place, &shown, MODE));
            return false;
        }
        setup.comments.append(&mut self.top);
        let name = self.upstream.name.clone();
        if self.kind != "frontend" && !self.servers.is_empty() {
            self.back(setup, notes);
            if self.kind == "listen" && self.default_backend.is_none() {
                self.default_backend = Some((name, self.place));
            }
        }
        if self.kind == "backend" {
            return false;
        }
        self.front(setup, notes, before)
    }

    /// Clients connect to it.
    pub(super) fn has_listeners(&self) -> bool {
        self.kind != "backend"
    }

    /// The port of HTTPS, if there is one.
    pub(super) fn https(&self) -> Option<u16> {
        let secure = self.binds.iter().filter(|bind| bind.listener.tls.is_some());
        let port = |bind: &Bind| {
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

    fn line(&mut self, line: &Line, notes: &Notes<'_>) {
        match (line.keyword(), line.word(1)) {
            ("acl" | "mode", _) | ("option", "forwardfor") => {}
            ("bind", _) => bind::bind(line, self, notes),
            ("use_backend", _) => frontend::use_backend(line, self, notes),
            ("default_backend", name) => self.default_backend = Some((name.to_owned(), line.place)),
            ("balance", _) => self.balance = Some(line.clone()),
            ("hash-type", _) => self.hash_type = backend::hash_type(line),
            ("hash-balance-factor", text) => {
                let shown = &line.shown();
                let place = line.place;
                let percent = text.parse().unwrap_or(0);
                self.upstream
                    .bound_load(percent, Said { place, shown }, notes);
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
            _ if rules::rule(line, self, notes) => {}
            _ => unknown(line, &mut self.upstream.comments, notes),
        }
    }

    /// The limit is one for all listeners: the highest, so that no front gets less than it had.
    fn maxconn(&mut self, limit: Option<u64>) {
        let limit = limit.filter(|limit| *limit > 0);
        self.downstream.max_connections = self.downstream.max_connections.max(limit);
    }

    fn cookie(&mut self, name: &str, line: &Line, notes: &Notes<'_>) {
        let why = format!(
            "the cookie names no server here; `key: {{cookie: {{name: {name}, generate: true}}}}` gives clients a cookie that keeps them on theirs"
        );
        self.upstream
            .comments
            .push(notes.gap(line.place, &line.shown(), &why));
    }

    fn back(&mut self, setup: &mut Setup, notes: &Notes<'_>) {
        if let Some(line) = self.balance.take() {
            backend::balance(&line, self, notes);
        }
        let mut servers = std::mem::take(&mut self.servers);
        dial::name(&mut self.upstream, &mut servers, notes);
        self.upstream.health = backend::health(self, notes);
        let mut upstream = std::mem::take(&mut self.upstream);
        upstream.peers = server::peers(servers, &mut upstream.comments);
        if upstream.ring.is_none() {
            upstream.peers.iter_mut().for_each(|peer| peer.id = None);
        }
        setup.upstreams.push(upstream);
    }

    fn front(mut self, setup: &mut Setup, notes: &Notes<'_>, before: usize) -> bool {
        rules::apply(&mut self, notes);
        let mut routes = self.routes;
        routes.extend(
            self.default_backend
                .map(|(name, place)| Route::all(&name, place)),
        );
        let listeners = self.binds.into_iter().map(|bind| bind.listener);
        if routes.is_empty() {
            // One that sends all away needs no routes.
            let before = setup.listeners.len();
            let sent = listeners.filter(|listener| listener.redirect.is_some());
            setup.listeners.extend(sent);
            if setup.listeners.len() > before {
                setup.comments.extend(self.upstream.comments);
            }
            return false;
        }
        if before > 0 {
            setup.comments.push(notes.shared(self.place, &self.kind));
        }
        let mut routes = order::by_specificity(routes, notes, &mut setup.comments);
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
