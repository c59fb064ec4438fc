//! What the functions of runs and steps should do, without Redis.

use std::collections::VecDeque;

use tidemill_protocol::{RunState, StepState};
use tidemill_store::Settled;

pub(crate) const STEPS: [&str; 4] = ["a", "b", "c", "d"];

/// What an entry is for: a step, or the computing of the output.
pub(crate) type Part = Option<usize>;

#[derive(Debug, Default, Clone)]
pub(crate) struct Step {
    pub(crate) state: Option<StepState>,
    pub(crate) attempt: u32,
    pub(crate) ended: u32,
    pub(crate) ok: u32,
}

/// What should be.
#[derive(Debug)]
pub(crate) struct Model {
    pub(crate) state: RunState,
    pub(crate) steps: [Step; 4],
    pub(crate) waiting: VecDeque<Part>,
    /// What each claim gave, and whether it is still owned.
    pub(crate) claims: Vec<(Part, bool)>,
    pub(crate) done: usize,
    pub(crate) failed: bool,
    pub(crate) audit: Vec<(String, StepState, StepState)>,
    pub(crate) run_audit: Vec<(RunState, RunState)>,
}

impl Model {
    pub(crate) fn started() -> Self {
        let mut model = Self {
            state: RunState::Running,
            steps: Default::default(),
            waiting: VecDeque::new(),
            claims: Vec::new(),
            done: 0,
            failed: false,
            audit: Vec::new(),
            run_audit: vec![(RunState::Queued, RunState::Running)],
        };
        model.dispatch(0);
        model.dispatch(1);
        model
    }

    pub(crate) fn moves(&mut self, step: usize, path: &[StepState]) {
        for pair in path.windows(2) {
            self.audit.push((STEPS[step].to_owned(), pair[0], pair[1]));
        }
        self.steps[step].state = path.last().copied();
    }

    pub(crate) fn dispatch(&mut self, step: usize) {
        self.steps[step].attempt = 1;
        self.moves(step, &[StepState::Pending, StepState::Ready]);
        self.waiting.push_back(Some(step));
    }

    pub(crate) fn end(&mut self, to: RunState) {
        self.run_audit.push((self.state, to));
        self.state = to;
    }

    pub(crate) fn settle(&mut self, claim: usize, to: StepState, (ran, harsh): (bool, bool)) -> Settled {
        let (part, owned) = self.claims[claim];
        let Some(step) = part.filter(|_| owned) else { return Settled::Stale };
        self.claims[claim].1 = false;
        let from = if ran { StepState::Running } else { StepState::Ready };
        if !from.may_become(to) {
            return Settled::Conflict;
        }
        let alive = !self.state.is_terminal();
        let (path, short) = ([StepState::Ready, StepState::Running, to], [StepState::Ready, to]);
        self.moves(step, if ran { &path[..] } else { &short[..] });
        self.done += 1;
        let succeeded = to == StepState::Succeeded;
        self.failed |= !succeeded && !harsh;
        let now = alive && !succeeded && harsh;
        if step < 2 {
            for (dependent, ok) in [(2, 0), (3, 1)] {
                let seen = &mut self.steps[dependent];
                seen.ended += 1;
                seen.ok += u32::from(succeeded);
                let fires = seen.ended == 2 || (ok == 1 && succeeded && seen.ok == 1);
                if alive && !now && fires && seen.state.is_none() {
                    self.dispatch(dependent);
                }
            }
        }
        if now {
            self.end(RunState::Failed);
            return Settled::RunEnded;
        }
        if alive && self.done == STEPS.len() {
            if self.failed {
                self.end(RunState::Failed);
                return Settled::RunEnded;
            }
            if step == 3 {
                self.end(RunState::Succeeded);
                return Settled::RunEnded;
            }
            self.waiting.push_back(None);
        }
        Settled::Recorded
    }

    pub(crate) fn defer(&mut self, claim: usize, retry: bool) -> bool {
        let (Some(step), true) = self.claims[claim] else { return false };
        self.claims[claim].1 = false;
        let path = [StepState::Ready, StepState::Running, StepState::Retrying];
        let short = [StepState::Ready, StepState::Parked];
        self.moves(step, if retry { &path[..] } else { &short[..] });
        true
    }

    pub(crate) fn promote(&mut self, step: usize) -> bool {
        let Some(state @ (StepState::Parked | StepState::Retrying)) = self.steps[step].state else {
            return false;
        };
        self.steps[step].attempt += u32::from(state == StepState::Retrying);
        self.moves(step, &[state, StepState::Ready]);
        self.waiting.push_back(Some(step));
        true
    }

    pub(crate) fn release(&mut self, claim: usize) -> bool {
        let (part, owned) = self.claims[claim];
        if owned {
            self.claims[claim].1 = false;
            if let Some(step) = part {
                self.moves(step, &[StepState::Ready, StepState::Running, StepState::Ready]);
            }
            self.waiting.push_back(part);
        }
        owned
    }

    pub(crate) fn finish(&mut self, claim: usize) -> bool {
        let (part, owned) = self.claims[claim];
        if part.is_some() || !owned {
            return false;
        }
        self.claims[claim].1 = false;
        let alive = !self.state.is_terminal();
        if alive {
            self.end(RunState::Succeeded);
        }
        alive
    }
}
