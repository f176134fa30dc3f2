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
        self.request_with_body(method, path, "")
    }

    /// Sends a request with a body of JSON, and returns the body of the response.
    pub(super) fn request_with_body(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> Result<Value, CliError> {
        let socket = self.socket()?;
        let stream = connect(&socket).map_err(|error| {
            let socket = socket.display();
            CliError::Instance(format!(
                "no instance answers on `{socket}`: {error}; start Clockwise, or name its control socket with `--control`"
            ))
        })?;
        let answer = exchange(stream, (method, path), body);
        let answer = answer.and_then(|answer| require_response(&answer));
        let (status, body) = answer.map_err(|error| no_response(&socket, method, &error))?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
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
    let answer = exchange(connect(socket)?, ("GET", "/v1/status"), "")?;
    let response = parse_response(&answer).filter(|(status, _)| *status == 200);
    Ok(response.and_then(|(_, body)| serde_json::from_slice(body).ok()))
}

fn no_file(file: &Path) -> CliError {
    CliError::Input(format!("there is no file `{}`", file.display()))
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    check_peer_process(&stream, socket)?;
    Ok(stream)
}

fn exchange(
    mut stream: UnixStream,
    (method, path): (&str, &str),
    body: &str,
) -> io::Result<Vec<u8>> {
    let limit = if is_command(method) {
        COMMAND_TIMEOUT
    } else {
        QUERY_TIMEOUT
    };
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(QUERY_TIMEOUT))?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(answer)
}

/// Whether a request with this method changes something, as opposed to a query.
fn is_command(method: &str) -> bool {
    method != "GET"
}

/// The error for a request that was sent, at least in part, and got no response.
fn no_response(socket: &Path, method: &str, error: &io::Error) -> CliError {
    let reason = match error.kind() {
        // The system's text is "Resource temporarily unavailable".
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "a time limit was exceeded".into(),
        _ => error.to_string(),
    };
    let help = if is_command(method) {
        "the command may have been executed, or may still run: see `clockwise status` and the log before you repeat it"
    } else {
        "try again"
    };
    let socket = socket.display();
    CliError::Instance(format!(
        "the instance on `{socket}` did not respond: {reason}; {help}"
    ))
}

/// The status and the body of a response.
///
/// # Errors
/// If the response is incomplete or is not HTTP.
fn require_response(answer: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let response = parse_response(answer).map(|(status, body)| (status, body.to_owned()));
    let incomplete = || {
        let text = "the connection ended before a response of HTTP was complete";
        io::Error::new(io::ErrorKind::UnexpectedEof, text)
    };
    response.ok_or_else(incomplete)
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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// The message of a request to an instance that closes the connection once it has the request.
    fn failed_request(method: &str) -> String {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("control.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let instance = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.read(&mut [0; 1024]).unwrap()
        });
        let args = InstanceArgs {
            control: Some(socket),
            config: None,
        };
        let failed = args.request(method, "/v1/x").unwrap_err();
        assert!(instance.join().unwrap() > 0);
        match failed {
            CliError::Instance(message) => message,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn request_without_a_response_may_have_been_executed_if_it_is_a_command() {
        for (method, may_be_executed) in [("POST", true), ("DELETE", true), ("GET", false)] {
            let message = failed_request(method);
            assert!(message.contains("did not respond"), "{message}");
            let said = message.contains("may have been executed");
            assert_eq!(said, may_be_executed, "{message}");
        }
    }

    #[test]
    fn request_to_a_missing_socket_names_the_socket_and_was_not_executed() {
        let args = InstanceArgs {
            control: Some("/nonexistent/control.sock".into()),
            config: None,
        };
        let failed = args.request("POST", "/v1/reload").unwrap_err();
        let CliError::Instance(message) = failed else {
            panic!("{failed:?}");
        };
        assert!(
            message.starts_with("no instance answers on `/nonexistent/control.sock`"),
            "{message}"
        );
    }
}
