//! One other run: a workflow, or a block of this one.

use serde::{Deserialize, Serialize};

use super::Then;
use super::draft::{Draft, Look};
use crate::expr::ExprError;
use crate::plan::Child;

/// Its key; there is only one.
const KEY: &str = "0";

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Awaiting {
    /// Whether it has been asked for.
    asked: bool,
    /// Nobody waits for it.
    detached: bool,
}

impl Awaiting {
    pub(super) const fn new(child: &Child) -> Self {
        Self { asked: false, detached: child.detached }
    }

    pub(super) fn look(
        &mut self,
        child: &Child,
        look: &Look<'_>,
        draft: &mut Draft,
    ) -> Result<Then, ExprError> {
        let id = look.child_id(KEY);
        if let [ended] = draft.ended(look.events).as_slice() {
            return Ok(ended.end(&id));
        }
        if !self.asked {
            self.asked = true;
            let input = look.render(&look.step.with, &[])?;
            draft.start(look.request(child, KEY.to_owned(), input, &[])?);
            if self.detached {
                // a turn that ends the step starts nothing
                draft.wake_at(look.now_ms);
            }
        } else if self.detached {
            return Ok(Then::End(look.detached_output(KEY)));
        }
        Ok(draft.waits(&format!("waits for run {id}")))
    }
}
