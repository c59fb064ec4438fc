//! Putting plain jobs and requested runs back.

use bytes::Bytes;
use redis::{Pipeline, Value};

use super::Restore;
use super::run::put_aside;
use crate::backup::copy::PAGE;
use crate::backup::error::BackupError;
use crate::backup::jobs::field;
use crate::backup::record::{Pairs, Place, Record};
use crate::{Error, Partition, keys};

/// How long the jobs put back are remembered after the last of them, should the restore break off.
const REMEMBERED_MS: u64 = 3_600_000;

/// A job that is yet to be put back.
pub(super) struct Waiting {
    partition: Partition,
    /// By this, one that comes twice is known.
    id: String,
    queue: String,
    what: What,
}

enum What {
    Entry(Pairs),
    Aside { member: Bytes, fields: Bytes, place: Place },
}

impl Restore<'_> {
    pub(super) async fn job(&mut self, record: Record) -> Result<(), BackupError> {
        let waiting = match record {
            Record::Job { partition, queue, entry, fields } => {
                let named = [&b"id"[..], b"_id", b"_entry"].iter().find_map(|name| field(&fields, name));
                let id = named.map_or_else(|| entry.clone(), |id| String::from_utf8_lossy(id).into_owned());
                let partition = self.of_id(partition, &id).clone();
                Waiting { partition, id, queue, what: What::Entry(with_first_entry(fields, &entry)) }
            }
            Record::Aside { partition, queue, member, fields, place } => {
                let id = String::from_utf8_lossy(member.get(2..).unwrap_or_default()).into_owned();
                let partition = self.of_id(partition, &id).clone();
                Waiting { partition, id, queue, what: What::Aside { member, fields, place } }
            }
            _ => return Ok(()),
        };
        self.jobs.push(waiting);
        if self.jobs.len() >= PAGE {
            self.put_jobs().await?;
        }
        Ok(())
    }

    /// Puts those back that wait for it, each once.
    pub(super) async fn put_jobs(&mut self) -> Result<(), BackupError> {
        let mut jobs = std::mem::take(&mut self.jobs);
        jobs.sort_by_key(|job| job.partition.index());
        for jobs in jobs.chunk_by(|one, other| one.partition.index() == other.partition.index()) {
            let Some(first) = jobs.first() else { continue };
            let fresh = remember(&first.partition, jobs).await?;
            let mut write = Pipeline::with_capacity(jobs.len() * 2);
            for (job, fresh) in jobs.iter().zip(fresh) {
                if fresh {
                    self.restored.jobs += 1;
                    job.put(&mut write);
                } else {
                    self.restored.repeated += 1;
                }
            }
            if !write.is_empty() {
                first.partition.link().pipeline::<Vec<Value>>("restoring jobs", &write).await?;
            }
        }
        Ok(())
    }
}

/// Which of these have not been put back yet.
async fn remember(partition: &Partition, jobs: &[Waiting]) -> Result<Vec<bool>, Error> {
    let restored = partition.keys().restored();
    let mut ask = Pipeline::with_capacity(jobs.len() + 1);
    for job in jobs {
        // a job and a run may have the same id
        let kind = if job.queue == keys::RUNS { "run" } else { "job" };
        ask.cmd("SADD").arg(&restored).arg(format!("{kind} {}", job.id));
    }
    ask.cmd("PEXPIRE").arg(&restored).arg(REMEMBERED_MS).ignore();
    partition.link().pipeline("restoring jobs", &ask).await
}

impl Waiting {
    fn put(&self, write: &mut Pipeline) {
        let keys = self.partition.keys();
        if self.queue != keys::RUNS {
            write.cmd("SADD").arg(keys.queues()).arg(keys::base_of(&self.queue));
        }
        match &self.what {
            What::Entry(fields) => {
                write.cmd("XADD").arg(keys.stream(&self.queue)).arg("*");
                for (name, value) in fields {
                    write.arg(&**name).arg(&**value);
                }
            }
            What::Aside { member, fields, place } => {
                put_aside(write, keys, &self.queue, (member, fields), place);
            }
        }
    }
}

/// The entry is another now, but a job keeps the id that its first one gave it. What is no job has none.
fn with_first_entry(mut fields: Pairs, entry: &str) -> Pairs {
    let is_job = [&b"tool"[..], b"workflow"].iter().any(|name| field(&fields, name).is_some());
    if is_job && field(&fields, b"_entry").is_none() {
        fields.push((Bytes::from_static(b"_entry"), Bytes::copy_from_slice(entry.as_bytes())));
    }
    fields
}
