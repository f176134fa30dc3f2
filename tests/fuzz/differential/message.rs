//! Reads messages of HTTP/1, strictly and without the crate's own codec, which is under test.

use tokio::io::{AsyncRead, AsyncReadExt};

/// The longest head or line; bytes.
const MAX_HEAD: usize = 64 * 1024;

/// A byte stream with what was read of it and is not used yet.
pub(super) struct Wire<R> {
    reader: R,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Wire<R> {
    pub(super) fn new(reader: R) -> Self {
        let buffer = Vec::new();
        Self { reader, buffer }
    }

    /// Reads more; false at the end of the stream.
    pub(super) async fn fill(&mut self) -> bool {
        let read = self.reader.read_buf(&mut self.buffer).await;
        read.is_ok_and(|count| count > 0)
    }

    /// Waits for a byte that is not used; false at the end of the stream.
    pub(super) async fn is_open(&mut self) -> bool {
        !self.buffer.is_empty() || self.fill().await
    }

    /// What came and is not used.
    pub(super) fn rest(&self) -> &[u8] {
        &self.buffer
    }

    /// Takes all bytes to the end of `mark`; `None`: the stream ended before, or the mark is too far away.
    pub(super) async fn until(&mut self, mark: &[u8]) -> Option<Vec<u8>> {
        loop {
            let mut windows = self.buffer.windows(mark.len());
            if let Some(start) = windows.position(|window| window == mark) {
                return Some(self.buffer.drain(..start + mark.len()).collect());
            }
            if self.buffer.len() > MAX_HEAD || !self.fill().await {
                return None;
            }
        }
    }

    /// Takes at most `count` bytes, at least one; `None`: the stream ended before.
    async fn some(&mut self, count: u64) -> Option<Vec<u8>> {
        if self.buffer.is_empty() && !self.fill().await {
            return None;
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        let count = count.min(self.buffer.len());
        Some(self.buffer.drain(..count).collect())
    }

    /// Reads a body into `sink` as it comes; its trailer section.
    pub(super) async fn body(
        &mut self,
        framing: Framing,
        sink: &mut impl FnMut(&[u8]),
    ) -> Result<Vec<String>, BodyEnd> {
        match framing {
            Framing::Length(length) => self.exact(length, sink).await?,
            Framing::Chunked => return self.chunks(sink).await,
            Framing::UntilClose => {
                while let Some(data) = self.some(u64::MAX).await {
                    sink(&data);
                }
            }
        }
        Ok(Vec::new())
    }

    async fn exact(&mut self, length: u64, sink: &mut impl FnMut(&[u8])) -> Result<(), BodyEnd> {
        let mut left = length;
        while left > 0 {
            let data = self.some(left).await.ok_or(BodyEnd::Truncated)?;
            left -= data.len() as u64;
            sink(&data);
        }
        Ok(())
    }

    async fn chunks(&mut self, sink: &mut impl FnMut(&[u8])) -> Result<Vec<String>, BodyEnd> {
        loop {
            let line = self.line().await?;
            let size = line.split(';').next().unwrap_or_default();
            let size = u64::from_str_radix(size, 16).map_err(|_| BodyEnd::Malformed)?;
            if size == 0 {
                break;
            }
            self.exact(size, sink).await?;
            if !self.line().await?.is_empty() {
                return Err(BodyEnd::Malformed);
            }
        }
        let mut trailers = Vec::new();
        loop {
            match self.line().await? {
                line if line.is_empty() => return Ok(trailers),
                line => trailers.push(line),
            }
        }
    }

    async fn line(&mut self) -> Result<String, BodyEnd> {
        let mut line = self.until(b"\r\n").await.ok_or(BodyEnd::Truncated)?;
        line.truncate(line.len() - 2);
        Ok(text(&line))
    }
}

/// Why a body has no end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyEnd {
    Truncated,
    Malformed,
}

/// How a body is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// A head: its first line, and its fields as they stand there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) first: String,
    pub(super) fields: Vec<(String, String)>,
}

impl Head {
    /// Reads a head that ends with an empty line; `None`: a line has no colon.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let all = text(bytes);
        let mut lines = all.strip_suffix("\r\n\r\n")?.split("\r\n");
        let first = lines.next()?.to_owned();
        let fields = lines.map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
        });
        let fields = fields.collect::<Option<_>>()?;
        Some(Self { first, fields })
    }

    /// All values of a field.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let fields = self.fields.iter();
        let same = fields.filter(move |(field, _)| field.eq_ignore_ascii_case(name));
        same.map(|(_, value)| value.as_str())
    }

    /// Whether an element of a list is `element`.
    pub(super) fn has(&self, name: &str, element: &str) -> bool {
        let elements = self.all(name).flat_map(|value| value.split(','));
        elements
            .map(str::trim)
            .any(|it| it.eq_ignore_ascii_case(element))
    }

    /// The framing that the fields state; `None`: no field does. An error if they contradict each other.
    pub(super) fn framing(&self) -> Result<Option<Framing>, String> {
        let codings: Vec<_> = self.all("transfer-encoding").collect();
        let lengths: Vec<_> = self.all("content-length").collect();
        match (&*codings, &*lengths) {
            ([], []) => Ok(None),
            ([coding], []) if coding.eq_ignore_ascii_case("chunked") => Ok(Some(Framing::Chunked)),
            ([], [length]) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                let parsed = length.parse().map_err(|_| format!("length {length}"))?;
                Ok(Some(Framing::Length(parsed)))
            }
            _ => Err(format!("codings {codings:?}, lengths {lengths:?}")),
        }
    }
}

/// Bytes as text: one character a byte, so that nothing is lost.
pub(super) fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}
