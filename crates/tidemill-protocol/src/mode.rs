//! How runs are carried out: one pool-wide choice, and what it means.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How the steps of a run are carried out. Whatever it is, a run gives the same result: modes differ in time and in cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionMode {
    /// One step at a time, and a call of its own to Redis for each end: the simplest that there is, to compare with.
    Classic,
    /// One step at a time; each transition is looked up in the table before anything is run for it.
    StateMachine,
    /// One step at a time; claims, settlings and admissions travel in batches, identical calls are made once, answers are kept.
    Optimized,
    /// As [`Self::Optimized`], and whatever the graph allows runs side by side.
    #[default]
    Hybrid,
}

/// A word that names no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no execution mode {given:?}; the modes are classic, state_machine, optimized and hybrid")]
pub struct UnknownMode {
    /// What was given, cut short.
    pub given: String,
}

impl ExecutionMode {
    /// Every mode, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::Classic, Self::StateMachine, Self::Optimized, Self::Hybrid];

    /// The word in Redis, the API, settings, metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Classic => "classic",
            Self::StateMachine => "state_machine",
            Self::Optimized => "optimized",
            Self::Hybrid => "hybrid",
        }
    }

    /// The mode of a word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == word)
    }

    /// Whether the steps of a run go one after the other.
    #[must_use]
    pub const fn is_sequential(self) -> bool {
        match self {
            Self::Classic | Self::StateMachine | Self::Optimized => true,
            Self::Hybrid => false,
        }
    }

    /// Whether each end of a step is a call of its own to Redis.
    #[must_use]
    pub const fn settles_alone(self) -> bool {
        match self {
            Self::Classic => true,
            Self::StateMachine | Self::Optimized | Self::Hybrid => false,
        }
    }

    /// Whether a call may be answered by the cache, or together with another that is the same.
    #[must_use]
    pub const fn shares_calls(self) -> bool {
        match self {
            Self::Classic | Self::StateMachine => false,
            Self::Optimized | Self::Hybrid => true,
        }
    }

    /// Whether a worker looks each transition up in the table before it runs anything for it.
    #[must_use]
    pub const fn checks_moves(self) -> bool {
        match self {
            Self::StateMachine => true,
            Self::Classic | Self::Optimized | Self::Hybrid => false,
        }
    }
}

impl fmt::Display for ExecutionMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for ExecutionMode {
    type Err = UnknownMode;

    fn from_str(word: &str) -> Result<Self, UnknownMode> {
        Self::parse(word).ok_or_else(|| UnknownMode { given: word.chars().take(40).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::ExecutionMode;

    #[test]
    fn every_word_reads_back_in_every_way_of_reading() {
        for mode in ExecutionMode::ALL {
            assert_eq!(ExecutionMode::parse(mode.as_str()), Some(mode));
            assert_eq!(mode.as_str().parse(), Ok(mode));
            assert_eq!(serde_json::to_value(mode).unwrap(), mode.as_str());
        }
        let error = "Hybrid".parse::<ExecutionMode>().unwrap_err();
        assert!(error.to_string().contains("classic, state_machine, optimized and hybrid"), "{error}");
    }

    #[test]
    fn each_mode_differs_from_every_other_in_what_it_means() {
        let meaning = |mode: ExecutionMode| {
            (mode.is_sequential(), mode.settles_alone(), mode.shares_calls(), mode.checks_moves())
        };
        for one in ExecutionMode::ALL {
            for other in ExecutionMode::ALL {
                assert_eq!(meaning(one) == meaning(other), one == other, "{one} and {other}");
            }
        }
    }
}
