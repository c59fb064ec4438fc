//! `switch` of a step.

use serde_json::Value;

use super::needs;
use crate::definition::reader::fields::{Fields, Reader};
use crate::definition::{CaseDefinition, Pick, SwitchDefinition};
use crate::problem::ProblemCode;
use crate::source::{Kind, Node};

/// Reads `switch` and `match`.
pub(super) fn read(reader: &mut Reader<'_>, fields: &Fields<'_>) -> SwitchDefinition {
    let mut switch = reader.optional(fields, "switch", cases).unwrap_or_default();
    switch.pick = reader.optional(fields, "match", pick).unwrap_or_default();
    switch
}

fn pick(reader: &mut Reader<'_>, node: &Node) -> Option<Pick> {
    match reader.word(node, &["first", "all"])? {
        "all" => Some(Pick::All),
        _ => Some(Pick::First),
    }
}

/// An entry of `switch`.
enum Entry {
    Case(CaseDefinition),
    Default(Vec<String>),
}

fn cases(reader: &mut Reader<'_>, node: &Node) -> Option<SwitchDefinition> {
    let Kind::Array(nodes) = &node.kind else {
        reader.bad_value(format!("must be an array of cases, not {}", node.kind_name()));
        return None;
    };
    if nodes.is_empty() {
        reader.bad_value("must hold at least one case, `{ when, then }`".to_owned());
    }
    let mut switch = SwitchDefinition::default();
    for entry in reader.each(nodes, |reader, node| Some(entry(reader, node))) {
        if switch.default.is_some() {
            reader.bad_value("has entries behind `default`, which must be the last".to_owned());
        }
        match entry {
            Entry::Case(case) => switch.cases.push(case),
            Entry::Default(ids) => switch.default = Some(ids),
        }
    }
    Some(switch)
}

/// An entry that cannot be read keeps its place as a case that never holds: the places of the others count.
fn entry(reader: &mut Reader<'_>, node: &Node) -> Entry {
    let never = || CaseDefinition { when: Value::Bool(false), then: Vec::new() };
    let Some(fields) = reader.object(node, &["when", "then", "default"], &[]) else {
        return Entry::Case(never());
    };
    if fields.has("default") {
        reader.refuse(&fields, &["when", "then"], "and `default` exclude each other");
        return Entry::Default(reader.optional(&fields, "default", needs).unwrap_or_default());
    }
    if !fields.has("when") && !fields.has("then") {
        let message = "must be `{ when, then }` or `{ default }`".to_owned();
        reader.problem(ProblemCode::MissingMember, message);
        return Entry::Case(never());
    }
    let when = reader.required(&fields, "when", |_, node| Some(node.to_value()));
    let then = reader.required(&fields, "then", needs);
    Entry::Case(CaseDefinition { when: when.unwrap_or(Value::Bool(false)), then: then.unwrap_or_default() })
}
