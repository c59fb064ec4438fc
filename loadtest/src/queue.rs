//! Filling queues and watching them.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, Pipeline, Value};
use tokio::time::Instant;

/// The queue that is measured.
pub(crate) const JOBS: &str = "tm:{0}:jobs:default";
/// The runs that are asked for.
pub(crate) const RUNS: &str = "tm:{0}:runs";
/// The runs that are under way.
const LIVE: &str = "tm:{0}:live";
/// What could not be done.
const DEAD: &str = "tm:{0}:dead";
/// Commands in one pipeline while filling.
pub(crate) const BATCH: usize = 1_000;
/// Longest that anything watched may stand still.
const STALLED: Duration = Duration::from_secs(60);

/// An input of 200 bytes.
pub(crate) fn input() -> String {
    let text = "x".repeat(200 - r#"{"data":""}"#.len());
    format!(r#"{{"data":"{text}"}}"#)
}

/// One command from its words.
pub(crate) fn command(words: &[&str]) -> Cmd {
    let mut command = Cmd::with_capacity(words.len(), words.iter().map(|word| word.len()).sum());
    for word in words {
        command.arg(*word);
    }
    command
}

/// Asks Redis.
pub(crate) async fn ask<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    words: &[&str],
) -> Result<T> {
    command(words).query_async(connection).await.with_context(|| words.join(" "))
}

/// Adds so many equal entries to a stream, pipelined.
pub(crate) async fn fill(
    connection: &mut MultiplexedConnection,
    stream: &str,
    fields: &[(&str, &str)],
    count: usize,
) -> Result<()> {
    let mut left = count;
    while left > 0 {
        let now = left.min(BATCH);
        additions(stream, fields, now).exec_async(connection).await.context("filling a stream")?;
        left -= now;
    }
    Ok(())
}

/// So many XADD in one pipeline.
pub(crate) fn additions(stream: &str, fields: &[(&str, &str)], count: usize) -> Pipeline {
    let mut batch = Pipeline::with_capacity(count);
    for _ in 0..count {
        batch.cmd("XADD").arg(stream).arg("*");
        for (name, value) in fields {
            batch.arg(*name).arg(*value);
        }
    }
    batch
}

/// What is watched until nothing of it is left.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Watched {
    /// Jobs: from the first claim to an empty queue.
    Jobs,
    /// Runs: from the first that is taken up to none that is asked for or under way.
    Runs,
}

impl Watched {
    const fn source(self) -> (&'static str, &'static str) {
        match self {
            Self::Jobs => (JOBS, "workers"),
            Self::Runs => (RUNS, "schedulers"),
        }
    }

    async fn left(self, connection: &mut MultiplexedConnection) -> Result<usize> {
        match self {
            Self::Jobs => ask(connection, &["XLEN", JOBS]).await,
            Self::Runs => {
                // asked for before living: a run that starts between the two is counted twice, and never missed
                let asked: usize = ask(connection, &["XLEN", RUNS]).await?;
                let live: usize = ask(connection, &["ZCARD", LIVE]).await?;
                Ok(asked + live)
            }
        }
    }

    /// Waits for the first sign of work, then until nothing is left; how long that took.
    ///
    /// Watching disturbs little: rarely in the middle, more often only near the end, where the rate says that it is near.
    pub(crate) async fn until_done(
        self,
        connection: &mut MultiplexedConnection,
        count: usize,
    ) -> Result<Duration> {
        let (stream, group) = self.source();
        let asked = Instant::now();
        while !was_read(connection, stream, group).await? {
            if asked.elapsed() > STALLED {
                bail!("nobody claimed anything of {stream} for {STALLED:?}");
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let start = Instant::now();
        let (mut changed, mut last) = (start, count);
        loop {
            let left = self.left(connection).await?;
            if left == 0 {
                return Ok(start.elapsed());
            }
            if left != last {
                (changed, last) = (Instant::now(), left);
            } else if changed.elapsed() > STALLED {
                bail!("{left} of {count} entries of {stream} are still there, and none went for {STALLED:?}");
            }
            let done = count.saturating_sub(left).max(1);
            let remaining = start.elapsed().mul_f64(left as f64 / done as f64);
            let pause = (remaining / 3).clamp(Duration::from_millis(2), Duration::from_millis(25));
            tokio::time::sleep(pause).await;
        }
    }
}

/// Refuses numbers that came from work which failed.
pub(crate) async fn nothing_failed(connection: &mut MultiplexedConnection) -> Result<()> {
    let dead: Vec<Value> = ask(connection, &["XRANGE", DEAD, "-", "+", "COUNT", "1"]).await?;
    match dead.first() {
        None => Ok(()),
        Some(letter) => bail!("a job became a dead letter, so the numbers mean nothing: {letter:?}"),
    }
}

/// Whether a group has been given an entry of the stream.
async fn was_read(connection: &mut MultiplexedConnection, stream: &str, group: &str) -> Result<bool> {
    let reply = command(&["XINFO", "GROUPS", stream]).query_async(connection).await;
    let groups: Vec<HashMap<String, Value>> = match reply {
        Ok(groups) => groups,
        // no stream yet
        Err(error) if error.code() == Some("ERR") => Vec::new(),
        Err(error) => return Err(error).context("XINFO GROUPS"),
    };
    for mut fields in groups {
        let mut text =
            |name: &str| fields.remove(name).and_then(|value| redis::from_redis_value::<String>(value).ok());
        if text("name").as_deref() == Some(group) {
            return Ok(text("last-delivered-id").is_some_and(|id| id != "0-0"));
        }
    }
    Ok(false)
}

/// What Redis says of itself.
#[derive(Debug)]
pub(crate) struct Info(String);

impl Info {
    /// Reads all sections.
    pub(crate) async fn read(connection: &mut MultiplexedConnection) -> Result<Self> {
        ask(connection, &["INFO", "all"]).await.map(Self)
    }

    fn field(&self, name: &str) -> Result<&str> {
        let found = self.0.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        found.map(str::trim).with_context(|| format!("INFO has no {name}"))
    }

    /// Processor time of the server, all its threads.
    pub(crate) fn processor(&self) -> Result<Duration> {
        let user: f64 = self.field("used_cpu_user")?.parse()?;
        let system: f64 = self.field("used_cpu_sys")?.parse()?;
        Ok(Duration::try_from_secs_f64(user + system)?)
    }

    /// Memory that it allocated, in bytes.
    pub(crate) fn memory(&self) -> Result<u64> {
        Ok(self.field("used_memory")?.parse()?)
    }

    /// The most that it had allocated, as far as it looked (ten times a second), in bytes.
    pub(crate) fn peak_memory(&self) -> Result<u64> {
        Ok(self.field("used_memory_peak")?.parse()?)
    }

    /// Each command that was called since the statistics were reset, by clients or functions: how often, and how long in all.
    pub(crate) fn statistics(&self) -> impl Iterator<Item = (&str, u64, Duration)> {
        self.0.lines().filter_map(|line| {
            let (name, rest) = line.trim_end().strip_prefix("cmdstat_")?.split_once(':')?;
            let number = |wanted: &str| {
                let value = rest.split(',').find_map(|pair| pair.strip_prefix(wanted)?.strip_prefix('='))?;
                value.parse::<u64>().ok()
            };
            Some((name, number("calls")?, Duration::from_micros(number("usec")?)))
        })
    }

    /// How often a command was called since the statistics were reset.
    pub(crate) fn calls(&self, command: &str) -> u64 {
        self.statistics().find_map(|(name, calls, _)| (name == command).then_some(calls)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::{Info, input};

    #[test]
    fn the_input_has_200_bytes_of_json() {
        assert_eq!(input().len(), 200);
        assert!(serde_json::from_str::<serde_json::Value>(&input()).is_ok());
    }

    #[test]
    fn info_is_read_by_field_and_by_command() {
        let text = "# CPU\r\nused_cpu_sys:1.5\r\nused_cpu_user:0.25\r\nused_memory:1024\r\ncmdstat_xack:calls=7,usec=3\r\n";
        let info = Info(text.to_owned());
        assert_eq!(info.processor().unwrap().as_millis(), 1_750);
        assert_eq!(info.memory().unwrap(), 1_024);
        assert_eq!((info.calls("xack"), info.calls("xadd")), (7, 0));
        let all: Vec<_> = info.statistics().collect();
        assert_eq!(all, [("xack", 7, std::time::Duration::from_micros(3))]);
        assert!(info.field("nothing").unwrap_err().to_string().contains("nothing"));
    }
}
