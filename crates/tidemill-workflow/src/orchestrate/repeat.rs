//! The same action again and again: `while` is asked before each iteration, `until` after each.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::draft::{Draft, Look, fail};
use super::memo::{Actor, Memo, raw, text};
use super::timer::shown;
use super::{ChildTarget, Then};
use crate::expr::ExprError;
use crate::plan::{Action, Child, Repeat};

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Looping {
    /// The iteration under way, or the last one; from 1.
    iteration: u32,
    phase: Phase,
    /// Output of the last iteration that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last: Option<Box<RawValue>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    /// The next iteration is to begin at this time.
    Before { at_ms: u64 },
    /// An iteration is under way.
    Under,
}

/// The iteration that a step with `repeat` is in, from 1, by its memo; `None` of any other step.
#[must_use]
pub fn iteration(memo: &[u8]) -> Option<u32> {
    match serde_json::from_slice::<Memo>(memo).ok()?.actor {
        Actor::Repeat(looping) => Some(looping.iteration),
        _ => None,
    }
}

impl Looping {
    pub(super) const fn new() -> Self {
        Self { iteration: 0, phase: Phase::Before { at_ms: 0 }, last: None }
    }

    pub(super) fn look(&mut self, look: &Look<'_>, draft: &mut Draft) -> Result<Then, ExprError> {
        let Some(repeat) = &look.step.repeat else {
            return Ok(fail("memo_corrupt", "its memo repeats what is not repeated".to_owned()));
        };
        if self.phase == Phase::Under
            && let Some(then) = self.under_way(repeat, look, draft)?
        {
            return Ok(then);
        }
        if let Phase::Before { at_ms } = self.phase
            && look.now_ms < at_ms
        {
            draft.wake_at(at_ms);
            let next = self.iteration.saturating_add(1);
            return Ok(draft.waits(&format!("waits until {} for iteration {next}", shown(at_ms))));
        }
        self.next(repeat, look, draft)
    }

    /// What an iteration under way asks for; nothing when it has ended and another one is to come.
    fn under_way(
        &mut self,
        repeat: &Repeat,
        look: &Look<'_>,
        draft: &mut Draft,
    ) -> Result<Option<Then>, ExprError> {
        let output = match &look.step.action {
            Action::Tool { .. } => match look.answer() {
                Some(output) => raw("the tool's output", output)?,
                None => return self.call(look).map(Some),
            },
            _ => match draft.ended(look.events).as_slice() {
                [] => return Ok(Some(self.waits(look, draft))),
                [ended, ..] if ended.succeeded() => raw("the child's output", ended.output())?,
                [ended, ..] => return Ok(Some(ended.end(&look.child_id(ended.key)))),
            },
        };
        self.ended(output, repeat, look)
    }

    fn ended(
        &mut self,
        output: Box<RawValue>,
        repeat: &Repeat,
        look: &Look<'_>,
    ) -> Result<Option<Then>, ExprError> {
        if let Some(until) = &repeat.until {
            let iteration = self.iteration.to_string();
            let locals = [
                ("iteration", iteration.as_bytes()),
                ("previous", text(self.last.as_deref())),
                ("output", output.get().as_bytes()),
            ];
            if until.is_true(&look.scope_with(&locals), look.limits)? {
                return Ok(Some(Then::End(text(Some(&output)).to_vec())));
            }
        }
        self.last = Some(output);
        // the last one is followed by the end, at once
        let pause_ms = if self.iteration < repeat.max_iterations { repeat.every_ms } else { 0 };
        self.phase = Phase::Before { at_ms: look.now_ms.saturating_add(pause_ms) };
        Ok(None)
    }

    /// Begins the next iteration, or ends.
    fn next(&mut self, repeat: &Repeat, look: &Look<'_>, draft: &mut Draft) -> Result<Then, ExprError> {
        let done = || Then::End(text(self.last.as_deref()).to_vec());
        let next = self.iteration.saturating_add(1);
        if let Some(while_) = &repeat.while_ {
            let (iteration, last) = (next.to_string(), text(self.last.as_deref()));
            let locals = [("iteration", iteration.as_bytes()), ("previous", last), ("output", last)];
            if !while_.is_true(&look.scope_with(&locals), look.limits)? {
                return Ok(done());
            }
        }
        if next > repeat.max_iterations {
            if repeat.continue_when_exhausted || (repeat.while_.is_none() && repeat.until.is_none()) {
                return Ok(done());
            }
            let most = repeat.max_iterations;
            let message = format!("was not done after {most} iterations (repeat.max_iterations)");
            return Ok(fail("max_iterations", message));
        }
        self.iteration = next;
        self.phase = Phase::Under;
        match &look.step.action {
            Action::Child(child) => {
                self.start(child, look, draft)?;
                Ok(self.waits(look, draft))
            }
            _ => self.call(look),
        }
    }

    /// Calls the step's tool for the iteration under way.
    fn call(&self, look: &Look<'_>) -> Result<Then, ExprError> {
        let iteration = self.iteration.to_string();
        Ok(Then::Run { input: look.render(&look.step.with, &self.locals(&iteration))? })
    }

    fn start(&self, child: &Child, look: &Look<'_>, draft: &mut Draft) -> Result<(), ExprError> {
        let iteration = self.iteration.to_string();
        let locals = self.locals(&iteration);
        let input = look.render(&look.step.with, &locals)?;
        let own = match child.target {
            ChildTarget::Block(_) => locals.as_slice(),
            ChildTarget::Workflow(_) => &[],
        };
        let mut request = look.request(child, iteration.clone(), input, own)?;
        request.detached = false;
        draft.start(request);
        Ok(())
    }

    fn locals<'s>(&'s self, iteration: &'s str) -> [(&'s str, &'s [u8]); 2] {
        [("iteration", iteration.as_bytes()), ("previous", text(self.last.as_deref()))]
    }

    fn waits(&self, look: &Look<'_>, draft: &mut Draft) -> Then {
        let iteration = self.iteration;
        draft.waits(&format!(
            "waits for run {} (iteration {iteration})",
            look.child_id(&iteration.to_string())
        ))
    }
}
