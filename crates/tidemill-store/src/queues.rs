//! Queues and how deep they are.

use redis::{Cmd, Pipeline, Value};
use serde::Serialize;

use crate::{Error, Partition, keys};

/// How much work a queue of one partition holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct QueueDepth {
    /// The queue.
    pub queue: String,
    /// Entries that nobody has claimed.
    pub ready: u64,
    /// Entries that workers hold.
    pub running: u64,
    /// Work put aside: delays, retries, parked calls.
    pub deferred: u64,
    /// When the oldest entry was made, in Unix milliseconds, claimed or not.
    pub oldest_ms: Option<u64>,
}

impl Partition {
    /// The queues ever used, sorted. The stream of requested runs is not among them.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn queues(&self) -> Result<Vec<String>, Error> {
        let mut ask = Cmd::new();
        ask.arg("SMEMBERS").arg(self.keys().queues());
        let mut queues: Vec<String> = self.link().query("listing queues", &ask).await?;
        queues.retain(|queue| queue != keys::RUNS);
        queues.sort();
        Ok(queues)
    }

    /// How deep a queue is ([`keys::RUNS`] for requested runs).
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn depth(&self, queue: &str) -> Result<QueueDepth, Error> {
        let stream = self.keys().stream(queue);
        let mut ask = Pipeline::with_capacity(3);
        ask.cmd("XLEN").arg(&stream).cmd("ZCARD").arg(self.keys().due(queue));
        ask.cmd("XRANGE").arg(&stream).arg("-").arg("+").arg("COUNT").arg(1);
        let (length, deferred, first): (u64, u64, Vec<Value>) =
            self.link().pipeline("measuring a queue", &ask).await?;
        let group = if queue == keys::RUNS { keys::SCHEDULERS } else { keys::WORKERS };
        let running = self.pending_count(&stream, group).await?;
        let oldest_ms =
            first.into_iter().next().map(crate::claims::entry_of).transpose()?.map(|entry| entry.entry.ms());
        Ok(QueueDepth {
            queue: queue.to_owned(),
            ready: length.saturating_sub(running),
            running,
            deferred,
            oldest_ms,
        })
    }

    async fn pending_count(&self, stream: &str, group: &str) -> Result<u64, Error> {
        let mut ask = Cmd::new();
        ask.arg("XPENDING").arg(stream).arg(group);
        match self.link().raw("counting what is pending", &ask).await {
            Ok(Value::Array(row)) => Ok(match row.first() {
                Some(Value::Int(count)) => u64::try_from(*count).unwrap_or(0),
                _ => 0,
            }),
            Ok(_) => Ok(0),
            Err(error) if error.remedy() == crate::Remedy::CreateGroup => Ok(0),
            Err(error) => Err(error),
        }
    }
}
