//! One private Redis server.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
};

use crate::{TestkitError, family::Family, port::free_port, signal, wait::wait_for};

/// Time that a server gets to answer its first PING; reading a large append-only file counts.
const READY: Duration = Duration::from_secs(20);
/// Starts lost to another process that took the port first, before the kit gives up.
const PORT_RACES: u32 = 10;
/// The end of the server's output that an error shows.
const LOG_TAIL_BYTES: usize = 4096;

/// What a [`RedisServer`] is started with.
#[derive(Debug, Clone, Default)]
pub struct RedisServerBuilder {
    aof: bool,
    password: Option<String>,
    config: Vec<(String, String)>,
    sentinel: bool,
    program: Option<OsString>,
}

impl RedisServerBuilder {
    /// Runs this program instead of the usual one: a `valkey-server`, say.
    #[must_use]
    pub fn program(mut self, program: impl Into<OsString>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Keeps an append-only file (`appendfsync everysec`), which [`RedisServer::restart`] reads again.
    #[must_use]
    pub const fn aof(mut self, on: bool) -> Self {
        self.aof = on;
        self
    }

    /// Requires this password of every client; it stands in [`RedisServer::url`]. Letters and digits only.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Adds a line to the server's configuration, such as `("maxmemory", "50mb")`.
    #[must_use]
    pub fn config(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.config.push((name.into(), value.into()));
        self
    }

    /// Runs the server as a Sentinel.
    #[must_use]
    pub(crate) const fn sentinel(mut self) -> Self {
        self.sentinel = true;
        self
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Errors
    /// When the program is missing, refuses its configuration (its log is in the error) or does not answer.
    pub async fn start(self) -> Result<RedisServer, TestkitError> {
        let mut races = 0;
        loop {
            let folder = tempfile::Builder::new()
                .prefix("tidemill-redis-")
                .tempdir()
                .map_err(TestkitError::io("make a folder for a server"))?;
            let port = free_port()?;
            self.write_config(folder.path(), port)?;
            let mut server = RedisServer {
                port,
                folder,
                password: self.password.clone(),
                sentinel: self.sentinel,
                program: self.program.clone().unwrap_or_else(server_program),
                running: None,
            };
            match server.launch().await {
                Err(TestkitError::NotReady { log, .. })
                    if races < PORT_RACES && log.contains("Address already in use") =>
                {
                    races += 1;
                }
                Err(error) => return Err(error),
                Ok(()) => return Ok(server),
            }
        }
    }

    fn write_config(&self, folder: &Path, port: u16) -> Result<(), TestkitError> {
        let mut lines = format!(
            "bind 127.0.0.1\nport {port}\nunixsocket {}\ndir {}\nloglevel notice\n",
            folder.join(SOCKET).display(),
            folder.display(),
        );
        if !self.sentinel {
            let aof = if self.aof { "yes" } else { "no" };
            lines.push_str(&format!("save \"\"\nappendonly {aof}\nrepl-diskless-sync-delay 0\n"));
        }
        if let Some(password) = &self.password {
            lines.push_str(&format!("requirepass {password}\nmasterauth {password}\n"));
        }
        for (name, value) in &self.config {
            let value = if value.is_empty() { "\"\"" } else { value };
            lines.push_str(&format!("{name} {value}\n"));
        }
        fs::write(folder.join(CONFIG), lines).map_err(TestkitError::io("write a server's configuration"))
    }
}

const SOCKET: &str = "redis.sock";
const CONFIG: &str = "redis.conf";
const OUTPUT: &str = "redis.log";

/// A Redis server of one test: own folder, own port on 127.0.0.1, own Unix socket, nothing written to disk unless
/// asked for. It is killed, and its folder removed, when this is dropped; it is killed, too, when the test itself is.
///
/// The program is `redis-server` on `PATH`, or what `TIDEMILL_TEST_SERVER` names (a `valkey-server`, say); its client
/// is `redis-cli`, or what `TIDEMILL_TEST_CLI` names.
#[derive(Debug)]
pub struct RedisServer {
    port: u16,
    folder: TempDir,
    password: Option<String>,
    sentinel: bool,
    program: OsString,
    /// `None` while the server is stopped.
    running: Option<(Child, Family)>,
}

impl RedisServer {
    /// A server with the defaults: no password, nothing on disk.
    ///
    /// # Errors
    /// As [`RedisServerBuilder::start`].
    pub async fn start() -> Result<Self, TestkitError> {
        Self::builder().start().await
    }

    /// A server with settings of its own.
    #[must_use]
    pub fn builder() -> RedisServerBuilder {
        RedisServerBuilder::default()
    }

    /// The address for a client, with the password if there is one: `redis://127.0.0.1:10123`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_through(self.port)
    }

    /// The same address with another port: that of a [`crate::FaultProxy`] in front of this server.
    #[must_use]
    pub fn url_through(&self, port: u16) -> String {
        match &self.password {
            Some(password) => format!("redis://:{password}@127.0.0.1:{port}"),
            None => format!("redis://127.0.0.1:{port}"),
        }
    }

    /// The address over the Unix socket.
    #[must_use]
    pub fn unix_url(&self) -> String {
        let path = self.socket();
        match &self.password {
            Some(password) => format!("redis+unix://{}?pass={password}", path.display()),
            None => format!("redis+unix://{}", path.display()),
        }
    }

    /// The TCP port; it stays the same over a restart.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The process id, while the server runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.running.as_ref().map(|(child, _)| child.id())
    }

    /// The folder with the server's configuration, log and data.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Ends the server at once with SIGKILL, as a crash would. Works on a paused one; does nothing on a stopped one.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn stop_hard(&mut self) -> Result<(), TestkitError> {
        let Some((mut child, mut family)) = self.running.take() else { return Ok(()) };
        family.kill();
        child.kill().map_err(TestkitError::io("kill a server"))?;
        child.wait().map_err(TestkitError::io("wait for a killed server"))?;
        family.leader_ended();
        Ok(())
    }

    /// Starts the server again, on the same port and folder, killing it first if it runs. Waits until it answers.
    ///
    /// # Errors
    /// As [`RedisServerBuilder::start`].
    pub async fn restart(&mut self) -> Result<(), TestkitError> {
        self.stop_hard()?;
        self.launch().await
    }

    /// Freezes the server (SIGSTOP): connections stay open and nothing answers.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> Result<(), TestkitError> {
        self.signal(Signal::STOP)
    }

    /// Lets a frozen server go on (SIGCONT).
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<(), TestkitError> {
        self.signal(Signal::CONT)
    }

    /// Runs `redis-cli` against this server and returns what it printed, without the last line break. Nested arrays
    /// come one element a line.
    ///
    /// # Errors
    /// When the server cannot be reached or answers with an error.
    pub async fn cli(&self, arguments: &[&str]) -> Result<String, TestkitError> {
        let socket = self.socket();
        self.run_cli(&[OsStr::new("-s"), socket.as_os_str()], arguments).await
    }

    /// As [`RedisServer::cli`], over TCP and following the redirections of a cluster.
    pub(crate) async fn cluster_cli(&self, arguments: &[&str]) -> Result<String, TestkitError> {
        let port = self.port.to_string();
        self.run_cli(&["-c", "-p", &port].map(OsStr::new), arguments).await
    }

    async fn run_cli(&self, connection: &[&OsStr], arguments: &[&str]) -> Result<String, TestkitError> {
        let mut command = tokio::process::Command::new(cli_program());
        // the last argument may be too long for a command line, and is read from standard input then
        let (last, others) = match arguments.split_last() {
            Some((last, others)) if last.len() > LONGEST_ARGUMENT => (Some(*last), others),
            _ => (None, arguments),
        };
        command.args(connection).arg("-e").args(last.map(|_| "-x")).args(others).kill_on_drop(true);
        if let Some(password) = &self.password {
            command.env("REDISCLI_AUTH", password);
        }
        let failed = |source| TestkitError::Start {
            program: cli_program().into(),
            hint: " or name it in TIDEMILL_TEST_CLI",
            source,
        };
        let output = match last {
            None => command.output().await,
            Some(last) => fed(&mut command, last).await,
        };
        let output = output.map_err(failed)?;
        let printed = String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned();
        if output.status.success() {
            return Ok(printed);
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(TestkitError::Cli {
            arguments: arguments.join(" "),
            output: format!("{printed}{}", complaint.trim_end()),
        })
    }

    /// What the server has logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.folder.path().join(OUTPUT))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn signal(&self, signal: Signal) -> Result<(), TestkitError> {
        match self.pid() {
            Some(pid) => signal::send(pid, signal),
            None => Err(TestkitError::NotReady {
                what: format!("the server on port {} is stopped and takes no signal", self.port),
                log: self.log_tail(),
            }),
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join(SOCKET)
    }

    async fn launch(&mut self) -> Result<(), TestkitError> {
        let program = &self.program;
        let output = self.output_file()?;
        let mut command = Command::new(program);
        command.arg(self.folder.path().join(CONFIG));
        if self.sentinel {
            command.arg("--sentinel");
        }
        let errors = output.try_clone().map_err(TestkitError::io("share a server's log"))?;
        command.stdin(Stdio::null()).stdout(output).stderr(errors).process_group(0);
        let mut child = command.spawn().map_err(|source| TestkitError::Start {
            program: program.into(),
            hint: " or name it in TIDEMILL_TEST_SERVER",
            source,
        })?;
        match Family::of(child.id()) {
            Ok(family) => self.running = Some((child, family)),
            Err(error) => {
                child.kill().map_err(TestkitError::io("kill a server"))?;
                return Err(error);
            }
        }
        self.answer().await
    }

    /// Waits for PONG on the Unix socket: the TCP port might still be another test's server.
    async fn answer(&mut self) -> Result<(), TestkitError> {
        let socket = self.socket();
        let mut ended = None;
        let running = &mut self.running;
        let waited = wait_for(READY, "PONG", async || {
            let seen = running.as_mut().and_then(|(child, _)| child.try_wait().ok().flatten());
            if let Some(status) = seen {
                ended = Some(status);
                return Ok(false);
            }
            ping(&socket).await.map(|()| true)
        })
        .await;
        let what = match (waited, ended) {
            (Ok(true), _) => return Ok(()),
            (_, Some(status)) => {
                if let Some((_, mut family)) = self.running.take() {
                    family.leader_ended();
                }
                format!("the server for port {} ended while starting ({status})", self.port)
            }
            (Err(error), None) => format!("the server on port {} does not answer: {error}", self.port),
            (Ok(false), None) => format!("the server on port {} ended while starting", self.port),
        };
        Err(TestkitError::NotReady { what, log: self.log_tail() })
    }

    fn output_file(&self) -> Result<File, TestkitError> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.path().join(OUTPUT))
            .map_err(TestkitError::io("open a server's log"))
    }

    fn log_tail(&self) -> String {
        let bytes = fs::read(self.folder.path().join(OUTPUT)).unwrap_or_default();
        let start = bytes.len().saturating_sub(LOG_TAIL_BYTES);
        String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned()
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Err(error) = self.stop_hard() {
            drop(error); // the process is gone, or will be with this one; a Drop has nobody to tell
        }
    }
}

async fn ping(socket: &Path) -> Result<(), String> {
    let mut stream = UnixStream::connect(socket).await.map_err(|error| error.to_string())?;
    stream.write_all(b"PING\r\n").await.map_err(|error| error.to_string())?;
    let mut reply = [0; 128];
    let length = stream.read(&mut reply).await.map_err(|error| error.to_string())?;
    let reply = reply.get(..length).unwrap_or_default();
    // A server with a password asks for it once it serves; before that it says LOADING.
    if reply.starts_with(b"+PONG") || reply.starts_with(b"-NOAUTH") {
        return Ok(());
    }
    Err(String::from_utf8_lossy(reply).trim_end().to_owned())
}

fn server_program() -> OsString {
    env::var_os("TIDEMILL_TEST_SERVER").unwrap_or_else(|| "redis-server".into())
}

/// Linux takes no argument of 128 KiB or more.
const LONGEST_ARGUMENT: usize = 100 * 1024;

/// Runs a command that reads this from its standard input.
async fn fed(command: &mut tokio::process::Command, input: &str) -> std::io::Result<std::process::Output> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).await?;
    }
    child.wait_with_output().await
}

fn cli_program() -> OsString {
    env::var_os("TIDEMILL_TEST_CLI").unwrap_or_else(|| "redis-cli".into())
}
