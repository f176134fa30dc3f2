//! One case: what a client sends on a connection, and what the origin answers.

use std::fmt;

/// What is sent, what is answered, and on which route.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Case {
    pub(super) route: usize,
    /// Whether the client is in `trusted_proxies`.
    pub(super) is_trusted: bool,
    pub(super) requests: Vec<Request>,
    /// In the order in which requests reach the origin; then come plain ones.
    pub(super) responses: Vec<Response>,
    /// Some of what the client sends is not well formed, so the number of responses is not known.
    pub(super) is_malformed: bool,
}

/// What follows the head of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pause {
    /// The body at once.
    #[default]
    None,
    /// The body after an interim or final response.
    Response,
    /// Nothing: the client leaves once the origin has the head.
    Leave,
}

/// One request on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    /// The lines of the head with their ends, the empty one too.
    pub(super) lines: Vec<Vec<u8>>,
    /// The body as it is sent, in pieces.
    pub(super) body: Vec<Vec<u8>>,
    /// Lengths of the writes of the head; what is left is one write.
    pub(super) writes: Vec<usize>,
    pub(super) pause: Pause,
    /// Whether the next request waits for the response to this one.
    pub(super) waits: bool,
}

impl Request {
    pub(super) fn is_head(&self) -> bool {
        let line = self.lines.iter().find(|line| **line != b"\r\n");
        line.is_some_and(|line| line.starts_with(b"HEAD "))
    }
}

/// When the origin answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum When {
    #[default]
    AfterRequest,
    /// Before it reads the body.
    AfterHead,
}

/// What the origin does after its response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum End {
    #[default]
    Keep,
    Close,
    /// Neither sends nor closes.
    Stall,
}

/// One response on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Response {
    pub(super) when: When,
    /// Interim responses.
    pub(super) interim: Vec<Vec<u8>>,
    /// The lines of the head with their ends, the empty one too.
    pub(super) lines: Vec<Vec<u8>>,
    /// The body as it is sent, in pieces; not for `HEAD`.
    pub(super) body: Vec<Vec<u8>>,
    /// Lengths of the writes of the head; what is left is one write.
    pub(super) writes: Vec<usize>,
    pub(super) end: End,
}

impl Response {
    /// A response without anything special.
    pub(super) fn plain() -> Self {
        let lines = ["HTTP/1.1 200 OK\r\n", "Content-Length: 2\r\n", "\r\n"];
        Self {
            lines: lines.map(|line| line.as_bytes().to_vec()).to_vec(),
            body: vec![b"ok".to_vec()],
            ..Self::default()
        }
    }
}

/// Cuts bytes into writes of these lengths, and one of the rest.
pub(super) fn cut<'a>(bytes: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut rest = bytes;
    let mut pieces = Vec::new();
    for length in lengths {
        let (piece, left) = rest.split_at(rest.len().min(*length));
        pieces.push(piece);
        rest = left;
    }
    pieces.push(rest);
    pieces.retain(|piece| !piece.is_empty());
    pieces
}

impl fmt::Display for Case {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let route = super::routes::ROUTES.get(self.route).map(|route| route.0);
        writeln!(
            out,
            "route {}, trusted {}, malformed {}",
            route.unwrap_or_default(),
            self.is_trusted,
            self.is_malformed
        )?;
        for request in &self.requests {
            writeln!(
                out,
                "request, {:?} before the body, waits {}",
                request.pause, request.waits
            )?;
            lines(out, &request.lines)?;
            lines(out, &request.body)?;
        }
        for response in &self.responses {
            writeln!(out, "response {:?}, then {:?}", response.when, response.end)?;
            lines(out, &response.interim)?;
            lines(out, &response.lines)?;
            lines(out, &response.body)?;
        }
        Ok(())
    }
}

fn lines(out: &mut fmt::Formatter<'_>, pieces: &[Vec<u8>]) -> fmt::Result {
    for piece in pieces {
        let mut shown = piece.escape_ascii().to_string();
        if shown.len() > 200 {
            shown.truncate(200);
            shown += "…";
        }
        writeln!(out, "    \"{shown}\"")?;
    }
    Ok(())
}
