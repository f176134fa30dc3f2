//! `server` and `location`: names and paths that become routes.

use super::inherit::Inherited;
use super::listen::{self, Listen};
use super::syntax::{Directive, Word};
use super::tls::Ssl;
use super::{http, unknown};
use crate::migrate::model::Setup;
use crate::migrate::notes::Notes;
use crate::migrate::source::Place;
use crate::route::{HostPattern, PathPrefix};

/// One `server` with the locations that pass requests on.
pub(super) struct Server {
    pub(super) place: Place,
    pub(super) listens: Vec<Listen>,
    pub(super) names: Vec<HostPattern>,
    pub(super) locations: Vec<Location>,
    /// The port of HTTPS that all its requests are sent to, and where that is said.
    pub(super) redirect: Option<(u16, Place)>,
    /// Every client must show a certificate.
    pub(super) client_cert: bool,
}

/// One `location` with a `proxy_pass` or `grpc_pass`.
pub(super) struct Location {
    pub(super) path: PathPrefix,
    pub(super) pass: Word,
    pub(super) settings: Inherited,
    pub(super) comments: Vec<String>,
    pub(super) place: Place,
}

impl Location {
    /// The directive that passes its requests on.
    pub(super) fn passes(&self) -> String {
        let text = &self.pass.text;
        let family = if text.starts_with("grpc") {
            "grpc"
        } else {
            "proxy"
        };
        format!("{family}_pass {text}")
    }
}

/// What a block says. Comments about what is no route go to the top of the file.
pub(super) fn server(
    block: &Directive,
    outer: (&Inherited, &Ssl),
    setup: &mut Setup,
    notes: &Notes<'_>,
) -> Server {
    let mut server = Server {
        place: block.place(),
        listens: Vec::new(),
        names: Vec::new(),
        locations: Vec::new(),
        redirect: None,
        client_cert: false,
    };
    let mut settings = outer.0.enter(block.inside());
    let mut ssl = outer.1.enter(block.inside());
    for directive in block.inside() {
        let comments = &mut setup.comments;
        match directive.name.text.as_str() {
            "listen" => {
                let listen = listen::listen(directive, comments, notes);
                server.listens.extend(listen);
            }
            "server_name" => names(directive, &mut server.names, comments, notes),
            "location" | "return" => {}
            _ if ssl.apply(directive, comments, notes) => {}
            _ if settings.apply(directive, comments, notes) => {}
            _ if http::downstream(directive, setup, notes) => {}
            _ => unknown(directive, &mut setup.comments, notes),
        }
    }
    let named = |name: &'static str| {
        let inside = block.inside().iter();
        inside.filter(move |directive| directive.name.text == name)
    };
    if named("listen").next().is_none() {
        server.listens.push(Listen::plain(block.place()));
    }
    for directive in named("location") {
        location(
            directive,
            &settings,
            &mut server,
            &mut setup.comments,
            notes,
        );
    }
    server.secure(&ssl, notes);
    server.send_on(block, &mut setup.comments, notes);
    server
}

impl Server {
    fn secure(&mut self, ssl: &Ssl, notes: &Notes<'_>) {
        let listens = self.listens.iter_mut();
        for listen in listens.filter(|listen| listen.listener.tls.is_some()) {
            self.client_cert |= ssl.wants_certificates();
            ssl.write(&mut listen.listener, listen.http2, notes);
        }
    }

    /// Where a server without TLS only sends its clients to HTTPS, its listeners do.
    fn send_on(&mut self, block: &Directive, comments: &mut Vec<String>, notes: &Notes<'_>) {
        const CODE: &str = "answered 308, which keeps method and body";
        let plain = self
            .listens
            .iter()
            .all(|listen| listen.listener.tls.is_none());
        let only = plain && self.locations.is_empty();
        for said in block.inside().iter().filter_map(returns) {
            match redirect(said, &self.names).filter(|_| only) {
                Some(port) => {
                    notes.remark(said.place(), &said.shown(), CODE);
                    self.redirect = Some((port, said.place()));
                }
                None => unknown(said, comments, notes),
            }
        }
        for listen in &mut self.listens {
            listen.listener.redirect = self.redirect;
        }
    }
}

/// The `return` of a server, or of its `location /`.
fn returns(directive: &Directive) -> Option<&Directive> {
    match directive.name.text.as_str() {
        "return" => Some(directive),
        "location" if directive.argument(0) == "/" => {
            let mut inside = directive.inside().iter();
            inside.find(|inner| inner.name.text == "return")
        }
        _ => None,
    }
}

/// The port of `return 301 https://$host$request_uri`: the same host and path by HTTPS.
fn redirect(directive: &Directive, names: &[HostPattern]) -> Option<u16> {
    let said = (directive.argument(0), directive.argument(1));
    let ((url, "") | ("301" | "302" | "303" | "307" | "308", url)) = said else {
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

fn names(
    directive: &Directive,
    into: &mut Vec<HostPattern>,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) {
    for word in &directive.arguments {
        let text = word.text.as_str();
        // These are nginx's ways to say "no name".
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
                    word.place,
                    &format!("server_name {text}"),
                    name_advice(text),
                )),
            }
        }
    }
}

fn name_advice(text: &str) -> &'static str {
    if text.starts_with('~') {
        "hosts are names or `*.name`, not regular expressions; list the names"
    } else {
        "hosts are names or `*.name`; list the names"
    }
}

fn location(
    block: &Directive,
    outer: &Inherited,
    server: &mut Server,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) {
    let mut settings = outer.enter(block.inside());
    let (mut inner, mut pass) = (Vec::new(), None);
    for directive in block.inside() {
        match directive.name.text.as_str() {
            "proxy_pass" => pass = directive.arguments.first().cloned(),
            "grpc_pass" => pass = directive.arguments.first().map(of_grpc),
            "location" => {}
            "return" if block.argument(0) == "/" => {}
            _ if settings.apply(directive, &mut inner, notes) => {}
            _ => unknown(directive, &mut inner, notes),
        }
    }
    for nested in block
        .inside()
        .iter()
        .filter(|directive| directive.name.text == "location")
    {
        location(nested, &settings, server, comments, notes);
    }
    let guarded = pass.is_some() && block.inside().iter().any(guards);
    if guarded {
        let why = "it lets only some in, and nothing here does; it gets no route, and what it stood for goes where the others lead";
        comments.push(notes.gap(block.place(), &block.shown(), why));
    }
    let path = pass
        .as_ref()
        .filter(|_| !guarded)
        .and_then(|_| path(block, server, &mut inner, notes));
    let sends_on = returns(block).is_some() && !block.inside().iter().any(refuses);
    if pass.is_none()
        && !sends_on
        && !block
            .inside()
            .iter()
            .any(|directive| directive.name.text == "location")
    {
        let why = if block.inside().iter().any(refuses) {
            "what it refused passes now, to where the other routes lead"
        } else {
            "it passes requests to no server, and nothing else is done here"
        };
        comments.push(notes.gap(block.place(), &block.shown(), why));
    }
    if let (Some(path), Some(pass)) = (path, pass) {
        check_uri(&path, block, &pass, &mut inner, notes);
        let place = block.place();
        server.locations.push(Location {
            path,
            pass,
            settings,
            comments: inner,
            place,
        });
    } else {
        comments.append(&mut inner);
    }
}

/// `grpc_pass` without a scheme is without TLS.
fn of_grpc(word: &Word) -> Word {
    let mut word = word.clone();
    if !word.text.contains("://") {
        word.text.insert_str(0, "grpc://");
    }
    word
}

/// Whether a directive keeps some requests out of a location that serves the others.
fn guards(directive: &Directive) -> bool {
    match directive.name.text.as_str() {
        "deny" | "internal" | "auth_request" => true,
        "auth_basic" => directive.argument(0) != "off",
        _ => false,
    }
}

/// Whether a directive answers with a refusal.
fn refuses(directive: &Directive) -> bool {
    let refusal = || directive.argument(0).starts_with('4');
    directive.name.text == "deny" || directive.name.text == "return" && refusal()
}

/// The prefix that is nearest to what a location matches.
fn path(
    block: &Directive,
    server: &Server,
    comments: &mut Vec<String>,
    notes: &Notes<'_>,
) -> Option<PathPrefix> {
    let (modifier, text) = match block.arguments.as_slice() {
        [path] => ("", path.text.as_str()),
        [modifier, path, ..] => (modifier.text.as_str(), path.text.as_str()),
        [] => ("", ""),
    };
    let mut refuse = |why: &str| {
        comments.push(notes.gap(block.place(), &block.shown(), why));
        None
    };
    if modifier.starts_with('~') || text.starts_with('~') {
        return refuse(
            "paths are prefixes, not regular expressions; add routes for those that are meant",
        );
    }
    if text.starts_with('@') {
        return refuse("nothing leads to a location with a name here");
    }
    let Ok(path) = PathPrefix::parse(text) else {
        return refuse("a path begins with `/` and has no space, `?` or `#`, and no empty part");
    };
    if modifier == "=" {
        if path == PathPrefix::ROOT {
            return refuse("`/` alone cannot be told from all paths");
        }
        let known = server
            .locations
            .iter()
            .any(|location| location.path == path);
        let what = "paths are prefixes here: what is below it goes there too";
        (!known).then(|| comments.push(notes.remark(block.place(), &block.shown(), what)))?;
    } else if path != PathPrefix::ROOT && !text.ends_with('/') {
        let what = format!("paths end at a `/` here: `{text}x` is not matched by it");
        comments.push(notes.remark(block.place(), &block.shown(), &what));
    }
    Some(path)
}

/// With a URI, nginx replaces what the location matched.
fn check_uri(
    path: &PathPrefix,
    block: &Directive,
    pass: &Word,
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
        let why = format!("the path is passed on as it is; let the servers answer `{path}`");
        comments.push(notes.gap(pass.place, &format!("proxy_pass {}", pass.text), &why));
    }
}
