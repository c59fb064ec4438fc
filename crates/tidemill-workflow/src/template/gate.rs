//! What has to be so for a step to run, besides its author's condition.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;

use super::{Expr, References};
use crate::expr::{ExprError, Fault};
use crate::scope::Scope;

/// What has to be so for a step to run.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Gate {
    /// A switch chose it.
    Chosen {
        /// The switch.
        switch: (u32, Arc<str>),
        /// The step's own id.
        step: Arc<str>,
    },
    /// One of these steps failed, and leads here for that.
    Failed(Vec<(u32, Arc<str>)>),
    /// This step did not fail; it leads elsewhere if it did.
    Spared((u32, Arc<str>)),
}

#[derive(Deserialize)]
struct Output<'o> {
    #[serde(borrow)]
    chosen: Vec<Cow<'o, str>>,
}

impl Expr {
    /// An author's condition, if any, behind these.
    pub(crate) fn behind(gates: Vec<Gate>, condition: Option<Self>) -> Option<Self> {
        if gates.is_empty() {
            return condition;
        }
        let mut references = condition.as_ref().map(|own| own.references.clone()).unwrap_or_default();
        for (step, id) in gates.iter().flat_map(Gate::steps) {
            references.add(&References::of_step(*step, Arc::clone(id)));
        }
        Some(Self { gates, slot: condition.and_then(|own| own.slot), references })
    }
}

impl Gate {
    fn steps(&self) -> &[(u32, Arc<str>)] {
        match self {
            Self::Chosen { switch, .. } => std::slice::from_ref(switch),
            Self::Failed(steps) => steps,
            Self::Spared(step) => std::slice::from_ref(step),
        }
    }

    pub(super) fn is_open(&self, scope: &Scope<'_>) -> Result<bool, ExprError> {
        let failed = |step: u32| matches!(scope.step(step).state, "failed" | "timed_out");
        match self {
            Self::Chosen { switch, step } => chose(switch, step, scope),
            Self::Failed(steps) => Ok(steps.iter().any(|(step, _)| failed(*step))),
            Self::Spared((step, _)) => Ok(!failed(*step)),
        }
    }
}

/// A switch without an output, because it was skipped or failed, chose nothing.
fn chose((switch, id): &(u32, Arc<str>), step: &str, scope: &Scope<'_>) -> Result<bool, ExprError> {
    let Some(output) = scope.step(*switch).output.filter(|output| !output.is_empty()) else {
        return Ok(false);
    };
    let output: Option<Output<'_>> = serde_json::from_slice(output).map_err(|error| {
        let what = format!("the output of the switch `{id}`");
        let reason = error.to_string();
        ExprError::new("switch", Fault::BadScope { what, reason })
    })?;
    Ok(output.is_some_and(|output| output.chosen.iter().any(|id| **id == *step)))
}
