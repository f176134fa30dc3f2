//! A slow and paranoid reader of HTTP/1.1 messages, by the grammar of RFC 9112 and without any of Clockwise's code:
//! whatever is optional, obsolete or ambiguous is an error.

use std::io::Read;

use serde_json::{Value, json};

/// Why a message cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The connection ended within the message, or timed out.
    Cut(String),
    Malformed(String),
}

pub(super) type Checked<T> = Result<T, Flaw>;

/// One request or response. All texts have one `char` for each byte.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Message {
    /// The request line or status line.
    pub(super) line: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) body: String,
    pub(super) trailers: Vec<(String, String)>,
}

impl Message {
    pub(super) fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self
            .fields
            .iter()
            .filter(move |(known, _)| known.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.as_str())
    }

    pub(super) fn method(&self) -> &str {
        self.line.split(' ').next().unwrap_or_default()
    }

    pub(super) fn target(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    pub(super) fn status(&self) -> u16 {
        self.target().parse().unwrap_or(0)
    }

    /// Whether the sender closes the connection.
    pub(super) fn closes(&self) -> bool {
        self.values("connection")
            .any(|value| value.eq_ignore_ascii_case("close"))
    }

    /// Whether this is the wanted message; `Connection` counts only if it is wanted.
    pub(super) fn is(&self, wanted: &Self) -> bool {
        let with_connection = wanted.values("connection").next().is_some();
        self.comparable(with_connection) == wanted.comparable(with_connection)
    }

    /// Names in small letters, sorted.
    fn comparable(&self, with_connection: bool) -> Self {
        let mut same = self.clone();
        for fields in [&mut same.fields, &mut same.trailers] {
            for (name, _) in fields.iter_mut() {
                *name = name.to_ascii_lowercase();
            }
            fields.retain(|(name, _)| with_connection || name != "connection");
            fields.sort();
        }
        same
    }

    pub(super) fn to_json(&self, number: u64) -> Value {
        let Self {
            line,
            fields,
            body,
            trailers,
        } = self;
        json!({"line": line, "fields": fields, "body": body, "trailers": trailers, "number": number})
    }

    pub(super) fn of_json(json: &Value) -> Option<Self> {
        let fields = |list: &Value| serde_json::from_value(list.clone()).ok();
        Some(Self {
            line: json["line"].as_str()?.to_owned(),
            fields: fields(&json["fields"])?,
            body: json["body"].as_str()?.to_owned(),
            trailers: fields(&json["trailers"])?,
        })
    }
}

/// Bytes as a text with one `char` for each.
pub(super) fn text(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

/// The reverse of [`text`].
pub(super) fn bytes(text: &str) -> Vec<u8> {
    text.chars()
        .map(|byte| u8::try_from(byte).unwrap_or(b'?'))
        .collect()
}

/// The reading side of a connection.
pub(super) struct Wire<R> {
    pub(super) socket: R,
    /// Bytes that were received and not read yet.
    pub(super) buffer: Vec<u8>,
}

impl<R: Read> Wire<R> {
    pub(super) fn new(socket: R) -> Self {
        Self {
            socket,
            buffer: Vec::new(),
        }
    }

    /// Reads the next request; `None`: the connection ended before it.
    pub(super) fn request(&mut self) -> Checked<Option<Message>> {
        let mut request = self.request_head()?;
        if let Some(request) = &mut request {
            self.request_body(request)?;
        }
        Ok(request)
    }

    /// Reads the head of the next request; `None`: the connection ended before it.
    pub(super) fn request_head(&mut self) -> Checked<Option<Message>> {
        if self.buffer.is_empty() && !self.receive()? {
            return Ok(None);
        }
        let line = self.line()?;
        check_request_line(&line)?;
        let message = Message {
            fields: self.fields()?,
            line,
            ..Message::default()
        };
        let hosts: Vec<_> = message.values("host").collect();
        match hosts[..] {
            [host] if is_host(host) => {}
            _ => return malformed(format!("hosts {hosts:?}")),
        }
        check_connection(&message)?;
        framing(&message)?;
        Ok(Some(message))
    }

    /// Reads the body of a request.
    pub(super) fn request_body(&mut self, request: &mut Message) -> Checked<()> {
        match framing(request)? {
            Some(length) => request.body = text(&self.exactly(length)?),
            None if request.values("transfer-encoding").next().is_some() => {
                (request.body, request.trailers) = self.chunks()?;
            }
            None => {}
        }
        Ok(())
    }

    /// Reads the head of a response.
    pub(super) fn response_head(&mut self) -> Checked<Message> {
        let line = self.line()?;
        let reason = line.strip_prefix("HTTP/1.1 ").and_then(|it| it.get(3..));
        let status = line.get(9..12).unwrap_or_default();
        let is_status = status.bytes().all(|byte| byte.is_ascii_digit());
        if !is_status || !reason.is_some_and(|reason| reason.starts_with(' ')) {
            return malformed(format!("status line {line:?}"));
        }
        let message = Message {
            fields: self.fields()?,
            line,
            ..Message::default()
        };
        let framing = framing(&message)?;
        let has_coding = message.values("transfer-encoding").next().is_some();
        if matches!(message.status(), 100..200 | 204) && (framing.is_some() || has_coding) {
            return malformed(format!("framing fields in {message:?}"));
        }
        Ok(message)
    }

    /// Reads the body of the response to a request with this method; true: the connection ends with it.
    pub(super) fn response_body(&mut self, method: &str, response: &mut Message) -> Checked<bool> {
        let closes = response.closes();
        let has_none = matches!(response.status(), 204 | 304) || method == "HEAD";
        if has_none {
            return Ok(closes);
        }
        match framing(response)? {
            Some(length) => response.body = text(&self.exactly(length)?),
            None if response.values("transfer-encoding").next().is_some() => {
                (response.body, response.trailers) = self.chunks()?;
            }
            None => {
                response.body = text(&self.rest()?);
                return Ok(true);
            }
        }
        Ok(closes)
    }

    /// All bytes up to the end of the connection.
    pub(super) fn rest(&mut self) -> Checked<Vec<u8>> {
        while self.receive()? {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// RFC 9112 §7.1, without extensions.
    fn chunks(&mut self) -> Checked<(String, Vec<(String, String)>)> {
        let mut body = Vec::new();
        loop {
            let line = self.line()?;
            let is_size = (1..=16).contains(&line.len());
            let is_hex = line.bytes().all(|byte| byte.is_ascii_hexdigit());
            if !is_size || !is_hex {
                return malformed(format!("chunk size {line:?}"));
            }
            let size = usize::from_str_radix(&line, 16).unwrap_or(usize::MAX);
            if size == 0 {
                return Ok((text(&body), self.fields()?));
            }
            body.extend(self.exactly(size)?);
            if self.exactly(2)? != b"\r\n" {
                return malformed("no CRLF after a chunk");
            }
        }
    }

    /// Field lines up to the empty line (RFC 9112 §5).
    fn fields(&mut self) -> Checked<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let Some((name, value)) = line.split_once(':') else {
                return malformed(format!("a line without colon {line:?}"));
            };
            let is_value = value.chars().all(|it| it == '\t' || !it.is_ascii_control());
            if !is_token(name) || !is_value {
                return malformed(format!("field {line:?}"));
            }
            let value = value.trim_matches([' ', '\t']);
            fields.push((name.to_owned(), value.to_owned()));
        }
    }

    /// A line that ends in CRLF, without it.
    fn line(&mut self) -> Checked<String> {
        let end = loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                break end;
            }
            if !self.receive()? {
                return cut("the end within a line");
            }
        };
        let line: Vec<_> = self.buffer.drain(..=end).collect();
        match line.strip_suffix(b"\r\n") {
            Some(line) if !line.contains(&b'\r') => Ok(text(line)),
            _ => malformed(format!("the end of line {:?}", text(&line))),
        }
    }

    fn exactly(&mut self, length: usize) -> Checked<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.receive()? {
                return cut("the end within a body");
            }
        }
        Ok(self.buffer.drain(..length).collect())
    }

    /// Receives more bytes; false: the end.
    fn receive(&mut self) -> Checked<bool> {
        let mut piece = [0; 16 * 1024];
        match self.socket.read(&mut piece) {
            Ok(0) => Ok(false),
            Ok(length) => {
                self.buffer.extend_from_slice(&piece[..length]);
                Ok(true)
            }
            Err(error) => cut(error.to_string()),
        }
    }
}

fn malformed<T>(what: impl Into<String>) -> Checked<T> {
    Err(Flaw::Malformed(what.into()))
}

fn cut<T>(what: impl Into<String>) -> Checked<T> {
    Err(Flaw::Cut(what.into()))
}

/// RFC 9112 §3: method, target in one of the forms for an origin, version 1.1.
fn check_request_line(line: &str) -> Checked<()> {
    let parts: Vec<_> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else {
        return malformed(format!("request line {line:?}"));
    };
    let is_visible = !target
        .chars()
        .any(|it| it.is_ascii_control() || it == ' ' || it == '#');
    let is_form = match method {
        "CONNECT" => is_host(target) && target.contains(':'),
        "OPTIONS" if target == "*" => true,
        _ => target.starts_with('/'),
    };
    if is_token(method) && is_visible && is_form {
        Ok(())
    } else {
        malformed(format!("request line {line:?}"))
    }
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    let is_byte = |it: char| it.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(it);
    !text.is_empty() && text.chars().all(is_byte)
}

/// RFC 9110 §7.2: empty for a target without an authority.
fn is_host(text: &str) -> bool {
    let has_port = |port: &str| port.parse::<u16>().is_ok() || port.is_empty();
    if let Some(rest) = text.strip_prefix('[') {
        return rest.split_once(']').is_some_and(|(address, port)| {
            address.parse::<std::net::Ipv6Addr>().is_ok()
                && (port.is_empty() || port.strip_prefix(':').is_some_and(has_port))
        });
    }
    let (name, port) = text.split_once(':').unwrap_or((text, ""));
    let is_byte = |it: char| it.is_ascii_alphanumeric() || "-._~!$&'()*+,;=".contains(it);
    name.chars().all(is_byte) && has_port(port)
}

/// RFC 9110 §7.6.1: a proxy passes nothing on that is for its client's connection.
fn check_connection(message: &Message) -> Checked<()> {
    for name in ["keep-alive", "proxy-connection"] {
        if message.values(name).next().is_some() {
            return malformed(format!("{name} in {message:?}"));
        }
    }
    for name in ["te", "upgrade"] {
        let is_listed = message
            .values("connection")
            .any(|value| value.eq_ignore_ascii_case(name));
        if message.values(name).next().is_some() && !is_listed {
            return malformed(format!("{name} is not in Connection: {message:?}"));
        }
    }
    Ok(())
}

/// `Content-Length` (RFC 9112 §6): one number in one line; or `chunked` in one line; never both.
fn framing(message: &Message) -> Checked<Option<usize>> {
    let lengths: Vec<_> = message.values("content-length").collect();
    let codings: Vec<_> = message.values("transfer-encoding").collect();
    let is_number = |text: &str| {
        let is_short = text == "0" || !text.starts_with('0');
        is_short && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(None),
        ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Ok(None),
        ([length], []) if is_number(length) => Ok(length.parse().ok()),
        _ => malformed(format!("lengths {lengths:?}, codings {codings:?}")),
    }
}
