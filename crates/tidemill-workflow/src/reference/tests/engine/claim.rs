//! What a worker makes of a step that it has claimed, before it tells anybody.

use serde_json::Value;
use tidemill_protocol::{RunState, StepState};

use super::{Engine, Run, Slot};
use crate::expr::Limits;
use crate::orchestrate::{Moment, Then, Turn, advance, wanted_items};
use crate::plan::{Action, Decision, Finish, Need, PlanStep};
use crate::reference::{Answer, Call};
use crate::scope::{RunView, Scope, StepView};

impl Engine<'_> {
    /// What a worker makes of a claimed step: a turn, or the end of a step that does not wait.
    pub(super) fn claim(&self, id: &str, step: u32) -> Turn {
        let run = &self.runs[id];
        let (slot, planned) = (&run.slots[step as usize], &run.plan.steps[step as usize]);
        let texts: Vec<(String, Vec<u8>)> = run
            .locals
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.to_string().into_bytes()))
            .collect();
        let scope = scope_of(id, run, &texts);
        let limits = Limits::default();
        let failed = || {
            Turn::then(Then::Fail {
                state: StepState::Failed,
                code: "expression".to_owned(),
                message: String::new(),
            })
        };
        if slot.memo.is_none() && slot.answered == 0 {
            if step < run.plan.main() {
                let needs: Vec<Need> = planned.needs.iter().map(|need| stands(run, *need)).collect();
                if planned.decide(&needs) == Decision::Skip {
                    return Turn::then(Then::Skip);
                }
            }
            match planned.when.as_ref().map_or(Ok(true), |when| when.is_true(&scope, &limits)) {
                Ok(true) => {}
                Ok(false) => return Turn::then(Then::Skip),
                Err(_) => return failed(),
            }
        }
        if planned.is_orchestrated() {
            let items: Vec<_> = wanted_items(planned, slot.memo.as_deref())
                .filter_map(|item| Some((item, slot.items.get(item as usize)?.clone())))
                .collect();
            let moment = Moment {
                now_ms: self.now_ms,
                scope: &scope,
                limits: &limits,
                memo: slot.memo.as_deref(),
                events: &slot.mail,
                items: &items,
            };
            return advance(planned, &moment).unwrap_or_else(|_| failed());
        }
        match (&planned.for_each, &planned.action) {
            (Some(for_each), _) => match for_each.items(&scope, &limits) {
                Ok(items) => self.items(id, planned, &scope, &items),
                Err(_) => failed(),
            },
            (None, Action::Decide) => planned
                .with
                .render(&scope, &limits)
                .map_or_else(|_| failed(), |output| Turn::then(Then::End(output))),
            _ => planned
                .with
                .render(&scope, &limits)
                .map_or_else(|_| failed(), |input| Turn::then(Then::Run { input })),
        }
    }

    /// All items of a tool at once.
    fn items(
        &self,
        id: &str,
        planned: &PlanStep,
        scope: &Scope<'_>,
        items: &[Box<serde_json::value::RawValue>],
    ) -> Turn {
        let failed = |code: &str| Then::Fail {
            state: StepState::Failed,
            code: code.to_owned(),
            message: String::new(),
        };
        let mut bad = 0;
        let outputs: Vec<Value> = (0_u64..)
            .zip(items)
            .map(|(index, item)| {
                let scope = Scope { item: Some((index, item.get().as_bytes())), ..scope.clone() };
                let input = planned
                    .with
                    .render(&scope, &Limits::default())
                    .ok()
                    .and_then(|text| serde_json::from_slice::<Value>(&text).ok());
                let most = planned.retry.max_attempts.unwrap_or_else(|| self.script.attempts());
                let answer = input.and_then(|input| {
                    (1..=most).find_map(|attempt| {
                        match self.script.call(&Call {
                            run: id,
                            step: &planned.id,
                            item: Some(index),
                            iteration: 1,
                            attempt,
                            input: &input,
                        }) {
                            Answer::Output(output) => Some(Some(output)),
                            Answer::Fails => None,
                            Answer::Refuses => Some(None),
                        }
                    })
                });
                answer.flatten().unwrap_or_else(|| {
                    bad += 1;
                    Value::Null
                })
            })
            .collect();
        let tolerated = planned.for_each.as_ref().map_or(0, |each| each.tolerate.of(items.len() as u64));
        Turn::then(if bad > tolerated {
            failed("items_failed")
        } else {
            Then::End(Value::from(outputs).to_string().into_bytes())
        })
    }
}

pub(super) fn stands(run: &Run, step: u32) -> Need {
    let continues = run.plan.steps[step as usize].continue_on_error;
    match run.slots[step as usize].state {
        Some(StepState::Succeeded) => Need::Succeeded,
        Some(StepState::Skipped) => Need::Skipped,
        Some(state) if state.is_terminal() => {
            if continues {
                Need::Continued
            } else {
                Need::Failed
            }
        }
        _ => Need::Pending,
    }
}

fn scope_of<'a>(id: &'a str, run: &'a Run, locals: &'a [(String, Vec<u8>)]) -> Scope<'a> {
    let view = |slot: &'a Slot| StepView {
        state: slot.state.unwrap_or(StepState::Pending).as_str(),
        output: slot.output.as_deref(),
        error: slot.error.as_deref(),
    };
    let (workflow, version) = (run.plan.name.as_str(), run.plan.version);
    let state = run.to.map(RunState::as_str);
    Scope {
        input: &run.input,
        steps: (0..).zip(&run.slots).map(|(step, slot)| (step, view(slot))).collect(),
        run: RunView { id, workflow, version, state, ..RunView::default() },
        item: None,
        locals: locals.iter().map(|(name, text)| (name.as_str(), text.as_slice())).collect(),
    }
}

pub(super) fn output_of(id: &str, run: &Run) -> Option<Value> {
    let text = match &run.plan.finish {
        Finish::Sink(step) => run.slots[*step as usize].output.clone().unwrap_or_else(|| b"null".to_vec()),
        Finish::Evaluate(template) => template.render(&scope_of(id, run, &[]), &Limits::default()).ok()?,
    };
    serde_json::from_slice(&text).ok()
}
