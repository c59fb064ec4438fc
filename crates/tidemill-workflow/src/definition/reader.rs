//! From a tree of values to a definition, collecting every problem instead of stopping at the first.

mod fields;
mod step;

use std::sync::Arc;

use serde_json::Value;

use self::fields::{Fields, Reader};
use super::{Definition, FailurePolicy, MAX_STEPS, Origin, StepDefinition};
use crate::problem::{Problem, ProblemCode};
use crate::source::{Kind, Node};

/// Members of a definition.
const MEMBERS: &[&str] = &[
    "name",
    "version",
    "description",
    "queue",
    "timeout_ms",
    "failure",
    "input",
    "retention_ms",
    "steps",
    "output",
];
/// Members that later versions carry out.
const LATER: &[&str] = &["concurrency_key", "on_failure", "signals", "tenant_concurrency", "mode"];

/// Reads a definition; what cannot be read has its default, and a problem says so.
pub(super) fn read(root: Node, file: &str) -> (Option<Definition>, Vec<Problem>) {
    let root = Arc::new(root);
    let mut reader = Reader::new(&root, file);
    let definition =
        reader.object(&root, MEMBERS, LATER).map(|fields| definition(&mut reader, &fields, &root, file));
    (definition, reader.into_problems())
}

fn definition(reader: &mut Reader<'_>, fields: &Fields<'_>, root: &Arc<Node>, file: &str) -> Definition {
    Definition {
        name: reader.required(fields, "name", Reader::workflow_name).unwrap_or_default(),
        version: reader.optional(fields, "version", |reader, node| {
            reader.number(node, 1, u64::from(u32::MAX)).and_then(narrow)
        }),
        description: reader.optional(fields, "description", Reader::text),
        queue: reader.optional(fields, "queue", Reader::queue_name),
        timeout_ms: reader.optional(fields, "timeout_ms", Reader::milliseconds),
        failure: reader.optional(fields, "failure", failure).unwrap_or_default(),
        input: reader.optional(fields, "input", schema),
        retention_ms: reader
            .optional(fields, "retention_ms", |reader, node| reader.number(node, 0, fields::MAX_MS)),
        steps: reader.required(fields, "steps", steps).unwrap_or_default(),
        output: reader.optional(fields, "output", |_, node| Some(node.to_value())),
        finally: Vec::new(),
        labels: Vec::new(),
        group: None,
        budget: None,
        mode: None,
        origin: Origin { file: file.into(), root: Arc::clone(root) },
    }
}

fn narrow(number: u64) -> Option<u32> {
    u32::try_from(number).ok()
}

fn failure(reader: &mut Reader<'_>, node: &Node) -> Option<FailurePolicy> {
    match reader.word(node, &["fail_fast", "finish"])? {
        "finish" => Some(FailurePolicy::Finish),
        _ => Some(FailurePolicy::FailFast),
    }
}

fn schema(reader: &mut Reader<'_>, node: &Node) -> Option<Value> {
    match &node.kind {
        Kind::Object(_) | Kind::Scalar(Value::Bool(_)) => Some(node.to_value()),
        _ => {
            reader.bad_value(format!("must be a JSON Schema, not {}", node.kind_name()));
            None
        }
    }
}

fn steps(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<StepDefinition>> {
    let Kind::Array(nodes) = &node.kind else {
        reader.bad_value(format!("must be an array of steps, not {}", node.kind_name()));
        return None;
    };
    if nodes.is_empty() {
        reader.bad_value("must hold at least one step".to_owned());
    }
    if nodes.len() > MAX_STEPS {
        reader.problem(
            ProblemCode::TooManySteps,
            format!("has {} steps; at most {MAX_STEPS} are allowed", nodes.len()),
        );
        return None;
    }
    Some(reader.each(nodes, step::read))
}
