//! Compact dumps of a configuration, with only the fields that differ from a base configuration.
//!
//! Works on the `{:#?}` output, so that new fields need no code here. Each line is `path = value`; a
//! value that is too long for a line is split into its fields. All items of a list and all entries of a
//! map are compared with the first one of the base.

use crate::config::Config;

/// The longest line, in characters, whose value is not split.
const MAX_WIDTH: usize = 110;

/// All fields of `config`.
pub(super) fn all_fields(config: &Config) -> String {
    dump(Some(parse(config)))
}

/// The fields of `config` that differ from `base`.
pub(super) fn changed_fields(config: &Config, base: &Config) -> String {
    dump(parse(config).without(&parse(base)))
}

/// A value of the `{:#?}` output.
#[derive(Clone, PartialEq)]
enum Value {
    /// Text on one line.
    Leaf(String),
    /// A struct, tuple, list or map.
    Group {
        /// The type or variant before the bracket; empty for lists and maps.
        name: String,
        /// `{`, `(` or `[`.
        bracket: char,
        children: Vec<Child>,
    },
}

#[derive(Clone, PartialEq)]
struct Child {
    /// The name of a field, or the key of a map; `None` in lists and tuples.
    label: Option<String>,
    value: Value,
}

fn parse(config: &Config) -> Value {
    let text = format!("{config:#?}");
    let mut lines = text.lines().map(str::trim);
    let first = lines.next().unwrap();
    value(first, &mut lines)
}

fn value<'a>(text: &str, lines: &mut impl Iterator<Item = &'a str>) -> Value {
    let Some((name, bracket)) = opening(text) else {
        return Value::Leaf(text.trim_end_matches(',').to_owned());
    };
    let mut children = Vec::new();
    while let Some(line) = lines
        .next()
        .filter(|line| !line.starts_with(['}', ')', ']']))
    {
        let (label, text) = split_label(line);
        let value = value(text, lines);
        children.push(Child { label, value });
    }
    Value::Group {
        name: name.to_owned(),
        bracket,
        children,
    }
}

/// The name and the bracket of a line that opens a group.
fn opening(text: &str) -> Option<(&str, char)> {
    let bracket = text.chars().last().filter(|c| "{([".contains(*c))?;
    Some((text[..text.len() - 1].trim_end(), bracket))
}

/// `label: value`; the label is a field's name or a quoted key.
fn split_label(line: &str) -> (Option<String>, &str) {
    match line.split_once(": ") {
        Some((label, value)) if is_label(label) => (Some(label.to_owned()), value),
        _ => (None, line),
    }
}

fn is_label(text: &str) -> bool {
    let name = text.trim_matches('"');
    let word = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    !name.is_empty() && name.chars().all(word)
}

impl Value {
    /// The parts that differ from `base`; `None`: no part does.
    fn without(&self, base: &Self) -> Option<Self> {
        let (
            Self::Group {
                name,
                bracket,
                children,
            },
            Self::Group {
                name: base_name,
                children: base_children,
                ..
            },
        ) = (self, base)
        else {
            return (self != base).then(|| self.clone());
        };
        if self == base {
            return None;
        }
        if name != base_name {
            return Some(self.clone());
        }
        let is_collection = name.is_empty();
        let children = children.iter().filter_map(|child| {
            let same = |other: &&Child| is_collection || other.label == child.label;
            let rest = match base_children.iter().find(same) {
                Some(other) => child.value.without(&other.value),
                None => Some(child.value.clone()),
            };
            // Items equal to the base stay as empty ones, so that the number of items is visible.
            let rest = rest.or_else(|| is_collection.then(|| child.value.emptied()));
            rest.map(|value| Child {
                label: child.label.clone(),
                value,
            })
        });
        Some(Self::Group {
            name: name.clone(),
            bracket: *bracket,
            children: children.collect(),
        })
    }

    /// The group without its children; a leaf as it is.
    fn emptied(&self) -> Self {
        match self {
            Self::Leaf(text) => Self::Leaf(text.clone()),
            Self::Group { name, bracket, .. } => Self::Group {
                name: name.clone(),
                bracket: *bracket,
                children: Vec::new(),
            },
        }
    }

    /// The value on one line.
    fn line(&self) -> String {
        let (name, bracket, children) = match self {
            Self::Leaf(text) => return text.clone(),
            Self::Group {
                name,
                bracket,
                children,
            } => (name, bracket, children),
        };
        let children = children.iter().map(|child| match &child.label {
            Some(label) => format!("{label}: {}", child.value.line()),
            None => child.value.line(),
        });
        let children = children.collect::<Vec<_>>().join(", ");
        match bracket {
            '(' => format!("{name}({children})"),
            '[' => format!("[{children}]"),
            _ if name.is_empty() => format!("{{{children}}}"),
            _ if children.is_empty() => format!("{name} {{}}"),
            _ => format!("{name} {{ {children} }}"),
        }
    }

    fn write(&self, path: &str, lines: &mut String) {
        let line = format!("{path} = {}\n", self.line());
        let fits = line.chars().count() <= MAX_WIDTH;
        match self {
            Self::Group {
                name,
                bracket,
                children,
            } if !fits && !children.is_empty() => {
                for (index, child) in children.iter().enumerate() {
                    let path = match (&child.label, bracket, name.as_str()) {
                        (Some(label), ..) => format!("{path}.{}", label.trim_matches('"')),
                        (None, '[', _) => format!("{path}[{index}]"),
                        (None, _, "Some") => path.to_owned(),
                        (None, _, variant) => format!("{path}.{variant}"),
                    };
                    child.value.write(&path, lines);
                }
            }
            _ => lines.push_str(&line),
        }
    }
}

fn dump(value: Option<Value>) -> String {
    let mut lines = String::new();
    if let Some(Value::Group { children, .. }) = value {
        for child in children {
            child.value.write(&child.label.unwrap(), &mut lines);
        }
    }
    lines
}
