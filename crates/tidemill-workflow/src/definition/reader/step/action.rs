//! What a step does.

use serde_json::{Map, Value};

use super::{Role, call, switch, wait};
use crate::definition::reader::fields::{Fields, Reader};
use crate::definition::{
    ActionDefinition, BlockDefinition, MAX_NESTING, MAX_STEPS, StepDefinition, WaitDefinition,
};
use crate::problem::ProblemCode;
use crate::source::{Kind, Node};

/// Reads what a step of this kind does; one of no kind has its problem already.
pub(super) fn read(reader: &mut Reader<'_>, fields: &Fields<'_>, kind: Option<&str>) -> ActionDefinition {
    let action = match kind {
        Some("switch") => return ActionDefinition::Switch(switch::read(reader, fields)),
        Some("workflow") => workflow(reader, fields),
        Some("steps") => block(reader, fields).map(ActionDefinition::Steps),
        Some("race") => reader.optional(fields, "race", race).map(ActionDefinition::Race),
        Some("wait") => reader.optional(fields, "wait", wait::wait).map(ActionDefinition::Wait),
        Some("approval") => reader
            .optional(fields, "approval", wait::approval)
            .map(|approval| ActionDefinition::Approval(Box::new(approval))),
        _ => return tool(reader, fields),
    };
    // what cannot be read has its problem, and waits for no time
    action.unwrap_or_else(|| ActionDefinition::Wait(WaitDefinition::For(Value::from(0))))
}

fn tool(reader: &mut Reader<'_>, fields: &Fields<'_>) -> ActionDefinition {
    let tool = reader.optional(fields, "tool", call::tool).unwrap_or_default();
    ActionDefinition::Tool { tool, with: call::with(reader, fields) }
}

fn workflow(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<ActionDefinition> {
    let workflow = reader.optional(fields, "workflow", Reader::workflow_target);
    let with = reader.optional(fields, "with", |_, node| Some(node.to_value()));
    let detached = reader.optional(fields, "detached", Reader::boolean).unwrap_or_default();
    let with = with.unwrap_or_else(|| Value::Object(Map::new()));
    Some(ActionDefinition::Workflow { workflow: workflow?, with, detached })
}

fn block(reader: &mut Reader<'_>, fields: &Fields<'_>) -> Option<BlockDefinition> {
    let steps = reader.optional(fields, "steps", |reader, node| nested(reader, node, Role::Ordinary));
    let with = reader.optional(fields, "with", |_, node| Some(node.to_value()));
    let output = reader.optional(fields, "output", |_, node| Some(node.to_value()));
    Some(BlockDefinition { steps: steps?, with, output })
}

fn race(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<StepDefinition>> {
    let branches = nested(reader, node, Role::Branch)?;
    if let Kind::Array(nodes) = &node.kind
        && nodes.len() == 1
    {
        reader.bad_value("must have at least two branches".to_owned());
    }
    Some(branches)
}

fn nested(reader: &mut Reader<'_>, node: &Node, role: Role) -> Option<Vec<StepDefinition>> {
    if reader.depth() >= MAX_NESTING {
        let message = format!("is nested more than {MAX_NESTING} deep; make a workflow of its own of it");
        reader.problem(ProblemCode::TooLarge, message);
        return None;
    }
    reader.deeper(|reader| steps(reader, node, role))
}

/// A list of steps.
pub(in crate::definition::reader) fn steps(
    reader: &mut Reader<'_>,
    node: &Node,
    role: Role,
) -> Option<Vec<StepDefinition>> {
    let what = if role == Role::Branch { "branch" } else { "step" };
    let Kind::Array(nodes) = &node.kind else {
        let plural = if role == Role::Branch { "branches" } else { "steps" };
        reader.bad_value(format!("must be an array of {plural}, not {}", node.kind_name()));
        return None;
    };
    if nodes.is_empty() {
        reader.bad_value(format!("must hold at least one {what}"));
    }
    if nodes.len() > MAX_STEPS {
        reader.problem(
            ProblemCode::TooManySteps,
            format!("has {} steps; at most {MAX_STEPS} are allowed", nodes.len()),
        );
        return None;
    }
    Some(reader.each(nodes, |reader, node| super::read(reader, node, role)))
}
