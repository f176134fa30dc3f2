//! What a section of the configuration is: its name, its place and its keys.

/// A kind of map in the configuration; each is declared above its reader, in a file of `sections/`, and named in `nested`
/// of the section that it is in.
#[derive(Debug)]
pub(super) struct SectionSchema {
    /// Its name in messages, as in "unknown key in {title}".
    pub(super) title: &'static str,
    /// Its place: `NAME` is any name, `[]` any item of a list.
    pub(super) path: &'static str,
    /// A short valid value, for the help of a message.
    pub(super) example: &'static str,
    pub(super) keys: &'static [&'static str],
    /// The sections in it, each under one of `keys`.
    pub(super) nested: &'static [&'static Self],
    /// Keys and values that have been renamed: old, new. A value is written `key: value`.
    pub(super) renamed: &'static [(&'static str, &'static str)],
}

impl SectionSchema {
    /// No keys: the values of fields that a declaration leaves out.
    pub(super) const EMPTY: Self = Self {
        title: "",
        path: "",
        example: "",
        keys: &[],
        nested: &[],
        renamed: &[],
    };

    /// This section and those in it, at any depth.
    pub(super) fn with_nested(&'static self) -> impl Iterator<Item = &'static Self> {
        let mut left = vec![self];
        std::iter::from_fn(move || {
            let next = left.pop()?;
            left.extend(next.nested);
            Some(next)
        })
    }

    /// The new name of a key, or of a `key: value`, that has been renamed.
    pub(super) fn new_name(&self, old: &str) -> Option<&'static str> {
        let found = self.renamed.iter().find(|(name, _)| *name == old);
        found.map(|(_, new)| *new)
    }
}

/// What to say of a key or value for something that does not exist here, which would look like a misspelling.
pub(super) fn unsupported(word: &str) -> Option<&'static str> {
    const HTTP3: &str = "HTTP/3 is not supported, HTTP/2 is";
    let words = [
        ("h3", HTTP3),
        ("http3", HTTP3),
        ("http_3", HTTP3),
        ("quic", HTTP3),
    ];
    let word = word.to_lowercase().replace(['-', '/'], "_");
    let found = words.iter().find(|(name, _)| *name == word);
    found.map(|(_, advice)| *advice)
}

/// The candidate of which `word` is probably a misspelling.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // The distance costs the product of both lengths; no key is longer.
    const MAX: usize = 64;
    let word = Some(word)
        .filter(|word| word.len() <= MAX)?
        .to_lowercase()
        .replace('-', "_");
    let bound = (word.chars().count() / 3).clamp(1, 3);
    let distance = |candidate: &str| {
        strsim::damerau_levenshtein(&word, &candidate.to_lowercase().replace('-', "_"))
    };
    let near = candidates
        .into_iter()
        .filter(|candidate| candidate.len().abs_diff(word.len()) <= bound)
        .map(|candidate| (distance(candidate), candidate));
    near.filter(|(distance, _)| *distance <= bound)
        .min()
        .map(|(_, candidate)| candidate)
}
