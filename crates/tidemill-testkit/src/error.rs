//! What can go wrong while a test's surroundings are set up.

use std::{io, path::PathBuf, time::Duration};

/// Why a private server or process is not there.
#[derive(Debug, thiserror::Error)]
pub enum TestkitError {
    /// The program could not be started.
    #[error("cannot start `{}`: {source}; put it on PATH{hint}", program.display())]
    Start {
        /// The program that was asked for.
        program: PathBuf,
        /// Where else the kit would look.
        hint: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The program was started and ended, or did not answer in time.
    #[error("{what}\n--- its output ---\n{log}")]
    NotReady {
        /// Which program, and what it failed to do.
        what: String,
        /// The end of what it wrote.
        log: String,
    },
    /// A call to `redis-cli` failed, or the server answered with an error.
    #[error("redis-cli {arguments}: {output}")]
    Cli {
        /// The arguments, joined by blanks.
        arguments: String,
        /// What it printed.
        output: String,
    },
    /// The system refused something.
    #[error("cannot {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// No free port was found.
    #[error("no free port found in {attempts} attempts between {low} and {high}")]
    NoPort {
        /// How many were tried.
        attempts: u32,
        /// The lowest port considered.
        low: u16,
        /// The highest port considered.
        high: u16,
    },
    /// Something awaited did not come.
    #[error("waited {waited:?} for {what}; last seen: {last}")]
    TimedOut {
        /// What was awaited.
        what: String,
        /// For how long.
        waited: Duration,
        /// What the last look showed.
        last: String,
    },
}

impl TestkitError {
    /// Names what was being done when the system refused.
    pub(crate) fn io(doing: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let doing = doing.into();
        |source| Self::Io { doing, source }
    }
}
