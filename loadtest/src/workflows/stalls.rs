//! The longest calls, as Redis itself timed them: while one runs, nobody else is served.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use redis::Value;
use redis::aio::MultiplexedConnection;

use crate::queue::ask;

/// What no function call should exceed.
pub(super) const AIM: Duration = Duration::from_millis(5);
/// Calls shorter than this are not noted.
const NOTED: Duration = Duration::from_micros(1_000);
/// Calls that Redis keeps.
const KEPT: &str = "100000";

/// What Redis noted of one function, or of a command outside of functions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Noted {
    pub(super) longest: Duration,
    /// Calls of more than a millisecond.
    pub(super) slow: usize,
    /// Calls beyond the aim.
    pub(super) beyond: usize,
}

/// By name of the function or command.
#[derive(Debug, Default)]
pub(super) struct Stalls(BTreeMap<String, Noted>);

impl Stalls {
    /// Lets Redis note from now on.
    pub(super) async fn watch(connection: &mut MultiplexedConnection) -> Result<()> {
        let threshold = NOTED.as_micros().to_string();
        let words = ["CONFIG", "SET", "slowlog-log-slower-than", &threshold, "slowlog-max-len", KEPT];
        ask::<()>(connection, &words).await?;
        ask::<()>(connection, &["SLOWLOG", "RESET"]).await
    }

    /// What was noted since.
    pub(super) async fn read(connection: &mut MultiplexedConnection) -> Result<Self> {
        let entries: Vec<Value> = ask(connection, &["SLOWLOG", "GET", "-1"]).await?;
        let mut stalls = Self::default();
        for entry in entries {
            let (name, took) = parts(entry).context("SLOWLOG answered with something else than entries")?;
            // what the load test itself asks for
            if !["INFO", "SLOWLOG", "CONFIG"].contains(&&*name) {
                stalls.add(name, took);
            }
        }
        Ok(stalls)
    }

    fn add(&mut self, name: String, took: Duration) {
        let noted = self.0.entry(name).or_default();
        noted.longest = noted.longest.max(took);
        noted.slow += 1;
        noted.beyond += usize::from(took > AIM);
    }

    /// Each name with what was noted, the longest first.
    pub(super) fn by_length(&self) -> Vec<(&str, Noted)> {
        let mut all: Vec<(&str, Noted)> = self.0.iter().map(|(name, noted)| (&**name, *noted)).collect();
        all.sort_by_key(|(_, noted)| std::cmp::Reverse(noted.longest));
        all
    }

    /// The longest call of all, for a cell.
    pub(super) fn longest(&self) -> String {
        match self.by_length().first() {
            None => format!("< {} ms", NOTED.as_millis()),
            Some((name, noted)) => format!("{} ({name})", shown(*noted)),
        }
    }
}

/// The longest call, and how many there were beyond the aim.
pub(super) fn shown(noted: Noted) -> String {
    let beyond = if noted.beyond > 0 { format!(", {} beyond {AIM:?}", noted.beyond) } else { String::new() };
    format!("{:.1} ms{beyond}", noted.longest.as_secs_f64() * 1e3)
}

/// The name and the length of an entry of the slow log: id, time, microseconds, words, …
fn parts(entry: Value) -> Option<(String, Duration)> {
    let Value::Array(fields) = entry else { return None };
    let mut fields = fields.into_iter().skip(2);
    let Value::Int(microseconds) = fields.next()? else { return None };
    let words: Vec<String> = redis::from_redis_value(fields.next()?).ok()?;
    let mut words = words.into_iter();
    let command = words.next()?.to_uppercase();
    let name = if command.starts_with("FCALL") { words.next()? } else { command };
    Some((name, Duration::from_micros(u64::try_from(microseconds).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::{Duration, Stalls, Value, parts, shown};

    fn entry(microseconds: i64, words: &[&str]) -> Value {
        let words = words.iter().map(|word| Value::BulkString(word.as_bytes().to_vec())).collect();
        Value::Array(vec![Value::Int(1), Value::Int(2), Value::Int(microseconds), Value::Array(words)])
    }

    #[test]
    fn functions_are_told_apart_by_name_and_the_longest_comes_first() {
        let mut stalls = Stalls::default();
        for (microseconds, words) in [
            (1_500, ["fcall", "tm1_expand"]),
            (7_250, ["FCALL", "tm1_settle_step"]),
            (6_000, ["FCALL", "tm1_settle_step"]),
            (2_000, ["hgetall", "key"]),
        ] {
            let (name, took) = parts(entry(microseconds, &words)).unwrap();
            stalls.add(name, took);
        }
        let names: Vec<&str> = stalls.by_length().iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["tm1_settle_step", "HGETALL", "tm1_expand"]);
        let (_, noted) = stalls.by_length()[0];
        assert_eq!((noted.longest, noted.slow, noted.beyond), (Duration::from_micros(7_250), 2, 2));
        assert_eq!(shown(noted), "7.2 ms, 2 beyond 5ms");
        assert_eq!(Stalls::default().longest(), "< 1 ms");
    }
}
