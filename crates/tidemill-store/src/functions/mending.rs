//! Carrying on a run that stands still.

use super::{Function, FunctionCall};
use crate::{Error, Partition};

pub(super) const MEND: Function = Function {
    name: "tm1_mend",
    keys: &["run", "audit", "stream"],
    args: &["id", "workflow", "seen", "steps"],
};

/// A step that should have been dispatched: its needs have ended and it has no record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlooked<'a> {
    /// Its index in the plan.
    pub step: u32,
    /// Its id.
    pub name: &'a str,
    /// Its queue.
    pub queue: &'a str,
    /// How many of its needs have ended.
    pub ended: u32,
    /// How many of them succeeded.
    pub ok: u32,
}

impl Partition {
    /// Dispatches steps that were overlooked, at most 500, or asks again for the run's output (in `queue`) when none is named. Does
    /// nothing unless the run's last audit record is still number `seen`. Replies how many entries were added.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn mend(
        &self,
        (run, workflow): (&str, &str),
        queue: &str,
        seen: u64,
        steps: &[Overlooked<'_>],
    ) -> Result<u64, Error> {
        let keys = self.keys();
        let mut call = FunctionCall::new(&MEND, 3 + steps.len());
        call.key(&keys.run(run)).key(&keys.audit(run)).key(&keys.jobs(queue));
        for step in steps {
            call.key(&keys.jobs(step.queue));
        }
        call.arg(run).arg(workflow).arg(seen).arg(steps.len());
        for step in steps {
            call.arg(step.step).arg(step.name).arg(step.queue).arg(step.ended).arg(step.ok);
        }
        self.link().query("mending a run", call.command()).await
    }
}
