//! What a run comes to, worked out in the simplest way: the measure that the engine is held against in tests.
//!
//! Nothing runs side by side here, nothing crashes and nothing is late: each step is decided on when all that it needs has ended, and what
//! it starts is run to its end before anything else. Where the engine's order could matter the prediction says that it is not certain.

mod step;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tidemill_protocol::{RunState, StepState};

use crate::definition::FailurePolicy;
use crate::expr::Limits;
use crate::plan::{Finish, Need, Plan};
use crate::scope::{RunView, Scope, StepView};

/// What happens outside of a run: its tools, and whoever it waits for.
pub trait Script {
    /// What an attempt of a tool comes to.
    fn call(&self, call: &Call<'_>) -> Answer;

    /// The payload of the first signal that a step gets; `None` where none comes in time.
    fn signal(&self, run: &str, step: &str) -> Option<Value>;

    /// What is decided about a question, from 1; `None` where nobody decides in time.
    fn decide(&self, run: &str, step: &str, iteration: u32) -> Option<Verdict>;

    /// A workflow, by `name` or `name@version`.
    fn workflow(&self, reference: &str) -> Option<Arc<Plan>>;

    /// How often a step whose definition does not say is tried.
    fn attempts(&self) -> u32 {
        1
    }
}

/// An attempt of a tool.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The run, whose id says where it stands: `<parent>~<step>.<key>` below the run itself.
    pub run: &'a str,
    /// Id of the step.
    pub step: &'a str,
    /// Index of the item, in a `for_each`.
    pub item: Option<u64>,
    /// Number of the iteration, from 1.
    pub iteration: u32,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// What it is called with.
    pub input: &'a Value,
}

/// What an attempt comes to.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It succeeds with this output.
    Output(Value),
    /// It fails; another attempt can help.
    Fails,
    /// It fails for good.
    Refuses,
}

/// What is decided about a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// Whether it is approved.
    pub approve: bool,
    /// By whom: somebody who may.
    pub by: String,
    /// What they say.
    pub feedback: Value,
}

/// What a run comes to.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Its end.
    pub state: RunState,
    /// Its output, where it succeeds.
    pub output: Option<Value>,
    /// How each step ends, by its id; one that is not begun is pending.
    pub steps: BTreeMap<String, StepState>,
    /// The runs that it starts, by their ids.
    pub runs: BTreeMap<String, Self>,
    /// Whether it is this in any order. Otherwise (a run that fails at once stops what is under way, several branches of a race would
    /// win) only whether it succeeds is said.
    pub is_certain: bool,
}

/// Why nothing can be predicted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unpredictable {
    /// A document of another language decides.
    #[error("step `{0}` is a program")]
    Program(String),
    /// Something that the plan names is not there.
    #[error("there is no {0}")]
    Missing(String),
}

/// Says what a run of this plan comes to.
///
/// # Errors
/// What cannot be predicted.
pub fn predict(plan: &Plan, input: &Value, script: &dyn Script) -> Result<Prediction, Unpredictable> {
    Walk::new(plan, "run", (input.to_string().into_bytes(), Vec::new()), script).walk()
}

/// How a step ended.
#[derive(Debug, Clone)]
struct Record {
    state: StepState,
    output: Option<Vec<u8>>,
    error: Option<Vec<u8>>,
}

/// Names and JSON texts.
type Locals = Vec<(String, Vec<u8>)>;

/// A run on its way.
struct Walk<'s> {
    plan: &'s Plan,
    run: String,
    input: Vec<u8>,
    locals: Locals,
    script: &'s dyn Script,
    limits: Limits,
    records: Vec<Option<Record>>,
    runs: BTreeMap<String, Prediction>,
    is_certain: bool,
    /// What its end was decided to be.
    closing: Option<(RunState, Vec<u8>)>,
}

impl Record {
    fn succeeded(output: Vec<u8>) -> Self {
        Self { state: StepState::Succeeded, output: Some(output), error: None }
    }

    fn failed(code: &str) -> Self {
        Self::ended_badly(StepState::Failed, code)
    }

    fn ended_badly(state: StepState, code: &str) -> Self {
        let error = serde_json::json!({ "code": code, "message": code }).to_string().into_bytes();
        Self { state, output: None, error: Some(error) }
    }

    const fn skipped() -> Self {
        Self { state: StepState::Skipped, output: None, error: None }
    }
}

impl<'s> Walk<'s> {
    fn new(plan: &'s Plan, run: &str, (input, locals): (Vec<u8>, Locals), script: &'s dyn Script) -> Self {
        Self {
            plan,
            run: run.to_owned(),
            input,
            locals,
            script,
            limits: Limits::default(),
            records: vec![None; plan.steps.len()],
            runs: BTreeMap::new(),
            is_certain: true,
            closing: None,
        }
    }

    fn walk(mut self) -> Result<Prediction, Unpredictable> {
        while let Some(step) = self.next() {
            let record = self.decide(step)?;
            self.records[step as usize] = Some(record);
        }
        let failed: Vec<u32> =
            (0..self.plan.main()).filter(|step| self.need(*step) == Need::Failed).collect();
        let fails_at_once = |step: &u32| {
            self.plan.failure == FailurePolicy::FailFast
                || self.plan.step(*step).is_some_and(|step| step.compensate_on_error)
        };
        if self.plan.main() > 1 && failed.iter().any(fails_at_once) {
            self.is_certain = false;
        }
        let output = if failed.is_empty() { self.output() } else { None };
        let to = if output.is_some() { RunState::Succeeded } else { RunState::Failed };
        let error = failed.first().and_then(|step| self.records[*step as usize].as_ref()?.error.clone());
        self.closing = Some((to, error.unwrap_or_else(|| b"null".to_vec())));
        let state = self.close(to)?;
        Ok(Prediction {
            state,
            output: output.filter(|_| state == RunState::Succeeded),
            steps: self.steps(),
            runs: self.runs,
            is_certain: self.is_certain,
        })
    }

    /// A step that all is known about that it needs.
    fn next(&self) -> Option<u32> {
        let is_ready = |step: &u32| {
            let needs = self.plan.step(*step).map(|step| step.needs.as_slice()).unwrap_or_default();
            self.records[*step as usize].is_none()
                && needs.iter().all(|need| self.need(*need) != Need::Pending)
        };
        (0..self.plan.main()).find(is_ready)
    }

    fn need(&self, step: u32) -> Need {
        let continues = self.plan.step(step).is_some_and(|step| step.continue_on_error);
        match self.records[step as usize].as_ref().map(|record| record.state) {
            None => Need::Pending,
            Some(StepState::Succeeded) => Need::Succeeded,
            Some(StepState::Skipped) => Need::Skipped,
            Some(_) if continues => Need::Continued,
            Some(_) => Need::Failed,
        }
    }

    fn output(&self) -> Option<Value> {
        let text = match &self.plan.finish {
            Finish::Sink(step) => {
                let output = self.records[*step as usize].as_ref()?.output.clone();
                output.unwrap_or_else(|| b"null".to_vec())
            }
            Finish::Evaluate(template) => template.render(&self.scope(), &self.limits).ok()?,
        };
        serde_json::from_slice(&text).ok()
    }

    /// Undoes what was done, where the run failed, and does what is done at every end.
    fn close(&mut self, to: RunState) -> Result<RunState, Unpredictable> {
        let mut state = to;
        if to != RunState::Succeeded {
            let done = (0..self.plan.main()).filter(|step| self.need(*step) == Need::Succeeded);
            let undo: Vec<u32> = done.filter_map(|step| self.plan.step(step)?.undo).collect();
            for step in undo {
                let record = self.act(step)?;
                if state == to {
                    state = RunState::Compensated;
                }
                if record.state != StepState::Succeeded {
                    state = RunState::CompensationFailed;
                }
                self.records[step as usize] = Some(record);
            }
        }
        for step in self.plan.finally.clone() {
            let record = self.act(step)?;
            self.records[step as usize] = Some(record);
        }
        Ok(state)
    }

    fn steps(&self) -> BTreeMap<String, StepState> {
        let state =
            |record: &Option<Record>| record.as_ref().map_or(StepState::Pending, |record| record.state);
        self.plan
            .steps
            .iter()
            .zip(&self.records)
            .map(|(step, record)| (step.id.to_string(), state(record)))
            .collect()
    }

    fn scope(&self) -> Scope<'_> {
        let records = (0_u32..).zip(&self.records);
        let steps = records.filter_map(|(step, record)| {
            let Record { state, output, error } = record.as_ref()?;
            Some((
                step,
                StepView { state: state.as_str(), output: output.as_deref(), error: error.as_deref() },
            ))
        });
        Scope {
            input: &self.input,
            steps: steps.collect(),
            run: RunView {
                id: &self.run,
                workflow: &self.plan.name,
                version: self.plan.version,
                tenant: None,
                state: self.closing.as_ref().map(|(state, _)| state.as_str()),
                error: self.closing.as_ref().map(|(_, error)| error.as_slice()),
            },
            item: None,
            locals: self.locals.iter().map(|(name, text)| (name.as_str(), text.as_slice())).collect(),
        }
    }
}
