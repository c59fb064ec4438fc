//! `try`, `catch`, retries and errors.

use serde_json::{Map, Value};
use tidemill_workflow::ProblemCode;
use tidemill_workflow::source::{Kind, Node};

use super::TASK_VARIABLES;
use super::fields::{Fields, Reader};
use super::tasks::{duration, list};
use crate::document::{Action, Attempt, Backoff, Raised, Retry};

const CATCH: &[&str] = &["errors", "as", "when", "exceptWhen", "retry", "do"];
const ERROR: &[&str] = &["type", "status", "instance", "title", "detail"];
const POLICY: &[&str] = &["when", "exceptWhen", "delay", "backoff", "limit", "jitter"];

pub(super) fn attempt(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<Action> {
    let tasks = reader.required(fields, "try", list);
    let attempt = reader.required(fields, "catch", |reader, node| {
        let fields = reader.object(node, CATCH, &[])?;
        let errors = reader.optional(&fields, "errors", filter).unwrap_or_default();
        let name = reader.optional(&fields, "as", Reader::variable).unwrap_or_else(|| "error".to_owned());
        reader.with_local(&[&name], |reader| {
            let condition = |reader: &mut Reader<'_>, node: &Node| reader.expression(node, TASK_VARIABLES);
            let when = reader.optional(&fields, "when", condition);
            let except_when = reader.optional(&fields, "exceptWhen", condition);
            let retry = reader.optional(&fields, "retry", retry);
            let handler = reader.optional(&fields, "do", list).unwrap_or_default();
            Some(Attempt { tasks: Vec::new(), errors, name: name.clone(), when, except_when, retry, handler })
        })
    });
    let (tasks, attempt) = (tasks?, attempt?);
    Some(Action::Try(Box::new(Attempt { tasks, ..attempt })))
}

/// Members that an error must have.
fn filter(reader: &mut Reader<'_>, node: &Node) -> Option<Map<String, Value>> {
    let fields = reader.object(node, &["with"], &[])?;
    reader.optional(&fields, "with", |reader, node| {
        reader.object(node, &["type", "status", "instance", "title", "detail", "details"], &[])?;
        match node.to_value() {
            Value::Object(members) => Some(members),
            _ => None,
        }
    })
}

/// A retry policy, or the name of one in `use.retries`.
pub(super) fn retry(reader: &mut Reader<'_>, node: &Node) -> Option<Retry> {
    if let Kind::Scalar(Value::String(name)) = &node.kind {
        let known = reader.retries.get(name).cloned();
        if known.is_none() {
            reader.bad_value(format!("there is no retry policy `{name}` in `use.retries`"));
        }
        return known;
    }
    let fields = reader.object(node, POLICY, &[])?;
    let condition = |reader: &mut Reader<'_>, node: &Node| reader.expression(node, TASK_VARIABLES);
    let mut policy = Retry {
        when: reader.optional(&fields, "when", condition),
        except_when: reader.optional(&fields, "exceptWhen", condition),
        delay_ms: reader.optional(&fields, "delay", duration).unwrap_or(0),
        backoff: reader.optional(&fields, "backoff", backoff).unwrap_or_default(),
        jitter_ms: reader.optional(&fields, "jitter", jitter),
        ..Retry::default()
    };
    reader.optional(&fields, "limit", |reader, node| limit(reader, node, &mut policy));
    Some(policy)
}

fn backoff(reader: &mut Reader<'_>, node: &Node) -> Option<Backoff> {
    let fields = reader.object(node, &["constant", "linear", "exponential"], &[])?;
    let kinds =
        [("constant", Backoff::Constant), ("linear", Backoff::Linear), ("exponential", Backoff::Exponential)];
    let given: Vec<Backoff> =
        kinds.into_iter().filter(|(name, _)| fields.has(name)).map(|(_, kind)| kind).collect();
    let [kind] = given.as_slice() else {
        reader.bad_value("must be one of constant, linear and exponential".to_owned());
        return None;
    };
    Some(*kind)
}

fn jitter(reader: &mut Reader<'_>, node: &Node) -> Option<(u64, u64)> {
    let fields = reader.object(node, &["from", "to"], &[])?;
    let from = reader.required(&fields, "from", duration)?;
    let to = reader.required(&fields, "to", duration)?;
    if from > to {
        reader.bad_value("`from` is longer than `to`".to_owned());
    }
    Some((from, to))
}

fn limit(reader: &mut Reader<'_>, node: &Node, policy: &mut Retry) -> Option<()> {
    let fields = reader.object(node, &["attempt", "duration"], &[])?;
    policy.within_ms = reader.optional(&fields, "duration", duration);
    reader.optional(&fields, "attempt", |reader, node| {
        let fields = reader.object(node, &["count", "duration"], &[])?;
        policy.most =
            reader.optional(&fields, "count", |reader, node| reader.number(node, u64::from(u32::MAX)));
        policy.attempt_ms = reader.optional(&fields, "duration", duration);
        Some(())
    })
}

pub(super) fn raise(reader: &mut Reader<'_>, node: &Node) -> Option<Action> {
    let fields = reader.object(node, &["error"], &[])?;
    let raised = reader.required(&fields, "error", |reader, node| {
        if let Kind::Scalar(Value::String(name)) = &node.kind {
            let known = reader.errors.get(name).cloned();
            if known.is_none() {
                let message = format!("there is no error `{name}` in `use.errors`");
                reader.problem(ProblemCode::BadValue, message);
            }
            return known;
        }
        error(reader, node)
    })?;
    Some(Action::Raise(raised))
}

/// An error. Its `instance` is that of the task that raises it, whatever is written.
pub(super) fn error(reader: &mut Reader<'_>, node: &Node) -> Option<Raised> {
    let fields = reader.object(node, ERROR, &[])?;
    let text = |reader: &mut Reader<'_>, node: &Node| reader.text_template(node, TASK_VARIABLES);
    let kind = reader.required(&fields, "type", text);
    let status = reader.required(&fields, "status", |reader, node| {
        if !matches!(node.kind, Kind::Scalar(Value::String(_))) {
            reader.number(node, 999)?;
        }
        reader.template(node, TASK_VARIABLES)
    });
    reader.optional(&fields, "instance", text);
    let title = reader.optional(&fields, "title", text);
    let detail = reader.optional(&fields, "detail", text);
    Some(Raised { kind: kind?, status: status?, title, detail })
}
