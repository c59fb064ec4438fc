//! The processes of a pool: what they say about themselves, and whether they are alive.

use std::collections::HashMap;

use redis::Pipeline;
use serde::{Deserialize, Serialize};

use crate::{Error, Partition};

/// What a process says about itself; as JSON in the hash `members`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its consumer name, unique per start.
    pub consumer: String,
    /// `worker`, `scheduler` or another program's word.
    pub role: String,
    /// The machine's name.
    #[serde(default)]
    pub host: String,
    /// The process id.
    #[serde(default)]
    pub pid: u32,
    /// The program's version.
    #[serde(default)]
    pub version: String,
    /// The queues that it serves.
    #[serde(default)]
    pub queues: Vec<String>,
    /// Whether it reads each queue's stream `first` as well: only then may work be put there.
    #[serde(default)]
    pub reads_first: bool,
    /// How many tools it runs at once.
    #[serde(default)]
    pub slots: u32,
    /// When it started, in Unix milliseconds.
    #[serde(default)]
    pub started_at_ms: u64,
}

impl Partition {
    /// Announces a process.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn announce(&self, member: &Member) -> Result<(), Error> {
        let text = serde_json::to_string(member).map_err(|error| Error::Corrupt(error.to_string()))?;
        let mut both = Pipeline::with_capacity(2);
        both.cmd("HSET").arg(self.keys().members()).arg(&member.consumer).arg(text).ignore();
        if !member.queues.is_empty() {
            both.cmd("SADD").arg(self.keys().queues()).arg(&member.queues).ignore();
        }
        self.link().pipeline("announcing a process", &both).await
    }

    /// Every process's liveness counter. Alive is who changes it; only a watcher with a monotonic clock can tell.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn beats(&self) -> Result<HashMap<String, String>, Error> {
        let mut ask = redis::Cmd::new();
        ask.arg("HGETALL").arg(self.keys().beats());
        self.link().query("reading liveness", &ask).await
    }

    /// What the processes say about themselves; descriptions that cannot be read are left out.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn members(&self) -> Result<Vec<Member>, Error> {
        let mut ask = redis::Cmd::new();
        ask.arg("HVALS").arg(self.keys().members());
        let texts: Vec<String> = self.link().query("listing processes", &ask).await?;
        let mut members: Vec<Member> =
            texts.iter().filter_map(|text| serde_json::from_str(text).ok()).collect();
        members.sort_by(|a, b| (&a.role, &a.consumer).cmp(&(&b.role, &b.consumer)));
        Ok(members)
    }

    /// Records which tools a worker runs, with kind and input schema, so that publishers can check workflows against them.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn register_tools(&self, tools: &[(String, String)]) -> Result<(), Error> {
        if tools.is_empty() {
            return Ok(());
        }
        let mut set = redis::Cmd::new();
        set.arg("HSET").arg(self.keys().tools());
        for (name, description) in tools {
            set.arg(name).arg(description);
        }
        self.link().query("registering tools", &set).await
    }

    /// The tools that workers registered: name to description as JSON (`kind`, `input_schema`).
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn tools(&self) -> Result<HashMap<String, String>, Error> {
        let mut ask = redis::Cmd::new();
        ask.arg("HGETALL").arg(self.keys().tools());
        self.link().query("listing tools", &ask).await
    }
}
