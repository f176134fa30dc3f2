//! Scanners for a message in parts. They stop at the first invalid byte, and continue with the next part where the
//! last one ended.
//!
//! The result does not depend on how the message is split into reads. Each byte is examined only once, so a message
//! that arrives byte by byte needs no more work than a message that arrives at once.

use std::ops::Range;

use http::{StatusCode, Version};

use super::byte_class::{TARGET, TEXT, TOKEN};
use super::refusal::Refusal;

/// The longest version: `HTTP/1.1`.
const VERSION_LENGTH: usize = 8;

/// Scans a request line (RFC 9112 §3), after empty lines.
#[derive(Debug, Default)]
pub(super) struct RequestLineScanner {
    state: RequestLineState,
    at: usize,
    start: usize,
    method_end: usize,
    target_end: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum RequestLineState {
    #[default]
    EmptyLines,
    EmptyLineEnd,
    Method,
    Target,
    Version,
    End,
}

/// The parts of a request line, as ranges of the text.
#[derive(Clone, Debug)]
pub(super) struct RequestLine {
    pub(super) method: Range<usize>,
    pub(super) target: Range<usize>,
    pub(super) version: Version,
    pub(super) end: usize,
}

impl RequestLineScanner {
    /// Scans up to the end of the line; `None`: more bytes are needed.
    pub(super) fn scan(
        &mut self,
        text: &[u8],
        max_target: usize,
    ) -> Result<Option<RequestLine>, Refusal> {
        loop {
            // First the bytes that the state accepts, then the byte that ends it.
            match self.state {
                RequestLineState::Method => self.at = TOKEN.run_end(text, self.at),
                RequestLineState::Target => {
                    self.at = TARGET.run_end(text, self.at);
                    if self.at - self.target_start() > max_target {
                        return Err(Refusal::TargetTooLong);
                    }
                }
                RequestLineState::Version => self.at = TEXT.run_end(text, self.at),
                _ => {}
            }
            let Some(&byte) = text.get(self.at) else {
                return Ok(None);
            };
            let line_ends = self.step(byte)?;
            self.at += 1;
            if line_ends {
                return self.line(text).map(Some);
            }
        }
    }

    /// Processes the byte that ends a part; true: it ends the line, too.
    fn step(&mut self, byte: u8) -> Result<bool, Refusal> {
        use RequestLineState as State;
        self.state = match (self.state, byte) {
            // RFC 9112 §2.2: empty lines before a request are ignored; they count towards the size of the head.
            (State::EmptyLines, b'\r') => State::EmptyLineEnd,
            (State::EmptyLineEnd, b'\n') => State::EmptyLines,
            (State::EmptyLines, byte) if TOKEN.contains(byte) => {
                self.start = self.at;
                State::Method
            }
            // RFC 9112 §3: one space between the parts.
            (State::Method, b' ') => {
                self.method_end = self.at;
                State::Target
            }
            (State::Target, b' ') if self.at > self.target_start() => {
                self.target_end = self.at;
                State::Version
            }
            (State::Version, b'\r') => State::End,
            (State::End, b'\n') => return Ok(true),
            // RFC 9112 §2.2: the line ends in CRLF.
            (State::EmptyLineEnd | State::End, _) => return Err(Refusal::BareCr),
            (_, b'\n') => return Err(Refusal::BareLf),
            // RFC 9110 §9.1.
            (State::EmptyLines | State::Method, _) => return Err(Refusal::InvalidMethod),
            // RFC 9112 §2.3: a line without a version is HTTP/0.9.
            (State::Target, b'\r') if self.at > self.target_start() => {
                return Err(Refusal::InvalidVersion);
            }
            // RFC 9112 §3.2: no blanks, no control bytes.
            (State::Target, _) => return Err(Refusal::InvalidTarget),
            (State::Version, _) => return Err(Refusal::InvalidVersion),
        };
        Ok(false)
    }

    fn target_start(&self) -> usize {
        self.method_end + 1
    }

    fn line(&self, text: &[u8]) -> Result<RequestLine, Refusal> {
        let version = self.target_end + 1..self.at - 2;
        Ok(RequestLine {
            method: self.start..self.method_end,
            target: self.target_start()..self.target_end,
            version: parse_version(text.get(version).unwrap_or_default())?,
            end: self.at,
        })
    }
}

/// RFC 9112 §2.3: the name, in upper case, and two digits. RFC 9110 §2.5: a later minor version is
/// compatible, so it is read as HTTP/1.1.
fn parse_version(text: &[u8]) -> Result<Version, Refusal> {
    match text {
        b"HTTP/1.0" => Ok(Version::HTTP_10),
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1'..=b'9'] => Ok(Version::HTTP_11),
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            Err(Refusal::UnsupportedVersion)
        }
        _ => Err(Refusal::InvalidVersion),
    }
}

/// Scans a status line (RFC 9112 §4).
#[derive(Debug, Default)]
pub(super) struct StatusLineScanner {
    at: usize,
}

/// The parts of a status line.
#[derive(Clone, Debug)]
pub(super) struct StatusLine {
    pub(super) version: Version,
    pub(super) status: StatusCode,
    pub(super) reason: Range<usize>,
    pub(super) end: usize,
}

impl StatusLineScanner {
    /// Scans up to the end of the line; `None`: more bytes are needed.
    pub(super) fn scan(&mut self, text: &[u8]) -> Result<Option<StatusLine>, Refusal> {
        self.at = TEXT.run_end(text, self.at);
        match text.get(self.at..) {
            None | Some([] | [b'\r']) => Ok(None),
            Some([b'\r', b'\n', ..]) => parse_status_line(text, self.at).map(Some),
            // RFC 9112 §2.2: the line ends in CRLF.
            Some([b'\n', ..]) => Err(Refusal::BareLf),
            Some([b'\r', ..]) => Err(Refusal::BareCr),
            Some(_) => Err(Refusal::InvalidStatusLine),
        }
    }
}

/// The line of `text` that ends before `end`.
fn parse_status_line(text: &[u8], end: usize) -> Result<StatusLine, Refusal> {
    let line = text.get(..end).unwrap_or_default();
    let (version, rest) = line
        .split_at_checked(VERSION_LENGTH)
        .ok_or(Refusal::InvalidVersion)?;
    let version = parse_version(version)?;
    let code = match rest {
        [b' ', code @ ..] => code.get(..3).ok_or(Refusal::InvalidStatusLine)?,
        _ => return Err(Refusal::InvalidStatusLine),
    };
    // RFC 9110 §15: 600 to 999 have no class, and are passed on to the client.
    let status = StatusCode::from_bytes(code).map_err(|_| Refusal::InvalidStatusLine)?;
    // RFC 9112 §4: the space after the status is required even if the reason is empty; real servers leave it out.
    let reason = match rest.get(4) {
        None => end..end,
        Some(b' ') => VERSION_LENGTH + 5..end,
        Some(_) => return Err(Refusal::InvalidStatusLine),
    };
    Ok(StatusLine {
        version,
        status,
        reason,
        end: end + 2,
    })
}

/// Scans field lines up to the empty line that ends them (RFC 9112 §5).
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldScanner {
    state: FieldState,
    at: usize,
    lines: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FieldState {
    LineStart,
    Name,
    Value,
    LineEnd,
    SectionEnd,
}

impl FieldScanner {
    /// Scans from `at`.
    pub(super) fn new(at: usize) -> Self {
        Self {
            state: FieldState::LineStart,
            at,
            lines: 0,
        }
    }

    /// Scans up to the end of the section, and returns it; `None`: more bytes are needed.
    pub(super) fn scan(&mut self, text: &[u8], max_lines: usize) -> Result<Option<usize>, Refusal> {
        loop {
            match self.state {
                FieldState::Name => self.at = TOKEN.run_end(text, self.at),
                FieldState::Value => self.at = TEXT.run_end(text, self.at),
                _ => {}
            }
            let Some(&byte) = text.get(self.at) else {
                return Ok(None);
            };
            let section_ends = self.state == FieldState::SectionEnd && byte == b'\n';
            self.state = self.step(byte)?;
            self.at += 1;
            if section_ends {
                return Ok(Some(self.at));
            }
            if self.lines > max_lines {
                return Err(Refusal::TooManyFields);
            }
        }
    }

    fn step(&mut self, byte: u8) -> Result<FieldState, Refusal> {
        match (self.state, byte) {
            (FieldState::LineStart, b'\r') => Ok(FieldState::SectionEnd),
            (FieldState::LineStart, byte) if TOKEN.contains(byte) => {
                self.lines += 1;
                Ok(FieldState::Name)
            }
            (FieldState::Name, b':') => Ok(FieldState::Value),
            (FieldState::Value, b'\r') => Ok(FieldState::LineEnd),
            (FieldState::LineEnd | FieldState::SectionEnd, b'\n') => Ok(FieldState::LineStart),
            // RFC 9112 §2.2: each line ends in CRLF.
            (FieldState::LineEnd | FieldState::SectionEnd, _) => Err(Refusal::BareCr),
            (_, b'\n') => Err(Refusal::BareLf),
            // RFC 9112 §5.2: folding is obsolete; §2.2: no blank between the start line and the first field.
            (FieldState::LineStart, b' ' | b'\t') => Err(Refusal::FoldedLine),
            // RFC 9112 §5.1: a server must refuse it.
            (FieldState::Name, b' ' | b'\t') => Err(Refusal::SpaceBeforeColon),
            (FieldState::LineStart | FieldState::Name, _) => Err(Refusal::InvalidFieldName),
            // RFC 9110 §5.5: CR, LF and NUL are dangerous, and other control bytes are invalid.
            (FieldState::Value, _) => Err(Refusal::InvalidFieldValue),
        }
    }
}
