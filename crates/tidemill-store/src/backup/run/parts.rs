//! What a reading of a run gathers on its way: what is in flight, what waits, what stands beside the run.

use std::io::Write;

use bytes::Bytes;
use redis::{Pipeline, Value};
use tidemill_protocol::{RunState, StepRecord};

use super::fields_of;
use crate::backup::census::{self, Fate, Kind, Type};
use crate::backup::copy::left;
use crate::backup::error::BackupError;
use crate::backup::flight::{milliseconds, of_field, waiting_step};
use crate::backup::format::Writer;
use crate::backup::record::{Flight, Pairs, Place, Record};
use crate::{Error, InFlight, Partition, Shape, Slot, keys};

/// What is read with a run, known from a first reading of it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in crate::backup) struct With {
    /// Steps with items.
    pub(in crate::backup) items: Vec<u32>,
    /// Steps that wait, with their records and their names among the alarms.
    pub(in crate::backup) waiting: Vec<(u32, String, String)>,
}

impl With {
    pub(in crate::backup) fn of(id: &str, fields: &Pairs, shape: Option<&Shape>) -> Self {
        let mut with = Self::default();
        for (name, value) in fields {
            with.items.extend(step_with_items(name));
            if let Some((step, record)) = waiting_step(name, value)
                && let Some(known) = shape.and_then(|shape| shape.steps.get(step as usize))
            {
                let slot = Slot { run: id.to_owned(), step, item: None, name: known.id.clone() };
                with.waiting.push((step, record, slot.member()));
            }
        }
        with.items.sort_unstable();
        with.waiting.sort_unstable();
        with
    }
}

/// What a run's steps say of it while it is read.
#[derive(Debug, Default)]
pub(in crate::backup) struct Parts {
    pub(in crate::backup) ttl_ms: Option<u64>,
    pub(in crate::backup) deadline: Option<f64>,
    pub(in crate::backup) state: Option<RunState>,
    pub(in crate::backup) workflow: String,
    /// The steps with items.
    pub(in crate::backup) with_items: Vec<u32>,
    pub(in crate::backup) steps: Vec<(u64, String, StepRecord)>,
    pub(in crate::backup) items: Vec<(u32, u64, String, StepRecord)>,
    /// The records of steps that wait.
    pub(in crate::backup) waiting: Pairs,
}

impl Parts {
    pub(in crate::backup) fn take(&mut self, fields: &Pairs) {
        for (name, value) in fields {
            match &**name {
                b"st" => self.state = std::str::from_utf8(value).ok().and_then(RunState::parse),
                b"wf" => self.workflow = String::from_utf8_lossy(value).into_owned(),
                _ => {
                    self.with_items.extend(step_with_items(name));
                    self.steps.extend(of_field(name, value));
                    if waiting_step(name, value).is_some() {
                        self.waiting.push((name.clone(), value.clone()));
                    }
                }
            }
        }
    }

    pub(in crate::backup) fn take_items(&mut self, step: u32, fields: &Pairs) {
        let flying = fields.iter().filter_map(|(name, value)| of_field(name, value));
        self.items.extend(flying.map(|(item, text, record)| (step, item, text, record)));
    }

    /// What is in flight; a step of a workflow that cannot be read has no name, by which it could be found where it is put aside.
    pub(in crate::backup) fn in_flight(self, id: &str, shape: Option<&Shape>) -> Vec<InFlight> {
        let name = |step: u32| shape.and_then(|shape| shape.steps.get(step as usize)).map(|step| &*step.id);
        let steps = self.steps.into_iter().filter_map(|(step, text, record)| {
            let step = u32::try_from(step).ok()?;
            let slot = Slot {
                run: id.to_owned(),
                step,
                item: None,
                name: name(step).unwrap_or_default().to_owned(),
            };
            Some(InFlight { slot, text, record })
        });
        let items = self.items.into_iter().map(|(step, item, text, record)| {
            let name = format!("{}[{item}]", name(step).unwrap_or_default());
            InFlight { slot: Slot { run: id.to_owned(), step, item: Some(item), name }, text, record }
        });
        steps.chain(items).filter(|one| shape.is_some() || one.record.entry.is_some()).collect()
    }
}

/// What stands beside a run, as it was read.
pub(in crate::backup) type Beside = Vec<(&'static Kind, Option<u64>, Pairs)>;

pub(in crate::backup) fn kinds_beside() -> impl Iterator<Item = &'static Kind> {
    census::PARTITION.iter().filter(|kind| kind.fate == Fate::WithRun)
}

/// Reads the replies to what `ask_beside` asks.
pub(in crate::backup) fn read_beside(
    waiting: &[(u32, String, String)],
    mut replies: impl Iterator<Item = Value>,
) -> Result<(Beside, Vec<Flight>), Error> {
    let mut next = || replies.next().unwrap_or(Value::Nil);
    let mut beside = Vec::new();
    for kind in kinds_beside() {
        let (ttl, rows) = (next(), fields_of(next())?);
        if !rows.is_empty() {
            beside.push((kind, left(&ttl), rows));
        }
    }
    let mut alarms = Vec::new();
    for (step, record, member) in waiting {
        let (due, generation) = (next(), next());
        let Some(at) = milliseconds(&due) else { continue };
        let generation =
            if let Value::BulkString(text) = generation { Bytes::from(text) } else { Bytes::new() };
        alarms.push(Flight {
            step: *step,
            item: None,
            queue: keys::WAITS.to_owned(),
            record: record.clone(),
            member: member.clone(),
            place: Place::Due(at),
            fields: vec![(Bytes::new(), generation)],
        });
    }
    Ok((beside, alarms))
}

pub(in crate::backup) fn put_beside<W: Write>(
    beside: Beside,
    alarms: Vec<Flight>,
    out: &mut Writer<W>,
) -> Result<(), BackupError> {
    for (kind, ttl_ms, rows) in beside {
        out.put(&Record::Beside { kind: kind.name.to_owned(), ttl_ms, rows })?;
    }
    for alarm in alarms {
        out.counts.in_flight += 1;
        out.put(&Record::Flight(alarm))?;
    }
    Ok(())
}

pub(in crate::backup) fn workflow_of(fields: &Pairs) -> String {
    let found = fields.iter().find(|(name, _)| &**name == b"wf");
    found.map_or_else(String::new, |(_, workflow)| String::from_utf8_lossy(workflow).into_owned())
}

/// The step whose items a field counts.
pub(in crate::backup) fn step_with_items(name: &[u8]) -> Option<u32> {
    std::str::from_utf8(name.strip_prefix(b"n")?).ok()?.parse().ok()
}

impl Partition {
    /// Asks for what stands beside a run, and for its alarms.
    pub(in crate::backup) fn ask_beside(
        &self,
        id: &str,
        waiting: &[(u32, String, String)],
        ask: &mut Pipeline,
    ) {
        let own = self.keys();
        for kind in kinds_beside() {
            let key = [own.prefix(), kind.pattern, id].concat();
            ask.cmd("PTTL").arg(&key);
            match kind.of {
                Type::SortedSet => ask.cmd("ZRANGE").arg(&key).arg(0).arg(-1).arg("WITHSCORES"),
                Type::Hash | Type::String | Type::Set | Type::Stream => ask.cmd("HGETALL").arg(&key),
            };
        }
        for (_, _, member) in waiting {
            ask.cmd("ZSCORE").arg(own.due(keys::WAITS)).arg(member);
            ask.cmd("HGET").arg(own.deferred(keys::WAITS)).arg(member);
        }
    }
}
