//! Plain jobs and requested runs: each a unit of its own.
//!
//! A job moves between its stream and the work put aside while both are walked. So the streams are walked first, then what is put
//! aside, then what came into the streams since; and both once more if that brought jobs that had moved. Wherever a job was when the
//! backup began, it is met in one of these; one that is met twice is written twice.

use std::collections::BTreeMap;
use std::io::Write;

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};

use super::copy::{PAGE, entries_of, pairs_of};
use super::error::BackupError;
use super::flight::milliseconds;
use super::format::Writer;
use super::record::{Pairs, Place, Record};
use crate::{Error, Partition, keys};

/// The streams and the queues of a partition that have work.
#[derive(Debug, Default)]
pub(super) struct Queues {
    /// Streams by name, with the entry up to which each was read.
    streams: BTreeMap<String, Option<String>>,
    /// Queues with work put aside.
    aside: Vec<String>,
}

impl Queues {
    /// Takes a key of work.
    pub(super) fn take(&mut self, kind: &str, rest: &str) {
        match kind {
            "jobs" => drop(self.streams.entry(rest.to_owned()).or_default()),
            "runs" => drop(self.streams.entry(keys::RUNS.to_owned()).or_default()),
            "deferred" if !self.aside.iter().any(|queue| queue == rest) => self.aside.push(rest.to_owned()),
            _ => {}
        }
    }
}

/// A field by its name.
pub(super) fn field<'f>(fields: &'f Pairs, name: &[u8]) -> Option<&'f Bytes> {
    fields.iter().find(|(other, _)| &**other == name).map(|(_, value)| value)
}

impl Partition {
    /// Writes every plain job and requested run.
    pub(super) async fn put_jobs<W: Write>(
        &self,
        queues: &mut Queues,
        out: &mut Writer<W>,
    ) -> Result<(), BackupError> {
        for round in 0..2 {
            let moved = self.put_streams(queues, |_| true, out).await?;
            if round > 0 && !moved {
                break;
            }
            for queue in &queues.aside {
                self.put_aside(queue, out).await?;
            }
        }
        self.put_streams(queues, |_| true, out).await.map(drop)
    }

    /// Writes runs that were asked for since.
    pub(super) async fn put_requests<W: Write>(
        &self,
        queues: &mut Queues,
        out: &mut Writer<W>,
    ) -> Result<(), BackupError> {
        queues.streams.entry(keys::RUNS.to_owned()).or_default();
        self.put_streams(queues, |queue| queue == keys::RUNS, out).await.map(drop)
    }

    /// Runs that began at or after this time, from `offset`.
    pub(super) async fn started_since(
        &self,
        since_ms: u64,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<String>, Error> {
        let mut ask = Cmd::new();
        ask.arg("ZRANGEBYSCORE").arg(self.keys().started()).arg(since_ms).arg("+inf");
        ask.arg("LIMIT").arg(offset).arg(limit);
        self.link().query("listing runs by their start", &ask).await
    }

    /// Writes what came into the streams since they were read last. Replies whether a job was among it that stood elsewhere before.
    async fn put_streams<W: Write>(
        &self,
        queues: &mut Queues,
        wanted: fn(&str) -> bool,
        out: &mut Writer<W>,
    ) -> Result<bool, BackupError> {
        let mut moved = false;
        for (queue, read) in queues.streams.iter_mut().filter(|(queue, _)| wanted(queue)) {
            let key = self.keys().stream(queue);
            loop {
                let from = read.as_ref().map_or_else(|| "-".to_owned(), |last| format!("({last}"));
                let mut ask = Cmd::new();
                ask.arg("XRANGE").arg(&key).arg(from).arg("+").arg("COUNT").arg(PAGE);
                let entries = match self.link().raw("reading a queue", &ask).await {
                    Err(Error::Redis { fault: crate::Fault::WrongType, .. }) => break,
                    reply => entries_of(reply?)?,
                };
                let Some((last, _)) = entries.last() else { break };
                *read = Some(last.clone());
                for (entry, fields) in entries {
                    // a part of a run goes with its run
                    if field(&fields, b"run").is_some() {
                        continue;
                    }
                    moved |= field(&fields, b"_entry").is_some();
                    out.counts.jobs += 1;
                    out.put(&Record::Job { partition: self.index(), queue: queue.clone(), entry, fields })?;
                }
            }
        }
        Ok(moved)
    }

    async fn put_aside<W: Write>(&self, queue: &str, out: &mut Writer<W>) -> Result<(), BackupError> {
        let mut cursor = 0_u64;
        loop {
            let mut ask = Cmd::new();
            ask.arg("HSCAN").arg(self.keys().deferred(queue)).arg(cursor).arg("COUNT").arg(PAGE);
            let (next, flat): (u64, Vec<Vec<u8>>) =
                match self.link().query("reading work put aside", &ask).await {
                    Err(Error::Redis { fault: crate::Fault::WrongType, .. }) => return Ok(()),
                    reply => reply?,
                };
            let mut rows = pairs_of(flat);
            rows.retain(|(member, _)| member.starts_with(b"j:"));
            self.put_members(queue, rows, out).await?;
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    async fn put_members<W: Write>(
        &self,
        queue: &str,
        rows: Pairs,
        out: &mut Writer<W>,
    ) -> Result<(), BackupError> {
        if rows.is_empty() {
            return Ok(());
        }
        let mut ask = Pipeline::with_capacity(rows.len());
        for (member, _) in &rows {
            ask.cmd("ZSCORE").arg(self.keys().due(queue)).arg(&**member);
        }
        let due: Vec<Value> = self.link().pipeline("reading when work is due", &ask).await?;
        for ((member, fields), due) in rows.into_iter().zip(due) {
            let place = match milliseconds(&due) {
                Some(at) => Some(Place::Due(at)),
                None => self.line_place(queue, &String::from_utf8_lossy(&member), &fields).await?,
            };
            // one with no place is on its way into its stream, which is read once more
            let Some(place) = place else { continue };
            out.counts.jobs += 1;
            let queue = queue.to_owned();
            out.put(&Record::Aside { partition: self.index(), queue, member, fields, place })?;
        }
        Ok(())
    }
}
