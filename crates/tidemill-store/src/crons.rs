//! Cron entries.

use redis::{Cmd, Pipeline};
use serde::{Deserialize, Serialize};

use crate::{Error, Partition};

/// A cron entry; as JSON in the hash `crons`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cron {
    /// Its name.
    pub name: String,
    /// A cron expression of five or six fields, or `@daily` and the like.
    pub schedule: String,
    /// An IANA time zone (default UTC).
    #[serde(default = "utc")]
    pub time_zone: String,
    /// What to run: a tool…
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// …or a workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// The input, as JSON.
    #[serde(default)]
    pub input: serde_json::Value,
    /// The queue of a tool's job (default `default`).
    #[serde(default = "default_queue")]
    pub queue: String,
    /// Owner of the jobs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// What to do with times that passed while no scheduler ran.
    #[serde(default)]
    pub missed: Missed,
    /// Whether it fires.
    #[serde(default)]
    pub paused: bool,
}

/// What to do with times that passed while no scheduler ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// Fire once for all of them.
    #[default]
    Once,
    /// Let them pass.
    Skip,
    /// Fire for each, oldest first.
    All,
}

fn utc() -> String {
    "UTC".to_owned()
}

fn default_queue() -> String {
    "default".to_owned()
}

impl Partition {
    /// Stores a cron entry and when it is due next (absent: it never is).
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn set_cron(&self, cron: &Cron, next_ms: Option<u64>) -> Result<(), Error> {
        let text = serde_json::to_string(cron).map_err(|error| Error::Corrupt(error.to_string()))?;
        let mut both = Pipeline::with_capacity(2);
        both.atomic();
        both.cmd("HSET").arg(self.keys().crons()).arg(&cron.name).arg(text).ignore();
        match next_ms {
            Some(next) => both.cmd("ZADD").arg(self.keys().cron_due()).arg(next).arg(&cron.name).ignore(),
            None => both.cmd("ZREM").arg(self.keys().cron_due()).arg(&cron.name).ignore(),
        };
        self.link().pipeline("storing a cron entry", &both).await
    }

    /// Removes a cron entry. `false`: there is none of that name.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn remove_cron(&self, name: &str) -> Result<bool, Error> {
        let mut all = Pipeline::with_capacity(3);
        all.atomic();
        all.cmd("HDEL").arg(self.keys().crons()).arg(name);
        all.cmd("ZREM").arg(self.keys().cron_due()).arg(name).ignore();
        all.cmd("HDEL").arg(self.keys().cron_fired()).arg(name).ignore();
        let (removed,): (bool,) = self.link().pipeline("removing a cron entry", &all).await?;
        Ok(removed)
    }

    /// Every cron entry with its next time and its last, sorted by name; entries that cannot be read are reported as an error.
    ///
    /// # Errors
    /// Redis is not reachable or refuses, or an entry is not valid.
    pub async fn crons(&self) -> Result<Vec<(Cron, Option<u64>, Option<u64>)>, Error> {
        let mut ask = Cmd::new();
        ask.arg("HGETALL").arg(self.keys().crons());
        let mut all: Vec<(String, String)> = self.link().query("listing cron entries", &ask).await?;
        all.sort();
        let mut crons = Vec::with_capacity(all.len());
        for (name, text) in all {
            let cron: Cron = serde_json::from_str(&text)
                .map_err(|error| Error::Corrupt(format!("cron entry {name:?} is not valid: {error}")))?;
            let mut ask = Pipeline::with_capacity(2);
            ask.cmd("ZSCORE")
                .arg(self.keys().cron_due())
                .arg(&name)
                .cmd("HGET")
                .arg(self.keys().cron_fired())
                .arg(&name);
            let (next, last): (Option<f64>, Option<u64>) =
                self.link().pipeline("reading a cron entry", &ask).await?;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a time in milliseconds is exact in f64"
            )]
            crons.push((cron, next.map(|at| at as u64), last));
        }
        Ok(crons)
    }

    /// The cron entries that are due, with the time they were due at.
    ///
    /// # Errors
    /// Redis is not reachable or refuses, or an entry is not valid.
    pub async fn due_crons(&self, now_ms: u64) -> Result<Vec<(String, u64, Option<String>)>, Error> {
        let mut ask = Cmd::new();
        ask.arg("ZRANGEBYSCORE")
            .arg(self.keys().cron_due())
            .arg("-inf")
            .arg(now_ms)
            .arg("WITHSCORES")
            .arg("LIMIT")
            .arg(0)
            .arg(100);
        let due: Vec<(String, u64)> = self.link().query("asking which cron entries are due", &ask).await?;
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let mut read = Cmd::new();
        read.arg("HMGET").arg(self.keys().crons());
        for (name, _) in &due {
            read.arg(name);
        }
        let texts: Vec<Option<String>> = self.link().query("reading cron entries", &read).await?;
        Ok(due.into_iter().zip(texts).map(|((name, at), text)| (name, at, text)).collect())
    }
}
