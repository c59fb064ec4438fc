//! From a tree of values to a definition, collecting every problem instead of stopping at the first.

mod fields;
mod run;
mod step;

use std::sync::Arc;

use tidemill_protocol::ExecutionMode;

use self::fields::{Fields, Reader};
use self::step::Role;
use super::{Definition, FailurePolicy, Origin};
use crate::problem::Problem;
use crate::source::Node;

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
    "finally",
    "labels",
    "group",
    "budget",
    "mode",
];
/// Members that later versions carry out.
const LATER: &[&str] = &["concurrency_key", "on_failure", "signals", "tenant_concurrency"];

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
        input: reader.optional(fields, "input", Reader::schema),
        retention_ms: reader
            .optional(fields, "retention_ms", |reader, node| reader.number(node, 0, fields::MAX_MS)),
        steps: reader
            .required(fields, "steps", |reader, node| step::steps(reader, node, Role::Ordinary))
            .unwrap_or_default(),
        output: reader.optional(fields, "output", |_, node| Some(node.to_value())),
        finally: reader
            .optional(fields, "finally", |reader, node| step::steps(reader, node, Role::Closing))
            .unwrap_or_default(),
        labels: reader.optional(fields, "labels", run::labels).unwrap_or_default(),
        group: reader.optional(fields, "group", run::group),
        budget: reader.optional(fields, "budget", run::budget),
        mode: reader.optional(fields, "mode", mode),
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

fn mode(reader: &mut Reader<'_>, node: &Node) -> Option<String> {
    reader.word(node, &ExecutionMode::ALL.map(ExecutionMode::as_str)).map(str::to_owned)
}
