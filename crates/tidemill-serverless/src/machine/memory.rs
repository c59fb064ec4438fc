//! What a run of a document remembers between two turns.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::document::TaskId;
use crate::fault::Fault;

pub(super) type ThreadId = u32;

/// The thread that the document begins with.
pub(super) const MAIN: ThreadId = 0;

/// Everything: JSON text in the step's memo.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Memory {
    /// Keys of the children that have not ended.
    pub(super) open: Vec<String>,
    pub(super) started_ms: u64,
    pub(super) context: Value,
    /// Threads of control: the document's own, and one per branch of a fork.
    pub(super) threads: BTreeMap<ThreadId, Thread>,
    pub(super) next_thread: ThreadId,
    pub(super) next_child: u64,
    /// How often the document was begun anew by hand: children of then must not be taken for those of now.
    #[serde(skip_serializing_if = "is_first", default)]
    pub(super) round: u32,
    pub(super) next_event: u64,
    /// Of the alarm.
    pub(super) generation: u64,
    /// How it ends, once what it has asked for last is under way: the turn that ends a step asks for nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) ending: Option<End>,
}

/// How a document ends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum End {
    Output(Value),
    Fault(Box<Fault>),
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Thread {
    /// The thread with the fork, and the number of the branch.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) parent: Option<(ThreadId, usize)>,
    /// Tasks under way, each inside of the one before.
    pub(super) frames: Vec<Frame>,
}

/// A task under way.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Frame {
    pub(super) task: TaskId,
    pub(super) started_ms: u64,
    /// When it times out.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) until_ms: Option<u64>,
    pub(super) raw: Value,
    /// The input, transformed; left out where it is the raw one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(super) transformed: Option<Value>,
    pub(super) doing: Doing,
}

impl Frame {
    pub(super) fn input(&self) -> &Value {
        self.transformed.as_ref().unwrap_or(&self.raw)
    }
}

/// Where a task stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Doing {
    /// It was not begun, because the turn had done enough.
    Paused,
    /// It is being begun.
    Begun,
    /// The task of its list at this position.
    Do {
        at: usize,
    },
    For {
        items: Vec<Value>,
        index: usize,
        at: usize,
    },
    /// How the branches stand.
    Fork {
        threads: Vec<ThreadId>,
        branches: Vec<Branch>,
    },
    Try {
        at: usize,
        attempt: u64,
        began_ms: u64,
        attempt_until_ms: Option<u64>,
    },
    /// Between two attempts.
    Delay {
        until_ms: u64,
        attempt: u64,
        began_ms: u64,
    },
    Catch {
        at: usize,
        error: Box<Fault>,
    },
    /// A function, whose task is inside.
    Function,
    Wait {
        until_ms: u64,
    },
    Child {
        key: String,
        asked: Asked,
    },
    Listen(Box<Listening>),
}

/// How a branch of a fork stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Branch {
    Runs,
    Done(Value),
    Failed,
}

/// What a child was asked to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Asked {
    /// The request, as the document sees it.
    Http {
        request: Value,
    },
    /// The document that describes the operation.
    Description,
    Tool,
    Process,
    Workflow,
}

/// How far listening has come.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(super) struct Listening {
    /// Ids of signals that were looked at.
    pub(super) seen: Vec<String>,
    /// Which filters have had their event, with `all`; those of `until` by themselves.
    pub(super) met: Vec<usize>,
    pub(super) until_met: Vec<usize>,
    /// What the first event of each correlation said, by filter and name.
    pub(super) correlated: BTreeMap<String, Value>,
    /// What was taken and waits for `foreach`.
    pub(super) queue: Vec<Value>,
    /// What is the output so far.
    pub(super) taken: Vec<Value>,
    /// No further event is taken.
    pub(super) is_over: bool,
    /// The position in the list of `foreach`, and the event that it is at.
    pub(super) at: Option<(usize, Value)>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
const fn is_first(round: &u32) -> bool {
    *round == 0
}

impl Memory {
    pub(super) fn new(now_ms: u64, round: u32) -> Self {
        let main = Thread { parent: None, frames: Vec::new() };
        Self {
            open: Vec::new(),
            started_ms: now_ms,
            context: Value::Null,
            threads: BTreeMap::from([(MAIN, main)]),
            next_thread: MAIN + 1,
            next_child: 0,
            round,
            next_event: 0,
            generation: 0,
            ending: None,
        }
    }

    pub(super) fn top(&self, thread: ThreadId) -> Option<&Frame> {
        self.threads.get(&thread)?.frames.last()
    }

    pub(super) fn top_mut(&mut self, thread: ThreadId) -> Option<&mut Frame> {
        self.threads.get_mut(&thread)?.frames.last_mut()
    }

    /// The frames that a frame stands in, from the innermost, over all threads.
    pub(super) fn around(&self, thread: ThreadId) -> impl Iterator<Item = &Frame> {
        let mut frames = Vec::new();
        let mut at = Some(thread);
        while let Some(thread) = at.and_then(|id| self.threads.get(&id)) {
            frames.extend(thread.frames.iter().rev());
            at = thread.parent.map(|(parent, _)| parent);
        }
        frames.into_iter()
    }
}
