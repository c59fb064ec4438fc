//! A built program under test, as the operating system sees it.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{TestkitError, family::Family, signal, wait::wait_for};

/// Variables of the surroundings that would change what a program under test does.
const FOREIGN: [&str; 3] = ["TIDEMILL_", "LOG_LEVEL", "OTEL_"];

/// Finds a program of this workspace that cargo has built, beside the running test: `built_binary("tidemill-worker")`.
///
/// # Errors
/// When it has not been built, with the command that builds it.
pub fn built_binary(name: &str) -> Result<PathBuf, TestkitError> {
    let own = env::current_exe().map_err(TestkitError::io("find the running test"))?;
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| TestkitError::NotReady {
        what: format!("`{name}` is not built; run `cargo build --bin {name}` first"),
        log: own.display().to_string(),
    })
}

/// What a [`Process`] is started with.
#[derive(Debug)]
pub struct ProcessBuilder {
    program: PathBuf,
    arguments: Vec<OsString>,
    variables: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
}

impl ProcessBuilder {
    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Starts the program in this folder instead of its private one.
    #[must_use]
    pub fn current_dir(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// Starts the program. Variables of the surroundings that begin with `TIDEMILL_`, `LOG_LEVEL` or `OTEL_` are not
    /// handed on.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(self) -> Result<Process, TestkitError> {
        let scratch = tempfile::Builder::new()
            .prefix("tidemill-process-")
            .tempdir()
            .map_err(TestkitError::io("make a folder for a process"))?;
        let output =
            File::create(scratch.path().join(OUTPUT)).map_err(TestkitError::io("create a log file"))?;
        let errors = output.try_clone().map_err(TestkitError::io("share a log file"))?;
        let mut command = Command::new(&self.program);
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            if FOREIGN.iter().any(|prefix| text.starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        command
            .args(&self.arguments)
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.as_deref().unwrap_or_else(|| scratch.path()))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn().map_err(|source| TestkitError::Start {
            program: self.program.clone(),
            hint: ", or build it first",
            source,
        })?;
        let pid = child.id().unwrap_or_default();
        Ok(Process { program: self.program, pid, family: Family::of(pid)?, child, scratch })
    }
}

const OUTPUT: &str = "output";

/// A running program. Its standard output and standard error go, in their order, to one file. It is killed when this
/// is dropped, or when the test itself is killed, and so is all that it has started.
#[derive(Debug)]
pub struct Process {
    program: PathBuf,
    pid: u32,
    // these two before the folder: dropped in this order, nobody writes into it any more when it is removed
    family: Family,
    child: Child,
    scratch: TempDir,
}

impl Process {
    /// A program to be started, by its path.
    #[must_use]
    pub fn builder(program: impl Into<PathBuf>) -> ProcessBuilder {
        ProcessBuilder { program: program.into(), arguments: Vec::new(), variables: Vec::new(), folder: None }
    }

    /// The process id; it stays known after the end.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Kills it (SIGKILL), with those of its children that stayed in its process group, and waits for its end.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn kill(&mut self) -> Result<(), TestkitError> {
        self.family.kill();
        self.child.kill().await.map_err(TestkitError::io(format!("kill process {}", self.pid)))?;
        self.family.leader_ended();
        Ok(())
    }

    /// Asks it to end (SIGTERM).
    ///
    /// # Errors
    /// When it has ended already.
    pub fn term(&mut self) -> Result<(), TestkitError> {
        self.signal(Signal::TERM)
    }

    /// Interrupts it, as Ctrl-C does (SIGINT).
    ///
    /// # Errors
    /// When it has ended already.
    pub fn interrupt(&mut self) -> Result<(), TestkitError> {
        self.signal(Signal::INT)
    }

    /// Freezes it (SIGSTOP).
    ///
    /// # Errors
    /// When it has ended already.
    pub fn pause(&mut self) -> Result<(), TestkitError> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen process go on (SIGCONT).
    ///
    /// # Errors
    /// When it has ended already.
    pub fn resume(&mut self) -> Result<(), TestkitError> {
        self.signal(Signal::CONT)
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        let waited = self.child.try_wait();
        if matches!(waited, Ok(Some(_))) {
            self.family.leader_ended();
        }
        matches!(waited, Ok(None))
    }

    /// Waits for its end. Whom it leaves behind in its process group is killed then.
    ///
    /// # Errors
    /// [`TestkitError::NotReady`], with its output, when it still runs after `deadline`.
    pub async fn wait(&mut self, deadline: Duration) -> Result<ExitStatus, TestkitError> {
        match tokio::time::timeout(deadline, self.child.wait()).await {
            Ok(status) => {
                let status = status.map_err(TestkitError::io(format!("wait for process {}", self.pid)))?;
                self.family.leader_ended();
                Ok(status)
            }
            Err(_) => Err(TestkitError::NotReady {
                what: format!("{} still runs after {deadline:?}", self.program.display()),
                log: self.output(),
            }),
        }
    }

    /// What it has written so far, standard output and standard error together.
    #[must_use]
    pub fn output(&self) -> String {
        fs::read(self.scratch.path().join(OUTPUT))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Waits for a line that contains `needle` and returns it.
    ///
    /// # Errors
    /// [`TestkitError::NotReady`], with its output, when the line does not come or the process ends without it.
    pub async fn wait_for_line(&mut self, needle: &str, deadline: Duration) -> Result<String, TestkitError> {
        let program = self.program.display().to_string();
        let outcome = wait_for(deadline, needle, async || {
            let ended = !self.is_running(); // before reading: what it wrote last is then in the file
            let line = self.output().lines().find(|line| line.contains(needle)).map(str::to_owned);
            match line {
                Some(line) => Ok(Some(line)),
                None if ended => Ok(None),
                None => Err(format!("no line with `{needle}`")),
            }
        })
        .await;
        let what = match outcome {
            Ok(Some(line)) => return Ok(line),
            Ok(None) => format!("{program} ended without a line with `{needle}`"),
            Err(error) => format!("{program}: {error}"),
        };
        Err(TestkitError::NotReady { what, log: self.output() })
    }

    /// The folder that belongs to this process alone; it goes with it.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.scratch.path()
    }

    fn signal(&mut self, signal: Signal) -> Result<(), TestkitError> {
        // Reaping first keeps a signal from reaching another process that got the same id.
        if self.is_running() {
            return signal::send(self.pid, signal);
        }
        Err(TestkitError::NotReady {
            what: format!("{} has ended and takes no {signal:?}", self.program.display()),
            log: self.output(),
        })
    }
}
