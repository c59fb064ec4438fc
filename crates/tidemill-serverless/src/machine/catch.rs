//! Errors: who catches them, and whether what failed is tried again.

use serde_json::Value;

use super::data::Spot;
use super::memory::{Doing, Frame, MAIN, ThreadId};
use super::{End, Machine, Next, Stop};
use crate::document::{Action, Attempt, Backoff, Retry, Task};
use crate::fault::Fault;

/// What a `try` makes of an error.
enum Caught {
    No,
    Again { delay_ms: u64 },
    Handled,
}

impl Machine<'_> {
    /// Takes tasks off the stack until one catches the error.
    pub(super) fn raise(&mut self, thread: ThreadId, fault: Fault) -> Result<Next, Stop> {
        let document = self.document;
        let mut fault = fault;
        while let Some(frame) = self.memory.threads.get_mut(&thread).and_then(|thread| thread.frames.pop()) {
            let task = document.task(frame.task);
            let (Some(task), Doing::Try { .. }) = (task, &frame.doing) else {
                self.announce_task("faulted", frame.task, ("error", fault.to_value()));
                self.give_up(frame);
                continue;
            };
            let Action::Try(attempt) = &task.action else { continue };
            match self.caught(thread, (task, attempt), &frame, &fault) {
                Ok(Caught::No) => self.announce_task("faulted", frame.task, ("error", fault.to_value())),
                Ok(Caught::Again { delay_ms }) => return Ok(self.try_later(thread, frame, delay_ms)),
                Ok(Caught::Handled) => return Ok(self.handle(thread, attempt, frame, fault)),
                // the error of a condition takes the place of the one that it was asked about
                Err(Stop::Fault(other)) => fault = *other,
                Err(stop) => return Err(stop),
            }
        }
        if thread == MAIN {
            self.end = Some(End::Fault(Box::new(fault)));
        } else if let Some((parent, number)) =
            self.memory.threads.remove(&thread).and_then(|thread| thread.parent)
        {
            self.branch_failed(parent, number, fault);
        }
        Ok(Next::Wait)
    }

    fn caught(
        &self,
        thread: ThreadId,
        (task, attempt): (&Task, &Attempt),
        frame: &Frame,
        fault: &Fault,
    ) -> Result<Caught, Stop> {
        if !fault.fits(&attempt.errors) {
            return Ok(Caught::No);
        }
        let error = fault.to_value();
        // a policy of `use.retries` knows the error by the name `error`
        let local: [(&str, &Value); 2] = [(&attempt.name, &error), ("error", &error)];
        let spot = Spot { local: &local, ..Spot::within(thread, task, frame) };
        let holds = |condition: &Option<_>, otherwise| {
            condition.as_ref().map_or(Ok(otherwise), |condition| self.decide(condition, &spot))
        };
        if !holds(&attempt.when, true)? || holds(&attempt.except_when, false)? {
            return Ok(Caught::No);
        }
        let Some(retry) = &attempt.retry else { return Ok(Caught::Handled) };
        if holds(&retry.when, true)? && !holds(&retry.except_when, false)? {
            let delay_ms = self.delay_ms(retry, frame);
            if let Some(delay_ms) = delay_ms {
                return Ok(Caught::Again { delay_ms });
            }
        }
        // what was tried in vain is handled if there is a handler, and else goes further
        Ok(if attempt.handler.is_empty() { Caught::No } else { Caught::Handled })
    }

    /// How long to wait before the next attempt; `None` when there have been enough.
    fn delay_ms(&self, retry: &Retry, frame: &Frame) -> Option<u64> {
        let Doing::Try { attempt, began_ms, .. } = frame.doing else { return None };
        if retry.most.is_some_and(|most| attempt > most) {
            return None;
        }
        let grown_ms = match retry.backoff {
            Backoff::Constant => retry.delay_ms,
            Backoff::Linear => retry.delay_ms.saturating_mul(attempt),
            Backoff::Exponential => {
                let factor =
                    1_u64.checked_shl(u32::try_from(attempt - 1).unwrap_or(u32::MAX)).unwrap_or(u64::MAX);
                retry.delay_ms.saturating_mul(factor)
            }
        };
        let jitter_ms = retry.jitter_ms.map_or(0, |(from, to)| {
            let seed = format!("{} {} {attempt} {began_ms}", self.moment.scope.run.id, frame.task);
            from + scattered(&seed) % (to - from + 1)
        });
        // no delay at all would spin
        let delay_ms = grown_ms.saturating_add(jitter_ms).clamp(1, 366 * 86_400_000);
        let would_be_ms = self.moment.now_ms.saturating_add(delay_ms).saturating_sub(began_ms);
        (retry.within_ms.is_none_or(|within_ms| would_be_ms <= within_ms)).then_some(delay_ms)
    }

    fn try_later(&mut self, thread: ThreadId, frame: Frame, delay_ms: u64) -> Next {
        let Doing::Try { attempt, began_ms, .. } = frame.doing else { return Next::Wait };
        let until_ms = self.moment.now_ms.saturating_add(delay_ms);
        self.push(thread, Frame { doing: Doing::Delay { until_ms, attempt, began_ms }, ..frame });
        Next::Wait
    }

    fn handle(&mut self, thread: ThreadId, attempt: &Attempt, frame: Frame, fault: Fault) -> Next {
        let raw = frame.input().clone();
        self.push(thread, Frame { doing: Doing::Catch { at: 0, error: Box::new(fault) }, ..frame });
        match attempt.handler.first() {
            Some(first) => Next::Enter { task: *first, raw },
            None => Next::Finish { output: raw, flow: None },
        }
    }

    /// The `try` of a thread is tried again.
    pub(super) fn try_again(&mut self, thread: ThreadId) {
        let document = self.document;
        let Some(frame) = self.memory.top(thread) else { return };
        let Doing::Delay { attempt, began_ms, .. } = frame.doing else { return };
        let Some(Action::Try(tried)) = document.task(frame.task).map(|task| &task.action) else { return };
        let raw = frame.input().clone();
        let doing = self.attempting(tried, (attempt + 1, began_ms));
        self.set_doing(thread, doing);
        let next = match tried.tasks.first() {
            Some(first) => Next::Enter { task: *first, raw },
            None => Next::Finish { output: raw, flow: None },
        };
        self.work.push_back((thread, next));
    }

    pub(super) fn attempting(&self, attempt: &Attempt, (number, began_ms): (u64, u64)) -> Doing {
        let bound_ms = attempt.retry.as_ref().and_then(|retry| retry.attempt_ms);
        let attempt_until_ms = bound_ms.map(|bound_ms| self.moment.now_ms.saturating_add(bound_ms));
        Doing::Try { at: 0, attempt: number, began_ms, attempt_until_ms }
    }
}

/// A number that is as good as random and the same whenever the turn is taken (FNV-1a, its high bits mixed down).
fn scattered(seed: &str) -> u64 {
    let hash = seed.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash ^ (hash >> 32)
}
