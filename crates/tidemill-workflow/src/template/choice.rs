//! What a switch chooses, and whether it chose a step.
//!
//! The output of a switch is `{"chosen": [ids of steps]}`.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use super::{Expr, Piece, References, Renderer, Slot, Template};
use crate::expr::{ExprError, Fault};
use crate::scope::Scope;

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

/// That a switch chose a step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Chosen {
    switch: u32,
    switch_id: Arc<str>,
    step: Arc<str>,
}

#[derive(Deserialize)]
struct Output<'o> {
    #[serde(borrow)]
    chosen: Vec<Cow<'o, str>>,
}

impl Expr {
    /// The condition of a step that a switch chooses, with the author's own, if any.
    pub(crate) fn chosen(
        (switch, switch_id): (u32, Arc<str>),
        step: Arc<str>,
        condition: Option<Self>,
    ) -> Self {
        let mut references = condition.as_ref().map(|own| own.references.clone()).unwrap_or_default();
        references.add(&References {
            steps: vec![switch],
            ids: vec![Arc::clone(&switch_id)],
            ..References::default()
        });
        let chosen = Some(Chosen { switch, switch_id, step });
        Self { chosen, slot: condition.and_then(|own| own.slot), references }
    }
}

impl Chosen {
    /// A switch without an output, because it was skipped or failed, chose nothing.
    pub(super) fn is_met(&self, scope: &Scope<'_>) -> Result<bool, ExprError> {
        let Some(output) = scope.step(self.switch).output.filter(|output| !output.is_empty()) else {
            return Ok(false);
        };
        let output: Option<Output<'_>> = serde_json::from_slice(output).map_err(|error| {
            let what = format!("the output of the switch `{}`", self.switch_id);
            let reason = error.to_string();
            ExprError::new("switch", Fault::BadScope { what, reason })
        })?;
        Ok(output.is_some_and(|output| output.chosen.iter().any(|id| **id == *self.step)))
    }
}
