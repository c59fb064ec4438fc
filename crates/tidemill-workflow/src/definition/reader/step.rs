//! One step.

mod switch;

use serde_json::{Map, Value};
use tidemill_protocol::{ErrorClass, RetryPolicy};

use super::fields::{Fields, MAX_MS, Reader};
use crate::definition::{ActionDefinition, ForEachDefinition, Join, OnError, StepDefinition};
use crate::problem::ProblemCode;
use crate::source::{Kind, Node};

const MEMBERS: &[&str] = &[
    "id",
    "tool",
    "needs",
    "join",
    "when",
    "with",
    "for_each",
    "retry",
    "timeout_ms",
    "on_error",
    "continue_on_error",
    "queue",
    "switch",
    "match",
];
/// Members that later versions carry out.
const LATER: &[&str] = &[
    "compensate",
    "finally",
    "while",
    "until",
    "race",
    "workflow",
    "signal",
    "wait",
    "approval",
    "approve",
    "fallback",
    "cache",
    "concurrency_key",
];

/// Reads a step. One without a valid id is dropped: nothing could name it.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<StepDefinition> {
    let fields = reader.object(node, MEMBERS, LATER)?;
    let id = reader.required(&fields, "id", Reader::step_id);
    let step = StepDefinition {
        id: id.clone().unwrap_or_default(),
        action: action(reader, &fields),
        needs: reader.optional(&fields, "needs", needs).unwrap_or_default(),
        join: reader.optional(&fields, "join", join).unwrap_or_default(),
        when: reader.optional(&fields, "when", |_, node| Some(node.to_value())),
        for_each: reader.optional(&fields, "for_each", for_each),
        retry: reader.optional(&fields, "retry", retry).unwrap_or_default(),
        timeout_ms: reader.optional(&fields, "timeout_ms", Reader::milliseconds),
        on_error: on_error(reader, &fields),
        repeat: None,
        then_wait: None,
        compensate: None,
        queue: reader.optional(&fields, "queue", Reader::queue_name),
    };
    id.map(|_| step)
}

fn action(reader: &mut Reader<'_>, fields: &Fields<'_>) -> ActionDefinition {
    if fields.has("switch") {
        return ActionDefinition::Switch(switch::read(reader, fields));
    }
    reader.refuse(fields, &["match"], "has a meaning with `switch` only");
    let later = LATER.iter().any(|name| fields.has(name));
    let tool = if later && !fields.has("tool") {
        // Whatever the step does instead has its own problem.
        None
    } else {
        reader.required(fields, "tool", tool)
    };
    let with = reader.optional(fields, "with", |_, node| Some(node.to_value()));
    ActionDefinition::Tool {
        tool: tool.unwrap_or_default(),
        with: with.unwrap_or_else(|| Value::Object(Map::new())),
    }
}

/// `on_error`, or `continue_on_error: true`, which says the same as `on_error: continue`.
fn on_error(reader: &mut Reader<'_>, fields: &Fields<'_>) -> OnError {
    let word = reader.optional(fields, "on_error", on_error_word);
    let continues = reader.optional(fields, "continue_on_error", Reader::boolean);
    let meant = continues.map(|yes| if yes { OnError::Continue } else { OnError::Fail });
    match (word, meant) {
        (Some(word), Some(meant)) if word != meant => {
            reader.refuse(fields, &["continue_on_error"], "says otherwise than `on_error`; leave it out");
            word
        }
        (word, meant) => word.or(meant).unwrap_or_default(),
    }
}

fn on_error_word(reader: &mut Reader<'_>, node: &Node) -> Option<OnError> {
    const RESERVED: [&str; 2] = ["compensate", "goto"];
    let reserved = RESERVED.into_iter().find(|word| {
        node.member(word).is_some() || matches!(&node.kind, Kind::Scalar(Value::String(text)) if text == word)
    });
    if let Some(word) = reserved {
        let message = format!("`{word}` is not supported yet in this version; use `fail` or `continue`");
        reader.problem(ProblemCode::NotSupported, message);
        return None;
    }
    match reader.word(node, &["fail", "continue"])? {
        "continue" => Some(OnError::Continue),
        _ => Some(OnError::Fail),
    }
}

/// `name` or `name@version`; whether it exists is the catalogue's to say.
fn tool(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
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

/// Ids of steps, each once.
fn needs(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<String>> {
    let Kind::Array(nodes) = &node.kind else {
        reader.bad_value(format!("must be an array of step ids, not {}", node.kind_name()));
        return None;
    };
    let mut seen = std::collections::HashSet::new();
    let ids = reader.each(nodes, |reader, node| {
        let id = reader.text(node)?;
        Some((id, node.place))
    });
    let mut needs = Vec::with_capacity(ids.len());
    for (id, _) in ids {
        if seen.insert(id.clone()) {
            needs.push(id);
        } else {
            reader.problem(ProblemCode::BadValue, format!("names `{id}` twice"));
        }
    }
    Some(needs)
}

fn join(reader: &mut Reader<'_>, node: &Node) -> Option<Join> {
    if matches!(node.kind, Kind::Object(_)) {
        let fields = reader.object(node, &["n_of"], &[])?;
        return reader
            .required(&fields, "n_of", |reader, node| reader.small_number(node, 1, 20_000))
            .map(Join::NOf);
    }
    match &node.kind {
        Kind::Scalar(Value::String(_)) => match reader.word(node, &["all", "any"])? {
            "any" => Some(Join::Any),
            _ => Some(Join::All),
        },
        _ => {
            reader.bad_value(format!("must be `all`, `any` or {{ n_of: number }}, not {}", node.kind_name()));
            None
        }
    }
}

fn for_each(reader: &mut Reader<'_>, node: &Node) -> Option<ForEachDefinition> {
    if !matches!(node.kind, Kind::Object(_)) {
        return items(reader, node).map(|items| ForEachDefinition {
            items,
            concurrency: None,
            batch: None,
            tolerate: None,
        });
    }
    let fields = reader.object(node, &["items", "concurrency", "tolerate"], &[])?;
    let items = reader.required(&fields, "items", items);
    let concurrency =
        reader.optional(&fields, "concurrency", |reader, node| reader.small_number(node, 1, 10_000));
    let tolerate =
        reader.optional(&fields, "tolerate", |reader, node| reader.small_number(node, 0, u32::MAX)).map(crate::plan::Tolerance::Count);
    items.map(|items| ForEachDefinition { items, concurrency, batch: None, tolerate })
}

fn items(reader: &mut Reader<'_>, node: &Node) -> Option<Value> {
    match &node.kind {
        Kind::Array(_) | Kind::Scalar(Value::String(_)) => Some(node.to_value()),
        _ => {
            reader.bad_value(format!(
                "must be an array or an expression that gives one, not {}",
                node.kind_name()
            ));
            None
        }
    }
}

fn retry(reader: &mut Reader<'_>, node: &Node) -> Option<RetryPolicy> {
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
