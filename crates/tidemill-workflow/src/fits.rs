//! Whether what a run has done under one plan would also have been possible under another.

use std::collections::{BTreeSet, HashMap};
use std::mem::discriminant;

use crate::plan::{Plan, PlanStep};

/// How the steps of one plan fit into another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fits {
    misfits: HashMap<String, String>,
}

impl Fits {
    /// Compares two plans. A step fits where the other plan has one of its id that waits for the same steps in the same way, is chosen by
    /// the same switch, and does a thing of the same kind: then what a run has recorded of it means the same there.
    #[must_use]
    pub fn of(from: &Plan, to: &Plan) -> Self {
        let misfit = |step: &PlanStep| {
            let why = match to.step_index(&step.id).and_then(|index| to.step(index)) {
                Some(other) => differs((from, step), (to, other))?,
                None => "it does not exist there".to_owned(),
            };
            Some((step.id.to_string(), why))
        };
        Self { misfits: from.steps.iter().filter_map(misfit).collect() }
    }

    /// Why a step does not fit; `None` where it does.
    #[must_use]
    pub fn misfit(&self, step: &str) -> Option<&str> {
        self.misfits.get(step).map(String::as_str)
    }

    /// Whether every step fits, and so every run.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.misfits.is_empty()
    }
}

fn differs((from, step): (&Plan, &PlanStep), (to, other): (&Plan, &PlanStep)) -> Option<String> {
    let (old, new) = (needs(from, step), needs(to, other));
    if old != new {
        let list = |ids: &BTreeSet<&str>| match ids.len() {
            0 => "nothing".to_owned(),
            _ => ids.iter().copied().collect::<Vec<_>>().join(", "),
        };
        return Some(format!("it waits for {} here and for {} there", list(&old), list(&new)));
    }
    if step.join != other.join {
        return Some("it waits for another number of its needs there".to_owned());
    }
    let choice = |plan: &Plan, step: &PlanStep| {
        let chosen = step.chosen_by?;
        Some((plan.step(chosen.switch)?.id.to_string(), chosen.case))
    };
    if choice(from, step) != choice(to, other) {
        return Some("another case of a switch chooses it there".to_owned());
    }
    if step.for_each.is_some() != other.for_each.is_some() {
        let (here, there) = if step.for_each.is_some() { ("many", "one") } else { ("one", "many") };
        return Some(format!("it is {here} here and {there} there"));
    }
    (discriminant(&step.action) != discriminant(&other.action))
        .then(|| "it does another kind of thing there".to_owned())
}

fn needs<'p>(plan: &'p Plan, step: &PlanStep) -> BTreeSet<&'p str> {
    step.needs.iter().filter_map(|need| plan.step(*need)).map(|step| &*step.id).collect()
}
