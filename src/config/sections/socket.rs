//! Socket options of a listener, and the permissions of a Unix socket.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::fields::{Fields, text};
use crate::config::raw::YamlNode;
use crate::config::report::quote;
use crate::config::values::{InvalidValue, describe_node};

/// The address of a listener. Its text form is the one in the configuration.
#[derive(Clone, Debug, Hash, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListenAddress {
    /// An IP address and a TCP port; port 0 lets the system choose.
    Ip(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Options of a listening socket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SocketOptions {
    /// Whether an IPv6 socket refuses IPv4 (`IPV6_V6ONLY`); `None`: not configured, as `false`.
    pub ipv6_only: Option<bool>,
    /// Other processes of the same user may bind the same address (`SO_REUSEPORT`).
    pub reuse_port: bool,
    /// The address need not be this machine's yet (`IP_FREEBIND`).
    pub freebind: bool,
    /// Permissions of a Unix socket.
    pub access: SocketAccess,
}

/// Permissions of a Unix socket: the mode, owner and group of its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketAccess {
    /// Permission bits, at most 0o777.
    pub mode: u32,
    /// `None`: the user that runs the process.
    pub owner: Option<UnixAccount>,
    /// `None`: the group that runs the process.
    pub group: Option<UnixAccount>,
}

impl SocketAccess {
    /// The default: owner and group may connect.
    pub const MODE: u32 = 0o660;
}

impl Default for SocketAccess {
    fn default() -> Self {
        Self {
            mode: Self::MODE,
            owner: None,
            group: None,
        }
    }
}

/// A user or a group of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnixAccount {
    /// By number.
    Id(u32),
    /// By name, looked up when the socket is created.
    Name(String),
}

/// The length of `sun_path` (`unix(7)`) without its NUL.
pub(super) const MAX_SOCKET_PATH: usize = 107;

const TCP_KEYS: &[&str] = &["reuse_port", "freebind"];
const UNIX_KEYS: &[&str] = &["mode", "owner", "group"];

/// The options of the socket at `address`; refuses those of other kinds of sockets.
pub(super) fn options(fields: &Fields<'_>, address: &ListenAddress) -> SocketOptions {
    match address {
        ListenAddress::Unix(_) => refuse_keys(
            fields,
            &[TCP_KEYS, &["ipv6_only"]].concat(),
            "a Unix socket",
        ),
        ListenAddress::Ip(SocketAddr::V4(_)) => {
            refuse_keys(fields, UNIX_KEYS, "a TCP socket");
            refuse_keys(fields, &["ipv6_only"], "an IPv4 address");
        }
        ListenAddress::Ip(SocketAddr::V6(_)) => refuse_keys(fields, UNIX_KEYS, "a TCP socket"),
    }
    SocketOptions {
        ipv6_only: fields
            .get("ipv6_only")
            .map(|_| fields.flag("ipv6_only", false)),
        reuse_port: fields.flag("reuse_port", false),
        freebind: fields.flag("freebind", false),
        access: SocketAccess {
            mode: fields.read("mode", mode).unwrap_or(SocketAccess::MODE),
            owner: fields.read("owner", account),
            group: fields.read("group", account),
        },
    }
}

/// The path of a Unix socket.
pub(super) fn socket_path(path: &str) -> Result<PathBuf, InvalidValue> {
    let error = |message: String, help: &str| Err((message, help.to_owned()));
    match path {
        "" => error(
            "a Unix socket needs a path".to_owned(),
            "write `unix:/run/clockwise/http.sock`",
        ),
        _ if path.starts_with('@') => error(
            "abstract Unix sockets are not supported".to_owned(),
            "every local user could connect to one; use a path, as in `unix:/run/clockwise/http.sock`",
        ),
        _ if path.ends_with('/') => error(
            format!("{} is a directory", quote(path)),
            "use a path in it, as in `unix:/run/clockwise/http.sock`",
        ),
        _ if path.len() > MAX_SOCKET_PATH => error(
            format!(
                "a path of {} bytes is too long for a Unix socket",
                path.len()
            ),
            "use at most 107 bytes",
        ),
        _ => Ok(PathBuf::from(path)),
    }
}

fn refuse_keys(fields: &Fields<'_>, keys: &[&'static str], what: &str) {
    for key in keys {
        if let Some(node) = fields.get(key) {
            let message = format!("`{key}` does not apply to {what}");
            fields.error(node, message, "remove the line");
        }
    }
}

fn mode(node: &YamlNode) -> Result<u32, InvalidValue> {
    let text = text(node, "a mode like `0660`")?;
    let digits = (3..=4).contains(&text.len());
    let mode = u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| digits && *mode <= 0o777);
    mode.ok_or_else(|| {
        let help = "write a zero and three octal digits, as in `0660`".to_owned();
        (format!("{} is not a mode", describe_node(node)), help)
    })
}

fn account(node: &YamlNode) -> Result<UnixAccount, InvalidValue> {
    match text(node, "a name or a number")? {
        "" => Err((
            "the name is empty".to_owned(),
            "use the name of a user or group, as in `www-data`".to_owned(),
        )),
        text => Ok(text
            .parse()
            .map_or_else(|_| UnixAccount::Name(text.to_owned()), UnixAccount::Id)),
    }
}
