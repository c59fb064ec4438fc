//! Whether a backup is what was written, and whether what was written of each run is what its audit leads to. Asks no Redis.

use std::collections::BTreeMap;
use std::io::Read;

use serde::Serialize;
use tidemill_protocol::{AuditRecord, Fold, RunState, StepRecord, root_of};

use super::error::BackupError;
use super::flight::is_made_by_redis;
use super::format::Reader;
use super::jobs::field;
use super::record::{Counts, Flight, Header, Pairs, Record};
use crate::{Slot, keys};

/// Faults that are listed.
const MOST_FAULTS: usize = 100;

/// A backup that was read to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Its head.
    pub header: Header,
    /// What is in it.
    pub counts: Counts,
    /// Runs of which the state is not the one that their audit leads to. They stood so in Redis.
    pub faults: Vec<Fault>,
    /// Faults beyond those listed.
    pub more: u64,
    /// By partition, an id that Redis made there, if there are any.
    #[serde(skip)]
    made_there: BTreeMap<u32, String>,
}

/// What does not fit in a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The run's id.
    pub run: String,
    /// What does not fit.
    pub what: String,
}

impl Checked {
    /// Why it cannot be restored into a pool of so many partitions, if it cannot.
    #[must_use]
    pub fn misfit(&self, partitions: u32) -> Option<String> {
        if partitions == self.header.partitions {
            return None;
        }
        let (last, id) = self.made_there.last_key_value()?;
        (*last >= partitions).then(|| {
            format!(
                "the backup has {} partitions and the target {partitions}, but the id {id:?} was made by Redis in partition {last}: \
                 such ids stay in their partition, because another may have made the same; restore into at least {} partitions",
                self.header.partitions,
                last + 1
            )
        })
    }
}

/// Reads a backup to its end and checks all of it.
///
/// # Errors
/// It is no backup, is newer than this Tidemill, is damaged or cut short, or cannot be read.
pub fn check<R: Read>(input: R) -> Result<Checked, BackupError> {
    let mut reader = Reader::new(input)?;
    let mut check = Check::default();
    let mut counts = None;
    while let Some(record) = reader.next()? {
        if let Record::Counts(told) = record {
            counts = Some(told);
        } else {
            check.take(record).map_err(|why| reader.damaged(why))?;
        }
    }
    let Some(counts) = counts.filter(|counts| check.agrees_with(counts)) else {
        return Err(reader.damaged("its end mark counts other records than it has"));
    };
    let Check { faults, more, made_there, .. } = check;
    Ok(Checked { header: reader.header, counts, faults, more, made_there })
}

#[derive(Debug, Default)]
struct Check {
    run: Option<Run>,
    runs: u64,
    jobs: u64,
    /// Whether rows, or entries, may follow.
    in_key: bool,
    faults: Vec<Fault>,
    more: u64,
    made_there: BTreeMap<u32, String>,
}

/// A run that is being read.
#[derive(Debug, Default)]
struct Run {
    id: String,
    fold: Fold,
    state: Option<String>,
    seq: Option<String>,
    in_items: bool,
    flights: Vec<Flight>,
    faults: Vec<String>,
}

impl Check {
    fn agrees_with(&self, counts: &Counts) -> bool {
        self.run.is_none() && (self.runs, self.jobs) == (counts.runs, counts.jobs)
    }

    fn take(&mut self, record: Record) -> Result<(), String> {
        let of_run = matches!(
            record,
            Record::Again
                | Record::Dropped
                | Record::Fields(_)
                | Record::Items { .. }
                | Record::Beside { .. }
                | Record::Audit(_)
                | Record::Flight(_)
                | Record::RunEnd { .. }
        );
        if of_run != self.run.is_some() {
            return Err("its records are in an order that makes no sense".to_owned());
        }
        if of_run {
            return self.take_of_run(record);
        }
        match record {
            Record::Run { partition, id } => {
                self.made(partition, root_of(&id));
                self.run = Some(Run { id, ..Run::default() });
            }
            Record::Job { partition, queue, entry, fields } => {
                self.jobs += 1;
                let named = field(&fields, b"id").or_else(|| field(&fields, b"_id"));
                let known = named.or_else(|| field(&fields, b"_entry"));
                let id = known.map_or(entry, |id| String::from_utf8_lossy(id).into_owned());
                if queue.is_empty() {
                    return Err("a job has no queue".to_owned());
                }
                self.made(partition, root_of(&id));
            }
            Record::Aside { partition, queue, member, .. } => {
                self.jobs += 1;
                let member = String::from_utf8_lossy(&member).into_owned();
                let Some(id) = member.strip_prefix("j:").filter(|_| queue == keys::RUNS || !queue.is_empty())
                else {
                    return Err(format!("{member:?} is no job"));
                };
                self.made(partition, root_of(id));
            }
            Record::Key { .. } => self.in_key = true,
            Record::Rows(_) | Record::Entries(_) if !self.in_key => {
                return Err("rows follow no key".to_owned());
            }
            _ => {}
        }
        Ok(())
    }

    fn made(&mut self, partition: u32, id: &str) {
        if is_made_by_redis(id) {
            self.made_there.entry(partition).or_insert_with(|| id.to_owned());
        }
    }

    fn take_of_run(&mut self, record: Record) -> Result<(), String> {
        let Some(run) = &mut self.run else { return Ok(()) };
        match record {
            Record::Again => *run = Run { id: std::mem::take(&mut run.id), ..Run::default() },
            Record::Fields(fields) => run.take_fields(&fields),
            Record::Items { .. } => run.in_items = true,
            Record::Beside { .. } => {}
            Record::Audit(entries) => run.take_audit(&entries),
            Record::Flight(flight) => run.flights.push(flight),
            Record::Dropped => self.run = None,
            Record::RunEnd { deadline, .. } => {
                let found = run.end(deadline.is_some());
                for what in found {
                    if self.faults.len() < MOST_FAULTS {
                        self.faults.push(Fault { run: run.id.clone(), what });
                    } else {
                        self.more += 1;
                    }
                }
                self.runs += 1;
                self.run = None;
            }
            _ => return Err("a run has a record that is not a run's".to_owned()),
        }
        Ok(())
    }
}

impl Run {
    fn take_fields(&mut self, fields: &Pairs) {
        if self.in_items {
            return;
        }
        let text = |name: &[u8]| field(fields, name).map(|value| String::from_utf8_lossy(value).into_owned());
        self.state = text(b"st").or_else(|| self.state.take());
        self.seq = text(b"q").or_else(|| self.seq.take());
    }

    fn take_audit(&mut self, entries: &[(String, Pairs)]) {
        for (seq, record) in entries.iter().flat_map(|(_, records)| records) {
            let (seq, record) = (String::from_utf8_lossy(seq), String::from_utf8_lossy(record));
            match seq.parse().ok().and_then(|seq| AuditRecord::parse(seq, &record)) {
                Some(record) => {
                    let flaws = self.fold.apply(&record);
                    self.faults.extend(flaws.iter().map(|flaw| format!("audit record {seq}: {flaw}")));
                }
                None => self.faults.push(format!("audit record {seq} cannot be read: {record:?}")),
            }
        }
    }

    /// What does not fit, now that all is read.
    fn end(&mut self, is_live: bool) -> Vec<String> {
        let mut faults = std::mem::take(&mut self.faults);
        let state = self.state.as_deref().and_then(RunState::parse);
        let shown = self.state.as_deref().unwrap_or("nothing").to_owned();
        let Some(state) = state else {
            faults.push(format!("its state is {shown}"));
            return faults;
        };
        if state.is_terminal() == is_live {
            faults.push(format!(
                "its state is {shown}, but it was written as one that has{} ended",
                if is_live { " not" } else { "" }
            ));
        }
        let folded = self.fold.seq();
        if self.seq.as_deref().and_then(|seq| seq.parse().ok()) != Some(folded) {
            let seq = self.seq.as_deref().unwrap_or("nothing");
            faults.push(format!("its last audit record is {folded}, its count says {seq}"));
        }
        if folded == 0 {
            return faults;
        }
        if self.fold.run() != state {
            faults.push(format!("its state is {shown}, its audit leads to {}", self.fold.run().as_str()));
        }
        for flight in &self.flights {
            let name = Slot::of_member(&flight.member).map_or_else(String::new, |slot| slot.name);
            let stored = StepRecord::parse(&flight.record).map(|record| record.state);
            let audited = self.fold.course(&name).map(|course| course.state);
            if stored != audited && !name.is_empty() {
                let word = |state: Option<tidemill_protocol::StepState>| {
                    state.map_or("nothing", tidemill_protocol::StepState::as_str)
                };
                faults.push(format!("step {name} is {}, its audit leads to {}", word(stored), word(audited)));
            }
        }
        faults
    }
}
