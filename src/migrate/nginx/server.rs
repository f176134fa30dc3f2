//! `server` and `location`: hosts and paths of routes.

use super::global_settings;
use super::listen::{self, ListenDirective};
use super::proxy_settings::ProxySettings;
use super::syntax::{Directive, NginxWord};
use super::tls::ServerSsl;
use super::unknown::note_unknown;
use crate::migrate::draft::ConfigDraft;
use crate::migrate::notes::Notes;
use crate::migrate::source::SourceSpan;
use crate::route::{HostPattern, PathPrefix};

const RESTRICTED: &str = "Clockwise has no access rules; this location gets no route, and its requests go to the other routes";
const DENIED: &str = "the requests that it refused now go to the other routes";
const NOTHING_PASSED: &str = "it passes requests to no server; Clockwise does nothing else";

/// One `server` with the locations that pass requests to servers.
pub(super) struct ServerBlock {
    pub(super) span: SourceSpan,
    pub(super) listens: Vec<ListenDirective>,
    pub(super) server_names: Vec<HostPattern>,
    pub(super) locations: Vec<LocationBlock>,
    /// The HTTPS port of its redirect, and the span of its directive.
    pub(super) https_redirect: Option<(u16, SourceSpan)>,
    /// Every client needs a certificate.
    pub(super) client_cert: bool,
}

/// One `location` with a `proxy_pass` or `grpc_pass`.
pub(super) struct LocationBlock {
    pub(super) path: PathPrefix,
    pub(super) proxy_pass: NginxWord,
    pub(super) settings: ProxySettings,
    pub(super) comments: Vec<String>,
    pub(super) span: SourceSpan,
}

impl LocationBlock {
    /// The text of its `proxy_pass` or `grpc_pass`.
    pub(super) fn pass_directive(&self) -> String {
        let text = &self.proxy_pass.text;
        let family = if text.starts_with("grpc") {
            "grpc"
        } else {
            "proxy"
        };
        format!("{family}_pass {text}")
    }
}

/// Reads a block. Comments that belong to no route go to the top of the file.
pub(super) fn server(
    block: &Directive,
    outer: (&ProxySettings, &ServerSsl),
    draft: &mut ConfigDraft,
    notes: &Notes<'_>,
) -> ServerBlock {
    let mut server = ServerBlock {
        span: block.span(),
        listens: Vec::new(),
        server_names: Vec::new(),
        locations: Vec::new(),
        https_redirect: None,
        client_cert: false,
    };
    let mut settings = outer.0.for_block(block.children());
    let mut ssl = outer.1.for_block(block.children());
    for directive in block.children() {
        let comments = &mut draft.comments;
        match directive.name.text.as_str() {
            "listen" => {
                let listen = listen::listen(directive, comments, notes);
                server.listens.extend(listen);
            }
            "server_name" => server_names(directive, &mut server.server_names, comments, notes),
            "location" | "return" => {}
            _ if ssl.apply(directive, comments, notes) => {}
            _ if settings.apply(directive, comments, notes) => {}
            _ if global_settings::apply(directive, draft, notes) => {}
            _ => note_unknown(directive, &mut draft.comments, notes),
        }
    }
    let named = |name: &'static str| {
        let inside = block.children().iter();
        inside.filter(move |directive| directive.name.text == name)
    };
    if named("listen").next().is_none() {
        server
            .listens
            .push(ListenDirective::default_http(block.span()));
    }
    for directive in named("location") {
        location(
            directive,
            &settings,
            &mut server,
            &mut draft.comments,
            notes,
        );
    }
    server.apply_ssl(&ssl, notes);
    server.apply_https_redirect(block, &mut draft.comments, notes);
    server
}

impl ServerBlock {
    fn apply_ssl(&mut self, ssl: &ServerSsl, notes: &Notes<'_>) {
        let listens = self.listens.iter_mut();
        for listen in listens.filter(|listen| listen.listener.tls.is_some()) {
            self.client_cert |= ssl.requires_client_certificate();
            ssl.write_to(&mut listen.listener, listen.http2, notes);
        }
    }

    /// A plain server that only redirects to HTTPS becomes `https_redirect` of its listeners.
    fn apply_https_redirect(
        &mut self,
        block: &Directive,
        comments: &mut Vec<String>,
        notes: &Notes<'_>,
    ) {
        const REDIRECT_CODE: &str = "the status is 308, which keeps method and body";
        let plain = self
            .listens
            .iter()
            .all(|listen| listen.listener.tls.is_none());
        let only = plain && self.locations.is_empty();
        for directive in block.children().iter().filter_map(return_directive) {
            match https_redirect_port(directive, &self.server_names).filter(|_| only) {
                Some(port) => {
                    notes.remark(directive.span(), &directive.text(), REDIRECT_CODE);
                    self.https_redirect = Some((port, directive.span()));
                }
                None => note_unknown(directive, comments, notes),
            }
        }
        for listen in &mut self.listens {
            listen.listener.https_redirect = self.https_redirect;
        }
    }
}

/// The `return` of a server or of its `location /`.
fn return_directive(directive: &Directive) -> Option<&Directive> {
    match directive.name.text.as_str() {
        "return" => Some(directive),
        "location" if directive.argument(0) == "/" => {
            let mut inside = directive.children().iter();
            inside.find(|inner| inner.name.text == "return")
        }
        _ => None,
    }
}

/// The port of `return 301 https://$host$request_uri`, which keeps host and path.
fn https_redirect_port(directive: &Directive, names: &[HostPattern]) -> Option<u16> {
    let arguments = (directive.argument(0), directive.argument(1));
    let ((url, "") | ("301" | "302" | "303" | "307" | "308", url)) = arguments else {
        return None;
    };
    let rest = url.strip_prefix("https://")?;
    let paths = ["$request_uri", "$uri$is_args$args"];
    let authority = paths.iter().find_map(|path| rest.strip_suffix(path))?;
    let (host, port) = authority.split_once(':').unwrap_or((authority, "443"));
    let own = || matches!(names, [name] if name.to_string() == host);
    let same = matches!(host, "$host" | "$http_host" | "$server_name") || own();
    port.parse().ok().filter(|port| same && *port > 0)
}

fn server_names(
    directive: &Directive,
    into: &mut Vec<HostPattern>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) {
    for word in &directive.arguments {
        let text = word.text.as_str();
        // These match no host.
        if matches!(text, "_" | "" | "*") {
            continue;
        }
        let whole = text.strip_prefix('.');
        let wildcard = whole.map(|name| format!("*.{name}"));
        let patterns = [Some(whole.unwrap_or(text)), wildcard.as_deref()];
        for pattern in patterns.into_iter().flatten() {
            match HostPattern::parse(pattern) {
                Ok(host) => into.push(host),
                Err(_) => comments.push(notes.gap(
                    word.span,
                    &format!("server_name {text}"),
                    name_advice(text),
                )),
            }
        }
    }
}

fn name_advice(text: &str) -> &'static str {
    if text.starts_with('~') {
        "a host is a name or `*.name`, not a regular expression; list the names"
    } else {
        "a host is a name or `*.name`; list the names"
    }
}

fn location(
    block: &Directive,
    outer: &ProxySettings,
    server: &mut ServerBlock,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) {
    let children = block.children();
    let mut settings = outer.for_block(children);
    let (mut inner, mut pass) = (Vec::new(), None);
    for directive in children {
        match directive.name.text.as_str() {
            "proxy_pass" => pass = directive.arguments.first().cloned(),
            "grpc_pass" => pass = directive.arguments.first().map(with_grpc_scheme),
            "location" => {}
            "return" if block.argument(0) == "/" => {}
            _ if settings.apply(directive, &mut inner, notes) => {}
            _ => note_unknown(directive, &mut inner, notes),
        }
    }
    for nested in children.iter().filter(|child| is_location(child)) {
        location(nested, &settings, server, comments, notes);
    }
    let path = match &pass {
        Some(_) if children.iter().any(restricts_access) => {
            comments.push(notes.gap(block.span(), &block.text(), RESTRICTED));
            None
        }
        Some(_) => path(block, server, &mut inner, notes),
        None => {
            let comment =
                without_pass(block).map(|why| notes.gap(block.span(), &block.text(), why));
            comments.extend(comment);
            None
        }
    };
    let (Some(path), Some(proxy_pass)) = (path, pass) else {
        comments.append(&mut inner);
        return;
    };
    check_uri(&path, block, &proxy_pass, &mut inner, notes);
    server.locations.push(LocationBlock {
        path,
        proxy_pass,
        settings,
        comments: inner,
        span: block.span(),
    });
}

/// Why a location without `proxy_pass` is not translated; `None` if it redirects or has inner locations.
fn without_pass(block: &Directive) -> Option<&'static str> {
    let children = block.children();
    let denied = children.iter().any(denies);
    let redirects = return_directive(block).is_some() && !denied;
    if redirects || children.iter().any(is_location) {
        return None;
    }
    Some(if denied { DENIED } else { NOTHING_PASSED })
}

fn is_location(directive: &Directive) -> bool {
    directive.name.text == "location"
}

/// `grpc_pass` without a scheme means plain gRPC.
fn with_grpc_scheme(word: &NginxWord) -> NginxWord {
    let mut word = word.clone();
    if !word.text.contains("://") {
        word.text.insert_str(0, "grpc://");
    }
    word
}

/// Whether a directive refuses some requests of a location.
fn restricts_access(directive: &Directive) -> bool {
    match directive.name.text.as_str() {
        "deny" | "internal" | "auth_request" => true,
        "auth_basic" => directive.argument(0) != "off",
        _ => false,
    }
}

/// Whether a directive refuses requests.
fn denies(directive: &Directive) -> bool {
    let refusal = || directive.argument(0).starts_with('4');
    directive.name.text == "deny" || directive.name.text == "return" && refusal()
}

/// The path prefix nearest to the location's match.
fn path(
    block: &Directive,
    server: &ServerBlock,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Option<PathPrefix> {
    let (modifier, text) = match block.arguments.as_slice() {
        [path] => ("", path.text.as_str()),
        [modifier, path, ..] => (modifier.text.as_str(), path.text.as_str()),
        [] => ("", ""),
    };
    let mut refuse = |why: &str| {
        comments.push(notes.gap(block.span(), &block.text(), why));
        None
    };
    if modifier.starts_with('~') || text.starts_with('~') {
        return refuse("a path is a prefix, not a regular expression; add a route for each path");
    }
    if text.starts_with('@') {
        return refuse("Clockwise has no internal redirects to a named location");
    }
    let Ok(path) = PathPrefix::parse(text) else {
        return refuse(
            "a path begins with `/` and has no space, no `?`, no `#` and no empty segment",
        );
    };
    if modifier == "=" {
        if path == PathPrefix::ROOT {
            return refuse("a route cannot match `/` without the paths below it");
        }
        let known = server
            .locations
            .iter()
            .any(|location| location.path == path);
        let what = "a path is a prefix; the paths below it match too";
        (!known).then(|| comments.push(notes.remark(block.span(), &block.text(), what)))?;
    } else if path != PathPrefix::ROOT && !text.ends_with('/') {
        let what = format!("a path matches whole segments only; `{text}x` does not match");
        comments.push(notes.remark(block.span(), &block.text(), &what));
    }
    Some(path)
}

/// Notes a `proxy_pass` with a URI, which replaces the matched path in nginx.
fn check_uri(
    path: &PathPrefix,
    block: &Directive,
    pass: &NginxWord,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) {
    let rest = pass.text.split_once("://").map_or("", |(_, rest)| rest);
    let uri = rest
        .find('/')
        .and_then(|at| rest.get(at..))
        .unwrap_or_default();
    let matched = block.arguments.last().map_or("", |word| &word.text);
    if !uri.is_empty() && uri != matched {
        let why = format!("Clockwise does not rewrite the path; let the servers answer `{path}`");
        comments.push(notes.gap(pass.span, &format!("proxy_pass {}", pass.text), &why));
    }
}
