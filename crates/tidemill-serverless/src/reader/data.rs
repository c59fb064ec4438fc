//! `input`, `output`, `export`, schemas and timeouts.

use serde_json::Value;
use tidemill_workflow::source::{Kind, Node};
use tidemill_workflow::{ProblemCode, Schema};

use super::fields::Reader;
use super::tasks::duration;
use crate::document::Transform;
use crate::dynamic::Dynamic;

/// `input` and `output`: a schema, and an expression under the member `made_by`.
pub(super) fn transform(
    reader: &mut Reader<'_>,
    node: &Node,
    made_by: &str,
    variables: &[&str],
) -> Option<Transform> {
    let fields = reader.object(node, &["schema", made_by], &[])?;
    let schema = reader.optional(&fields, "schema", schema);
    let make = reader.optional(&fields, made_by, |reader, node| made(reader, node, variables));
    Some(Transform { schema, make })
}

/// `export`
pub(super) fn export(reader: &mut Reader<'_>, node: &Node) -> Option<Transform> {
    transform(reader, node, "as", &["context", "input", "output", "task", "workflow", "runtime"])
}

/// A string is jq, with `${ … }` around it or without; anything else holds `${ … }` in its strings.
fn made(reader: &mut Reader<'_>, node: &Node, variables: &[&str]) -> Option<Dynamic> {
    match &node.kind {
        Kind::Scalar(Value::String(_)) => reader.expression(node, variables).map(Dynamic::Filter),
        _ => reader.template(node, variables),
    }
}

fn schema(reader: &mut Reader<'_>, node: &Node) -> Option<Schema> {
    let fields = reader.object(node, &["format", "document", "resource"], &[])?;
    reader.unsupported(&fields, "resource", "write the schema into `document`");
    reader.optional(&fields, "format", |reader, node| {
        let text = reader.text(node)?;
        if text.split(':').next() != Some("json") {
            reader
                .problem(ProblemCode::NotSupported, format!("`{text}` is not supported; schemas are `json`"));
        }
        Some(())
    });
    if fields.has("resource") {
        return None;
    }
    reader.required(&fields, "document", |reader, node| {
        Schema::compile(&node.to_value())
            .map_err(|message| reader.problem(ProblemCode::BadSchema, message))
            .ok()
    })
}

/// A timeout in milliseconds, or the name of one in `use.timeouts`.
pub(super) fn timeout(reader: &mut Reader<'_>, node: &Node) -> Option<u64> {
    if let Kind::Scalar(Value::String(name)) = &node.kind {
        let known = reader.timeouts.get(name).copied();
        if known.is_none() {
            let message = format!("there is no timeout `{name}` in `use.timeouts`");
            reader.problem(ProblemCode::BadValue, message);
        }
        return known;
    }
    let fields = reader.object(node, &["after"], &[])?;
    reader.required(&fields, "after", |reader, node| {
        let after_ms = duration(reader, node)?;
        if after_ms == 0 {
            reader.bad_value("must be longer than nothing".to_owned());
        }
        Some(after_ms)
    })
}
