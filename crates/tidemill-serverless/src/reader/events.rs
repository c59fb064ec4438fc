//! `emit` and `listen`.

use serde_json::Value;
use tidemill_workflow::source::{Kind, Node};
use tidemill_workflow::{BoundFilter, ProblemCode};

use super::fields::{Fields, Reader};
use super::tasks::list;
use super::{TASK_VARIABLES, data};
use crate::document::{
    Action, Attribute, Correlation, EachEvent, EventFilter, Listen, Read, Strategy, Until,
};
use crate::dynamic::Dynamic;
use crate::machine::signal_of;

/// The longest type of an event that is listened for.
const LONGEST_TYPE: usize = 190;

pub(super) fn emit(reader: &mut Reader<'_>, node: &Node) -> Option<Action> {
    let fields = reader.object(node, &["event"], &[])?;
    reader.required(&fields, "event", |reader, node| {
        let fields = reader.object(node, &["with"], &[])?;
        reader.required(&fields, "with", |reader, node| {
            reader.any_object(node)?;
            for name in ["source", "type"] {
                if node.member(name).is_none() {
                    let message = format!("`{name}` is missing; an event has a source and a type");
                    reader.problem(ProblemCode::MissingMember, message);
                }
            }
            attribute_names(reader, node);
            reader.template(node, TASK_VARIABLES).map(Action::Emit)
        })
    })
}

/// Names of attributes as CloudEvents have them.
fn attribute_names(reader: &mut Reader<'_>, node: &Node) {
    reader.each_member(node, |reader, name, _| {
        let fits = !name.is_empty()
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !fits {
            reader.bad_value(format!("`{name}` is no name of an attribute: lower-case letters and digits"));
        }
    });
}

pub(super) fn listen(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Action> {
    let listened = reader.required(fields, "listen", |reader, node| {
        let fields = reader.object(node, &["to", "read"], &[])?;
        let read = reader.optional(&fields, "read", read).unwrap_or_default();
        let (strategy, filters, until) = reader.required(&fields, "to", consumption)?;
        Some(Listen { strategy, filters, until, read, each: None })
    });
    let had = fields.has("foreach");
    let each = reader.optional(fields, "foreach", each);
    let listened = listened?;
    if had && each.is_none() {
        return None;
    }
    Some(Action::Listen(Box::new(Listen { each, ..listened })))
}

fn read(reader: &mut Reader<'_>, node: &Node) -> Option<Read> {
    match reader.word(node, &["data", "envelope", "raw"])? {
        "envelope" => Some(Read::Envelope),
        "data" => Some(Read::Data),
        _ => {
            let message = "`raw` is not supported; events are JSON: read `data` or `envelope`".to_owned();
            reader.problem(ProblemCode::NotSupported, message);
            None
        }
    }
}

/// An event consumption strategy.
fn consumption(reader: &mut Reader<'_>, node: &Node) -> Option<(Strategy, Vec<EventFilter>, Until)> {
    let fields = reader.object(node, &["one", "any", "all", "until"], &[])?;
    let given: Vec<&str> = ["one", "any", "all"].into_iter().filter(|name| fields.has(name)).collect();
    let [kind] = given.as_slice() else {
        reader.bad_value("must be one of one, any and all".to_owned());
        return None;
    };
    let filters = |reader: &mut Reader<'_>, node: &Node| {
        let nodes = reader.array(node)?;
        let each = nodes.iter().enumerate();
        let read =
            each.map(|(at, node)| reader.inside_at(at, |reader| filter(reader, node))).collect::<Vec<_>>();
        read.into_iter().collect::<Option<Vec<_>>>()
    };
    let (strategy, filters) = match *kind {
        "one" => (
            Strategy::One,
            reader.optional(&fields, "one", |reader, node| Some(vec![filter(reader, node)?]))?,
        ),
        "any" => (Strategy::Any, reader.optional(&fields, "any", filters)?),
        _ => (Strategy::All, reader.optional(&fields, "all", filters)?),
    };
    if filters.is_empty() {
        let message = "an empty list means every event, which is not supported; name the types".to_owned();
        reader.inside(kind, |reader| reader.problem(ProblemCode::NotSupported, message));
    }
    let had = fields.has("until");
    if had && strategy != Strategy::Any {
        reader.inside("until", |reader| reader.bad_value("has a meaning with `any` only".to_owned()));
    }
    let until = reader.optional(&fields, "until", until);
    if had && until.is_none() {
        return None;
    }
    Some((strategy, filters, until.unwrap_or_default()))
}

fn until(reader: &mut Reader<'_>, node: &Node) -> Option<Until> {
    if matches!(node.kind, Kind::Scalar(_)) {
        return reader.expression(node, TASK_VARIABLES).map(Until::Condition);
    }
    if node.member("until").is_some() {
        reader.inside("until", |reader| reader.bad_value("cannot stand inside of `until`".to_owned()));
        return None;
    }
    let (strategy, filters, _) = consumption(reader, node)?;
    Some(Until::Events(strategy, filters))
}

fn filter(reader: &mut Reader<'_>, node: &Node) -> Option<EventFilter> {
    let fields = reader.object(node, &["with", "correlate"], &[])?;
    let kind = node.member("with").and_then(|with| with.value.member("type"));
    let kind = kind.and_then(|kind| match &kind.value.kind {
        Kind::Scalar(Value::String(text)) if !text.contains("${") => Some(text.clone()),
        _ => None,
    });
    let Some(kind) = kind else {
        let message = "must hold a constant `type`, under which the event is waited for".to_owned();
        reader.inside("with", |reader| reader.problem(ProblemCode::NotSupported, message));
        return None;
    };
    if kind.len() > LONGEST_TYPE || kind.is_empty() || kind.contains(char::is_whitespace) {
        let message = format!("`type` must be 1 to {LONGEST_TYPE} characters, none of them a space");
        reader.inside("with", |reader| reader.bad_value(message));
    }
    let attributes = reader.required(&fields, "with", |reader, node| {
        attribute_names(reader, node);
        let mut attributes = Vec::new();
        reader.each_member(node, |reader, name, node| {
            if name != "type"
                && let Some(attribute) = attribute(reader, node)
            {
                attributes.push((name.to_owned(), attribute));
            }
        })?;
        Some(attributes)
    })?;
    let mut correlations = Vec::new();
    reader.optional(&fields, "correlate", |reader, node| {
        reader.each_member(node, |reader, name, node| correlations.extend(correlation(reader, name, node)))
    });
    Some(EventFilter { signal: signal_of(&kind), attributes, correlations })
}

fn attribute(reader: &mut Reader<'_>, node: &Node) -> Option<Attribute> {
    let compiled = reader.template(node, TASK_VARIABLES)?;
    Some(match compiled.constant() {
        // text without a sign of regular expressions is compared as it is
        Some(Value::String(text)) if text.contains(['^', '$', '*', '+', '[', '(', '|', '\\']) => {
            match regex::Regex::new(&format!("^(?:{text})$")) {
                Ok(pattern) => Attribute::Matches(pattern),
                Err(_) => Attribute::Is(text.as_str().into()),
            }
        }
        Some(value) => Attribute::Is(value.clone()),
        None => Attribute::Fits(compiled),
    })
}

fn correlation(reader: &mut Reader<'_>, name: &str, node: &Node) -> Option<Correlation> {
    let fields = reader.object(node, &["from", "expect"], &[])?;
    let from: Option<BoundFilter> =
        reader.required(&fields, "from", |reader, node| reader.expression(node, TASK_VARIABLES));
    let expect: Option<Dynamic> =
        reader.optional(&fields, "expect", |reader, node| reader.template(node, TASK_VARIABLES));
    Some(Correlation { name: name.to_owned(), from: from?, expect })
}

fn each(reader: &mut Reader<'_>, node: &Node) -> Option<EachEvent> {
    let fields = reader.object(node, &["item", "at", "do", "output", "export"], &[])?;
    let item = reader.optional(&fields, "item", Reader::variable).unwrap_or_else(|| "item".to_owned());
    let at = reader.optional(&fields, "at", Reader::variable).unwrap_or_else(|| "index".to_owned());
    reader.with_local(&[&item, &at], |reader| {
        let tasks = reader.optional(&fields, "do", list).unwrap_or_default();
        let output = reader
            .optional(&fields, "output", |reader, node| data::transform(reader, node, "as", TASK_VARIABLES))
            .unwrap_or_default();
        let export = reader.optional(&fields, "export", data::export).unwrap_or_default();
        Some(EachEvent { item: item.clone(), at: at.clone(), tasks, output, export })
    })
}
