//! What a switch chooses.
//!
//! The output of a switch is `{"chosen": [ids of steps]}`.

use serde_json::Value;

use super::{Expr, Piece, References, Renderer, Slot, Template};
use crate::expr::ExprError;

/// A condition with what it chooses.
pub(crate) struct Case {
    when: Expr,
    then: Vec<u8>,
}

impl Case {
    pub(crate) fn new(when: Expr, then: &[String]) -> Self {
        Self { when, then: elements(then) }
    }
}

/// The elements of a JSON array of ids, without its brackets.
fn elements(ids: &[String]) -> Vec<u8> {
    let ids: Vec<String> = ids.iter().map(|id| Value::from(id.as_str()).to_string()).collect();
    ids.join(",").into_bytes()
}

/// The cases of a switch.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Choice {
    cases: Vec<(Slot, Vec<u8>)>,
    default: Vec<u8>,
    /// Whether each case that holds counts, not only the first.
    all: bool,
}

impl Template {
    /// A template that renders to what a switch with these cases chooses.
    pub(crate) fn choosing(cases: Vec<Case>, default: &[String], all: bool) -> Self {
        let mut references = References::default();
        for case in &cases {
            references.add(&case.when.references);
        }
        let cases = cases.into_iter().filter_map(|case| Some((case.when.slot?, case.then))).collect();
        let choice = Choice { cases, default: elements(default), all };
        Self { pieces: vec![Piece::Choice(choice)], references }
    }
}

impl Choice {
    pub(super) fn write(
        &self,
        renderer: &mut Renderer<'_, '_>,
        references: &References,
    ) -> Result<(), ExprError> {
        renderer.push(br#"{"chosen":["#);
        let mut any = false;
        let mut empty = true;
        for (when, then) in &self.cases {
            if (any && !self.all) || !renderer.decide(when, references)? {
                continue;
            }
            any = true;
            if !empty && !then.is_empty() {
                renderer.push(b",");
            }
            empty &= then.is_empty();
            renderer.push(then);
        }
        if !any {
            renderer.push(&self.default);
        }
        renderer.push(b"]}");
        renderer.check("switch")
    }
}
