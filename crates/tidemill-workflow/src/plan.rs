//! A workflow that has been checked as a whole: ready to be run.

mod compile;
mod draw;
mod graph;
mod join;
mod switch;

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;
use tidemill_protocol::RetryPolicy;

pub use join::{Decision, Fires, Need};

use crate::definition::{FailurePolicy, Join};
use crate::expr::{ExprError, Fault, Limits};
use crate::schema::Schema;
use crate::scope::Scope;
use crate::template::{Expr, Template};

/// The tools that a definition may call.
pub trait ToolCatalog {
    /// Whether a tool of this name (`name` or `name@version`) exists.
    fn knows(&self, tool: &str) -> bool;
    /// The JSON Schema of its input, where it has one.
    fn input_schema(&self, tool: &str) -> Option<Value>;
    /// All names, for suggestions.
    fn names(&self) -> Vec<String>;
}

/// A validated workflow. Steps are named by their index; shared between threads in an [`Arc`].
#[derive(Debug)]
pub struct Plan {
    /// The workflow's name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// Queue of the steps that name none.
    pub queue: String,
    /// How long a run may take, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// What a failed step means for the others.
    pub failure: FailurePolicy,
    /// How long a finished run is kept, in milliseconds.
    pub retention_ms: Option<u64>,
    /// The steps, in the order of the definition.
    pub steps: Vec<PlanStep>,
    /// How a run's output is made.
    pub finish: Finish,
    input_schema: Option<Schema>,
    roots: Vec<u32>,
    sinks: Vec<u32>,
    dependents: Vec<Vec<u32>>,
    index: HashMap<Arc<str>, u32>,
}

/// One step of a plan.
#[derive(Debug)]
pub struct PlanStep {
    /// Its id.
    pub id: Arc<str>,
    /// What it does.
    pub action: Action,
    /// The steps that it waits for, with the switch that chooses it.
    pub needs: Vec<u32>,
    /// How many of them.
    pub join: Join,
    /// Condition; where it is false the step is skipped. Where a switch chooses the step, that it did is part of it.
    pub when: Option<Expr>,
    /// The switch that chooses it.
    pub chosen_by: Option<ChosenBy>,
    /// Input of the action.
    pub with: Template,
    /// Runs the action once per item.
    pub for_each: Option<ForEach>,
    /// How failed attempts are tried again; members left out are the tool's.
    pub retry: RetryPolicy,
    /// How long an attempt may take, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// Whether the steps that need it run on when it failed.
    pub continue_on_error: bool,
    /// Its own queue.
    pub queue: Option<String>,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Calls a tool with `with` as its input.
    Tool {
        /// `name` or `name@version`.
        tool: Arc<str>,
    },
    /// Calls nothing: what `with` renders to is the step's output.
    Decide,
}

/// Where a step is named by a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChosenBy {
    /// Index of the step with the switch.
    pub switch: u32,
    /// Number of the case, from 0; `None` for the default.
    pub case: Option<u32>,
}

/// How often and how wide an action is run.
#[derive(Debug)]
pub struct ForEach {
    /// An array.
    pub items: Template,
    /// How many items run at once.
    pub concurrency: u32,
    /// How many items may fail without failing the step.
    pub tolerate: u32,
}

/// How a run's output is made.
#[derive(Debug)]
pub enum Finish {
    /// It is the output of this step.
    Sink(u32),
    /// It is rendered when all steps have ended; `.item` is not in scope.
    Evaluate(Template),
}

impl Plan {
    /// Steps that need no other; a run starts with them.
    #[must_use]
    pub fn roots(&self) -> &[u32] {
        &self.roots
    }

    /// Steps that no other needs.
    #[must_use]
    pub fn sinks(&self) -> &[u32] {
        &self.sinks
    }

    /// Steps that need this one.
    #[must_use]
    pub fn dependents(&self, step: u32) -> &[u32] {
        self.dependents.get(step as usize).map(Vec::as_slice).unwrap_or_default()
    }

    /// The step at an index.
    #[must_use]
    pub fn step(&self, step: u32) -> Option<&PlanStep> {
        self.steps.get(step as usize)
    }

    /// The index of a step.
    #[must_use]
    pub fn step_index(&self, id: &str) -> Option<u32> {
        self.index.get(id).copied()
    }

    /// The queue in which a step is dispatched.
    #[must_use]
    pub fn queue_of(&self, step: u32) -> &str {
        self.step(step).and_then(|step| step.queue.as_deref()).unwrap_or(&self.queue)
    }

    /// Checks a run's input.
    ///
    /// # Errors
    /// Each violation with its place in the input, as a JSON pointer.
    pub fn validate_input(&self, input: &Value) -> Result<(), Vec<String>> {
        self.input_schema.as_ref().map_or(Ok(()), |schema| schema.check(input))
    }

    /// When the counters of a step's needs make it fire; `None` for a step that does not exist.
    #[must_use]
    pub fn fires_when(&self, step: u32) -> Option<Fires> {
        self.step(step).map(PlanStep::fires_when)
    }
}

impl ForEach {
    /// The items, each as JSON text.
    ///
    /// # Errors
    /// When the expression fails or gives no array.
    pub fn items(&self, scope: &Scope<'_>, limits: &Limits) -> Result<Vec<Box<RawValue>>, ExprError> {
        let text = self.items.render(scope, limits)?;
        let got = match text.trim_ascii_start().first() {
            Some(b'[') => {
                return serde_json::from_slice(&text).map_err(|error| {
                    let (what, reason) = ("for_each.items".to_owned(), error.to_string());
                    ExprError::new("for_each.items", Fault::BadScope { what, reason })
                });
            }
            Some(b'{') => "object",
            Some(b'"') => "string",
            Some(b't' | b'f') => "boolean",
            Some(b'n') | None => "null",
            Some(_) => "number",
        };
        Err(ExprError::new("for_each.items", Fault::NotArray { got }))
    }
}
