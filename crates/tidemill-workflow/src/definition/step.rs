//! Steps as their author wrote them.

use serde_json::Value;
use tidemill_protocol::RetryPolicy;

use super::Join;
use crate::plan::{OnReject, OnTimeout, Tolerance};

/// One step as its author wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct StepDefinition {
    /// Unique in the workflow, with its blocks.
    pub id: String,
    /// What it does.
    pub action: ActionDefinition,
    /// Ids of the steps that it waits for.
    pub needs: Vec<String>,
    /// How many of them it waits for.
    pub join: Join,
    /// Condition; where it is false the step is skipped.
    pub when: Option<Value>,
    /// Runs the action once per item of an array.
    pub for_each: Option<ForEachDefinition>,
    /// Runs the action again and again.
    pub repeat: Option<RepeatDefinition>,
    /// What it waits for after its tool has answered.
    pub then_wait: Option<WaitDefinition>,
    /// How failed attempts are tried again; members left out are the tool's.
    pub retry: RetryPolicy,
    /// How long an attempt, or a run of its block, may take, in milliseconds (default: the tool's setting; no bound).
    pub timeout_ms: Option<u64>,
    /// What its failure means for the steps that need it.
    pub on_error: OnError,
    /// What undoes it.
    pub compensate: Option<CallDefinition>,
    /// Queue (default: the workflow's).
    pub queue: Option<String>,
}

/// What a step does, as its author wrote it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum ActionDefinition {
    /// Calls a tool.
    Tool {
        /// `name` or `name@version`.
        tool: String,
        /// Its input, with expressions.
        with: Value,
    },
    /// Chooses which of the steps that its cases name are run.
    Switch(SwitchDefinition),
    /// Runs another workflow.
    Workflow {
        /// `name` or `name@version`.
        workflow: String,
        /// Its input, with expressions.
        with: Value,
        /// Whether nobody waits for its end.
        detached: bool,
    },
    /// Runs a block of steps.
    Steps(BlockDefinition),
    /// Runs steps side by side; the first success wins.
    Race(Vec<StepDefinition>),
    /// Waits.
    Wait(WaitDefinition),
    /// Asks people.
    Approval(Box<ApprovalDefinition>),
}

/// A block of steps, as its author wrote it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BlockDefinition {
    /// Its steps.
    pub steps: Vec<StepDefinition>,
    /// Its input, with expressions (default: the input of what it stands in).
    pub with: Option<Value>,
    /// What it gives, with expressions (default: the output of the last step, or of each of the last steps).
    pub output: Option<Value>,
}

/// A call of a tool beside the steps, as its author wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct CallDefinition {
    /// `name` or `name@version`.
    pub tool: String,
    /// Its input, with expressions.
    pub with: Value,
    /// How failed attempts are tried again; members left out are the tool's.
    pub retry: RetryPolicy,
    /// How long an attempt may take, in milliseconds (default: the tool's setting).
    pub timeout_ms: Option<u64>,
}

/// `switch`, as its author wrote it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SwitchDefinition {
    /// The cases, in the order in which they are tried.
    pub cases: Vec<CaseDefinition>,
    /// Ids of the steps that are run where no case holds.
    pub default: Option<Vec<String>>,
    /// Which of the cases that hold count.
    pub pick: Pick,
}

/// One case of a `switch`.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseDefinition {
    /// Its condition.
    pub when: Value,
    /// Ids of the steps that are run where it holds.
    pub then: Vec<String>,
}

/// Which of the cases that hold count; the member `match` of a `switch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pick {
    /// The first.
    #[default]
    First,
    /// Each of them.
    All,
}

/// What a step's failure means for the run and the steps that need it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum OnError {
    /// It fails the run, as the workflow's `failure` says.
    #[default]
    Fail,
    /// They run on, and the run may succeed.
    Continue,
    /// The run fails at once, and what was done is undone.
    Compensate,
    /// The step of this id is run in place of those that need it, and the run may succeed.
    Goto(String),
}

/// `for_each`, as its author wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct ForEachDefinition {
    /// An array, with expressions, or an expression that gives one.
    pub items: Value,
    /// How many items run at once (default 10).
    pub concurrency: Option<u32>,
    /// How many items make up one `.item` (default: each is one).
    pub batch: Option<u32>,
    /// How many items may fail without failing the step (default 0).
    pub tolerate: Option<Tolerance>,
}

/// `repeat`, as its author wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct RepeatDefinition {
    /// Asked before each iteration.
    pub while_: Option<Value>,
    /// Asked after each iteration.
    pub until: Option<Value>,
    /// At most so many (default 100).
    pub max_iterations: Option<u32>,
    /// Between the end of one and the next, in milliseconds (default 0).
    pub every_ms: Option<u64>,
    /// Whether the step ends well when there were so many.
    pub continue_when_exhausted: bool,
}

/// `wait`, as its author wrote it.
#[derive(Debug, Clone, PartialEq)]
pub enum WaitDefinition {
    /// For so many milliseconds, or an expression that gives them.
    For(Value),
    /// Until a time.
    Until {
        /// RFC 3339, a local time, or an expression that gives one of them.
        at: Value,
        /// IANA name of the local time's zone.
        time_zone: Option<String>,
    },
    /// For a signal.
    Signal(SignalDefinition),
}

/// `wait: { signal }`, as its author wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct SignalDefinition {
    /// The signal's name.
    pub name: String,
    /// JSON Schema (draft 2020-12) of its payload.
    pub schema: Option<Value>,
    /// How long it waits, in milliseconds (default: for ever).
    pub timeout_ms: Option<u64>,
    /// Whether the step ends well when nothing has come by then.
    pub continue_on_timeout: bool,
}

/// `approval`, as its author wrote it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ApprovalDefinition {
    /// Id of the step whose output is asked about.
    pub of: Option<String>,
    /// Who may decide (default: anybody).
    pub who: Vec<String>,
    /// What they are asked, with expressions.
    pub prompt: Option<Value>,
    /// How they are reminded.
    pub remind: Option<RemindDefinition>,
    /// How long it waits for each decision, in milliseconds (default: for ever).
    pub timeout_ms: Option<u64>,
    /// What then.
    pub on_timeout: OnTimeout,
    /// How often it asks (default 3).
    pub max_iterations: Option<u32>,
    /// What a rejection means (default: `revise` where there is something to revise).
    pub on_reject: Option<OnReject>,
}

/// `remind` of an approval, as its author wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct RemindDefinition {
    /// How often, in milliseconds.
    pub every_ms: u64,
    /// What reminds.
    pub call: CallDefinition,
}

impl ActionDefinition {
    /// The member that says what the step does.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Tool { .. } => "tool",
            Self::Switch(_) => "switch",
            Self::Workflow { .. } => "workflow",
            Self::Steps(_) => "steps",
            Self::Race(_) => "race",
            Self::Wait(_) => "wait",
            Self::Approval(_) => "approval",
        }
    }
}

impl StepDefinition {
    /// A step that does just this.
    #[must_use]
    pub fn new(id: impl Into<String>, action: ActionDefinition) -> Self {
        Self {
            id: id.into(),
            action,
            needs: Vec::new(),
            join: Join::All,
            when: None,
            for_each: None,
            repeat: None,
            then_wait: None,
            retry: RetryPolicy::default(),
            timeout_ms: None,
            on_error: OnError::Fail,
            compensate: None,
            queue: None,
        }
    }
}

impl CallDefinition {
    /// The call as a step.
    pub(crate) fn step(&self, id: String) -> StepDefinition {
        let action = ActionDefinition::Tool { tool: self.tool.clone(), with: self.with.clone() };
        let (retry, timeout_ms) = (self.retry.clone(), self.timeout_ms);
        StepDefinition { retry, timeout_ms, ..StepDefinition::new(id, action) }
    }
}
