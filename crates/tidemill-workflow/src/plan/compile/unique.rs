//! One id, one step: in the whole document, so that a path like `.steps.ID.output` means one thing wherever it stands.

use std::collections::HashSet;

use super::{Compiler, name};
use crate::definition::{ActionDefinition, Definition, MAX_STEPS, StepDefinition};
use crate::problem::ProblemCode;
use crate::source::Segment;

/// What has been met.
struct Met<'d> {
    ids: HashSet<&'d str>,
    steps: usize,
}

impl Compiler<'_> {
    /// Finds ids that are given twice, and whether there are too many steps.
    pub(super) fn unique(&mut self, definition: &Definition) {
        let mut met = Met { ids: HashSet::new(), steps: 0 };
        self.unique_in(&definition.steps, &mut vec![name("steps")], &mut met);
        self.unique_in(&definition.finally, &mut vec![name("finally")], &mut met);
        if met.steps > MAX_STEPS {
            let message =
                format!("has {} steps with those of its blocks; at most {MAX_STEPS} are allowed", met.steps);
            self.problem(&[name("steps")], ProblemCode::TooManySteps, message);
        }
    }

    fn unique_in<'d>(&mut self, steps: &'d [StepDefinition], path: &mut Vec<Segment>, met: &mut Met<'d>) {
        for (at, step) in steps.iter().enumerate() {
            met.steps += 1;
            path.push(Segment::At(at));
            if !met.ids.insert(&step.id) {
                path.push(name("id"));
                let message = format!("another step has the id `{}` already", step.id);
                self.problem(path, ProblemCode::DuplicateId, message);
                path.pop();
            }
            let inner = match &step.action {
                ActionDefinition::Steps(block) => Some(("steps", &block.steps)),
                ActionDefinition::Race(branches) => Some(("race", branches)),
                _ => None,
            };
            if let Some((member, inner)) = inner {
                path.push(name(member));
                self.unique_in(inner, path, met);
                path.pop();
            }
            path.pop();
        }
    }
}
