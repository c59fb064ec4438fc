//! Blocks side by side, of which the first that succeeds wins.

use serde::{Deserialize, Serialize};

use super::Then;
use super::draft::{Draft, EndedChild, Look, fail};
use super::memo::raw;
use crate::expr::ExprError;
use crate::plan::Branch;

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Race {
    /// How many branches have begun.
    begun: usize,
    /// How the losers ended, by their place.
    lost: Vec<(usize, String)>,
}

impl Race {
    pub(super) const fn new() -> Self {
        Self { begun: 0, lost: Vec::new() }
    }

    pub(super) fn look(
        &mut self,
        branches: &[Branch],
        look: &Look<'_>,
        draft: &mut Draft,
    ) -> Result<Then, ExprError> {
        let mut ended: Vec<(usize, EndedChild<'_>)> = draft
            .ended(look.events)
            .into_iter()
            .filter_map(|child| Some((branches.iter().position(|branch| *branch.id == *child.key)?, child)))
            .collect();
        // of two that are found to have succeeded at one look, the first of the definition wins
        ended.sort_by_key(|(place, _)| *place);
        for (place, child) in ended {
            if child.succeeded() {
                return won(&branches[place], &child);
            }
            self.lost.push((place, child.note(&look.child_id(child.key))));
        }
        while self.begun < branches.len() && (!look.step.one_at_a_time || draft.open.is_empty()) {
            self.begin(&branches[self.begun], look, draft)?;
        }
        if draft.open.is_empty() {
            return Ok(self.all_lost(branches));
        }
        Ok(draft.waits(&format!("waits for the first of {} to succeed", draft.open.join(", "))))
    }

    fn begin(&mut self, branch: &Branch, look: &Look<'_>, draft: &mut Draft) -> Result<(), ExprError> {
        let place = self.begun;
        self.begun += 1;
        match look.render(&branch.with, &[]) {
            Ok(input) => {
                let mut request = look.request(&branch.child, branch.id.to_string(), input, &[])?;
                request.detached = false;
                draft.start(request);
            }
            Err(error) if error.is_out_of_fuel() => return Err(error),
            // the others can still win
            Err(error) => self.lost.push((place, error.to_string())),
        }
        Ok(())
    }

    fn all_lost(&mut self, branches: &[Branch]) -> Then {
        self.lost.sort_by_key(|(place, _)| *place);
        let told: Vec<String> = self
            .lost
            .iter()
            .filter_map(|(place, note)| Some(format!("{}: {note}", branches.get(*place)?.id)))
            .collect();
        fail("race_lost", format!("no branch succeeded; {}", told.join("; ")))
    }
}

fn won(branch: &Branch, child: &EndedChild<'_>) -> Result<Then, ExprError> {
    let winner = serde_json::Value::from(&*branch.id);
    let output = raw("a branch's output", child.output())?;
    Ok(Then::End(format!("{{\"winner\":{winner},\"output\":{output}}}").into_bytes()))
}
