//! A workflow as its author wrote it: parsed and checked member by member, not yet checked as a whole.

mod reader;
mod write;

use std::sync::Arc;

use serde_json::Value;
use tidemill_protocol::RetryPolicy;

use crate::problem::{Problem, Problems};
use crate::source::{self, Node};

/// Most steps of one workflow.
pub const MAX_STEPS: usize = 20_000;

/// A workflow definition. What is `None` was not given and has its default.
#[derive(Debug, Clone, PartialEq)]
pub struct Definition {
    /// The workflow's name.
    pub name: String,
    /// Its version (default 1; the publisher may assign the next).
    pub version: Option<u32>,
    /// For people.
    pub description: Option<String>,
    /// Queue of its steps where they name none (default `default`).
    pub queue: Option<String>,
    /// How long a run may take, in milliseconds (default: no bound of the workflow's own).
    pub timeout_ms: Option<u64>,
    /// What a failed step means for the others.
    pub failure: FailurePolicy,
    /// JSON Schema (draft 2020-12) of a run's input.
    pub input: Option<Value>,
    /// How long a finished run is kept, in milliseconds (default: the pool's setting).
    pub retention_ms: Option<u64>,
    /// The steps, in the order of the text.
    pub steps: Vec<StepDefinition>,
    /// What a run gives, with expressions (default: the output of the last step, or of each of the last steps).
    pub output: Option<Value>,
    pub(crate) origin: Origin,
}

/// One step as its author wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct StepDefinition {
    /// Unique in the workflow.
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
    /// How failed attempts are tried again; members left out are the tool's.
    pub retry: RetryPolicy,
    /// How long an attempt may take, in milliseconds (default: the tool's setting).
    pub timeout_ms: Option<u64>,
    /// What its failure means for the steps that need it.
    pub on_error: OnError,
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

/// What a step's failure means for the steps that need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnError {
    /// It fails the run, as the workflow's `failure` says.
    #[default]
    Fail,
    /// They run on, and the run may succeed.
    Continue,
}

/// `for_each`, as its author wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct ForEachDefinition {
    /// An array, with expressions, or an expression that gives one.
    pub items: Value,
    /// How many items run at once (default 10).
    pub concurrency: Option<u32>,
    /// How many items may fail without failing the step (default 0).
    pub tolerate: Option<u32>,
}

/// How many of its needs a step waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Join {
    /// All of them.
    #[default]
    All,
    /// The first that succeeds.
    Any,
    /// The first so many that succeed.
    NOf(u32),
}

/// What a failed step means for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FailurePolicy {
    /// The run fails at once and steps in flight are stopped.
    #[default]
    FailFast,
    /// Steps that do not depend on the failed one run on; the run fails at the end.
    Finish,
}

impl FailurePolicy {
    /// The word in a definition.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::FailFast => "fail_fast",
            Self::Finish => "finish",
        }
    }
}

/// The text that a definition came from, for the places of problems. It takes no part in comparing definitions.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) file: Arc<str>,
    pub(crate) root: Arc<Node>,
}

impl PartialEq for Origin {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Definition {
    /// Reads a definition from YAML, or from JSON where the text starts with `{`. `file` names it in problems.
    ///
    /// # Errors
    /// All that is wrong with single members. What is wrong with the whole is found by [`compile`](Self::compile).
    pub fn parse(text: &str, file: &str) -> Result<Self, Problems> {
        let (definition, problems) = Self::read(text, file);
        match definition {
            Some(definition) if problems.is_empty() => Ok(definition),
            _ => Err(Problems::new(problems)),
        }
    }

    /// Reads as much as can be read, with what is wrong.
    pub(crate) fn read(text: &str, file: &str) -> (Option<Self>, Vec<Problem>) {
        match source::read(text) {
            Ok(root) => reader::read(root, file),
            Err(refusal) => {
                let problem = Problem {
                    file: file.to_owned(),
                    line: refusal.place.line,
                    column: refusal.place.column,
                    path: String::new(),
                    code: refusal.code,
                    message: refusal.message,
                };
                (None, vec![problem])
            }
        }
    }
}
