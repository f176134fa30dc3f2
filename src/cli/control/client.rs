//! One request to the running instance: HTTP/1.1 on its control socket, one request per connection.

use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::peer_process::check_peer_process;
use crate::cli::config_args::ConfigArgs;
use crate::cli::error::CliError;
use crate::{config, server};

/// How to reach the running instance.
#[derive(Args, Debug)]
pub(in crate::cli) struct InstanceArgs {
    /// The control socket of the running instance [default: that of the configuration]
    #[arg(long, value_name = "SOCK", conflicts_with = "config")]
    control: Option<PathBuf>,
    /// The configuration file of the instance, which names its control socket; reload and upgrade refuse any other file [default: conf/clockwise.yaml, then /etc/clockwise/clockwise.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl InstanceArgs {
    /// Sends a request, and returns the body of the response.
    pub(super) fn request(&self, method: &str, path: &str) -> Result<Value, CliError> {
        let socket = self.socket()?;
        let unreachable = |error: io::Error| {
            let socket = socket.display();
            CliError::Instance(format!(
                "no instance answers on `{socket}`: {error}; start Clockwise, or name its control socket with `--control`"
            ))
        };
        let answer = exchange(&socket, method, path).map_err(unreachable)?;
        let (status, body) = parse_response(&answer)
            .ok_or_else(|| unreachable(io::ErrorKind::InvalidData.into()))?;
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        if (200..300).contains(&status) {
            return Ok(body);
        }
        let reason = body
            .get("error")
            .and_then(Value::as_str)
            .unwrap_or("no reason given");
        match status {
            412 => Err(CliError::Limit(reason.to_owned())),
            _ => Err(CliError::Instance(format!(
                "the instance refused the command (HTTP {status}): {reason}"
            ))),
        }
    }

    /// Sends a command that reads the configuration file. The instance refuses it if `-c` names another file than its own.
    pub(super) fn request_with_config(
        &self,
        path: &str,
        flags: &[(&str, bool)],
    ) -> Result<Value, CliError> {
        let set = flags.iter().filter(|(_, is_set)| *is_set);
        let mut query: Vec<String> = set.map(|(name, _)| (*name).to_owned()).collect();
        if let Some(file) = &self.config {
            let canonical = file.canonicalize().map_err(|_| no_file(file))?;
            ConfigArgs::from_path(file).check_text()?;
            let canonical = percent_encode(canonical.as_os_str().as_bytes());
            query.push(format!("config={canonical}"));
        }
        self.request("POST", &format!("{path}?{}", query.join("&")))
    }

    /// The socket that `--control` names, else the one that the configuration names, else the default.
    fn socket(&self) -> Result<PathBuf, CliError> {
        if let Some(control) = &self.control {
            return Ok(control.clone());
        }
        if let Some(file) = self.config.as_deref().filter(|file| !file.exists()) {
            return Err(no_file(file));
        }
        let file = ConfigArgs::from_option(self.config.clone()).path();
        let default = || {
            let path = server::default_control_path();
            path.map_err(|error| CliError::Instance(error.to_string()))
        };
        config::control_socket(&file).map_or_else(default, Ok)
    }
}

/// The status of the instance that answers on this socket; `None`: another program answers.
///
/// # Errors
/// If no connection can be made, the process that listens is not trusted, or no answer is read.
pub(in crate::cli) fn status_at(socket: &Path) -> io::Result<Option<Value>> {
    let answer = exchange(socket, "GET", "/v1/status")?;
    let response = parse_response(&answer).filter(|(status, _)| *status == 200);
    Ok(response.and_then(|(_, body)| serde_json::from_slice(body).ok()))
}

fn no_file(file: &Path) -> CliError {
    CliError::Input(format!("there is no file `{}`", file.display()))
}

fn exchange(socket: &Path, method: &str, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket)?;
    check_peer_process(&stream, socket)?;
    let limit = if method == "POST" {
        COMMAND_TIMEOUT
    } else {
        QUERY_TIMEOUT
    };
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(QUERY_TIMEOUT))?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// The status and the body, which need not be decoded: the instance never sends chunks.
fn parse_response(answer: &[u8]) -> Option<(u16, &[u8])> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(header_length) = response.parse(answer).ok()? else {
        return None;
    };
    Some((response.code?, answer.get(header_length..)?))
}

/// Formats a field as text; `-` if it is missing.
pub(super) fn display_value(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Encodes a text as one segment of a path, or as a value of a query: every byte except the unreserved characters (RFC 3986 §2.3).
pub(super) fn percent_encode(text: impl AsRef<[u8]>) -> String {
    let is_unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let encode = |byte| {
        if is_unreserved(byte) {
            char::from(byte).to_string()
        } else {
            format!("%{byte:02X}")
        }
    };
    let bytes = text.as_ref().iter().copied();
    bytes.map(encode).collect::<Vec<_>>().concat()
}

/// The limit on each read of the response to a query, and on each write of any request.
const QUERY_TIMEOUT: Duration = Duration::from_secs(10);

/// The limit on each read of the response to a command. Long, because an upgrade takes up to `upgrade_timeout`.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(3600);
