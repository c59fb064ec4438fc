//! YAML into nodes that know their lines. JSON is YAML, so it is read too.

use std::{collections::HashMap, path::Path, sync::Arc};

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::{
    node::{Entry, Node, Value},
    origin::Origin,
    problem::Problem,
};

/// Bounds for files that were not written by hand: aliases of aliases grow exponentially, brackets nest endlessly.
const NODES_MAX: usize = 200_000;
const DEPTH_MAX: usize = 64;

/// Reads one YAML document; nothing at all gives an empty node.
pub(crate) fn parse(text: &str, file: &Arc<Path>) -> Result<Node, Vec<Problem>> {
    let origin = |line| Origin::File { file: Arc::clone(file), line };
    let mut builder = Builder::new(text, &origin);
    let outcome = builder.document();
    match outcome {
        Ok(node) if builder.problems.is_empty() => Ok(node),
        Ok(_) => Err(builder.problems),
        Err(problem) => {
            builder.problems.push(problem);
            Err(builder.problems)
        }
    }
}

/// Reads a value given in one line: `[…]` and `{…}` as YAML, anything else as the text that it is.
pub(crate) fn inline(text: &str, origin: &Origin) -> Result<Node, String> {
    if !text.starts_with(['[', '{']) {
        return Ok(Node {
            value: Value::Scalar { text: text.to_owned(), plain: true },
            origin: origin.clone(),
        });
    }
    let same = |_| origin.clone();
    let mut builder = Builder::new(text, &same);
    let node = builder.document().map_err(|problem| problem.message().to_owned())?;
    match builder.problems.first() {
        Some(problem) => Err(problem.message().to_owned()),
        None => Ok(node),
    }
}

struct Builder<'a> {
    parser: Parser<'a, StrInput<'a>>,
    origin: &'a dyn Fn(usize) -> Origin,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    problems: Vec<Problem>,
}

impl<'a> Builder<'a> {
    fn new(text: &'a str, origin: &'a dyn Fn(usize) -> Origin) -> Self {
        let parser = Parser::new_from_str(text);
        Self { parser, origin, anchors: HashMap::new(), nodes: 0, problems: Vec::new() }
    }

    fn document(&mut self) -> Result<Node, Problem> {
        let mut root = Node { value: Value::Null, origin: (self.origin)(0) };
        let mut documents = 0;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(_) if documents > 0 => {
                    return Err(
                        self.problem(&span, "a second document (`---`) is not read; keep everything in one")
                    );
                }
                Event::DocumentStart(_) => documents += 1,
                other => root = self.node(other, &span, 0)?,
            }
        }
    }

    fn next(&mut self) -> Result<(Event<'a>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(self.syntax(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<Node, Problem> {
        self.nodes += 1;
        if depth > DEPTH_MAX || self.nodes > NODES_MAX {
            return Err(self.problem(span, "too deep or too large for settings"));
        }
        let origin = (self.origin)(span.start.line());
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let null = plain && matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL");
                let scalar = Value::Scalar { text: text.into_owned(), plain };
                (if null { Value::Null } else { scalar }, anchor)
            }
            Event::SequenceStart(anchor, _) => (self.list(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.map(depth)?, anchor),
            Event::Alias(anchor) => return self.alias(anchor, span),
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd
            | Event::SequenceEnd
            | Event::MappingEnd => return Err(self.problem(span, "a value is missing")),
        };
        let node = Node { value, origin };
        if anchor != 0 {
            let size = count(&node);
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Value, Problem> {
        let mut nodes = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Value::List(nodes)),
                (event, span) => nodes.push(self.node(event, &span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Value, Problem> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(Value::Map(entries)),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(self.problem(&span, "a key must be a plain text")),
            };
            let (event, value_span) = self.next()?;
            let node = self.node(event, &value_span, depth + 1)?;
            if key == "<<" {
                self.problems
                    .push(self.problem(&span, "merge keys (`<<`) are not supported; repeat the keys"));
            } else if let Some(first) = entries.iter().find(|entry| entry.key == key) {
                let message = format!("`{key}` stands here twice; the first is at {}", first.origin);
                self.problems.push(self.problem(&span, message));
            } else {
                entries.push(Entry { key, origin: (self.origin)(span.start.line()), node });
            }
        }
    }

    fn alias(&mut self, anchor: usize, span: &Span) -> Result<Node, Problem> {
        let Some((node, size)) = self.anchors.get(&anchor) else {
            return Err(self.problem(span, "an alias names an anchor that does not stand before it"));
        };
        self.nodes += size;
        if self.nodes > NODES_MAX {
            return Err(self.problem(span, "too large for settings: aliases repeat too much"));
        }
        Ok(node.clone())
    }

    fn problem(&self, span: &Span, message: impl Into<String>) -> Problem {
        Problem::new((self.origin)(span.start.line()), "", message)
    }

    fn syntax(&self, error: &ScanError) -> Problem {
        let message = format!("not valid YAML: {} (column {})", error.info(), error.marker().col() + 1);
        Problem::new((self.origin)(error.marker().line()), "", message)
    }
}

fn count(node: &Node) -> usize {
    match &node.value {
        Value::Null | Value::Scalar { .. } => 1,
        Value::List(nodes) => 1 + nodes.iter().map(count).sum::<usize>(),
        Value::Map(entries) => 1 + entries.iter().map(|entry| count(&entry.node)).sum::<usize>(),
    }
}
