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
    /// Work put aside until a time: delays, retries.
    pub deferred: u64,
    /// Work parked in lines, where it waits for limits.
    pub parked: u64,
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
        let (stream, first) = (self.keys().stream(queue), self.keys().jobs(&[queue, keys::FIRST].concat()));
        let mut ask = Pipeline::with_capacity(6);
        ask.cmd("ZCARD").arg(self.keys().due(queue)).cmd("HLEN").arg(self.keys().deferred(queue));
        for stream in [&stream, &first] {
            ask.cmd("XLEN").arg(stream).cmd("XRANGE").arg(stream).arg("-").arg("+").arg("COUNT").arg(1);
        }
        // the fields of all that is put aside are in one place, whether it waits for a time or in a line
        let (deferred, aside, length, oldest, more, older): (u64, u64, u64, Vec<Value>, u64, Vec<Value>) =
            self.link().pipeline("measuring a queue", &ask).await?;
        let group = if queue == keys::RUNS { keys::SCHEDULERS } else { keys::WORKERS };
        let mut running = self.pending_count(&stream, group).await?;
        if more > 0 {
            running += self.pending_count(&first, group).await?;
        }
        let times =
            oldest.into_iter().chain(older).map(|entry| Ok(crate::claims::entry_of(entry)?.entry.ms()));
        let oldest_ms = times.collect::<Result<Vec<u64>, Error>>()?.into_iter().min();
        let ready = (length + more).saturating_sub(running);
        let parked = aside.saturating_sub(deferred);
        Ok(QueueDepth { queue: queue.to_owned(), ready, running, deferred, parked, oldest_ms })
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
