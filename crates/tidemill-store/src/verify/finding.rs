//! What does not fit, in types.

use serde::Serialize;

/// What kind of thing does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Drift {
    /// A record of the audit tells what cannot have happened, or records are missing, doubled or out of order.
    Audit,
    /// A record of the audit cannot be read.
    AuditUnreadable,
    /// The audit ends elsewhere than the run says.
    AuditLength,
    /// A stored value cannot be read.
    Unreadable,
    /// A stored value is not what was written: its checksum is another.
    Damaged,
    /// The run's state is not the one that its audit leads to.
    RunState,
    /// The run's times are not those of its audit.
    RunTime,
    /// The run's workflow is not published, or is not valid: its steps cannot be told apart.
    Workflow,
    /// A step or an item is not in the state that its audit leads to.
    StepState,
    /// A step or an item is in another attempt.
    StepAttempt,
    /// The times of a step or an item, or who ran it, are not those of its audit.
    StepTime,
    /// The number of ended or failed steps is not that of the steps.
    EndedCount,
    /// A step's counters of ended and successful needs are not those of its needs.
    NeedsCount,
    /// A `for_each`'s counters are not those of its items.
    ItemCount,
    /// Something in flight is neither in its stream nor put aside nor in a line.
    Lost,
    /// Its entry is that of other work.
    Foreign,
    /// The run stands still with nothing in flight.
    Still,
    /// The run is missing in one of the sets of live and ended runs, or is in the wrong one.
    Listing,
}

impl Drift {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Audit => "audit",
            Self::AuditUnreadable => "audit_unreadable",
            Self::AuditLength => "audit_length",
            Self::Unreadable => "unreadable",
            Self::Damaged => "damaged",
            Self::RunState => "run_state",
            Self::RunTime => "run_time",
            Self::Workflow => "workflow",
            Self::StepState => "step_state",
            Self::StepAttempt => "step_attempt",
            Self::StepTime => "step_time",
            Self::EndedCount => "ended_count",
            Self::NeedsCount => "needs_count",
            Self::ItemCount => "item_count",
            Self::Lost => "lost",
            Self::Foreign => "foreign",
            Self::Still => "still",
            Self::Listing => "listing",
        }
    }

    /// Whether it stays true however the run goes on: what the audit holds is never changed.
    pub(super) const fn is_lasting(self) -> bool {
        matches!(self, Self::Audit | Self::AuditUnreadable)
    }
}

/// One thing that does not fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What kind of thing.
    pub kind: Drift,
    /// Of what: `run`, `step order`, `item order[3]`, `audit`.
    pub place: String,
    /// What is stored.
    pub stored: String,
    /// What should be.
    pub expected: String,
    /// Whether it can be repaired without a guess.
    pub repairable: bool,
}

impl Finding {
    pub(super) fn new(
        kind: Drift,
        place: impl Into<String>,
        stored: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        Self {
            kind,
            place: place.into(),
            stored: stored.into(),
            expected: expected.into(),
            repairable: false,
        }
    }

    pub(super) const fn repairable(mut self, repairable: bool) -> Self {
        self.repairable = repairable;
        self
    }

    /// Whether another reading found the same; numbers may have gone on together.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.kind == other.kind && self.place == other.place
    }
}
