//! One child process with its log.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdout, Command};

use super::settings::on_path;

/// How much of a log's end an error quotes.
const QUOTED_LINES: usize = 8;

/// A running program. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts a program; what it writes goes to `log`.
    pub(crate) fn start(name: &str, path: &Path, arguments: &[&str], log: &Path) -> Result<Self> {
        let out = File::create(log).with_context(|| format!("creating {}", log.display()))?;
        let err = out.try_clone().with_context(|| format!("opening {} twice", log.display()))?;
        Self::launch(name, command(path, arguments).stdout(out).stderr(err), log)
    }

    /// Starts a program whose standard output the caller reads, and writes to `log`.
    pub(crate) fn start_read(
        name: &str,
        path: &Path,
        arguments: &[&str],
        log: &Path,
    ) -> Result<(Self, ChildStdout)> {
        let asked = &mut command(path, arguments);
        let mut program = Self::launch(name, asked.stdout(Stdio::piped()).stderr(Stdio::null()), log)?;
        let stdout = program.child.stdout.take();
        Ok((program, stdout.with_context(|| format!("{name} has no standard output"))?))
    }

    fn launch(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("starting {name}"))?;
        Ok(Self { name: name.to_owned(), child, log: log.to_owned() })
    }

    /// Waits for its end and tells how it was, with the end of its log. Cancel safe.
    pub(crate) async fn ended(&mut self) -> Error {
        let how = match self.child.wait().await {
            Ok(status) => status.to_string(),
            Err(error) => error.to_string(),
        };
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n  ");
        anyhow!("{} ended by itself ({how}); its log {} ends with\n  {tail}", self.name, self.log.display())
    }

    /// Asks it to end.
    pub(crate) fn terminate(&self) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // an error means that it has ended already, which is what is wanted
            kill_process(pid, Signal::TERM).unwrap_or_default();
        }
    }

    /// Waits for its end; kills it when that takes too long.
    pub(crate) async fn finish(mut self, patience: Duration) {
        if tokio::time::timeout(patience, self.child.wait()).await.is_err() {
            // an error means that it has ended in this moment
            self.child.kill().await.unwrap_or_default();
        }
    }
}

/// A command in a process group of its own, so that Ctrl-C reaches only us and we end things in order. It ends when we are
/// killed, as far as the system has util-linux. Settings of the surroundings are kept away from it.
fn command(path: &Path, arguments: &[&str]) -> Command {
    let mut command = match on_path("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "TERM", "--"]).arg(path);
            command
        }
        None => Command::new(path),
    };
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).process_group(0);
    for (name, _) in std::env::vars_os() {
        let foreign = name.to_string_lossy();
        if foreign.starts_with("TIDEMILL_") || foreign == "LOG_LEVEL" {
            command.env_remove(&name);
        }
    }
    command
}
