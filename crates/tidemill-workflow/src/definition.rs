//! A workflow as its author wrote it: parsed and checked member by member, not yet checked as a whole.

mod reader;
mod step;
mod write;

use std::sync::Arc;

use serde_json::Value;

pub use step::{
    ActionDefinition, ApprovalDefinition, BlockDefinition, CallDefinition, CaseDefinition, ForEachDefinition,
    OnError, Pick, RemindDefinition, RepeatDefinition, SignalDefinition, StepDefinition, SwitchDefinition,
    WaitDefinition,
};

use crate::plan::{Budget, OnFull};
use crate::problem::{Problem, Problems};
use crate::source::{self, Node};

/// Most steps of one workflow, those of its blocks included.
pub const MAX_STEPS: usize = 20_000;
/// Deepest nesting of blocks.
pub const MAX_NESTING: usize = 16;

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
    /// Steps that are run one by one at a run's end, whatever it is.
    pub finally: Vec<StepDefinition>,
    /// What its runs are found by, with expressions.
    pub labels: Vec<(String, Value)>,
    /// How many runs of one key may be under way at once.
    pub group: Option<GroupDefinition>,
    /// What a run may use up.
    pub budget: Option<Budget>,
    /// The mode in which its runs are carried out (default: the pool's).
    pub mode: Option<String>,
    pub(crate) origin: Origin,
}

/// `group`, as its author wrote it.
#[derive(Debug, Clone, PartialEq)]
pub struct GroupDefinition {
    /// The key, with expressions.
    pub key: Value,
    /// How many at once.
    pub limit: u32,
    /// What becomes of one more.
    pub on_full: OnFull,
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
