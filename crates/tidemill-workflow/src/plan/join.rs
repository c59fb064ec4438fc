//! When a step runs, as a function of how its needs ended. No clock, no store: whoever settles asks here.

use super::PlanStep;
use crate::definition::Join;

/// How a need stands, as far as joining is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Need {
    /// It has not ended.
    Pending,
    /// It succeeded.
    Succeeded,
    /// It was skipped.
    Skipped,
    /// It failed, timed out or was cancelled, and its dependents do not run on.
    Failed,
    /// It failed with `continue_on_error`.
    Continued,
}

/// What becomes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// It waits for more of its needs.
    Wait,
    /// It runs, if its `when` allows.
    Run,
    /// It is skipped.
    Skip,
}

/// Counts at which a waiting step is to be decided on. Each need that ends adds one to the step's `ended`, and one to its
/// `ok` if it succeeded. The step is decided on when either count is reached for the first time; one that is not
/// pending any more stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fires {
    /// Number of ended needs (all of them).
    pub ended: u32,
    /// Number of succeeded needs; 0 for never.
    pub ok: u32,
}

impl Fires {
    /// Whether a step with these counts is to be decided on.
    #[must_use]
    pub const fn reached(self, ended: u32, ok: u32) -> bool {
        ended == self.ended || (self.ok != 0 && ok == self.ok)
    }
}

impl PlanStep {
    /// When the counters of its needs make it fire.
    #[must_use]
    pub fn fires_when(&self) -> Fires {
        if self.after.is_some() {
            return Fires { ended: 1, ok: 0 };
        }
        let ended = u32::try_from(self.needs.len()).unwrap_or(u32::MAX);
        let ok = match self.join {
            Join::All => 0,
            Join::Any => 1,
            Join::NOf(n) => n,
        };
        Fires { ended, ok }
    }

    /// What becomes of it, given how each of its needs stands.
    #[must_use]
    pub fn decide(&self, needs: &[Need]) -> Decision {
        self.join.decide(needs)
    }
}

impl Join {
    /// What becomes of a step with this join.
    ///
    /// `all` waits for every need. A failed one skips the step; so do needs that were all skipped. `any` and `n_of` run
    /// at the first, or the nth, success, and skip when everything ended short of it.
    #[must_use]
    pub fn decide(self, needs: &[Need]) -> Decision {
        let count = |wanted: Need| needs.iter().filter(|need| **need == wanted).count();
        let wanted = match self {
            Self::All => {
                return if count(Need::Pending) > 0 {
                    Decision::Wait
                } else if count(Need::Failed) > 0
                    || (!needs.is_empty() && count(Need::Skipped) == needs.len())
                {
                    Decision::Skip
                } else {
                    Decision::Run
                };
            }
            Self::Any => 1,
            Self::NOf(n) => n as usize,
        };
        if count(Need::Succeeded) >= wanted {
            Decision::Run
        } else if count(Need::Pending) > 0 {
            Decision::Wait
        } else {
            Decision::Skip
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Need::{Continued, Failed, Pending, Skipped, Succeeded};

    #[test]
    fn all_runs_when_every_need_ended_well_enough() {
        for (needs, decision) in [
            (&[][..], Decision::Run),
            (&[Succeeded, Pending], Decision::Wait),
            (&[Failed, Pending], Decision::Wait),
            (&[Succeeded, Succeeded], Decision::Run),
            (&[Succeeded, Skipped], Decision::Run),
            (&[Continued, Skipped], Decision::Run),
            (&[Continued], Decision::Run),
            (&[Skipped, Skipped], Decision::Skip),
            (&[Succeeded, Failed], Decision::Skip),
            (&[Failed], Decision::Skip),
        ] {
            assert_eq!(Join::All.decide(needs), decision, "{needs:?}");
        }
    }

    #[test]
    fn any_runs_at_the_first_success() {
        for (needs, decision) in [
            (&[Pending, Pending][..], Decision::Wait),
            (&[Pending, Succeeded], Decision::Run),
            (&[Failed, Pending], Decision::Wait),
            (&[Failed, Skipped], Decision::Skip),
            (&[Continued, Continued], Decision::Skip),
        ] {
            assert_eq!(Join::Any.decide(needs), decision, "{needs:?}");
        }
    }

    #[test]
    fn n_of_runs_at_the_nth_success() {
        for (needs, decision) in [
            (&[Succeeded, Pending, Pending][..], Decision::Wait),
            (&[Succeeded, Pending, Succeeded], Decision::Run),
            (&[Succeeded, Failed, Skipped], Decision::Skip),
        ] {
            assert_eq!(Join::NOf(2).decide(needs), decision, "{needs:?}");
        }
    }
}
