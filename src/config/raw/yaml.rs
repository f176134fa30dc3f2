//! YAML text to a [`Node`] tree, on the parser events.
//!
//! It is bounded whatever the text says: at most [`MAX_NODES`] nodes, those that aliases repeat
//! included, and at most [`MAX_DEPTH`] levels. So recursion over the tree is safe everywhere else.
//! A syntax error ends the reading, since what follows it has no certain meaning.

use std::collections::HashMap;

use serde_saphyr::granit_parser::{
    ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span as Place, StrInput, options,
};

use super::{Entry, Node, Scalar, Span, Value, syntax};
use crate::config::report::{Problem, Problems};

/// Ten thousand peers in their long form are 70,000 nodes.
const MAX_NODES: usize = 1_000_000;
/// The deepest configuration that means anything has nine levels.
const MAX_DEPTH: usize = 64;

/// Reads the one document of `text`; `None` where a problem was reported.
pub(in crate::config) fn read(text: &str, problems: &Problems) -> Option<Node> {
    let mut builder = Builder::default();
    match builder.run(parser(text)) {
        Ok(root) => Some(root),
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

/// The tree so far: finished anchors, and the collections that are still open.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    nodes: usize,
}

/// A list or map whose end is still to come.
struct Open {
    items: Items,
    start: usize,
    anchor: usize,
}

enum Items {
    List(Vec<Node>),
    /// The entries, and a key that waits for its value.
    Map(Vec<Entry>, Option<(String, Span)>),
}

type Step = Result<(), Box<Problem>>;

impl Builder {
    fn run<'a>(&mut self, events: Parser<'a, StrInput<'a>>) -> Result<Node, Box<Problem>> {
        let mut documents = 0;
        for event in events {
            let (event, place) = event.map_err(|error| Box::new(scan_problem(&error)))?;
            if let Event::DocumentStart(..) = event {
                documents += 1;
                refuse_second(documents, place)?;
            }
            self.take(event, place)?;
        }
        self.root
            .take()
            .filter(|root| !root.is_null())
            .ok_or_else(|| Box::new(empty()))
    }

    fn take(&mut self, event: Event<'_>, place: Place) -> Step {
        refuse_tag(&place)?;
        match event {
            Event::Scalar(text, style, anchor, _) => {
                self.scalar(text.into_owned(), style, anchor, place)
            }
            Event::SequenceStart(_, anchor, _) => {
                self.start(Items::List(Vec::new()), anchor, place)
            }
            Event::MappingStart(_, anchor, _) => {
                self.start(Items::Map(Vec::new(), None), anchor, place)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(place),
            Event::Alias(anchor) => self.alias(anchor, place),
            _ => Ok(()),
        }
    }

    fn scalar(&mut self, text: String, style: ScalarStyle, anchor: usize, place: Place) -> Step {
        let plain = style == ScalarStyle::Plain;
        let value = Value::Scalar(Scalar { text, plain });
        self.finish(
            Node {
                value,
                span: span(place.start, place.end),
                name: None,
            },
            anchor,
        )
    }

    fn start(&mut self, items: Items, anchor: usize, place: Place) -> Step {
        if self.open.len() >= MAX_DEPTH {
            return Err(Box::new(too_deep(span(place.start, place.end))));
        }
        self.open.push(Open {
            items,
            start: offset(place.start),
            anchor,
        });
        Ok(())
    }

    fn end(&mut self, place: Place) -> Step {
        let Some(open) = self.open.pop() else {
            return Ok(());
        };
        let value = match open.items {
            Items::List(items) => Value::List(items),
            Items::Map(entries, _) => Value::Map(entries),
        };
        let end = offset(place.end).max(open.start);
        self.finish(
            Node {
                value,
                span: Span {
                    start: open.start,
                    end,
                },
                name: None,
            },
            open.anchor,
        )
    }

    fn alias(&mut self, anchor: usize, place: Place) -> Step {
        let at = span(place.start, place.end);
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            return Err(Box::new(endless(at)));
        };
        let (size, height) = weigh(&node);
        if self.open.len() + height > MAX_DEPTH {
            return Err(Box::new(too_deep(at)));
        }
        self.spend(size, at)?;
        self.place(node)
    }

    /// Remembers a finished node if it has an anchor, and puts it where it belongs.
    fn finish(&mut self, node: Node, anchor: usize) -> Step {
        self.spend(1, node.span)?;
        if anchor != 0 {
            // The copy counts: anchors inside anchors would else cost memory for nothing.
            self.spend(weigh(&node).0, node.span)?;
            self.anchors.insert(anchor, node.clone());
        }
        self.place(node)
    }

    fn place(&mut self, node: Node) -> Step {
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Items::List(items)) => items.push(node),
            Some(Items::Map(entries, waiting)) => match waiting.take() {
                None => *waiting = Some(key(node)?),
                Some((key, key_span)) => {
                    let value = Node {
                        name: Some(key_span),
                        ..node
                    };
                    entries.push(Entry {
                        key,
                        key_span,
                        value,
                    });
                }
            },
        }
        Ok(())
    }

    fn spend(&mut self, nodes: usize, at: Span) -> Step {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            return Err(Box::new(too_many(at)));
        }
        Ok(())
    }
}

/// Nodes in all, and levels; both at least 1.
fn weigh(node: &Node) -> (usize, usize) {
    let add = |(size, height): (usize, usize), child: &Node| {
        let (more, below) = weigh(child);
        (size + more, height.max(below + 1))
    };
    match &node.value {
        Value::Scalar(_) => (1, 1),
        Value::List(items) => items.iter().fold((1, 1), add),
        Value::Map(entries) => entries.iter().map(|entry| &entry.value).fold((1, 1), add),
    }
}

fn key(node: Node) -> Result<(String, Span), Box<Problem>> {
    match node.value {
        Value::Scalar(scalar) if !scalar.text.is_empty() => Ok((scalar.text, node.span)),
        Value::Scalar(_) => Err(Box::new(
            Problem::error("a key is missing before `:`", node.span).help("write `key: value`"),
        )),
        Value::List(_) | Value::Map(_) => Err(Box::new(
            Problem::error("a list or map cannot be a key", node.span)
                .help("write `key: value`; a text that begins with `[` or `{` needs quotes"),
        )),
    }
}

fn span(start: Marker, end: Marker) -> Span {
    let start = offset(start);
    Span {
        start,
        end: offset(end).max(start),
    }
}

/// Byte offsets are always there when the input is a `str`.
fn offset(marker: Marker) -> usize {
    marker.byte_offset().unwrap_or_default()
}

fn refuse_second(documents: usize, place: Place) -> Step {
    if documents < 2 {
        return Ok(());
    }
    let problem = Problem::error(
        "a second document begins here",
        span(place.start, place.end),
    );
    Err(Box::new(problem.help(
        "a file is one configuration: remove the `---` and what follows it",
    )))
}

fn refuse_tag(place: &Place) -> Step {
    match place.tag_span() {
        None => Ok(()),
        Some(tag) => Err(Box::new(
            Problem::error("YAML tags are not used here", span(tag.start, tag.end))
                .help("remove the tag; a text that begins with `!` needs quotes"),
        )),
    }
}

fn scan_problem(error: &ScanError) -> Problem {
    if *error.kind() == ErrorKind::RecursionLimitExceeded {
        let start = offset(*error.marker());
        return too_deep(Span { start, end: start });
    }
    syntax::problem(error)
}

fn empty() -> Problem {
    Problem::whole("the configuration is empty")
        .help("at least `listeners`, `routes` and `upstreams` are needed")
}

fn endless(at: Span) -> Problem {
    Problem::error("this alias stands for something that contains it", at)
        .help("write the value out")
}

fn too_deep(at: Span) -> Problem {
    Problem::error(format!("more than {MAX_DEPTH} levels of nesting"), at)
        .help("no configuration needs more than ten; look for brackets that are not closed")
}

fn too_many(at: Span) -> Problem {
    Problem::error(
        format!("more than {MAX_NODES} values, repeated aliases included"),
        at,
    )
    .help("split the configuration, or use fewer aliases")
}
