//! Reading a large run in pieces, until it has stood still from the first of them to the last.

use std::io::Write;

use redis::{Cmd, Pipeline, Value};

use super::parts::{Parts, With, put_beside, read_beside};
use super::{Look, records_of};
use crate::backup::copy::{PAGE, entries_of, left, pairs_of, put_entries, put_rows};
use crate::backup::error::BackupError;
use crate::backup::format::Writer;
use crate::backup::record::{Pairs, Record};
use crate::{Error, Partition, Shapes};

/// A large run is read so often in pieces.
const MOST_READINGS: usize = 5;

impl Partition {
    /// Reads and writes a large run in pieces.
    pub(in crate::backup) async fn put_large_run<S: Shapes + Sync, W: Write>(
        &self,
        id: &str,
        shapes: &S,
        out: &mut Writer<W>,
    ) -> Result<(), BackupError> {
        for reading in 0..MOST_READINGS {
            let before = self.stand(id).await?;
            if before.1.is_none() {
                return if reading == 0 { Ok(()) } else { out.put(&Record::Dropped) };
            }
            if reading == 0 {
                out.put(&Record::Run { partition: self.index(), id: id.to_owned() })?;
            } else {
                out.put(&Record::Again)?;
            }
            let mut parts = Parts::default();
            let audit_records = out.counts.audit_records;
            self.put_pieces(id, &mut parts, out).await?;
            self.put_large_beside(id, &parts, shapes, out).await?;
            let after = self.stand(id).await?;
            if after.1 == before.1 {
                (parts.ttl_ms, parts.deadline) = (after.0, after.2);
                return self.put_run_end(id, parts, shapes, out).await;
            }
            out.counts.audit_records = audit_records;
        }
        out.put(&Record::Again)?;
        match self.look_at_run(id, shapes, true).await? {
            Look::Whole(snapshot) => self.put_run(*snapshot, shapes, out).await,
            Look::Gone | Look::Large => out.put(&Record::Dropped),
        }
    }

    /// What a run has left, its state with the number of its last audit record, and its deadline.
    async fn stand(
        &self,
        id: &str,
    ) -> Result<(Option<u64>, Option<Vec<Option<Vec<u8>>>>, Option<f64>), Error> {
        let run = self.keys().run(id);
        let mut ask = Pipeline::with_capacity(3);
        ask.atomic();
        ask.cmd("PTTL").arg(&run).cmd("HMGET").arg(&run).arg(&["st", "q"]);
        ask.cmd("ZSCORE").arg(self.keys().live()).arg(id);
        let (ttl, stand, deadline): (Value, Vec<Option<Vec<u8>>>, Option<f64>) =
            self.link().pipeline("reading where a run stands", &ask).await?;
        let is_there = stand.first().is_some_and(Option::is_some);
        Ok((left(&ttl), is_there.then_some(stand), deadline))
    }

    async fn put_large_beside<S: Shapes + Sync, W: Write>(
        &self,
        id: &str,
        parts: &Parts,
        shapes: &S,
        out: &mut Writer<W>,
    ) -> Result<(), BackupError> {
        let shape = shapes.of(&parts.workflow).await?;
        let waiting = With::of(id, &parts.waiting, shape.as_deref()).waiting;
        let mut ask = Pipeline::with_capacity(8);
        ask.atomic();
        self.ask_beside(id, &waiting, &mut ask);
        let replies: Vec<Value> = self.link().pipeline("reading what stands beside a run", &ask).await?;
        let (beside, alarms) = read_beside(&waiting, replies.into_iter())?;
        put_beside(beside, alarms, out)
    }

    async fn put_pieces<W: Write>(
        &self,
        id: &str,
        parts: &mut Parts,
        out: &mut Writer<W>,
    ) -> Result<(), BackupError> {
        let keys = self.keys();
        let mut cursor = 0;
        loop {
            let (next, fields) = self.fields_page(&keys.run(id), cursor).await?;
            parts.take(&fields);
            put_rows(fields, Record::Fields, out)?;
            if next == 0 {
                break;
            }
            cursor = next;
        }
        let mut from = "-".to_owned();
        loop {
            let mut ask = Cmd::new();
            ask.arg("XRANGE").arg(keys.audit(id)).arg(&from).arg("+").arg("COUNT").arg(PAGE);
            let entries = entries_of(self.link().raw("reading the audit", &ask).await?)?;
            let Some((last, _)) = entries.last() else { break };
            from = format!("({last}");
            out.counts.audit_records += records_of(&entries);
            put_entries(entries, Record::Audit, out)?;
        }
        parts.with_items.sort_unstable();
        parts.with_items.dedup();
        for step in parts.with_items.clone() {
            self.put_items(&keys.items(id, step), step, parts, out).await?;
        }
        parts.steps.sort_unstable_by_key(|(step, _, _)| *step);
        parts.steps.dedup_by_key(|(step, _, _)| *step);
        parts.items.sort_unstable_by_key(|(step, item, _, _)| (*step, *item));
        parts.items.dedup_by_key(|(step, item, _, _)| (*step, *item));
        Ok(())
    }

    async fn put_items<W: Write>(
        &self,
        key: &str,
        step: u32,
        parts: &mut Parts,
        out: &mut Writer<W>,
    ) -> Result<(), BackupError> {
        let mut ask = Cmd::new();
        ask.arg("PTTL").arg(key);
        let ttl: Value = self.link().query("reading items", &ask).await?;
        out.put(&Record::Items { step, ttl_ms: left(&ttl) })?;
        let mut cursor = 0;
        loop {
            let (next, fields) = self.fields_page(key, cursor).await?;
            parts.take_items(step, &fields);
            put_rows(fields, Record::Fields, out)?;
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }

    async fn fields_page(&self, key: &str, cursor: u64) -> Result<(u64, Pairs), Error> {
        let mut ask = Cmd::new();
        ask.arg("HSCAN").arg(key).arg(cursor).arg("COUNT").arg(PAGE);
        let (next, flat): (u64, Vec<Vec<u8>>) = self.link().query("reading a run's fields", &ask).await?;
        Ok((next, pairs_of(flat)))
    }
}
