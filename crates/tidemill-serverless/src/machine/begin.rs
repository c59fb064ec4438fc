//! Beginning a task.

use serde_json::{Map, Value};

use super::data::{Spot, check};
use super::memory::{Branch, Doing, Frame, Thread, ThreadId};
use super::{DEPTH, Machine, Next, Stop, TASKS_A_TURN};
use crate::document::{Action, Case, Flow, Loop, Raised, Task, TaskId};
use crate::dynamic::{kind, plain_text};
use crate::fault::{Fault, Standard};

impl Machine<'_> {
    pub(super) fn enter(&mut self, thread: ThreadId, id: TaskId, raw: Value) -> Result<Next, Stop> {
        let document = self.document;
        let Some(task) = document.task(id) else { return Ok(Next::Wait) };
        let now_ms = self.moment.now_ms;
        if self.begun >= TASKS_A_TURN {
            self.push(
                thread,
                Frame {
                    task: id,
                    started_ms: now_ms,
                    until_ms: None,
                    raw,
                    transformed: None,
                    doing: Doing::Paused,
                },
            );
            return Ok(Next::Wait);
        }
        self.begun += 1;
        if self.memory.around(thread).count() >= DEPTH {
            let detail = format!("more than {DEPTH} tasks stand inside of each other");
            return Err(Fault::standard(Standard::Runtime, &task.reference, detail).into());
        }
        let mut spot = Spot {
            thread,
            task,
            dot: &raw,
            raw: &raw,
            input: &raw,
            output: None,
            started_ms: now_ms,
            local: &[],
        };
        if let Some(condition) = &task.condition
            && !self.decide(condition, &spot)?
        {
            return Ok(Next::Leave { output: raw, flow: Flow::Continue });
        }
        check(task.input.schema.as_ref(), &raw, (task, "input"))?;
        spot.input = &Value::Null;
        let transformed = self.made(&task.input, &spot)?;
        let until_ms = task.timeout_ms.map(|timeout_ms| now_ms.saturating_add(timeout_ms));
        let frame = Frame { task: id, started_ms: now_ms, until_ms, raw, transformed, doing: Doing::Begun };
        self.announce_task("started", id, ("startedAt", self.now()));
        match self.begin(thread, task, &frame) {
            Ok((doing, next)) => {
                self.push(thread, Frame { doing, ..frame });
                Ok(next)
            }
            Err(stop) => {
                if let Stop::Fault(fault) = &stop {
                    self.announce_task("faulted", id, ("error", fault.to_value()));
                }
                Err(stop)
            }
        }
    }

    pub(super) fn push(&mut self, thread: ThreadId, frame: Frame) {
        if let Some(thread) = self.memory.threads.get_mut(&thread) {
            thread.frames.push(frame);
        }
    }

    /// What a task is doing once it is begun, and what comes next.
    fn begin(&mut self, thread: ThreadId, task: &Task, frame: &Frame) -> Result<(Doing, Next), Stop> {
        let spot = Spot::within(thread, task, frame);
        let input = || frame.input().clone();
        let done = |output: Value| Ok((Doing::Begun, Next::Finish { output, flow: None }));
        match &task.action {
            Action::Do(tasks) => Ok(first_of(tasks, input(), Doing::Do { at: 0 })),
            Action::Set(value) => done(self.evaluate(value, &spot)?),
            Action::Switch(cases) => {
                let flow = self.chosen(cases, &spot)?;
                Ok((Doing::Begun, Next::Finish { output: input(), flow }))
            }
            Action::Raise(raised) => Err(self.raised(raised, &spot)?.into()),
            Action::For(repeated) => self.begin_loop(repeated, &spot),
            Action::Fork { branches, .. } => Ok(self.begin_fork(thread, branches, frame.input())),
            Action::Try(attempt) => {
                let doing = self.attempting(attempt, (1, self.moment.now_ms));
                Ok(first_of(&attempt.tasks, input(), doing))
            }
            Action::Wait { wait_ms: 0 } => done(input()),
            Action::Wait { wait_ms } => {
                Ok((Doing::Wait { until_ms: self.moment.now_ms.saturating_add(*wait_ms) }, Next::Wait))
            }
            Action::Function { task, with } => {
                let raw = with.as_ref().map(|with| self.evaluate(with, &spot)).transpose()?;
                Ok((Doing::Function, Next::Enter { task: *task, raw: raw.unwrap_or_else(input) }))
            }
            Action::Listen(_) => Ok((Doing::Listen(Box::default()), Next::Wait)),
            Action::Emit(attributes) => {
                let event = self.emitted(attributes, &spot)?;
                done(event)
            }
            Action::Http(_)
            | Action::OpenApi(_)
            | Action::Tool { .. }
            | Action::Process(_)
            | Action::Workflow { .. } => self.call(task, &spot),
        }
    }

    /// Where the first case leads that holds, or else the default; nowhere if there is none.
    fn chosen(&self, cases: &[Case], spot: &Spot<'_>) -> Result<Option<Flow>, Stop> {
        for case in cases {
            if let Some(when) = &case.when
                && self.decide(when, spot)?
            {
                return Ok(Some(case.then));
            }
        }
        Ok(cases.iter().find(|case| case.when.is_none()).map(|case| case.then))
    }

    fn raised(&self, raised: &Raised, spot: &Spot<'_>) -> Result<Fault, Stop> {
        let text = |part: &Option<_>| -> Result<Option<String>, Stop> {
            let value = part.as_ref().map(|part| self.evaluate(part, spot)).transpose()?;
            Ok(value.filter(|value| !value.is_null()).map(|value| plain_text(&value)))
        };
        let status = self.evaluate(&raised.status, spot)?;
        let number = status.as_u64().or_else(|| status.as_str()?.parse().ok());
        let Some(number) =
            number.and_then(|number| u16::try_from(number).ok()).filter(|number| *number <= 999)
        else {
            let detail = format!("the status of an error must be a whole number up to 999, not {status}");
            return Err(Fault::standard(Standard::Validation, &spot.task.reference, detail).into());
        };
        Ok(Fault {
            kind: plain_text(&self.evaluate(&raised.kind, spot)?),
            status: number,
            instance: spot.task.reference.clone(),
            title: text(&raised.title)?,
            detail: text(&raised.detail)?,
        })
    }

    fn begin_loop(&self, repeated: &Loop, spot: &Spot<'_>) -> Result<(Doing, Next), Stop> {
        let items = match self.filter(&repeated.items, spot)? {
            Value::Array(items) => items,
            // an object is enumerated by its members, as jq's `to_entries` has them
            Value::Object(members) => members.into_iter().map(entry).collect(),
            Value::Null => Vec::new(),
            other => {
                let detail = format!("`for.in` gives {} where an array is needed", kind(&other));
                return Err(Fault::standard(Standard::Expression, &spot.task.reference, detail).into());
            }
        };
        self.iterate(repeated, (items, 0), spot, spot.input.clone())
    }

    /// The iteration at an index, or the end of the loop with the output of the one before.
    pub(super) fn iterate(
        &self,
        repeated: &Loop,
        (items, index): (Vec<Value>, usize),
        spot: &Spot<'_>,
        output: Value,
    ) -> Result<(Doing, Next), Stop> {
        let (Some(item), Some(first)) = (items.get(index), repeated.tasks.first()) else {
            return Ok((Doing::Begun, Next::Finish { output, flow: None }));
        };
        if let Some(condition) = &repeated.while_ {
            let number = Value::from(index);
            let local: [(&str, &Value); 2] = [(&repeated.each, item), (&repeated.at, &number)];
            let spot = Spot { dot: &output, local: &local, ..*spot };
            if !self.decide(condition, &spot)? {
                return Ok((Doing::Begun, Next::Finish { output, flow: None }));
            }
        }
        Ok((Doing::For { items, index, at: 0 }, Next::Enter { task: *first, raw: output }))
    }

    fn begin_fork(&mut self, thread: ThreadId, branches: &[TaskId], input: &Value) -> (Doing, Next) {
        let mut threads = Vec::with_capacity(branches.len());
        for (number, branch) in branches.iter().enumerate() {
            let id = self.memory.next_thread;
            self.memory.next_thread += 1;
            self.memory.threads.insert(id, Thread { parent: Some((thread, number)), frames: Vec::new() });
            self.work.push_back((id, Next::Enter { task: *branch, raw: input.clone() }));
            threads.push(id);
        }
        (Doing::Fork { branches: vec![Branch::Runs; threads.len()], threads }, Next::Wait)
    }
}

/// A list from its first task; one that holds none is done at once.
pub(super) fn first_of(tasks: &[TaskId], input: Value, doing: Doing) -> (Doing, Next) {
    match tasks.first() {
        Some(first) => (doing, Next::Enter { task: *first, raw: input }),
        None => (doing, Next::Finish { output: input, flow: None }),
    }
}

fn entry((key, value): (String, Value)) -> Value {
    Value::Object(Map::from_iter([("key".to_owned(), key.into()), ("value".to_owned(), value)]))
}
