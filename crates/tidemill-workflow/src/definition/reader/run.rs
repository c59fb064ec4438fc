//! What a definition says about its runs as a whole: labels, group, budget, mode.

use serde_json::Value;

use super::fields::Reader;
use crate::definition::GroupDefinition;
use crate::plan::{Budget, OnFull};
use crate::source::{Kind, Node, Segment};

/// Most labels of a workflow.
const MOST_LABELS: usize = 32;
/// Most that can be spent: a billion.
const MOST_COST: f64 = 1e9;

pub(super) fn labels(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<(String, Value)>> {
    let Kind::Object(members) = &node.kind else {
        reader.bad_value(format!("must be an object of labels, not {}", node.kind_name()));
        return None;
    };
    if members.len() > MOST_LABELS {
        reader.bad_value(format!("has {} labels; at most {MOST_LABELS} are allowed", members.len()));
    }
    let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
    // tells of names that are given twice
    let _ = reader.object(node, &names, &[]);
    let mut labels = Vec::with_capacity(members.len());
    for member in members {
        reader.enter(Segment::Name(member.name.clone()), |reader| {
            let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/');
            if !(1..=64).contains(&member.name.len()) || !member.name.chars().all(fits) {
                reader.bad_value(
                    "is no name of a label: 1 to 64 letters, digits, `.`, `_`, `-` and `/`".to_owned(),
                );
            }
            if !matches!(&member.value.kind, Kind::Scalar(value) if !value.is_null()) {
                let got = member.value.kind_name();
                reader.bad_value(format!("must be a text, a number or a boolean, not {got}"));
            }
        });
        labels.push((member.name.clone(), member.value.to_value()));
    }
    Some(labels)
}

pub(super) fn group(reader: &mut Reader<'_>, node: &Node) -> Option<GroupDefinition> {
    let fields = reader.object(node, &["key", "limit", "on_full"], &[])?;
    let key = reader.required(&fields, "key", Reader::text).map(Value::from);
    let limit = reader.required(&fields, "limit", |reader, node| reader.small_number(node, 1, 1_000_000));
    let on_full = reader.optional(&fields, "on_full", |reader, node| {
        let word = reader.word(node, &OnFull::ALL.map(OnFull::as_str))?;
        OnFull::ALL.into_iter().find(|known| known.as_str() == word)
    });
    Some(GroupDefinition { key: key?, limit: limit?, on_full: on_full.unwrap_or_default() })
}

pub(super) fn budget(reader: &mut Reader<'_>, node: &Node) -> Option<Budget> {
    let fields = reader.object(node, &["steps", "cost", "duration_ms"], &[])?;
    Some(Budget {
        steps: reader.optional(&fields, "steps", |reader, node| reader.number(node, 1, 1_000_000_000_000)),
        cost_micros: reader.optional(&fields, "cost", cost),
        duration_ms: reader.optional(&fields, "duration_ms", Reader::milliseconds),
    })
}

/// A sum, kept in millionths.
fn cost(reader: &mut Reader<'_>, node: &Node) -> Option<u64> {
    let cost = match &node.kind {
        Kind::Scalar(value) => value.as_f64(),
        _ => None,
    };
    match cost.filter(|cost| (1e-6..=MOST_COST).contains(cost)) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between 1 and 1e15, rounded"
        )]
        Some(cost) => Some((cost * 1e6).round() as u64),
        None => {
            reader.bad_value("must be a number from 0.000001 to 1000000000".to_owned());
            None
        }
    }
}
