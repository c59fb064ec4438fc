//! YAML with places: one document, the core schema, aliases bounded by what they expand to.

use std::borrow::Cow;
use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput, Tag};
use serde_json::Value;

use super::{DEPTH, Kind, Member, Node, Place, Refusal, VALUES};

pub(super) fn read(text: &str) -> Result<Node, Refusal> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        left: VALUES,
        last: Place { line: 1, column: 1 },
    };
    reader.document()
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    /// Values by anchor, with how many values each holds.
    anchors: HashMap<usize, (Node, usize)>,
    /// Values that may still come.
    left: usize,
    last: Place,
}

fn place(marker: &Marker) -> Place {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Place { line: number(marker.line()).max(1), column: number(marker.col()).saturating_add(1) }
}

fn syntax(error: &ScanError) -> Refusal {
    Refusal::syntax(place(error.marker()), format!("not YAML: {}", error.info()))
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Refusal> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => {
                self.last = place(&span.start);
                Ok((event, span))
            }
            Some(Err(error)) => Err(syntax(&error)),
            None => Err(Refusal::syntax(self.last, "the text ends too early")),
        }
    }

    fn document(&mut self) -> Result<Node, Refusal> {
        loop {
            match self.next()? {
                (Event::StreamStart | Event::DocumentStart(_) | Event::Nothing, _) => {}
                (Event::StreamEnd, _) => return Err(Refusal::syntax(self.last, "the text is empty")),
                (event, span) => {
                    let node = self.node(event, span, DEPTH)?;
                    return self.end().map(|()| node);
                }
            }
        }
    }

    fn end(&mut self) -> Result<(), Refusal> {
        loop {
            match self.next()? {
                (Event::DocumentEnd | Event::Nothing, _) => {}
                (Event::StreamEnd, _) => return Ok(()),
                _ => return Err(Refusal::syntax(self.last, "a second document; a file holds one workflow")),
            }
        }
    }

    fn node(&mut self, event: Event<'t>, span: Span, depth: usize) -> Result<Node, Refusal> {
        let place = place(&span.start);
        self.count(1, place)?;
        if depth == 0 {
            return Err(Refusal::too_large(place, format!("nested more than {DEPTH} deep")));
        }
        let before = self.left;
        let (anchor, kind) = match event {
            Event::Alias(anchor) => return self.alias(anchor, place),
            Event::Scalar(text, style, anchor, tag) => {
                (anchor, Kind::Scalar(scalar(&text, style, tag.as_deref(), place)?))
            }
            Event::SequenceStart(anchor, tag) => {
                known_tag(tag.as_ref(), "seq", place)?;
                (anchor, self.sequence(depth)?)
            }
            Event::MappingStart(anchor, tag) => {
                known_tag(tag.as_ref(), "map", place)?;
                (anchor, self.mapping(depth)?)
            }
            _ => return Err(Refusal::syntax(place, "a value is missing")),
        };
        let node = Node { place, kind };
        if anchor > 0 {
            let size = before - self.left + 1;
            self.count(size, place)?;
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    fn sequence(&mut self, depth: usize) -> Result<Kind, Refusal> {
        let mut values = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Kind::Array(values)),
                (event, span) => values.push(self.node(event, span, depth - 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Kind, Refusal> {
        let mut members = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let name_place = place(&span.start);
            let name = match event {
                Event::MappingEnd => return Ok(Kind::Object(members)),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(Refusal::syntax(name_place, "the name of a member must be plain text")),
            };
            if name == "<<" {
                return Err(Refusal::syntax(
                    name_place,
                    "merge keys (`<<`) are not part of YAML 1.2; write the members out",
                ));
            }
            let (event, span) = self.next()?;
            let value = self.node(event, span, depth - 1)?;
            members.push(Member { name, place: name_place, value });
        }
    }

    fn alias(&mut self, anchor: usize, place: Place) -> Result<Node, Refusal> {
        let Some((_, size)) = self.anchors.get(&anchor) else {
            return Err(Refusal::syntax(place, "an alias without its anchor, or inside of it"));
        };
        let size = *size;
        self.count(size, place)?;
        self.anchors
            .get(&anchor)
            .map(|(node, _)| Node { place, kind: node.kind.clone() })
            .ok_or_else(|| Refusal::syntax(place, "an alias without its anchor"))
    }

    fn count(&mut self, values: usize, place: Place) -> Result<(), Refusal> {
        match self.left.checked_sub(values) {
            Some(left) => {
                self.left = left;
                Ok(())
            }
            None => Err(Refusal::too_large(
                place,
                format!("more than {VALUES} values, counting what aliases repeat"),
            )),
        }
    }
}

fn known_tag(tag: Option<&Cow<'_, Tag>>, allowed: &str, place: Place) -> Result<(), Refusal> {
    match tag {
        Some(tag) if !(tag.is_yaml_core_schema() && tag.suffix == allowed) => {
            Err(Refusal::syntax(place, format!("the tag `{}{}` is not known here", tag.handle, tag.suffix)))
        }
        _ => Ok(()),
    }
}

/// A scalar by the core schema of YAML 1.2: `yes`, `on`, dates and octals without `0o` are plain strings.
fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>, place: Place) -> Result<Value, Refusal> {
    let plain = matches!(style, ScalarStyle::Plain);
    match tag {
        None if plain => Ok(plain_value(text)),
        None => Ok(Value::from(text)),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(Value::from(text)),
        Some(tag)
            if tag.is_yaml_core_schema() && matches!(&*tag.suffix, "int" | "float" | "bool" | "null") =>
        {
            Ok(plain_value(text))
        }
        Some(tag) => {
            Err(Refusal::syntax(place, format!("the tag `{}{}` is not known here", tag.handle, tag.suffix)))
        }
    }
}

fn plain_value(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    integer(text).or_else(|| float(text)).unwrap_or_else(|| Value::from(text))
}

fn integer(text: &str) -> Option<Value> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Value::from);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().map(Value::from);
    }
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse::<i64>().map(Value::from).or_else(|_| text.parse::<u64>().map(Value::from)).ok()
}

fn float(text: &str) -> Option<Value> {
    let number_like = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E'));
    let has_digit = text.bytes().any(|byte| byte.is_ascii_digit());
    if !number_like || !has_digit {
        return None;
    }
    text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number)
}
