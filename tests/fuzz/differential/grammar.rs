//! A third opinion: whether responses are what RFC 9110 and RFC 9112 allow. Written apart from the crate, and shorter:
//! whole messages only, and none of the freedoms that a recipient may take.

use super::case::Response;
use super::message::text;

/// Whether a response is well formed, apart from its body's end.
pub(super) fn is_valid_response(response: &Response) -> bool {
    let Some(head) = Section::parse(&response.lines.concat()) else {
        return response.lines.is_empty();
    };
    is_valid_status_line(&head.first) && head.has_valid_body(&response.body)
}

/// A head in its parts.
pub(super) struct Section {
    pub(super) first: String,
    fields: Vec<(String, String)>,
}

impl Section {
    /// Empty lines before a request are allowed (RFC 9112 §2.2).
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let all = text(bytes);
        let all = all.trim_start_matches("\r\n").strip_suffix("\r\n\r\n")?;
        let mut lines = all.split("\r\n");
        let first = lines.next()?.to_owned();
        let mut fields = Vec::new();
        for line in lines {
            let (name, value) = line.split_once(':')?;
            let is_valid = is_token(name) && value.chars().all(is_field_char);
            fields.push((
                name.to_ascii_lowercase(),
                value.trim_matches([' ', '\t']).to_owned(),
            ));
            if !is_valid {
                return None;
            }
        }
        let is_text = first.chars().all(is_field_char);
        is_text.then_some(Self { first, fields })
    }

    /// The values of a field, in lower case.
    pub(super) fn all(&self, name: &str) -> Vec<String> {
        let fields = self.fields.iter().filter(|(field, _)| field == name);
        fields
            .map(|(_, value)| value.to_ascii_lowercase())
            .collect()
    }

    /// Whether an element of a list is `element`.
    pub(super) fn has(&self, name: &str, element: &str) -> bool {
        let values = self.all(name);
        let mut elements = values.iter().flat_map(|value| value.split(','));
        elements.any(|it| it.trim() == element)
    }

    fn has_valid_body(&self, pieces: &[Vec<u8>]) -> bool {
        let codings = self.all("transfer-encoding");
        let lengths = self.all("content-length");
        match (&*codings, &*lengths) {
            ([], []) => true,
            ([coding], []) if coding == "chunked" => {
                let is_http10 = self.first.contains("HTTP/1.0");
                !is_http10 && is_valid_chunked(&text(&pieces.concat()))
            }
            ([], lengths) => {
                let numbers = lengths.iter().flat_map(|it| it.split(','));
                let mut numbers = numbers.map(|it| it.trim().parse::<u64>().ok());
                let first = numbers.next().flatten();
                let has_digits_only = !lengths.concat().contains(['+', '-']);
                first.is_some() && numbers.all(|it| it == first) && has_digits_only
            }
            _ => false,
        }
    }
}

fn is_valid_status_line(line: &str) -> bool {
    let bytes = line.as_bytes();
    let is_version = line.starts_with("HTTP/1.") && bytes.get(7).is_some_and(u8::is_ascii_digit);
    let status = line.get(8..12).and_then(|it| it.strip_prefix(' '));
    let is_status = status.is_some_and(|it| matches!(it.parse(), Ok(100..=599_u16)));
    is_version
        && is_status
        && line
            .get(12..)
            .is_none_or(|it| it.is_empty() || it.starts_with(' '))
}

/// RFC 9112 §7.1; a body that is cut off is valid so far.
fn is_valid_chunked(body: &str) -> bool {
    let mut rest = body;
    loop {
        let Some((line, after)) = rest.split_once("\r\n") else {
            return !rest.contains('\n')
                && (rest.is_empty() || is_chunk_line(rest.trim_end_matches('\r')));
        };
        if !is_chunk_line(line) {
            return false;
        }
        let digits = line.split([';', ' ', '\t']).next().unwrap_or_default();
        let Ok(size) = usize::from_str_radix(digits, 16) else {
            return false;
        };
        if size == 0 {
            let trailers = after.strip_suffix("\r\n").unwrap_or(after);
            return trailers.is_empty()
                || Section::parse(format!("x\r\n{trailers}\r\n").as_bytes()).is_some();
        }
        // One character is one byte here, but not in the text.
        let mut places = after.char_indices().skip(size).map(|(place, _)| place);
        let Some(place) = places.next() else {
            return true;
        };
        match after.get(place..).map(|it| (it.strip_prefix("\r\n"), it)) {
            Some((Some(next), _)) => rest = next,
            Some((None, "\r")) => return true,
            _ => return false,
        }
    }
}

/// Hexadecimal digits, and extensions after a semicolon.
fn is_chunk_line(line: &str) -> bool {
    let (size, extension) = match line.split_once(';') {
        Some((size, extension)) => (size.trim_end_matches([' ', '\t']), extension),
        None => (line, ""),
    };
    let is_size =
        !size.is_empty() && size.len() <= 16 && size.chars().all(|it| it.is_ascii_hexdigit());
    is_size && extension.chars().all(is_field_char) && extension.matches('"').count() % 2 == 0
}

fn is_token(name: &str) -> bool {
    let is_char = |it: char| it.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(it);
    !name.is_empty() && name.chars().all(is_char)
}

/// RFC 9110 §5.5: visible characters, blanks, and bytes above ASCII.
fn is_field_char(it: char) -> bool {
    it == '\t' || it >= ' ' && it != '\u{7f}'
}
