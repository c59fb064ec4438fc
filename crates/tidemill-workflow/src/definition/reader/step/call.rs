//! Calls of tools: by name, with their input, and how they are tried again.

use serde_json::{Map, Value};
use tidemill_protocol::{ErrorClass, RetryPolicy};

use crate::definition::CallDefinition;
use crate::definition::reader::fields::{Fields, MAX_MS, Reader};
use crate::source::{Kind, Node};

/// Members of a call beside the steps.
pub(super) const MEMBERS: [&str; 4] = ["tool", "with", "retry", "timeout_ms"];

/// `{ tool, with, retry, timeout_ms }`
pub(super) fn call(reader: &mut Reader<'_>, node: &Node) -> Option<CallDefinition> {
    let fields = reader.object(node, &MEMBERS, &[])?;
    of_fields(reader, &fields)
}

/// The same amid other members.
pub(super) fn of_fields(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<CallDefinition> {
    let tool = reader.required(fields, "tool", tool);
    let call = CallDefinition {
        tool: tool.clone().unwrap_or_default(),
        with: with(reader, fields),
        retry: reader.optional(fields, "retry", retry).unwrap_or_default(),
        timeout_ms: reader.optional(fields, "timeout_ms", Reader::milliseconds),
    };
    tool.map(|_| call)
}

/// `with`; left out, an empty object.
pub(super) fn with(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Value {
    let with = reader.optional(fields, "with", |_, node| Some(node.to_value()));
    with.unwrap_or_else(|| Value::Object(Map::new()))
}

/// `name` or `name@version`; whether it exists is the catalogue's to say.
pub(super) fn tool(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    const LONGEST: usize = 128;
    let text = reader.text(node)?;
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | '@');
    if (1..=LONGEST).contains(&text.len()) && text.chars().all(valid) && text.matches('@').count() <= 1 {
        return Some(text);
    }
    reader.bad_value(format!(
        "must be the name of a tool, `name` or `name@version`, of at most {LONGEST} characters"
    ));
    None
}

pub(super) fn retry(reader: &mut Reader<'_>, node: &Node) -> Option<RetryPolicy> {
    let fields = reader.object(node, &["max_attempts", "base_ms", "max_ms", "max_elapsed_ms", "on"], &[])?;
    Some(RetryPolicy {
        max_attempts: reader
            .optional(&fields, "max_attempts", |reader, node| reader.small_number(node, 1, 1_000)),
        base_ms: reader.optional(&fields, "base_ms", |reader, node| reader.number(node, 0, MAX_MS)),
        max_ms: reader.optional(&fields, "max_ms", |reader, node| reader.number(node, 0, MAX_MS)),
        max_elapsed_ms: reader
            .optional(&fields, "max_elapsed_ms", |reader, node| reader.number(node, 0, MAX_MS)),
        on: reader.optional(&fields, "on", classes),
    })
}

fn classes(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<ErrorClass>> {
    let Kind::Array(nodes) = &node.kind else {
        reader.bad_value(format!("must be an array of error classes, not {}", node.kind_name()));
        return None;
    };
    let words = ErrorClass::ALL.map(ErrorClass::as_str);
    Some(reader.each(nodes, |reader, node| {
        let word = reader.word(node, &words)?;
        ErrorClass::ALL.into_iter().find(|class| class.as_str() == word)
    }))
}
