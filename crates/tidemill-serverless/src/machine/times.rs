//! What is due: timeouts, waits, retries. All share the one alarm of the step.

use super::memory::{Doing, Frame, ThreadId};
use super::{Machine, Next};
use crate::fault::{Fault, Standard};

/// When something of a frame is due, and whether it ends the frame (or, of a `try`, its attempt) with an error.
#[derive(Clone, Copy)]
enum Due {
    TimedOut { at_ms: u64 },
    AttemptTimedOut { at_ms: u64 },
    GoesOn { at_ms: u64 },
}

impl Due {
    const fn at_ms(self) -> u64 {
        match self {
            Self::TimedOut { at_ms } | Self::AttemptTimedOut { at_ms } | Self::GoesOn { at_ms } => at_ms,
        }
    }
}

fn dues(frame: &Frame) -> impl Iterator<Item = Due> {
    let timeout = frame.until_ms.map(|at_ms| Due::TimedOut { at_ms });
    let own = match &frame.doing {
        Doing::Wait { until_ms } | Doing::Delay { until_ms, .. } => Some(Due::GoesOn { at_ms: *until_ms }),
        Doing::Paused => Some(Due::GoesOn { at_ms: frame.started_ms }),
        Doing::Try { attempt_until_ms, .. } => attempt_until_ms.map(|at_ms| Due::AttemptTimedOut { at_ms }),
        _ => None,
    };
    timeout.into_iter().chain(own)
}

impl Machine<'_> {
    /// When the machine is to be looked at again.
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        let frames = self.memory.threads.values().flat_map(|thread| &thread.frames);
        frames.flat_map(dues).map(Due::at_ms).min()
    }

    /// Does the first thing that is due; false when there is none.
    pub(super) fn due(&mut self) -> bool {
        let now_ms = self.moment.now_ms;
        let may_begin = self.begun < super::TASKS_A_TURN;
        let mut found: Option<(ThreadId, usize, Due)> = None;
        for (id, thread) in &self.memory.threads {
            for (depth, frame) in thread.frames.iter().enumerate() {
                for due in dues(frame).filter(|due| due.at_ms() <= now_ms) {
                    // what was paused because the turn had done enough waits for the next one
                    let is_later = matches!(frame.doing, Doing::Paused) && !may_begin;
                    if !is_later && found.is_none_or(|(_, _, known)| due.at_ms() < known.at_ms()) {
                        found = Some((*id, depth, due));
                    }
                }
            }
        }
        let Some((thread, depth, due)) = found else { return false };
        match due {
            Due::TimedOut { .. } => self.time_out(thread, depth),
            Due::AttemptTimedOut { .. } => self.time_out(thread, depth + 1),
            Due::GoesOn { .. } => self.go_on_after(thread),
        }
        true
    }

    /// Ends the tasks from this depth on with an error of the task that held the time.
    fn time_out(&mut self, thread: ThreadId, depth: usize) {
        let Some(frames) = self.memory.threads.get_mut(&thread).map(|thread| &mut thread.frames) else {
            return;
        };
        let ended = frames.split_off(depth.min(frames.len()));
        let holder = ended.first().or_else(|| frames.last()).map(|frame| frame.task);
        if let Some(frame) = frames.last_mut()
            && let Doing::Try { attempt_until_ms, .. } = &mut frame.doing
        {
            // said once
            *attempt_until_ms = attempt_until_ms.filter(|until_ms| *until_ms > self.moment.now_ms);
        }
        ended.into_iter().rev().for_each(|frame| self.give_up(frame));
        let reference = holder.and_then(|task| self.task(task)).map_or("", |task| task.reference.as_str());
        let fault =
            Fault::standard(Standard::Timeout, reference, "the task took longer than its timeout allows");
        self.work.push_back((thread, Next::Raise(Box::new(fault))));
    }

    fn go_on_after(&mut self, thread: ThreadId) {
        let Some(frame) = self.memory.top(thread) else { return };
        match &frame.doing {
            Doing::Wait { .. } => {
                let output = frame.input().clone();
                self.work.push_back((thread, Next::Finish { output, flow: None }));
            }
            Doing::Delay { .. } => self.try_again(thread),
            Doing::Paused => {
                let paused = self.memory.threads.get_mut(&thread).and_then(|thread| thread.frames.pop());
                if let Some(Frame { task, raw, .. }) = paused {
                    self.work.push_back((thread, Next::Enter { task, raw }));
                }
            }
            _ => {}
        }
    }
}
