//! The interpreter: what a document does next, given what it remembers and what has happened.
//!
//! A turn carries every thread of control on until it waits for something outside. All that a thread is in the middle of is
//! a stack of frames in the memo, so a turn begins where the last one stopped, and a crash between two turns loses nothing:
//! the turn is taken again from the same memo and the same events, and asks for the same children by the same keys.

mod announce;
mod begin;
mod catch;
mod data;
mod effects;
mod ended;
mod finish;
mod http;
mod listening;
mod memory;
mod openapi;
mod times;

use std::collections::VecDeque;

use bytes::Bytes;
use serde_json::Value;
use tidemill_protocol::StepState;
use tidemill_workflow::orchestrate::{
    Alarm, ChildRequest, ChildTarget, Event, Moment, Then, Turn, begins_anew,
};
use tidemill_workflow::{ExprError, Fault as ExprFault};

pub(crate) use listening::signal_of;
use memory::{Doing, End, Frame, MAIN, Memory, ThreadId};

use crate::document::{Document, Flow, ROOT, Task, TaskId};
use crate::fault::Fault;

/// Tasks that one turn begins; a document that computes for longer goes on in the next, so that it can be cancelled.
const TASKS_A_TURN: u32 = 250;
/// Longest memo, in bytes.
const MEMO_BYTES: usize = 1 << 20;
/// Deepest nesting of tasks under way; functions and lists nest no deeper in a document that is read.
const DEPTH: usize = 256;

/// Why a function of the machine gives nothing.
enum Stop {
    /// The document raises an error.
    Fault(Box<Fault>),
    /// An expression needs more than this turn may spend.
    Fuel(Box<ExprError>),
}

impl From<Fault> for Stop {
    fn from(fault: Fault) -> Self {
        Self::Fault(Box::new(fault))
    }
}

/// What comes next in a thread.
enum Next {
    Enter {
        task: TaskId,
        raw: Value,
    },
    /// The innermost task has this raw output; a flow directive goes before its own.
    Finish {
        output: Value,
        flow: Option<Flow>,
    },
    /// A task has ended and its frame is gone.
    Leave {
        output: Value,
        flow: Flow,
    },
    Raise(Box<Fault>),
    /// The thread waits.
    Wait,
}

struct Machine<'m> {
    document: &'m Document,
    moment: &'m Moment<'m>,
    /// The run's input.
    input: Value,
    memory: Memory,
    work: VecDeque<(ThreadId, Next)>,
    begun: u32,
    children: Vec<ChildRequest>,
    cancel: Vec<String>,
    publish: Vec<Bytes>,
    end: Option<End>,
    out_of_fuel: Option<Box<ExprError>>,
}

/// One turn of a document.
///
/// # Errors
/// An expression needs more fuel than the moment allows.
pub(crate) fn advance(document: &Document, moment: &Moment<'_>) -> Result<Turn, ExprError> {
    let broken = |what: &str| {
        Turn::then(Then::Fail {
            state: StepState::Failed,
            code: "unusable_memo".to_owned(),
            message: format!("{what} of this run cannot be read: it is not what Tidemill wrote"),
        })
    };
    let text = if moment.scope.input.is_empty() { b"null" } else { moment.scope.input };
    let Ok(input) = serde_json::from_slice(text) else { return Ok(broken("the input")) };
    let round = moment.memo.map_or(Some(0), begins_anew);
    let (memory, is_new) = match (round, moment.memo.map(serde_json::from_slice)) {
        (Some(round), _) => (Memory::new(moment.now_ms, round), true),
        (None, Some(Ok(memory))) => (memory, false),
        (None, _) => return Ok(broken("the memo")),
    };
    let mut machine = Machine {
        document,
        moment,
        input,
        memory,
        work: VecDeque::new(),
        begun: 0,
        children: Vec::new(),
        cancel: Vec::new(),
        publish: Vec::new(),
        end: None,
        out_of_fuel: None,
    };
    if let Some(end) = machine.memory.ending.take() {
        return Ok(machine.last_turn(end));
    }
    if is_new {
        machine.announce_workflow("started", &machine.started());
        let raw = machine.input.clone();
        machine.work.push_back((MAIN, Next::Enter { task: ROOT, raw }));
    }
    match machine.run() {
        Ok(()) => Ok(machine.turn()),
        Err(error) => Err(*error),
    }
}

impl Machine<'_> {
    fn run(&mut self) -> Result<(), Box<ExprError>> {
        self.work()?;
        for event in self.moment.events {
            if self.end.is_some() {
                break;
            }
            self.happened(event);
            if let Some(error) = self.out_of_fuel.take() {
                return Err(error);
            }
            self.work()?;
        }
        while self.end.is_none() && self.due() {
            self.work()?;
        }
        Ok(())
    }

    fn happened(&mut self, event: &Event) {
        match event {
            Event::Ended { child, state, output, error } => {
                self.child_ended(child, *state, (output.as_deref(), error.as_deref()));
            }
            Event::Signal { name, id, payload, by, at_ms } => {
                self.signal(&listening::Came { signal: name, id, payload, by, at_ms: *at_ms });
            }
            // what is due is seen by the clock; nobody decides, and there is no tool of its own
            _ => {}
        }
    }

    /// Carries threads on until all of them wait.
    fn work(&mut self) -> Result<(), Box<ExprError>> {
        while let Some((thread, next)) = self.work.pop_front() {
            if self.end.is_some() || !self.memory.threads.contains_key(&thread) {
                continue;
            }
            let after = match next {
                Next::Enter { task, raw } => self.enter(thread, task, raw),
                Next::Finish { output, flow } => self.finish(thread, &output, flow),
                Next::Leave { output, flow } => self.leave(thread, output, flow),
                Next::Raise(fault) => self.raise(thread, *fault),
                Next::Wait => continue,
            };
            match after {
                Ok(next) => self.work.push_front((thread, next)),
                Err(Stop::Fault(fault)) => self.work.push_front((thread, Next::Raise(fault))),
                Err(Stop::Fuel(error)) => return Err(error),
            }
        }
        Ok(())
    }

    fn task(&self, id: TaskId) -> Option<&Task> {
        self.document.task(id)
    }

    /// Asks for a child; gives its key.
    fn ask(&mut self, name: &str, target: ChildTarget, input: &Value, detached: bool) -> String {
        let mut key = format!("{}.{name}", self.memory.next_child);
        if self.memory.round > 0 {
            key.push_str(&format!("-{}", self.memory.round));
        }
        self.memory.next_child += 1;
        if !detached {
            self.memory.open.push(key.clone());
        }
        self.children.push(ChildRequest {
            key: key.clone(),
            target,
            input: input.to_string().into_bytes(),
            locals: None,
            detached,
        });
        key
    }

    /// Gives up what a frame waits for.
    fn give_up(&mut self, frame: Frame) {
        match frame.doing {
            Doing::Child { key, .. } => {
                self.memory.open.retain(|open| *open != key);
                let was_asked_now = self.children.iter().any(|child| child.key == key);
                if was_asked_now {
                    self.children.retain(|child| child.key != key);
                } else {
                    self.cancel.push(key);
                }
            }
            Doing::Fork { threads, .. } => threads.into_iter().for_each(|thread| self.drop_thread(thread)),
            _ => {}
        }
    }

    fn drop_thread(&mut self, thread: ThreadId) {
        let Some(thread) = self.memory.threads.remove(&thread) else { return };
        for frame in thread.frames.into_iter().rev() {
            self.give_up(frame);
        }
    }

    fn turn(mut self) -> Turn {
        let mut alarm_ms = self.next_due_ms();
        if let Some(end) = self.end.take() {
            self.announce_end(&end);
            // what was asked for only now and is awaited by nobody any more is not started at all
            let unstarted = self.children.extract_if(.., |child| !child.detached).map(|child| child.key);
            let unstarted: Vec<String> = unstarted.collect();
            self.memory.open.retain(|key| !unstarted.contains(key));
            if self.children.is_empty() && self.publish.is_empty() {
                return self.last_turn(end);
            }
            self.memory.threads.clear();
            self.memory.ending = Some(end);
            alarm_ms = Some(self.moment.now_ms);
        }
        self.memory.generation += 1;
        let memo = serde_json::to_vec(&self.memory).unwrap_or_default();
        if memo.len() > MEMO_BYTES {
            let message = format!(
                "the data of the document takes {} bytes while it waits; at most {MEMO_BYTES} are kept",
                memo.len()
            );
            return self.last_turn(End::Fault(Box::new(Fault::standard(
                crate::fault::Standard::Runtime,
                "",
                message,
            ))));
        }
        Turn {
            children: self.children,
            cancel: self.cancel,
            alarm: alarm_ms.map(|at_ms| Alarm { at_ms, generation: self.memory.generation }),
            listen: listening::names(self.document, &self.memory),
            why: why(self.document, &self.memory),
            publish: self.publish,
            memo,
            ..Turn::then(Then::Wait)
        }
    }

    fn last_turn(mut self, end: End) -> Turn {
        self.cancel.append(&mut self.memory.open);
        let then = match end {
            End::Output(output) => Then::End(output.to_string().into_bytes()),
            End::Fault(fault) => Then::Fail {
                state: if fault.code() == "timeout" { StepState::TimedOut } else { StepState::Failed },
                code: format!("sw_{}", fault.code()).chars().take(64).collect(),
                message: fault.to_value().to_string(),
            },
        };
        Turn { cancel: self.cancel, ..Turn::then(then) }
    }
}

/// What a run waits for, in a line.
fn why(document: &Document, memory: &Memory) -> String {
    let tops = memory.threads.values().filter_map(|thread| thread.frames.last());
    let waits = tops.filter_map(|frame| {
        let task = document.task(frame.task)?;
        let word = match &frame.doing {
            Doing::Child { .. } => "runs",
            Doing::Wait { .. } => "waits in",
            Doing::Delay { .. } => "tries again",
            Doing::Listen(_) => "listens in",
            Doing::Paused => "goes on with",
            Doing::Fork { .. } | Doing::Begun | Doing::Do { .. } | Doing::For { .. } => return None,
            Doing::Try { .. } | Doing::Catch { .. } | Doing::Function => return None,
        };
        Some(format!("{word} `{}`", task.name))
    });
    waits.take(5).collect::<Vec<_>>().join(", ")
}

/// An error of an expression as an error of the document, unless more fuel could help.
fn expression_stop(error: ExprError, instance: &str) -> Stop {
    if matches!(error.fault, ExprFault::OutOfFuel { .. }) {
        return Stop::Fuel(Box::new(error));
    }
    Fault::standard(crate::fault::Standard::Expression, instance, error.to_string()).into()
}
