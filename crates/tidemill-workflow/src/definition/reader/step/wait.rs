//! `wait` and `approval` of a step.

use serde_json::Value;

use super::call;
use crate::definition::reader::fields::{Fields, MAX_MS, Reader};
use crate::definition::{ApprovalDefinition, RemindDefinition, SignalDefinition, WaitDefinition};
use crate::plan::{OnReject, OnTimeout};
use crate::problem::ProblemCode;
use crate::source::{Kind, Node};

const MEMBERS: &[&str] = &["for_ms", "until", "time_zone", "signal", "schema", "timeout_ms", "on_timeout"];
/// Most names of people or roles.
const MOST_WHO: usize = 64;

pub(super) fn wait(reader: &mut Reader<'_>, node: &Node) -> Option<WaitDefinition> {
    let fields = reader.object(node, MEMBERS, &[])?;
    let Some(kind) = ["for_ms", "until", "signal"].into_iter().find(|name| fields.has(name)) else {
        let message = "`for_ms` is missing, or one of `until` and `signal`".to_owned();
        reader.problem(ProblemCode::MissingMember, message);
        return None;
    };
    let fitting: &[&str] = match kind {
        "for_ms" => &["for_ms"],
        "until" => &["until", "time_zone"],
        _ => &["signal", "schema", "timeout_ms", "on_timeout"],
    };
    for name in MEMBERS.iter().filter(|name| !fitting.contains(name)) {
        reader.refuse(&fields, &[name], &format!("has no meaning beside `{kind}`"));
    }
    match kind {
        "for_ms" => reader.optional(&fields, "for_ms", duration).map(WaitDefinition::For),
        "until" => until(reader, &fields),
        _ => signal(reader, &fields).map(WaitDefinition::Signal),
    }
}

fn duration(reader: &mut Reader<'_>, node: &Node) -> Option<Value> {
    match &node.kind {
        Kind::Scalar(Value::String(text)) if text.contains("${") || text.contains("{{") => {
            Some(node.to_value())
        }
        _ => reader.number(node, 0, MAX_MS).map(Value::from),
    }
}

fn until(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<WaitDefinition> {
    let at = reader.optional(fields, "until", Reader::text).map(Value::from);
    let time_zone = reader.optional(fields, "time_zone", Reader::time_zone);
    Some(WaitDefinition::Until { at: at?, time_zone })
}

fn signal(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<SignalDefinition> {
    let name = reader.optional(fields, "signal", Reader::signal_name);
    let schema = reader.optional(fields, "schema", Reader::schema);
    let timeout_ms = reader.optional(fields, "timeout_ms", Reader::milliseconds);
    let on_timeout =
        reader.optional(fields, "on_timeout", |reader, node| reader.word(node, &["fail", "continue"]));
    without_timeout(reader, fields);
    let continue_on_timeout = on_timeout == Some("continue");
    Some(SignalDefinition { name: name?, schema, timeout_ms, continue_on_timeout })
}

fn without_timeout(reader: &mut Reader<'_>, fields: &Fields<'_>) {
    if !fields.has("timeout_ms") {
        reader.refuse(fields, &["on_timeout"], "has no meaning without `timeout_ms`");
    }
}

pub(super) fn approval(reader: &mut Reader<'_>, node: &Node) -> Option<ApprovalDefinition> {
    let members =
        ["of", "who", "prompt", "remind", "timeout_ms", "on_timeout", "max_iterations", "on_reject"];
    let fields = reader.object(node, &members, &[])?;
    without_timeout(reader, &fields);
    let on_timeout = reader.optional(&fields, "on_timeout", |reader, node| {
        let word = reader.word(node, &OnTimeout::ALL.map(OnTimeout::as_str))?;
        OnTimeout::ALL.into_iter().find(|known| known.as_str() == word)
    });
    let on_reject = reader.optional(&fields, "on_reject", |reader, node| {
        let word = reader.word(node, &OnReject::ALL.map(OnReject::as_str))?;
        OnReject::ALL.into_iter().find(|known| known.as_str() == word)
    });
    let approval = ApprovalDefinition {
        of: reader.optional(&fields, "of", Reader::step_id),
        who: reader.optional(&fields, "who", who).unwrap_or_default(),
        prompt: reader.optional(&fields, "prompt", Reader::text).map(Value::from),
        remind: reader.optional(&fields, "remind", remind),
        timeout_ms: reader.optional(&fields, "timeout_ms", Reader::milliseconds),
        on_timeout: on_timeout.unwrap_or_default(),
        max_iterations: reader
            .optional(&fields, "max_iterations", |reader, node| reader.small_number(node, 1, 1_000)),
        on_reject,
    };
    if !fields.has("of") {
        if approval.on_reject == Some(OnReject::Revise) {
            reader.refuse(&fields, &["on_reject"], "`revise` needs `of`, the step to run again");
        }
        reader.refuse(&fields, &["max_iterations"], "has no meaning without `of`, the step to run again");
    }
    Some(approval)
}

fn who(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<String>> {
    let Kind::Array(nodes) = &node.kind else {
        reader.bad_value(format!("must be an array of names or roles, not {}", node.kind_name()));
        return None;
    };
    if nodes.is_empty() || nodes.len() > MOST_WHO {
        reader.bad_value(format!(
            "must hold 1 to {MOST_WHO} names or roles; leave it out to let anybody decide"
        ));
    }
    Some(reader.each(nodes, |reader, node| {
        let name = reader.text(node)?;
        if (1..=128).contains(&name.len()) && !name.chars().any(char::is_control) {
            return Some(name);
        }
        reader.bad_value("must be a name or role of 1 to 128 bytes".to_owned());
        None
    }))
}

fn remind(reader: &mut Reader<'_>, node: &Node) -> Option<RemindDefinition> {
    let fields = reader.object(node, &["every_ms", "tool", "with", "retry", "timeout_ms"], &[])?;
    let every_ms = reader.required(&fields, "every_ms", |reader, node| reader.number(node, 1_000, MAX_MS));
    let call = call::of_fields(reader, &fields)?;
    Some(RemindDefinition { every_ms: every_ms?, call })
}
