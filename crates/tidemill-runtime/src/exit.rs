//! Exit codes, the same for every program.

use std::process::{ExitCode, Termination};

/// How a program ended, as its exit code tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: it did what it was asked.
    Ok,
    /// 1: it failed; the reason is in its last message.
    Failed,
    /// 2: it was called wrongly: an unknown flag or argument.
    Usage,
    /// 3: its settings were refused.
    Settings,
    /// 4: Redis could not be reached, or is not fit for Tidemill.
    Redis,
    /// 5: it was asked to end, and some of its work did not end within the grace.
    Unfinished,
    /// 130: a second signal ended it at once.
    Interrupted,
}

impl Exit {
    /// Every exit with its meaning, for help texts.
    pub const ALL: &[(Self, &str)] = &[
        (Self::Ok, "done"),
        (Self::Failed, "failed; the reason is in the last message"),
        (Self::Usage, "called wrongly: unknown flag or argument"),
        (Self::Settings, "settings refused"),
        (Self::Redis, "Redis cannot be reached, or is not fit for Tidemill"),
        (Self::Unfinished, "asked to end, and work was left when the grace was over"),
        (Self::Interrupted, "ended at once by a second signal"),
    ];

    /// The number.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Settings => 3,
            Self::Redis => 4,
            Self::Unfinished => 5,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        self.into()
    }
}
