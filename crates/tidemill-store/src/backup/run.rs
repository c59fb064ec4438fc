//! Reading a run as it stood at one moment.
//!
//! A run that is not large is read by one MULTI. A larger one is read in pieces that are written as they come, and counts when the
//! number of its last audit record is the same after as before; else it begins anew. One that never stands still is read by one
//! MULTI after all.

mod parts;
mod pieces;

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use redis::{FromRedisValue, Pipeline, Value};

use self::parts::{Beside, Parts, With, put_beside, read_beside, workflow_of};
use super::copy::{entries_of, left, put_entries, put_rows};
use super::error::BackupError;
use super::format::Writer;
use super::record::{Flight, Pairs, Record};
use crate::{Error, Partition, Shape, Shapes};

/// Fields and audit entries up to which a run is read at once.
const MOST_PARTS: u64 = 4_000;
/// Bytes up to which it is.
const MOST_BYTES: u64 = 4 << 20;

/// A run at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    id: String,
    ttl_ms: Option<u64>,
    deadline: Option<f64>,
    fields: Pairs,
    audit: Vec<(String, Pairs)>,
    items: Vec<Items>,
    /// Keys beside it, by their kind.
    beside: Beside,
    alarms: Vec<Flight>,
}

/// The items of a step.
#[derive(Debug)]
struct Items {
    step: u32,
    ttl_ms: Option<u64>,
    fields: Pairs,
}

/// What a first look shows.
#[derive(Debug)]
pub(super) enum Look {
    /// It is not there.
    Gone,
    /// It is to be read in pieces.
    Large,
    /// All of it.
    Whole(Box<Snapshot>),
}

impl Partition {
    /// Reads a run by one MULTI, if it is not large or is to be read so `at_any_size`.
    pub(super) async fn look_at_run<S: Shapes + Sync>(
        &self,
        id: &str,
        shapes: &S,
        at_any_size: bool,
    ) -> Result<Look, Error> {
        let keys = self.keys();
        if !at_any_size && self.is_large(&keys.run(id), &keys.audit(id)).await? {
            return Ok(Look::Large);
        }
        let mut with = With::default();
        let mut shape: Option<Option<Arc<Shape>>> = None;
        loop {
            let Some(snapshot) = self.snapshot(id, &with).await? else { return Ok(Look::Gone) };
            let shape = match &shape {
                Some(shape) => shape,
                None => shape.insert(shapes.of(&workflow_of(&snapshot.fields)).await?),
            };
            let found = With::of(id, &snapshot.fields, shape.as_deref());
            if found == with {
                return Ok(Look::Whole(Box::new(snapshot)));
            }
            for step in &found.items {
                let items = keys.items(id, *step);
                if !at_any_size && self.is_large(&items, &items).await? {
                    return Ok(Look::Large);
                }
            }
            with = found;
        }
    }

    async fn is_large(&self, hash: &str, audit: &str) -> Result<bool, Error> {
        let mut ask = Pipeline::with_capacity(4);
        ask.ignore_errors();
        ask.cmd("HLEN").arg(hash).cmd("MEMORY").arg("USAGE").arg(hash);
        ask.cmd("XLEN").arg(audit).cmd("MEMORY").arg("USAGE").arg(audit);
        let replies: Vec<Value> = self.link().pipeline("measuring a run", &ask).await?;
        let number =
            |at: usize| replies.get(at).and_then(|reply| u64::from_redis_value_ref(reply).ok()).unwrap_or(0);
        Ok(number(0) + number(2) > MOST_PARTS || number(1) + number(3) > MOST_BYTES)
    }

    async fn snapshot(&self, id: &str, with: &With) -> Result<Option<Snapshot>, Error> {
        let keys = self.keys();
        let (run, audit) = (keys.run(id), keys.audit(id));
        let mut ask = Pipeline::with_capacity(8);
        ask.atomic();
        ask.cmd("PTTL").arg(&run).cmd("ZSCORE").arg(keys.live()).arg(id);
        ask.cmd("HGETALL").arg(&run).cmd("XRANGE").arg(&audit).arg("-").arg("+");
        for step in &with.items {
            let items = keys.items(id, *step);
            ask.cmd("PTTL").arg(&items).cmd("HGETALL").arg(&items);
        }
        self.ask_beside(id, &with.waiting, &mut ask);
        let replies: Vec<Value> = self.link().pipeline("reading a run", &ask).await?;
        let mut replies = replies.into_iter();
        let mut next = || replies.next().unwrap_or(Value::Nil);
        let (ttl, deadline, fields, audit) = (next(), next(), fields_of(next())?, next());
        if fields.is_empty() {
            return Ok(None);
        }
        let mut items = Vec::with_capacity(with.items.len());
        for step in &with.items {
            let (ttl, fields) = (next(), fields_of(next())?);
            items.push(Items { step: *step, ttl_ms: left(&ttl), fields });
        }
        let (beside, alarms) = read_beside(&with.waiting, replies)?;
        Ok(Some(Snapshot {
            id: id.to_owned(),
            ttl_ms: left(&ttl),
            deadline: Option::<f64>::from_redis_value(deadline).ok().flatten(),
            fields,
            audit: entries_of(audit)?,
            items,
            beside,
            alarms,
        }))
    }

    /// Writes a run that was read at once.
    pub(super) async fn put_whole_run<S: Shapes + Sync, W: Write>(
        &self,
        snapshot: Snapshot,
        shapes: &S,
        out: &mut Writer<W>,
    ) -> Result<(), BackupError> {
        out.put(&Record::Run { partition: self.index(), id: snapshot.id.clone() })?;
        self.put_run(snapshot, shapes, out).await
    }

    /// Writes a run that was read at once and has begun.
    async fn put_run<S: Shapes + Sync, W: Write>(
        &self,
        snapshot: Snapshot,
        shapes: &S,
        out: &mut Writer<W>,
    ) -> Result<(), BackupError> {
        let Snapshot { id, ttl_ms, deadline, fields, audit, items, beside, alarms } = snapshot;
        let mut parts = Parts { ttl_ms, deadline, ..Parts::default() };
        parts.take(&fields);
        put_rows(fields, Record::Fields, out)?;
        out.counts.audit_records += records_of(&audit);
        put_entries(audit, Record::Audit, out)?;
        for Items { step, ttl_ms, fields } in items {
            parts.take_items(step, &fields);
            out.put(&Record::Items { step, ttl_ms })?;
            put_rows(fields, Record::Fields, out)?;
        }
        put_beside(beside, alarms, out)?;
        self.put_run_end(&id, parts, shapes, out).await
    }

    async fn put_run_end<S: Shapes + Sync, W: Write>(
        &self,
        id: &str,
        parts: Parts,
        shapes: &S,
        out: &mut Writer<W>,
    ) -> Result<(), BackupError> {
        let shape: Option<Arc<Shape>> = shapes.of(&parts.workflow).await?;
        let (workflow, ttl_ms, deadline) = (parts.workflow.clone(), parts.ttl_ms, parts.deadline);
        let is_live = parts.state.is_none_or(|state| !state.is_terminal());
        let in_flight = parts.in_flight(id, shape.as_deref());
        for flight in self.flights(&workflow, &in_flight).await? {
            out.counts.in_flight += 1;
            out.put(&Record::Flight(flight))?;
        }
        out.counts.runs += 1;
        out.counts.live_runs += u64::from(is_live);
        let deadline = is_live.then(|| deadline.unwrap_or(f64::INFINITY));
        out.put(&Record::RunEnd { ttl_ms, deadline })
    }
}

fn fields_of(reply: Value) -> Result<Pairs, Error> {
    let flat = Vec::<(Vec<u8>, Vec<u8>)>::from_redis_value(reply);
    let flat = flat.map_err(|error| Error::Corrupt(format!("a run's fields cannot be read: {error}")))?;
    Ok(flat.into_iter().map(|(name, value)| (Bytes::from(name), Bytes::from(value))).collect())
}

fn records_of(audit: &[(String, Pairs)]) -> u64 {
    audit.iter().map(|(_, records)| records.len() as u64).sum()
}
