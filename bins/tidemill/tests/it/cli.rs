//! Running the command.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tidemill_testkit::{Process, RedisServer};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// Far more than anything here takes.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) fn program() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_tidemill"))
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// Its output, given that it succeeded.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }

    /// Its one JSON document, given that it succeeded.
    pub(crate) fn document(self) -> Value {
        let out = self.ok();
        serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
    }

    /// Its JSON documents, one a line, given that it succeeded.
    pub(crate) fn documents(self) -> Vec<Value> {
        let out = self.ok();
        out.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    /// Its words of failure, given that it ended with this code.
    pub(crate) fn refused(self, code: i32) -> String {
        assert_eq!(self.code, code, "{self:?}");
        self.err
    }
}

/// The command, for one server.
#[derive(Debug, Clone)]
pub(crate) struct Cli {
    url: String,
    partitions: u32,
    variables: Vec<(&'static str, &'static str)>,
}

impl Cli {
    pub(crate) fn new(url: impl Into<String>) -> Self {
        Self { url: url.into(), partitions: 1, variables: Vec::new() }
    }

    pub(crate) fn with_partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    pub(crate) fn with_variable(mut self, name: &'static str, value: &'static str) -> Self {
        self.variables.push((name, value));
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        for (name, _) in std::env::vars_os() {
            let foreign = ["TIDEMILL_", "NO_COLOR", "CLICOLOR", "LOG_LEVEL"];
            if foreign.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
                command.env_remove(&name);
            }
        }
        command.env("TIDEMILL_REDIS_URL", &self.url).env("TIDEMILL_PARTITIONS", self.partitions.to_string());
        command.envs(self.variables.iter().copied()).args(arguments).kill_on_drop(true);
        command
    }

    pub(crate) async fn run(&self, arguments: &[&str]) -> Said {
        self.run_with(arguments, "").await
    }

    /// With this on its standard input.
    pub(crate) async fn run_with(&self, arguments: &[&str], input: &str) -> Said {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the command starts");
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin.write_all(input.as_bytes()).await.ok();
        drop(stdin);
        let ended = tokio::time::timeout(SOON, child.wait_with_output()).await;
        let output = ended.unwrap_or_else(|_| panic!("{arguments:?} did not end")).expect("its output");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// A server, and the command for it; nothing works on it.
pub(crate) async fn idle() -> (RedisServer, Cli) {
    let server = RedisServer::start().await.expect("a server");
    let cli = Cli::new(server.url());
    (server, cli)
}

/// A server with a worker, a scheduler and a producer.
pub(crate) async fn pool() -> (RedisServer, Process, Cli) {
    let (server, cli) = idle().await;
    let engines = engines(&server, 1).await;
    (server, engines, cli)
}

/// `tidemill dev` on a server that is there.
pub(crate) async fn engines(server: &RedisServer, partitions: u32) -> Process {
    let mut engines = Process::builder(program())
        .args(["dev", "--http-addr", "127.0.0.1:0", "--redis-url"])
        .arg(server.url())
        .args(["--set", &format!("partitions={partitions}")])
        .start()
        .expect("the engines start");
    engines.wait_for_line("Ctrl-C ends it", SOON).await.expect("the engines run");
    engines
}

/// Text whose every number is `#` and whose every run of blanks is one, line by line: what does not change from run to run.
pub(crate) fn shape(text: &str) -> Vec<String> {
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut out = String::new();
        for c in words.join(" ").chars() {
            match c {
                c if c.is_ascii_digit() && out.ends_with('#') => {}
                c if c.is_ascii_digit() => out.push('#'),
                c => out.push(c),
            }
        }
        out
    };
    text.lines().map(line).collect()
}
