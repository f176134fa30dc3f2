//! Settings of the process: `admin`, `threads`, `start`, logs, `control`, `drain_timeout`, `watch`, `state_file`.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use super::listeners::bind_address;
use super::socket::MAX_SOCKET_PATH;
use crate::config::fields::{Fields, SectionOff, is_switch, text, with_alternative};
use crate::config::raw::YamlNode;
use crate::config::report::{Problem, quote};
use crate::config::schema::SectionSchema;
use crate::config::values::{DURATION_BOUNDS, InvalidValue, describe_node, duration, number};

/// The admin HTTP server. Its `Debug` output hides the token.
#[derive(Clone, PartialEq, Eq)]
pub struct AdminConfig {
    /// The address to bind.
    pub address: SocketAddr,
    /// Required as `Authorization: Bearer …`; always set if the address is not loopback.
    pub token: Option<String>,
}

impl fmt::Debug for AdminConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "…");
        f.debug_struct("AdminConfig")
            .field("address", &self.address)
            .field("token", &token)
            .finish()
    }
}

/// The target of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogConfig {
    /// No access log.
    Off,
    /// Standard output.
    Stdout,
    /// A file, appended to and reopened on SIGUSR1.
    File(PathBuf),
}

/// The error log, on stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorLogConfig {
    /// The least severe message that is written.
    pub level: LevelFilter,
}

/// The file that keeps drains and health states across restarts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFileConfig {
    /// Replaced as a whole with every change: its directory must be writable.
    pub path: PathBuf,
    /// The maximum age at a start; an older file is ignored, since its health states are out of date.
    pub max_age: Duration,
}

/// What happens at a start or a reload if the name of a peer cannot be resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartMode {
    /// The last known address is used; a peer without one is `unresolved` until its name has an address.
    Tolerant,
    /// The start or the reload fails.
    Strict,
}

const ADMIN_PORT: u16 = 9900;
const MAX_THREADS: u64 = 1024;

/// A shorter interval has no use and costs CPU time.
const MIN_WATCH_INTERVAL: Duration = Duration::from_millis(100);

const EXAMPLE_STATE_FILE: &str = "/var/lib/clockwise/state.json";
const DEFAULT_STATE_MAX_AGE: Duration = Duration::from_secs(10 * 60);

const START_MODES: &[(&str, StartMode)] = &[
    ("tolerant", StartMode::Tolerant),
    ("strict", StartMode::Strict),
];

const LOG_LEVELS: &[(&str, LevelFilter)] = &[
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
    ("off", LevelFilter::Off),
];

pub(super) static ADMIN: SectionSchema = SectionSchema {
    title: "`admin`",
    path: "admin",
    example: "{address: 127.0.0.1:9900}",
    keys: &["address", "token"],
    ..SectionSchema::EMPTY
};

pub(super) fn admin(root: &Fields<'_>) -> Option<AdminConfig> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ADMIN_PORT));
    let fields = match root.section_or_off("admin", &ADMIN) {
        Err(SectionOff) => return None,
        Ok(None) => {
            return Some(AdminConfig {
                address,
                token: None,
            });
        }
        Ok(Some(fields)) => fields,
    };
    let admin = AdminConfig {
        address: fields.read("address", bind_address).unwrap_or(address),
        token: fields.read("token", token),
    };
    if !admin.address.ip().to_canonical().is_loopback() && fields.get("token").is_none() {
        refuse_admin_without_token(&fields, admin.address);
    }
    Some(admin)
}

fn refuse_admin_without_token(fields: &Fields<'_>, address: SocketAddr) {
    let at = fields
        .get("address")
        .map_or_else(|| fields.header_span(), YamlNode::error_span);
    let message = format!(
        "the admin server on {} needs a token: it is reachable from other machines",
        quote(&address.to_string())
    );
    let help = format!("set `token`, or use `127.0.0.1:{}`", address.port());
    fields.problems.add(Problem::error(message, at).help(help));
}

fn token(node: &YamlNode) -> Result<String, InvalidValue> {
    // The token is never part of the message, which may be logged.
    let token = text(node, "a token")?;
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        let help = "use printable ASCII without spaces, as `openssl rand -hex 32` gives";
        return Err((
            "the token cannot be sent in a header".to_owned(),
            help.to_owned(),
        ));
    }
    Ok(token.to_owned())
}

/// `None`: one per core.
pub(super) fn threads(root: &Fields<'_>) -> Option<NonZeroUsize> {
    let read = |node: &YamlNode| {
        if node.is_word("auto") {
            return Ok(None);
        }
        let count = number("threads", node, &(1..=MAX_THREADS)).map_err(|(message, help)| {
            (message, with_alternative(help, "`auto` for one per core"))
        })?;
        Ok(usize::try_from(count).ok().and_then(NonZeroUsize::new))
    };
    root.read("threads", read).flatten()
}

pub(super) fn start(root: &Fields<'_>) -> StartMode {
    root.choice("start", StartMode::Tolerant, START_MODES)
}

pub(super) static ACCESS_LOG: SectionSchema = SectionSchema {
    title: "`access_log`",
    path: "access_log",
    example: "{path: stdout}",
    keys: &["path"],
    ..SectionSchema::EMPTY
};

pub(super) fn access_log(root: &Fields<'_>) -> AccessLogConfig {
    match root.section_or_off("access_log", &ACCESS_LOG) {
        Err(SectionOff) | Ok(None) => AccessLogConfig::Off,
        Ok(Some(fields)) => fields
            .read("path", log_path)
            .unwrap_or(AccessLogConfig::Off),
    }
}

fn log_path(node: &YamlNode) -> Result<AccessLogConfig, InvalidValue> {
    if node.is_off() {
        return Ok(AccessLogConfig::Off);
    }
    match text(node, "`off`, `stdout` or a file")? {
        "stdout" | "-" => Ok(AccessLogConfig::Stdout),
        "" | "false" | "none" | "no" | "true" | "on" | "yes" | "stderr" => {
            Err(not_a_log_file(node))
        }
        path if path.ends_with('/') => Err(not_a_log_file(node)),
        path => Ok(AccessLogConfig::File(PathBuf::from(path))),
    }
}

fn not_a_log_file(node: &YamlNode) -> InvalidValue {
    let message = format!(
        "expected `off`, `stdout` or a file, found {}",
        describe_node(node)
    );
    (
        message,
        "write `off`, `stdout` or the path of a file".to_owned(),
    )
}

pub(super) static ERROR_LOG: SectionSchema = SectionSchema {
    title: "`error_log`",
    path: "error_log",
    example: "{level: info}",
    keys: &["level"],
    ..SectionSchema::EMPTY
};

pub(super) fn error_log(root: &Fields<'_>) -> ErrorLogConfig {
    let fields = root.section("error_log", &ERROR_LOG);
    let default = LevelFilter::Info;
    ErrorLogConfig {
        level: fields.map_or(default, |fields| {
            fields.choice("level", default, LOG_LEVELS)
        }),
    }
}

pub(super) fn control(root: &Fields<'_>) -> Option<PathBuf> {
    root.read("control", |node| {
        let path = text(node, "the path of a socket")?;
        if is_switch(path) {
            let message = format!("`control` cannot be {}", describe_node(node));
            let help = "every instance has a control socket; write a path, or remove the line for the default";
            return Err((message, help.to_owned()));
        }
        if path.is_empty() || path.len() > MAX_SOCKET_PATH || path.ends_with('/') {
            let help =
                format!("use a path in an existing directory, of at most {MAX_SOCKET_PATH} bytes");
            return Err((
                format!("{} cannot be the path of a socket", quote(path)),
                help,
            ));
        }
        Ok(PathBuf::from(path))
    })
}

/// Zero is allowed: it closes all connections at once.
pub(super) fn drain_timeout(root: &Fields<'_>) -> Duration {
    root.duration(
        "drain_timeout",
        Duration::from_secs(80),
        Duration::ZERO..=*DURATION_BOUNDS.end(),
    )
}

pub(super) fn watch(root: &Fields<'_>) -> Option<Duration> {
    root.or_off("watch", None, |node| {
        duration(node, &(MIN_WATCH_INTERVAL..=*DURATION_BOUNDS.end()))
    })
}

pub(super) static STATE_FILE: SectionSchema = SectionSchema {
    title: "`state_file`",
    path: "state_file",
    example: "{path: /var/lib/clockwise/state.json}",
    keys: &["path", "max_age"],
    ..SectionSchema::EMPTY
};

/// A map, or in short form the path.
pub(super) fn state_file(root: &Fields<'_>) -> Option<StateFileConfig> {
    if root.get("state_file")?.scalar().is_some() {
        let path = root.or_off("state_file", None, state_path)?;
        return Some(StateFileConfig {
            path,
            max_age: DEFAULT_STATE_MAX_AGE,
        });
    }
    let fields = root.section("state_file", &STATE_FILE)?;
    let max_age = fields.duration("max_age", DEFAULT_STATE_MAX_AGE, DURATION_BOUNDS);
    fields.require("path", &format!("write `path: {EXAMPLE_STATE_FILE}`"))?;
    let path = fields.or_off("path", None, state_path)?;
    Some(StateFileConfig { path, max_age })
}

fn state_path(node: &YamlNode) -> Result<PathBuf, InvalidValue> {
    match text(node, "the path of a file")? {
        "" | "false" | "none" | "no" | "true" | "on" | "yes" => Err(not_a_state_file(node)),
        path if path.ends_with('/') => Err(not_a_state_file(node)),
        path => Ok(PathBuf::from(path)),
    }
}

fn not_a_state_file(node: &YamlNode) -> InvalidValue {
    let message = format!("expected the path of a file, found {}", describe_node(node));
    (
        message,
        format!("write a path, as in `{EXAMPLE_STATE_FILE}`"),
    )
}
