//! A process from its start to its exit code.
//!
//! [`run`] starts the engine, waits for a signal or for a vital task to fail, cancels the token that every task
//! watches, gives them their grace, and tells the exit code. A second signal ends the process at once.

use std::{
    fmt,
    io::{self, Write},
    time::Duration,
};

use crate::{
    exit::Exit,
    settings::SettingsError,
    shutdown::Signals,
    tasks::{Ended, Tasks},
};

/// Why a program could not start, with its exit code.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
}

impl Failure {
    /// A failure with its exit code and its words.
    pub fn new(exit: Exit, message: impl fmt::Display) -> Self {
        Self { exit, message: message.to_string() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<SettingsError> for Failure {
    fn from(error: SettingsError) -> Self {
        Self::new(Exit::Settings, format_args!("settings refused:\n{error}"))
    }
}

/// Runs a program: `start` sets everything up, spawns its tasks, and returns the grace that they get at the end.
///
/// `threads` is the number of threads that run tasks; `None` takes one for each processor. What goes wrong is written
/// to standard error under the name `program`.
pub fn run<F, S>(program: &str, threads: Option<usize>, start: F) -> Exit
where
    F: FnOnce(Tasks) -> S,
    S: Future<Output = Result<Duration, Failure>>,
{
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads.max(1));
    }
    let runtime = match builder.enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(program, &format!("cannot start its threads: {error}"));
            return Exit::Failed;
        }
    };
    let outcome = runtime.block_on(async {
        let signals = Signals::install()
            .map_err(|error| Failure::new(Exit::Failed, format_args!("cannot catch signals: {error}")))?;
        supervise(signals, start).await
    });
    // A blocking call that hangs must not keep the process.
    runtime.shutdown_background();
    report(program, outcome)
}

async fn supervise<F, S>(mut signals: Signals, start: F) -> Result<Exit, Failure>
where
    F: FnOnce(Tasks) -> S,
    S: Future<Output = Result<Duration, Failure>>,
{
    let tasks = Tasks::new();
    let token = tasks.token();
    let started = tokio::select! {
        grace = start(tasks.clone()) => Some(grace?),
        signal = signals.next() => {
            tracing::info!(signal, "ending before the start was complete");
            None
        }
    };
    if let Some(grace) = started {
        tokio::select! {
            signal = signals.next() => tracing::info!(signal, grace_ms = crate::clock::milliseconds(grace), "ending"),
            () = token.cancelled() => tracing::info!("ending"),
        }
    }
    let grace = started.unwrap_or_default();
    tokio::select! {
        ended = tasks.shutdown(grace) => Ok(exit_of(&ended)),
        signal = signals.next() => {
            tracing::warn!(signal, unfinished = ?tasks.running(), "ending at once");
            Ok(Exit::Interrupted)
        }
    }
}

fn exit_of(ended: &Ended) -> Exit {
    if !ended.unfinished.is_empty() {
        tracing::warn!(unfinished = ?ended.unfinished, "the grace is over");
    }
    match (&ended.failure, ended.unfinished.is_empty()) {
        (Some(_), _) => Exit::Failed,
        (None, false) => Exit::Unfinished,
        (None, true) => Exit::Ok,
    }
}

/// The exit of something that ran without tasks; what went wrong is written to standard error.
pub fn report(program: &str, outcome: Result<Exit, impl Into<Failure>>) -> Exit {
    outcome.unwrap_or_else(|failure| {
        let failure = failure.into();
        complain(program, &failure.message);
        failure.exit
    })
}

/// Standard error may be closed; then nobody listens.
fn complain(program: &str, message: &str) {
    writeln!(io::stderr().lock(), "{program}: {message}").ok();
}

#[cfg(test)]
mod tests;
