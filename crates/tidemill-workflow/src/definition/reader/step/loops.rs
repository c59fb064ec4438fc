//! `for_each` and `repeat` of a step.

use serde_json::Value;

use crate::definition::reader::fields::{MAX_MS, Reader};
use crate::definition::{ForEachDefinition, RepeatDefinition};
use crate::plan::Tolerance;
use crate::problem::ProblemCode;
use crate::source::{Kind, Node};

/// Most iterations that can be asked for.
const MAX_ITERATIONS: u32 = 1_000_000;

pub(super) fn for_each(reader: &mut Reader<'_>, node: &Node) -> Option<ForEachDefinition> {
    let of_items = |items| ForEachDefinition { items, concurrency: None, batch: None, tolerate: None };
    if !matches!(node.kind, Kind::Object(_)) {
        return items(reader, node).map(of_items);
    }
    let fields = reader.object(node, &["items", "concurrency", "batch", "tolerate"], &[])?;
    let items = reader.required(&fields, "items", items);
    let number = |reader: &mut Reader<'_>, node: &Node| reader.small_number(node, 1, 10_000);
    let concurrency = reader.optional(&fields, "concurrency", number);
    let batch = reader.optional(&fields, "batch", number);
    let tolerate = reader.optional(&fields, "tolerate", tolerance);
    items.map(|items| ForEachDefinition { items, concurrency, batch, tolerate })
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

/// A number of items, or a share of them: `3` or `"5%"`.
fn tolerance(reader: &mut Reader<'_>, node: &Node) -> Option<Tolerance> {
    let Kind::Scalar(Value::String(text)) = &node.kind else {
        return reader.small_number(node, 0, u32::MAX).map(Tolerance::Count);
    };
    let number =
        text.strip_suffix('%').filter(|number| number.chars().all(|c| c.is_ascii_digit() || c == '.'));
    let percent = number.and_then(|number| number.parse::<f32>().ok());
    let percent = percent.filter(|percent| (0.0..=100.0).contains(percent)).map(Tolerance::Percent);
    if percent.is_none() {
        reader.bad_value("must be a number of items or a share of them, such as `3` or `\"5%\"`".to_owned());
    }
    percent
}

pub(super) fn repeat(reader: &mut Reader<'_>, node: &Node) -> Option<RepeatDefinition> {
    let members = ["while", "until", "max_iterations", "every_ms", "on_exhausted"];
    let fields = reader.object(node, &members, &[])?;
    if !fields.has("while") && !fields.has("until") {
        let message = "`until` is missing, or `while`".to_owned();
        reader.problem(ProblemCode::MissingMember, message);
    }
    let exhausted =
        reader.optional(&fields, "on_exhausted", |reader, node| reader.word(node, &["fail", "continue"]));
    Some(RepeatDefinition {
        while_: reader.optional(&fields, "while", |_, node| Some(node.to_value())),
        until: reader.optional(&fields, "until", |_, node| Some(node.to_value())),
        max_iterations: reader
            .optional(&fields, "max_iterations", |reader, node| reader.small_number(node, 1, MAX_ITERATIONS)),
        every_ms: reader.optional(&fields, "every_ms", |reader, node| reader.number(node, 0, MAX_MS)),
        continue_when_exhausted: exhausted == Some("continue"),
    })
}
