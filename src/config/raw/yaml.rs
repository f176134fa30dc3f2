//! Builds a tree of [`YamlNode`]s from parser events.
//!
//! The tree is bounded for any text: at most [`MAX_NODES`] nodes, with the copies that aliases make, and
//! at most [`MAX_DEPTH`] levels. Recursion over the tree is therefore safe everywhere. Parsing ends at
//! the first syntax error, since the meaning of the text after it is unclear.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{
    ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span as EventSpan, StrInput, options,
};

use super::{YamlEntry, YamlNode, YamlScalar, YamlValue, syntax_errors};
use crate::config::report::{Problem, Problems};
use crate::config::span::Span;

/// 10,000 peers in their long form are 70,000 nodes.
const MAX_NODES: usize = 1_000_000;
/// The deepest valid configuration has nine levels.
const MAX_DEPTH: usize = 64;

/// The problem with a text that has no value.
pub(in crate::config) struct EmptyDocument {
    pub(in crate::config) message: &'static str,
    pub(in crate::config) help: &'static str,
}

/// Parses the only document of `text`; `None` after a problem was reported.
pub(in crate::config) fn read(
    text: &str,
    empty: &EmptyDocument,
    problems: &Problems,
) -> Option<YamlNode> {
    let mut builder = TreeBuilder {
        text,
        ..TreeBuilder::default()
    };
    match builder.run(parser(text)) {
        Ok(Some(root)) => Some(root),
        Ok(None) => {
            problems.add(Problem::for_file(empty.message).help(empty.help));
            None
        }
        Err(problem) => {
            problems.add(problem);
            None
        }
    }
}

fn parser(text: &str) -> Parser<'_, StrInput<'_>> {
    let limits = options! {
        emit_comments: false,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    Parser::new_from_str_with_options(text, limits)
}

/// The tree so far: anchors, and the collections that are still open.
#[derive(Default)]
struct TreeBuilder<'t> {
    /// For explanations of syntax errors.
    text: &'t str,
    open: Vec<OpenCollection>,
    anchors: HashMap<usize, YamlNode>,
    root: Option<YamlNode>,
    nodes: usize,
}

/// A list or map without its end event so far.
struct OpenCollection {
    items: OpenItems,
    start: usize,
    anchor: usize,
}

enum OpenItems {
    List(Vec<YamlNode>),
    /// The entries, and a key without its value so far.
    Map(Vec<YamlEntry>, Option<(String, Span)>),
}

type BuildResult = Result<(), Box<Problem>>;

impl TreeBuilder<'_> {
    /// The value of the document; `None`: it has none.
    fn run<'a>(
        &mut self,
        events: Parser<'a, StrInput<'a>>,
    ) -> Result<Option<YamlNode>, Box<Problem>> {
        let mut documents = 0;
        for event in events {
            let (event, at) = event.map_err(|error| Box::new(scan_problem(&error, self.text)))?;
            if let Event::DocumentStart(..) = event {
                documents += 1;
                refuse_second_document(documents, at)?;
            }
            self.on_event(event, at)?;
        }
        Ok(self.root.take().filter(|root| !root.is_null()))
    }

    fn on_event(&mut self, event: Event<'_>, at: EventSpan) -> BuildResult {
        refuse_tag(&at)?;
        match event {
            Event::Scalar(text, style, anchor, _) => {
                self.on_scalar(text.into_owned(), style, anchor, at)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open_collection(OpenItems::List(Vec::new()), anchor, at)
            }
            Event::MappingStart(_, anchor, _) => {
                self.open_collection(OpenItems::Map(Vec::new(), None), anchor, at)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close_collection(at),
            Event::Alias(anchor) => self.on_alias(anchor, at),
            _ => Ok(()),
        }
    }

    fn on_scalar(
        &mut self,
        text: String,
        style: ScalarStyle,
        anchor: usize,
        at: EventSpan,
    ) -> BuildResult {
        let plain = style == ScalarStyle::Plain;
        let value = YamlValue::Scalar(YamlScalar { text, plain });
        self.finish_node(
            YamlNode {
                value,
                span: span(at.start, at.end),
                key_span: None,
            },
            anchor,
        )
    }

    fn open_collection(&mut self, items: OpenItems, anchor: usize, at: EventSpan) -> BuildResult {
        if self.open.len() >= MAX_DEPTH {
            return Err(Box::new(too_deep(span(at.start, at.end))));
        }
        self.open.push(OpenCollection {
            items,
            start: offset(at.start),
            anchor,
        });
        Ok(())
    }

    fn close_collection(&mut self, at: EventSpan) -> BuildResult {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let value = match open.items {
            OpenItems::List(items) => YamlValue::List(items),
            OpenItems::Map(entries, _) => YamlValue::Map(entries),
        };
        let end = offset(at.end).max(open.start);
        self.finish_node(
            YamlNode {
                value,
                span: Span {
                    start: open.start,
                    end,
                },
                key_span: None,
            },
            open.anchor,
        )
    }

    fn on_alias(&mut self, anchor: usize, at: EventSpan) -> BuildResult {
        let at = span(at.start, at.end);
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return Err(Box::new(recursive_alias(at)));
        };
        let (size, height) = size_and_depth(&node);
        if self.open.len() + height > MAX_DEPTH {
            return Err(Box::new(too_deep(at)));
        }
        self.charge_nodes(size, at)?;
        self.attach(node)
    }

    /// Stores a node if it has an anchor, and attaches it.
    fn finish_node(&mut self, node: YamlNode, anchor: usize) -> BuildResult {
        self.charge_nodes(1, node.span)?;
        if anchor != 0 {
            // The copy counts, too: nested anchors could otherwise use unbounded memory.
            self.charge_nodes(size_and_depth(&node).0, node.span)?;
            self.anchors.insert(anchor, node.clone());
        }
        self.attach(node)
    }

    /// Adds a node to the innermost open collection, or makes it the root.
    fn attach(&mut self, node: YamlNode) -> BuildResult {
        let text = self.text;
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(OpenItems::List(items)) => items.push(node),
            Some(OpenItems::Map(entries, waiting)) => match waiting.take() {
                None => *waiting = Some(map_key(node, text)?),
                Some((key, key_span)) => {
                    let value = YamlNode {
                        key_span: Some(key_span),
                        ..node
                    };
                    entries.push(YamlEntry {
                        key,
                        key_span,
                        value,
                    });
                }
            },
        }
        Ok(())
    }

    fn charge_nodes(&mut self, nodes: usize, at: Span) -> BuildResult {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err(Box::new(too_many(at)));
        }
        Ok(())
    }
}

/// The number of nodes and of levels; both at least 1.
fn size_and_depth(node: &YamlNode) -> (usize, usize) {
    let add = |(size, height): (usize, usize), child: &YamlNode| {
        let (more, below) = size_and_depth(child);
        (size + more, height.max(below + 1))
    };
    match &node.value {
        YamlValue::Scalar(_) => (1, 1),
        YamlValue::List(items) => items.iter().fold((1, 1), add),
        YamlValue::Map(entries) => entries.iter().map(|entry| &entry.value).fold((1, 1), add),
    }
}

fn map_key(node: YamlNode, text: &str) -> Result<(String, Span), Box<Problem>> {
    match node.value {
        YamlValue::Scalar(scalar) if !scalar.text.is_empty() => Ok((scalar.text, node.span)),
        YamlValue::Scalar(_) => Err(Box::new(
            Problem::error("a key is missing before `:`", node.span).help("write `key: value`"),
        )),
        YamlValue::List(_) | YamlValue::Map(_) => {
            let address = syntax_errors::unquoted_ipv6(text, node.span.start);
            Err(Box::new(address.unwrap_or_else(|| {
                Problem::error("a list or map cannot be a key", node.span)
                    .help("write `key: value`; a text that begins with `[` or `{` needs quotes")
            })))
        }
    }
}

fn span(start: Marker, end: Marker) -> Span {
    let start = offset(start);
    Span {
        start,
        end: offset(end).max(start),
    }
}

/// Byte offset of a marker; always present for `str` input.
fn offset(marker: Marker) -> usize {
    marker.byte_offset().unwrap_or_default()
}

fn refuse_second_document(documents: usize, at: EventSpan) -> BuildResult {
    if documents < 2 {
        return Ok(());
    }
    let problem = Problem::error("a second document begins here", span(at.start, at.end));
    Err(Box::new(problem.help(
        "a file is one configuration: remove the `---` and what follows it",
    )))
}

fn refuse_tag(at: &EventSpan) -> BuildResult {
    match at.tag_span() {
        None => Ok(()),
        Some(tag) => Err(Box::new(
            Problem::error("YAML tags are not supported", span(tag.start, tag.end))
                .help("remove the tag; a text that begins with `!` needs quotes"),
        )),
    }
}

fn scan_problem(error: &ScanError, text: &str) -> Problem {
    if *error.kind() == ErrorKind::RecursionLimitExceeded {
        let start = offset(*error.marker());
        return too_deep(Span { start, end: start });
    }
    syntax_errors::explain(error, text)
}

fn recursive_alias(at: Span) -> Problem {
    Problem::error("this alias is inside its own anchor", at).help("write the value out")
}

fn too_deep(at: Span) -> Problem {
    Problem::error(format!("more than {MAX_DEPTH} levels of nesting"), at)
        .help("look for brackets that are not closed")
}

fn too_many(at: Span) -> Problem {
    Problem::error(
        format!("more than {MAX_NODES} values, repeated aliases included"),
        at,
    )
    .help("split the configuration, or use fewer aliases")
}
