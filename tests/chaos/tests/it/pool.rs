//! A server, programs on it, and work for them.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use tidemill_store::{Admission, Partition, Settings, Store, keys};
use tidemill_testkit::{Process, RedisServer, RedisServerBuilder, built_binary, wait_for};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Longer than anything takes on a slow machine; nothing waits for it when all is well.
pub(crate) const LONG: Duration = Duration::from_secs(120);

/// Whether the full sizes are wanted.
pub(crate) fn full() -> bool {
    std::env::var_os("TIDEMILL_TEST_ALL").is_some_and(|value| value == "1")
}

pub(crate) struct Pool {
    pub(crate) server: RedisServer,
    pub(crate) store: Store,
    /// Where the programs connect: the server, or a proxy in front of it.
    pub(crate) url: String,
}

/// A running program and where it answers HTTP.
pub(crate) struct Program {
    pub(crate) process: Process,
    addr: String,
}

impl Pool {
    pub(crate) async fn start() -> Self {
        Self::on(RedisServer::builder()).await
    }

    /// On a server that keeps everything over a crash.
    pub(crate) async fn durable(fsync: &str) -> Self {
        Self::on(RedisServer::builder().aof(true).config("appendfsync", fsync)).await
    }

    async fn on(builder: RedisServerBuilder) -> Self {
        let server = builder.start().await.unwrap();
        let settings = Settings { url: server.url(), ..Settings::default() };
        let store = Store::new(&settings, "tm", 1).unwrap();
        store.check().await.unwrap();
        Self { url: server.url(), server, store }
    }

    pub(crate) fn home(&self) -> &Partition {
        self.store.home()
    }

    /// A worker that runs so many tools at once.
    pub(crate) async fn worker(&self, slots: usize) -> Program {
        // these tests kill more often than any job may be supposed innocent
        self.worker_with(slots, &[("TIDEMILL_WORKER__CRASH_BUDGET", "20")], None).await
    }

    pub(crate) async fn worker_with(
        &self,
        slots: usize,
        settings: &[(&str, &str)],
        faketime: Option<&str>,
    ) -> Program {
        let slots = slots.to_string();
        let mut all = vec![("TIDEMILL_WORKER__MAX_PARALLEL", &*slots)];
        all.extend_from_slice(settings);
        Program::start(&self.url, WORKER, &all, faketime).await
    }

    pub(crate) async fn scheduler(&self) -> Program {
        Program::start(&self.url, SCHEDULER, &[("TIDEMILL_SCHEDULER__CRASH_BUDGET", "20")], None).await
    }

    /// Enqueues jobs whose results go to the stream `replies`, with the ids `<prefix>-<n>`.
    pub(crate) async fn jobs(&self, prefix: &str, count: usize, tool: &str, input: &str) {
        let ids: Vec<String> = (0..count).map(|n| format!("{prefix}-{n}")).collect();
        for ids in ids.chunks(500) {
            let jobs: Vec<Admission<'_>> =
                ids.iter().map(|id| admission(id, ("tool", tool), input)).collect();
            self.enqueue("default", &jobs).await;
        }
    }

    /// Asks for runs of a workflow; the results go to the stream `replies`.
    pub(crate) async fn runs(&self, prefix: &str, count: usize, workflow: &str, input: &str) -> Vec<String> {
        let ids: Vec<String> = (0..count).map(|n| format!("{prefix}-{n}")).collect();
        for ids in ids.chunks(500) {
            let runs: Vec<Admission<'_>> =
                ids.iter().map(|id| admission(id, ("workflow", workflow), input)).collect();
            self.enqueue(keys::RUNS, &runs).await;
        }
        ids
    }

    /// With ids, asking again after a fault takes nothing in twice.
    async fn enqueue(&self, queue: &str, jobs: &[Admission<'_>]) {
        let keep = Duration::from_secs(3_600);
        let taken = async || match self.home().enqueue(queue, 0, keep, jobs).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_transient() => Err(error.to_string()),
            Err(error) => panic!("{error}"),
        };
        wait_for(LONG, "jobs to be taken in", taken).await.unwrap();
    }

    pub(crate) async fn publish(&self, name: &str, source: &str) {
        assert!(self.home().publish(name, 1, source).await.unwrap());
    }

    pub(crate) async fn cli(&self, words: &[&str]) -> String {
        self.server.cli(words).await.unwrap().trim().to_owned()
    }

    pub(crate) async fn number(&self, words: &[&str]) -> u64 {
        match self.server.cli(words).await {
            Ok(text) => text.trim().parse().unwrap_or(0),
            Err(_) => 0, // the server is down at the moment
        }
    }

    /// Waits until so many results have come.
    pub(crate) async fn replies_are(&self, count: usize) {
        let came = async || {
            let seen = self.number(&["XLEN", "replies"]).await;
            if seen >= count as u64 { Ok(()) } else { Err(format!("{seen} of {count}")) }
        };
        wait_for(LONG, "results", came).await.unwrap();
    }

    /// How many entries a consumer holds.
    pub(crate) async fn held_by(&self, consumer: &str) -> Vec<String> {
        let jobs = self.home().keys().jobs("default");
        let held = self.home().pending((&jobs, keys::WORKERS), Some(consumer), None, 10_000).await.unwrap();
        held.into_iter().map(|pending| pending.entry.to_string()).collect()
    }
}

fn admission<'a>(id: &'a str, target: (&'a str, &'a str), input: &'a str) -> Admission<'a> {
    let fields: Vec<(&str, &[u8])> = vec![
        (target.0, target.1.as_bytes()),
        ("id", id.as_bytes()),
        ("input", input.as_bytes()),
        ("reply_to", b"replies"),
    ];
    Admission { id: Some(id), fields, ..Admission::default() }
}

/// What gives a program a wrong clock, as `faketime` would. That program itself would stand between us and ours, and take the
/// signals that ours is to get.
fn wrong_clock(offset: &str) -> Vec<(String, String)> {
    let told = Command::new("faketime").args(["-f", offset, "env"]).output().unwrap();
    let told = String::from_utf8(told.stdout).unwrap();
    let mut variables: Vec<(String, String)> =
        told.lines().filter_map(|line| line.split_once('=')).map(|(n, v)| (n.into(), v.into())).collect();
    variables.retain(|(name, _)| ["LD_PRELOAD", "FAKETIME"].contains(&&**name));
    assert_eq!(variables.len(), 2, "`faketime` sets other variables now: {told}");
    // what `faketime` shares between programs went with it
    variables.push(("FAKETIME_DISABLE_SHM".into(), "1".into()));
    variables
}

/// A program's name, and what it logs when it works.
pub(crate) const WORKER: (&str, &str) = ("tidemill-worker", "worker started");
pub(crate) const SCHEDULER: (&str, &str) = ("tidemill-scheduler", "scheduler started");

impl Program {
    /// Starts a program on the Redis at `url`, with its clock off by `faketime` if that is given.
    pub(crate) async fn start(
        url: &str,
        (name, started): (&str, &str),
        settings: &[(&str, &str)],
        faketime: Option<&str>,
    ) -> Self {
        let mut builder = Process::builder(built_binary(name).unwrap());
        builder = builder.env("TIDEMILL_REDIS_URL", url).env("TIDEMILL_HTTP_ADDR", "127.0.0.1:0");
        for (name, value) in settings {
            builder = builder.env(name, value);
        }
        for (name, value) in faketime.map(wrong_clock).unwrap_or_default() {
            builder = builder.env(name, value);
        }
        let mut process = builder.start().unwrap();
        let line = process.wait_for_line("listening for HTTP", LONG).await.unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        process.wait_for_line(started, LONG).await.unwrap();
        Self { addr: line["addr"].as_str().unwrap().to_owned(), process }
    }

    /// The consumer's name, as the log tells it.
    pub(crate) fn consumer(&self) -> String {
        let output = self.process.output();
        let line = output.lines().find(|line| line.contains("worker started")).unwrap();
        let line: Value = serde_json::from_str(line).unwrap();
        line["consumer"].as_str().unwrap().to_owned()
    }

    /// What `/ready` answers; 0 when it does not.
    pub(crate) async fn ready(&self) -> u16 {
        match tokio::time::timeout(Duration::from_secs(2), self.get("/ready")).await {
            Ok(Ok(answer)) => answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0),
            _ => 0,
        }
    }

    async fn get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(&self.addr).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.addr);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Waits until `/ready` answers so.
    pub(crate) async fn ready_is(&self, wanted: u16) {
        let answers = async || {
            let code = self.ready().await;
            if code == wanted { Ok(()) } else { Err(code.to_string()) }
        };
        wait_for(Duration::from_secs(30), &format!("/ready to answer {wanted}"), answers).await.unwrap();
    }
}
