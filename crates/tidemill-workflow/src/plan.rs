//! A workflow that has been checked as a whole: ready to be run.

mod again;
mod ancestors;
mod compile;
mod draw;
mod goto;
mod graph;
mod join;
mod program;
mod sequential;
mod spot;
mod step;
mod switch;
mod wait;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use serde_json::Value;

pub use again::{Again, Kept};
pub use join::{Decision, Fires, Need};
pub use program::ProgramPlan;
pub use step::{Action, Branch, Child, PlanStep, Repeat};
pub use wait::{Approval, OnReject, OnTimeout, Reminder, Signal, Wait};

use crate::definition::FailurePolicy;
use crate::schema::Schema;
use crate::template::Template;

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
#[derive(Debug, Clone)]
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
    /// Of a block: its path in the workflow.
    pub block: Option<String>,
    /// What a run is found by, from its input: text, numbers and booleans.
    pub labels: Vec<(String, Template)>,
    /// How many runs of one key may be under way at once.
    pub group: Option<Group>,
    /// What a run may use up.
    pub budget: Option<Budget>,
    /// The mode in which its runs are carried out, whatever the pool's is.
    pub mode: Option<String>,
    /// Steps that are run one by one at a run's end, whatever it is; at or beyond [`Plan::main`].
    pub finally: Vec<u32>,
    main: u32,
    blocks: HashMap<String, Arc<Self>>,
    input_schema: Option<Schema>,
    waits: bool,
    roots: Vec<u32>,
    sinks: Vec<u32>,
    dependents: Vec<Vec<u32>>,
    index: HashMap<Arc<str>, u32>,
    /// The same with its steps in order, once it was asked for.
    in_order: OnceLock<Arc<Self>>,
}

/// How many runs of one key may be under way at once.
#[derive(Debug, Clone)]
pub struct Group {
    /// The key, from the run's input.
    pub key: Template,
    /// So many.
    pub limit: u32,
    /// What becomes of one more.
    pub on_full: OnFull,
}

/// What becomes of a run whose group is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnFull {
    /// It waits for its turn.
    #[default]
    Queue,
    /// The oldest is cancelled for it.
    CancelOlder,
    /// It is cancelled itself.
    CancelNewer,
}

impl OnFull {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Queue, Self::CancelOlder, Self::CancelNewer];

    /// The word in a definition.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::CancelOlder => "cancel_older",
            Self::CancelNewer => "cancel_newer",
        }
    }
}

/// What a run may use up, with everything that it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Budget {
    /// Steps, items and iterations.
    pub steps: Option<u64>,
    /// The sum of what tools say that their calls cost, in millionths.
    pub cost_micros: Option<u64>,
    /// Time, in milliseconds; it bounds [`Plan::timeout_ms`], too.
    pub duration_ms: Option<u64>,
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
#[derive(Debug, Clone)]
pub struct ForEach {
    /// An array.
    pub items: Template,
    /// How many items run at once.
    pub concurrency: u32,
    /// How many items make one batch; 0 for items one by one.
    pub batch: u32,
    /// How many items may fail without failing the step.
    pub tolerate: Tolerance,
}

/// How many of a number may fail.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Tolerance {
    /// So many.
    Count(u32),
    /// So many of a hundred.
    Percent(f32),
}

impl Tolerance {
    /// How many of `total` may fail.
    #[must_use]
    pub fn of(self, total: u64) -> u64 {
        match self {
            Self::Count(count) => u64::from(count),
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                clippy::cast_precision_loss,
                reason = "a share of a count, rounded down; percentages are between 0 and 100"
            )]
            Self::Percent(percent) => (total as f64 * f64::from(percent) / 100.0).floor() as u64,
        }
    }
}

/// How a run's output is made.
#[derive(Debug, Clone)]
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

    /// What runs of it call it: `name@version`, of a block `name@version#path`.
    #[must_use]
    pub fn reference(&self) -> String {
        let Self { name, version, block, .. } = self;
        block.as_ref().map_or_else(|| format!("{name}@{version}"), |path| format!("{name}@{version}#{path}"))
    }

    /// The tools that it calls, its blocks included; each once, in the order of the steps.
    #[must_use]
    pub fn tools(&self) -> Vec<Arc<str>> {
        let mut paths: Vec<&String> = self.blocks.keys().collect();
        paths.sort_unstable();
        let blocks = paths.into_iter().filter_map(|path| self.blocks.get(path));
        let steps = self.steps.iter().chain(blocks.flat_map(|block| &block.steps));
        let mut seen = HashSet::new();
        steps
            .filter_map(|step| match &step.action {
                Action::Tool { tool } => seen.insert(Arc::clone(tool)).then(|| Arc::clone(tool)),
                _ => None,
            })
            .collect()
    }

    /// How many of the steps make up the run itself; those behind undo them, or come at its end.
    #[must_use]
    pub const fn main(&self) -> u32 {
        self.main
    }

    /// Whether something is to be done at a run's end.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.steps.len() > self.main as usize
    }

    /// Whether it has steps that wait.
    #[must_use]
    pub const fn waits(&self) -> bool {
        self.waits
    }

    /// A block, by its path.
    #[must_use]
    pub fn block(&self, path: &str) -> Option<&Arc<Self>> {
        self.blocks.get(path)
    }

    /// Steps that no other needs.
    #[must_use]
    pub fn sinks(&self) -> &[u32] {
        &self.sinks
    }

    /// Steps that count the end of this one: those that need it, or in a plan in order the one behind it.
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

    /// Whether a run's input must fit a schema.
    #[must_use]
    pub const fn checks_input(&self) -> bool {
        self.input_schema.is_some()
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
