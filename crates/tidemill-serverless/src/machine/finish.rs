//! Ending a task, and what comes after it.

use serde_json::Value;

use super::data::{Spot, check};
use super::memory::{Branch, Doing, MAIN, ThreadId};
use super::{End, Machine, Next, Stop};
use crate::document::{Action, Flow, ROOT, TaskId};
use crate::fault::Fault;

impl Machine<'_> {
    /// The innermost task of a thread has done what it does.
    pub(super) fn finish(
        &mut self,
        thread: ThreadId,
        raw_output: &Value,
        flow: Option<Flow>,
    ) -> Result<Next, Stop> {
        let document = self.document;
        let popped = self.memory.threads.get_mut(&thread).and_then(|thread| thread.frames.pop());
        let Some(frame) = popped else { return Ok(Next::Wait) };
        let Some(task) = document.task(frame.task) else { return Ok(Next::Wait) };
        let spot =
            Spot { dot: raw_output, output: Some((raw_output, None)), ..Spot::within(thread, task, &frame) };
        let output = self.made(&task.output, &spot)?;
        let output = output.as_ref().unwrap_or(raw_output);
        check(task.output.schema.as_ref(), output, (task, "output"))?;
        let spot = Spot { dot: output, output: Some((raw_output, Some(output))), ..spot };
        if let Some(context) = self.made(&task.export, &spot)? {
            check(task.export.schema.as_ref(), &context, (task, "context"))?;
            self.memory.context = context;
        }
        let output = output.clone();
        self.announce_task("completed", frame.task, ("completedAt", self.now()));
        Ok(Next::Leave { output, flow: flow.unwrap_or(task.then) })
    }

    /// A task is over; whoever holds it goes on.
    pub(super) fn leave(&mut self, thread: ThreadId, output: Value, flow: Flow) -> Result<Next, Stop> {
        let document = self.document;
        let Some(holder) = self.memory.top(thread) else {
            return Ok(self.thread_ended(thread, output, flow));
        };
        if flow == Flow::End {
            return Ok(self.workflow_ended(output));
        }
        let Some(task) = document.task(holder.task) else { return Ok(Next::Wait) };
        match (&task.action, &holder.doing) {
            (Action::Do(tasks), Doing::Do { at }) => {
                let next = following(tasks, *at, flow);
                Ok(self.go_on(thread, next, output))
            }
            (Action::Try(attempt), Doing::Try { at, .. }) => {
                let next = following(&attempt.tasks, *at, flow);
                Ok(self.go_on(thread, next, output))
            }
            (Action::Try(attempt), Doing::Catch { at, .. }) => {
                let next = following(&attempt.handler, *at, flow);
                Ok(self.go_on(thread, next, output))
            }
            (Action::For(repeated), Doing::For { items, index, at }) => {
                if let Some(next) = following(&repeated.tasks, *at, flow) {
                    return Ok(self.go_on(thread, Some(next), output));
                }
                if flow == Flow::Exit {
                    return Ok(Next::Finish { output, flow: None });
                }
                let (items, index) = (items.clone(), index + 1);
                let (doing, next) =
                    self.iterate(repeated, (items, index), &Spot::within(thread, task, holder), output)?;
                self.set_doing(thread, doing);
                Ok(next)
            }
            (Action::Listen(listen), Doing::Listen(_)) => self.event_done(thread, listen, output, flow),
            // a function's task, or one that was paused
            _ => Ok(Next::Finish { output, flow: None }),
        }
    }

    /// The task at a position of the list that the innermost task holds; `None` when the list is done.
    fn go_on(&mut self, thread: ThreadId, next: Option<(usize, TaskId)>, output: Value) -> Next {
        let Some((position, task)) = next else { return Next::Finish { output, flow: None } };
        if let Some(frame) = self.memory.top_mut(thread) {
            match &mut frame.doing {
                Doing::Do { at }
                | Doing::Try { at, .. }
                | Doing::Catch { at, .. }
                | Doing::For { at, .. } => {
                    *at = position;
                }
                _ => {}
            }
        }
        Next::Enter { task, raw: output }
    }

    pub(super) fn set_doing(&mut self, thread: ThreadId, doing: Doing) {
        if let Some(frame) = self.memory.top_mut(thread) {
            frame.doing = doing;
        }
    }

    /// A thread has no task any more: the document is done, or a branch is.
    fn thread_ended(&mut self, thread: ThreadId, output: Value, flow: Flow) -> Next {
        if thread == MAIN {
            self.end = Some(End::Output(output));
            return Next::Wait;
        }
        if flow == Flow::End {
            return self.workflow_ended(output);
        }
        let branch = self.memory.threads.remove(&thread).and_then(|thread| thread.parent);
        if let Some((parent, number)) = branch {
            self.branch_done(parent, number, output);
        }
        Next::Wait
    }

    fn branch_done(&mut self, parent: ThreadId, number: usize, output: Value) {
        let competes = self.competes(parent);
        let Some(frame) = self.memory.top_mut(parent) else { return };
        let Doing::Fork { threads, branches } = &mut frame.doing else { return };
        if let Some(place) = branches.get_mut(number) {
            *place = Branch::Done(output.clone());
        }
        if competes {
            let rest = std::mem::take(threads);
            rest.into_iter().for_each(|thread| self.drop_thread(thread));
            self.work.push_back((parent, Next::Finish { output, flow: None }));
        } else if !branches.contains(&Branch::Runs) {
            let output = |branch| if let Branch::Done(output) = branch { output } else { Value::Null };
            let all = std::mem::take(branches).into_iter().map(output).collect();
            self.work.push_back((parent, Next::Finish { output: Value::Array(all), flow: None }));
        }
    }

    fn competes(&self, thread: ThreadId) -> bool {
        let task = self.memory.top(thread).and_then(|frame| self.task(frame.task));
        task.is_some_and(|task| matches!(task.action, Action::Fork { compete: true, .. }))
    }

    /// A branch has failed: so does the fork, unless another may still win.
    pub(super) fn branch_failed(&mut self, parent: ThreadId, number: usize, fault: Fault) {
        let competes = self.competes(parent);
        let Some(frame) = self.memory.top_mut(parent) else { return };
        let Doing::Fork { threads, branches } = &mut frame.doing else { return };
        if let Some(place) = branches.get_mut(number) {
            *place = Branch::Failed;
        }
        if competes && branches.contains(&Branch::Runs) {
            return;
        }
        let rest = std::mem::take(threads);
        rest.into_iter().for_each(|thread| self.drop_thread(thread));
        self.work.push_back((parent, Next::Raise(Box::new(fault))));
    }

    /// `then: end`: everything stops, and the output goes through the document's own transformation.
    fn workflow_ended(&mut self, output: Value) -> Next {
        let branches: Vec<ThreadId> =
            self.memory.threads.keys().copied().filter(|thread| *thread != MAIN).collect();
        branches.into_iter().for_each(|thread| self.drop_thread(thread));
        let frames = self.memory.threads.get_mut(&MAIN).map(|main| std::mem::take(&mut main.frames));
        for frame in frames.into_iter().flatten().rev() {
            if frame.task == ROOT {
                self.push(MAIN, frame);
            } else {
                self.give_up(frame);
            }
        }
        self.work.clear();
        self.work.push_back((MAIN, Next::Finish { output, flow: None }));
        Next::Wait
    }
}

/// The task after the one at `at`, as the flow directive says.
pub(super) fn following(tasks: &[TaskId], at: usize, flow: Flow) -> Option<(usize, TaskId)> {
    let position = match flow {
        Flow::Continue => at + 1,
        Flow::To(position) => position,
        Flow::Exit | Flow::End => return None,
    };
    tasks.get(position).map(|task| (position, *task))
}
