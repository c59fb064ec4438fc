//! Taking jobs and runs in.

use std::time::Duration;

use tidemill_protocol::{EntryId, check_id};

use super::{Function, FunctionCall, steps};
use crate::{Error, Partition};

pub(super) const ENQUEUE: Function = Function {
    name: "tm1_enqueue",
    keys: &["stream", "due", "deferred", "queues"],
    args: &["queue", "max_length", "jobs"],
};
pub(super) const ACCEPT: Function =
    Function { name: "tm1_accept", keys: &["stream"], args: &["group", "entries"] };

/// One job or run to take in.
#[derive(Debug, Clone, Default)]
pub struct Admission<'a> {
    /// The caller's id; work with a delay must have one.
    pub id: Option<&'a str>,
    /// Not before this Unix time in milliseconds.
    pub run_at_ms: Option<u64>,
    /// Not before this wait is over.
    pub delay_ms: Option<u64>,
    /// The entry's fields.
    pub fields: Vec<(&'a str, &'a [u8])>,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enqueued {
    /// In its stream, as this entry.
    Ready(String),
    /// Waits for its time.
    Deferred,
    /// The id was taken in before.
    Duplicate,
    /// The queue has reached its bound.
    QueueFull,
}

impl Partition {
    /// Takes work in, in order, at most 500 at a time. `queue` is a queue's name, or [`crate::keys::RUNS`]; `max_length` 0 means no bound.
    /// An id is remembered for `id_retention`.
    ///
    /// # Errors
    /// Redis is not reachable or refuses (`maxmemory`); the outcome is then unknown, and a caller with ids may ask again.
    pub async fn enqueue(
        &self,
        queue: &str,
        max_length: u64,
        id_retention: Duration,
        jobs: &[Admission<'_>],
    ) -> Result<Vec<Enqueued>, Error> {
        let call = self.enqueue_call(queue, max_length, id_retention, jobs);
        enqueued(self.link().raw("enqueueing", call.command()).await?)
    }

    pub(crate) fn enqueue_call(
        &self,
        queue: &str,
        max_length: u64,
        id_retention: Duration,
        jobs: &[Admission<'_>],
    ) -> FunctionCall {
        let keys = self.keys();
        let stream = keys.stream(queue);
        let mut call = FunctionCall::new(&ENQUEUE, 4 + jobs.len());
        call.key(&stream).key(&keys.due(queue)).key(&keys.deferred(queue)).key(&keys.queues());
        for job in jobs {
            // runs are recognised by their record when they start, so that a run is never hidden by a marker alone
            let marker = job.id.filter(|id| check_id(id).is_ok()).map(|id| keys.id(id));
            call.key(marker.as_deref().unwrap_or(&stream));
        }
        call.arg(queue).arg(max_length).arg(jobs.len());
        for job in jobs {
            call.arg(job.id.unwrap_or_default())
                .arg(u64::try_from(id_retention.as_millis()).unwrap_or(u64::MAX).max(1));
            call.arg(job.run_at_ms.unwrap_or(0)).arg(job.delay_ms.unwrap_or(0)).arg(job.fields.len() * 2);
            for (name, value) in &job.fields {
                call.arg(*name).arg(*value);
            }
        }
        call
    }

    /// Keeps the first of each id among entries that the caller has claimed and drops the others. Replies which were kept.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; asking again gives the same answer.
    pub async fn accept(
        &self,
        queue: &str,
        id_retention: Duration,
        entries: &[(&EntryId, &EntryId, &str)],
    ) -> Result<Vec<bool>, Error> {
        let keys = self.keys();
        let mut call = FunctionCall::new(&ACCEPT, 1 + entries.len());
        call.key(&keys.jobs(queue));
        for (_, _, id) in entries {
            call.key(&keys.id(id));
        }
        call.arg(crate::keys::WORKERS).arg(entries.len());
        for (entry, first, _) in entries {
            call.arg(entry.as_str()).arg(first.as_str());
            call.arg(u64::try_from(id_retention.as_millis()).unwrap_or(u64::MAX).max(1));
        }
        self.link().query("recognising repeated ids", call.command()).await.map(steps::flags)
    }
}

/// Reads the reply of `tm1_enqueue`.
pub(crate) fn enqueued(reply: redis::Value) -> Result<Vec<Enqueued>, Error> {
    Ok(steps::texts(reply)?.into_iter().map(of_word).collect())
}

fn of_word(reply: String) -> Enqueued {
    match reply.as_str() {
        "full" => Enqueued::QueueFull,
        "duplicate" => Enqueued::Duplicate,
        "deferred" => Enqueued::Deferred,
        _ => Enqueued::Ready(reply),
    }
}
