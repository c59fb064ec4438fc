//! Enqueueing that waits until the write is safer than in one server's memory, and tells how safe it is.

use std::time::Duration;

use redis::{Cmd, FromRedisValue, Value};
use serde::{Deserialize, Serialize};

use crate::exclusive::Taken;
use crate::functions::{Admission, Enqueued};
use crate::{Error, Partition};

/// How safe accepted work is, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// In the server's memory and on its way to disk as the server is set up.
    #[default]
    Fast,
    /// Also in the memory of at least one replica.
    Replicated,
    /// On the server's disk.
    Fsync,
}

impl Durability {
    /// Every level.
    pub const ALL: [Self; 3] = [Self::Fast, Self::Replicated, Self::Fsync];

    /// The word in settings and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Replicated => "replicated",
            Self::Fsync => "fsync",
        }
    }

    /// Reads the word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == word)
    }
}

/// Which level was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assurance {
    /// The level; `None` when it is not known. The work is accepted in any case.
    pub level: Option<Durability>,
    /// Why it is not the wanted one.
    pub reason: Option<String>,
}

impl Assurance {
    /// This level, as wanted.
    #[must_use]
    pub const fn reached(level: Durability) -> Self {
        Self { level: Some(level), reason: None }
    }

    fn only_fast(reason: impl Into<String>) -> Self {
        Self { level: Some(Durability::Fast), reason: Some(reason.into()) }
    }

    fn unknown(reason: impl Into<String>) -> Self {
        Self { level: None, reason: Some(reason.into()) }
    }

    /// The word in answers: the level, or `unknown`.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self.level {
            Some(level) => level.as_str(),
            None => "unknown",
        }
    }
}

impl Partition {
    /// Takes work in as [`Partition::enqueue`] does and waits up to `within` for the wanted level.
    ///
    /// # Errors
    /// Redis is not reachable or refuses the work; the outcome is then unknown. That a level is not reached is no error.
    pub async fn enqueue_assured(
        &self,
        (queue, max_length): (&str, u64),
        id_retention: Duration,
        jobs: &[Admission<'_>],
        (wanted, within): (Durability, Duration),
    ) -> Result<(Vec<Enqueued>, Assurance), Error> {
        if wanted == Durability::Fast {
            let enqueued = self.enqueue(queue, max_length, id_retention, jobs).await?;
            return Ok((enqueued, Assurance::reached(Durability::Fast)));
        }
        let call = self.enqueue_call(queue, max_length, id_retention, jobs);
        let key = self.keys().stream(queue);
        let mut own = self.exclusive().take().await?;
        let reply = own.send("enqueueing", call.command(), &key).await?;
        let enqueued = crate::functions::enqueued(reply)?;
        // a reply that comes later than the connection's own deadline would be lost
        let longest = Duration::from_millis(self.link().settings().response_timeout_ms) / 2;
        let within = u64::try_from(within.min(longest).as_millis()).unwrap_or(u64::MAX).max(1);
        let assurance = match wanted {
            Durability::Fast => Assurance::reached(Durability::Fast),
            Durability::Replicated => replicated(&mut own, &key, within).await,
            Durability::Fsync => synced(&mut own, &key, within).await,
        };
        Ok((enqueued, assurance))
    }
}

async fn replicated(own: &mut Taken, key: &str, within_ms: u64) -> Assurance {
    let mut wait = Cmd::new();
    wait.arg("WAIT").arg(1).arg(within_ms);
    match own.send("waiting for a replica", &wait, key).await.map(i64::from_redis_value) {
        Ok(Ok(replicas)) if replicas >= 1 => Assurance::reached(Durability::Replicated),
        Ok(_) => Assurance::unknown(format!("no replica confirmed the write within {within_ms} ms")),
        Err(error) => Assurance::unknown(format!("no answer about replicas: {error}")),
    }
}

async fn synced(own: &mut Taken, key: &str, within_ms: u64) -> Assurance {
    let mut wait = Cmd::new();
    wait.arg("WAITAOF").arg(1).arg(0).arg(within_ms);
    match own.send("waiting for the disk", &wait, key).await {
        Ok(reply) => match <(i64, i64)>::from_redis_value(reply) {
            Ok((local, _)) if local >= 1 => Assurance::reached(Durability::Fsync),
            _ => Assurance::unknown(format!("the disk did not confirm the write within {within_ms} ms")),
        },
        Err(Error::Redis { ref source, .. }) if source.to_string().contains("appendonly is disabled") => {
            Assurance::only_fast("the server keeps no append-only file (`appendonly no`)")
        }
        // a server before 7.2 does not know the command
        Err(error) if !error.is_transient() => always_synced(own, key).await,
        Err(error) => Assurance::unknown(format!("no answer about the disk: {error}")),
    }
}

/// With `appendfsync always` a server answers only what is on its disk.
async fn always_synced(own: &mut Taken, key: &str) -> Assurance {
    let mut ask = Cmd::new();
    ask.arg("CONFIG").arg("GET").arg("append*");
    let values = match own.send("asking how the disk is written", &ask, key).await {
        Ok(Value::Array(words)) => Vec::<String>::from_redis_value(Value::Array(words)).unwrap_or_default(),
        _ => Vec::new(),
    };
    let value = |name: &str| {
        let pair = values.chunks_exact(2).find(|pair| pair.first().is_some_and(|word| word == name));
        pair.and_then(|pair| pair.get(1)).map(String::as_str)
    };
    match (value("appendonly"), value("appendfsync")) {
        (Some("yes"), Some("always")) => Assurance::reached(Durability::Fsync),
        (Some("no"), _) => Assurance::only_fast("the server keeps no append-only file (`appendonly no`)"),
        (Some(_), Some(policy)) => Assurance::only_fast(format!(
            "the server writes its disk with `appendfsync {policy}` and is too old for WAITAOF (7.2); set `appendfsync always`"
        )),
        _ => Assurance::only_fast("the server does not tell how it writes its disk"),
    }
}
