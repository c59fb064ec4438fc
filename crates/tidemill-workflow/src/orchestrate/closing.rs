//! What is done at a run's end: undoing what was done, then the steps that come at every end.
//!
//! One thing at a time. What succeeded is undone in the reverse order of its completion; an undoing that failed for good does not keep the
//! others from being undone, but the run's end is `compensation_failed` then. A failure of a step that comes at every end changes no end.

use std::cmp::Reverse;

use tidemill_protocol::{RunState, StepState};

use crate::plan::Plan;

/// How a step stands when its run is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its state.
    pub state: StepState,
    /// When it ended, by any measure that grows: what ended later is undone earlier. Of equals the later in the definition is undone
    /// first.
    pub ended: u64,
}

/// What a run that is to end does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Close {
    /// It waits for what is in flight.
    Wait,
    /// It runs this step.
    Dispatch(u32),
    /// It ends so.
    End(RunState),
}

/// What a run of this plan does next, whose end was decided to be `to`. `steps` are all of the plan, those beyond [`Plan::main`] too;
/// one that is missing is pending. `undo` says whether a run that is cancelled is undone; others that do not succeed always are.
#[must_use]
pub fn closing(plan: &Plan, steps: &[Standing], to: RunState, undo: bool) -> Close {
    let state = |step: u32| steps.get(step as usize).map_or(StepState::Pending, |step| step.state);
    if (0..plan.main()).any(|step| may_run(state(step))) {
        return Close::Wait;
    }
    let mut undone = None;
    if is_undone(to, undo) {
        let mut done: Vec<(Reverse<(u64, u32)>, u32)> = (0..plan.main())
            .filter(|step| state(*step) == StepState::Succeeded)
            .filter_map(|step| {
                let ended = steps.get(step as usize).map_or(0, |step| step.ended);
                Some((Reverse((ended, step)), plan.step(step)?.undo?))
            })
            .collect();
        done.sort_unstable();
        for (_, step) in done {
            undone = match (state(step), undone) {
                (StepState::Pending, _) => return Close::Dispatch(step),
                (state, _) if is_in_flight(state) => return Close::Wait,
                (StepState::Succeeded | StepState::Skipped, None | Some(true)) => Some(true),
                _ => Some(false),
            };
        }
    }
    for step in plan.finally.iter().copied() {
        match state(step) {
            StepState::Pending => return Close::Dispatch(step),
            state if is_in_flight(state) => return Close::Wait,
            _ => {}
        }
    }
    Close::End(match undone {
        None => to,
        Some(true) => RunState::Compensated,
        Some(false) => RunState::CompensationFailed,
    })
}

/// Whether a run with this end is undone.
const fn is_undone(to: RunState, asked: bool) -> bool {
    match to {
        RunState::Succeeded => false,
        RunState::Cancelled => asked,
        RunState::Queued
        | RunState::Running
        | RunState::Waiting
        | RunState::Failed
        | RunState::TimedOut
        | RunState::Compensating
        | RunState::Compensated
        | RunState::CompensationFailed => true,
    }
}

/// Whether somebody may be at work on it. What is put aside, for its next attempt or by a limit, is not: it may stand there for as long as
/// a service is paused, and sees that its run is ending before it begins.
fn may_run(state: StepState) -> bool {
    is_in_flight(state) && !matches!(state, StepState::Parked | StepState::Retrying)
}

/// Begun and not ended; what has not begun when its run is to end does not begin any more.
fn is_in_flight(state: StepState) -> bool {
    state != StepState::Pending && !state.is_terminal()
}
