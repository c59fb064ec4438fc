//! The lifecycle: one table of legal moves for steps (and jobs) and one for runs.
//!
//! [`StepState::MOVES`] and [`RunState::MOVES`] are the single source: the table inside the Redis function library, the
//! diagram in `docs/state-machine.md` and the all-pairs test are made from them. Terminal states have no way out.

use serde::{Deserialize, Serialize};

/// Where a step, an item of a `for_each` or a plain job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// Waits for the steps that it needs.
    Pending,
    /// In its queue; nobody works on it.
    Ready,
    /// A worker has claimed it (or, for a `for_each`, its items are under way).
    Running,
    /// Put aside until a limit, breaker or pause lets it go; costs no attempt.
    Parked,
    /// Waits for its next attempt.
    Retrying,
    /// Waits for a time, a signal, a person or other runs; costs no slot.
    Waiting,
    /// Ended well.
    Succeeded,
    /// Ended after its last attempt failed.
    Failed,
    /// Not run: its condition was false, or nothing that it needs was run.
    Skipped,
    /// Stopped, or not begun, because its job or run was cancelled or had ended.
    Cancelled,
    /// Stopped at its last attempt's timeout, or past its deadline.
    TimedOut,
}

impl StepState {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 11] = [
        Self::Pending,
        Self::Ready,
        Self::Running,
        Self::Parked,
        Self::Retrying,
        Self::Waiting,
        Self::Succeeded,
        Self::Failed,
        Self::Skipped,
        Self::Cancelled,
        Self::TimedOut,
    ];

    /// Every legal move. `running → ready` is a hand-back or a reclaim; a step that has not run succeeds when a person, or the run
    /// that is repeated, gives its output.
    pub const MOVES: &'static [(Self, Self)] = &[
        (Self::Pending, Self::Ready),
        (Self::Pending, Self::Succeeded),
        (Self::Pending, Self::Skipped),
        (Self::Ready, Self::Running),
        (Self::Ready, Self::Succeeded),
        (Self::Ready, Self::Parked),
        (Self::Ready, Self::Skipped),
        (Self::Ready, Self::Cancelled),
        (Self::Ready, Self::TimedOut),
        (Self::Running, Self::Ready),
        (Self::Running, Self::Parked),
        (Self::Running, Self::Retrying),
        (Self::Running, Self::Waiting),
        (Self::Running, Self::Succeeded),
        (Self::Running, Self::Failed),
        (Self::Running, Self::Cancelled),
        (Self::Running, Self::TimedOut),
        (Self::Parked, Self::Ready),
        (Self::Parked, Self::Succeeded),
        (Self::Parked, Self::Cancelled),
        (Self::Parked, Self::TimedOut),
        (Self::Retrying, Self::Ready),
        (Self::Retrying, Self::Succeeded),
        (Self::Retrying, Self::Cancelled),
        (Self::Retrying, Self::TimedOut),
        (Self::Waiting, Self::Ready),
        (Self::Waiting, Self::Succeeded),
        (Self::Waiting, Self::Cancelled),
        (Self::Waiting, Self::TimedOut),
    ];

    /// The word in Redis, the API, metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Parked => "parked",
            Self::Retrying => "retrying",
            Self::Waiting => "waiting",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
        }
    }

    /// The state of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether nothing can follow.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Pending | Self::Ready | Self::Running | Self::Parked | Self::Retrying | Self::Waiting => {
                false
            }
            Self::Succeeded | Self::Failed | Self::Skipped | Self::Cancelled | Self::TimedOut => true,
        }
    }

    /// Whether the table has this move.
    #[must_use]
    pub fn may_become(self, to: Self) -> bool {
        Self::MOVES.contains(&(self, to))
    }
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// Asked for; no scheduler has started it.
    Queued,
    /// Steps are in flight.
    Running,
    /// Every step in flight waits (for a time, a signal or a person).
    Waiting,
    /// All steps ended as the workflow wants.
    Succeeded,
    /// A step failed and the workflow's policy ended the run.
    Failed,
    /// Stopped by request.
    Cancelled,
    /// Stopped at its deadline.
    TimedOut,
    /// Failed; what was done is being undone.
    Compensating,
    /// Failed, and undone.
    Compensated,
    /// Failed, and undoing failed too: a person must look.
    CompensationFailed,
}

impl RunState {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 10] = [
        Self::Queued,
        Self::Running,
        Self::Waiting,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
        Self::TimedOut,
        Self::Compensating,
        Self::Compensated,
        Self::CompensationFailed,
    ];

    /// Every legal move.
    pub const MOVES: &'static [(Self, Self)] = &[
        (Self::Queued, Self::Running),
        (Self::Queued, Self::Failed),
        (Self::Queued, Self::Cancelled),
        (Self::Queued, Self::TimedOut),
        (Self::Running, Self::Waiting),
        (Self::Running, Self::Succeeded),
        (Self::Running, Self::Failed),
        (Self::Running, Self::Cancelled),
        (Self::Running, Self::TimedOut),
        (Self::Running, Self::Compensating),
        (Self::Waiting, Self::Running),
        (Self::Waiting, Self::Failed),
        (Self::Waiting, Self::Cancelled),
        (Self::Waiting, Self::TimedOut),
        (Self::Waiting, Self::Compensating),
        (Self::Compensating, Self::Compensated),
        (Self::Compensating, Self::CompensationFailed),
    ];

    /// The word in Redis, the API, metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::Compensating => "compensating",
            Self::Compensated => "compensated",
            Self::CompensationFailed => "compensation_failed",
        }
    }

    /// The state of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }

    /// Whether nothing can follow.
    #[must_use]
    pub const fn is_terminal(self) -> bool {
        match self {
            Self::Queued | Self::Running | Self::Waiting | Self::Compensating => false,
            Self::Succeeded
            | Self::Failed
            | Self::Cancelled
            | Self::TimedOut
            | Self::Compensated
            | Self::CompensationFailed => true,
        }
    }

    /// Whether the table has this move.
    #[must_use]
    pub fn may_become(self, to: Self) -> bool {
        Self::MOVES.contains(&(self, to))
    }
}

#[cfg(test)]
mod tests {
    use super::{RunState, StepState};

    #[test]
    fn nothing_leaves_a_terminal_state_and_everything_else_has_a_way_out() {
        for state in StepState::ALL {
            assert_eq!(
                state.is_terminal(),
                !StepState::MOVES.iter().any(|(from, _)| *from == state),
                "{state:?}"
            );
        }
        for state in RunState::ALL {
            assert_eq!(
                state.is_terminal(),
                !RunState::MOVES.iter().any(|(from, _)| *from == state),
                "{state:?}"
            );
        }
    }

    #[test]
    fn every_state_is_reached_and_its_word_reads_back() {
        for state in StepState::ALL {
            assert_eq!(StepState::parse(state.as_str()), Some(state));
            assert!(
                state == StepState::Pending || StepState::MOVES.iter().any(|(_, to)| *to == state),
                "{state:?}"
            );
        }
        for state in RunState::ALL {
            assert_eq!(RunState::parse(state.as_str()), Some(state));
            assert!(
                state == RunState::Queued || RunState::MOVES.iter().any(|(_, to)| *to == state),
                "{state:?}"
            );
        }
    }
}
