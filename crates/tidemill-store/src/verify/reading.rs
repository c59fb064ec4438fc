//! One reading of a run.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use redis::{Cmd, Pipeline, Value};
use tidemill_protocol::{
    AuditRecord, ExecutionMode, Fold, RunState, StepRecord, StepState, checksum, item_of,
};

use super::{Drift, Finding, InFlight, Shape, Shapes, Whereabouts, compare};
use crate::{Error, Fault, ItemText, Partition, Slot, claims};

/// Fields read in one call.
const FIELDS: usize = 1_000;
/// Entries of the audit read in one call.
const ENTRIES: usize = 500;
/// A run that stood still for this long with nothing in flight will not go on by itself, in milliseconds.
pub(super) const STILL_MS: u64 = 30_000;

/// What was read of a run.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) id: String,
    pub(super) workflow: Option<String>,
    pub(super) head: Head,
    pub(super) shape: Option<Arc<Shape>>,
    pub(super) steps: Vec<StepRow>,
    pub(super) fold: Fold,
    /// Records read, well-formed or not.
    pub(super) records: u64,
    /// Found while reading.
    pub(super) found: Vec<Finding>,
    pub(super) flights: Vec<(InFlight, Whereabouts)>,
    /// How long its last move is past, where that matters.
    pub(super) still_ms: u64,
    /// Nothing moved from the first read to the last.
    pub(super) steady: bool,
}

/// What the run says of itself.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub(super) state: String,
    pub(super) seq: Option<String>,
    pub(super) done: Option<String>,
    pub(super) failed: Option<String>,
    /// How many of its steps are in flight and do not wait; kept where steps may wait.
    pub(super) in_flight: Option<String>,
    /// Whether its end was decided.
    pub(super) is_closing: bool,
    pub(super) started_ms: Option<String>,
    pub(super) ended_ms: Option<String>,
    pub(super) is_live: bool,
    pub(super) is_ended: bool,
}

/// What is stored of one step.
#[derive(Debug, Default)]
pub(super) struct StepRow {
    pub(super) text: Option<String>,
    pub(super) record: Option<StepRecord>,
    /// Its counters of ended and successful needs.
    pub(super) needs: [Option<String>; 2],
    /// Its items: total, dispatched, ended, failed.
    pub(super) items: [Option<String>; 4],
}

/// Texts read in one round trip.
const OUTPUTS: usize = 100;

const HEAD: [&str; 8] = ["st", "q", "d", "f", "t1", "t2", "a", "to"];

impl Reading {
    /// `None`: there is no such run.
    pub(super) async fn take<S: Shapes + Sync>(
        partition: &Partition,
        id: &str,
        shapes: &S,
    ) -> Result<Option<Self>, Error> {
        match Self::read(partition, id, shapes).await {
            Err(Error::Redis { fault: Fault::WrongType, .. }) => {
                Ok(Some(Self::of(id, "a key of the run has another type")))
            }
            reading => reading,
        }
    }

    async fn read<S: Shapes + Sync>(
        partition: &Partition,
        id: &str,
        shapes: &S,
    ) -> Result<Option<Self>, Error> {
        let mut ask = Cmd::new();
        ask.arg("HMGET").arg(partition.keys().run(id)).arg("wf").arg("md");
        let (workflow, mode): (Option<Vec<u8>>, Option<Vec<u8>>) =
            partition.link().query("reading a run", &ask).await?;
        let workflow = workflow.map(|name| String::from_utf8_lossy(&name).into_owned());
        let mode =
            mode.and_then(|word| ExecutionMode::parse(std::str::from_utf8(&word).ok()?)).unwrap_or_default();
        let shape = match &workflow {
            Some(workflow) if mode.is_sequential() => shapes.in_order(workflow).await?,
            Some(workflow) => shapes.of(workflow).await?,
            None => None,
        };
        let mut reading = Self::empty(id, workflow, shape);
        if !reading.first(partition).await? {
            return Ok(reading.workflow.is_some().then(|| Self::of(id, "no state")));
        }
        reading.check_sums(partition).await?;
        reading.check_items(partition).await?;
        reading.look_for_flights(partition).await?;
        if !reading.steady {
            reading.steady = reading.stands(partition).await?;
        }
        Ok(Some(reading))
    }

    fn empty(id: &str, workflow: Option<String>, shape: Option<Arc<Shape>>) -> Self {
        Self {
            id: id.to_owned(),
            workflow,
            head: Head::default(),
            shape,
            steps: Vec::new(),
            fold: Fold::default(),
            records: 0,
            found: Vec::new(),
            flights: Vec::new(),
            still_ms: 0,
            steady: true,
        }
    }

    /// A run of which nothing else can be said.
    fn of(id: &str, stored: &str) -> Self {
        let mut reading = Self::empty(id, None, None);
        reading.found.push(Finding::new(Drift::Unreadable, "run", stored, "what Tidemill writes"));
        reading
    }

    /// The run's fields, its place in the sets and its audit: what fits into one MULTI at one moment, the rest after it.
    async fn first(&mut self, partition: &Partition) -> Result<bool, Error> {
        let keys = partition.keys();
        let (run, audit) = (keys.run(&self.id), keys.audit(&self.id));
        let names = self.names();
        let (now, later) = names.split_at(names.len().min(FIELDS));
        let mut ask = Pipeline::with_capacity(5);
        ask.atomic();
        ask.cmd("HMGET").arg(&run).arg(&HEAD[..]);
        ask.cmd("ZSCORE").arg(keys.live()).arg(&self.id);
        ask.cmd("ZSCORE").arg(keys.ended()).arg(&self.id);
        ask.cmd("XRANGE").arg(&audit).arg("-").arg("+").arg("COUNT").arg(ENTRIES);
        // its state again, so that the command has a field in any case
        ask.cmd("HMGET").arg(&run).arg("st").arg(now);
        type First = (Vec<Option<Vec<u8>>>, Option<f64>, Option<f64>, Value, Vec<Option<Vec<u8>>>);
        let (head, live, ended, page, mut values): First =
            partition.link().pipeline("reading a run", &ask).await?;
        values.drain(..values.len().min(1));
        if !self.take_head(head, live.is_some(), ended.is_some()) {
            return Ok(false);
        }
        let mut page = self.fold_page(page)?;
        for names in later.chunks(FIELDS) {
            self.steady = false;
            let mut ask = Cmd::new();
            ask.arg("HMGET").arg(&run).arg(names);
            let more: Vec<Option<Vec<u8>>> = partition.link().query("reading a run's steps", &ask).await?;
            values.extend(more);
        }
        while let Some(from) = page {
            self.steady = false;
            let mut ask = Cmd::new();
            ask.arg("XRANGE").arg(&audit).arg(format!("({from}")).arg("+").arg("COUNT").arg(ENTRIES);
            let next = partition.link().raw("reading the audit", &ask).await?;
            page = self.fold_page(next)?;
        }
        self.take_steps(values);
        Ok(true)
    }

    /// Names of the fields that the run's steps have.
    fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let Some(shape) = &self.shape else { return names };
        for (index, step) in shape.steps.iter().enumerate() {
            names.push(format!("s{index}"));
            if !step.needs.is_empty() {
                names.extend(['c', 'k'].map(|kind| format!("{kind}{index}")));
            }
            if step.has_items {
                names.extend(['n', 'u', 'g', 'h'].map(|kind| format!("{kind}{index}")));
            }
        }
        names
    }

    fn take_head(&mut self, values: Vec<Option<Vec<u8>>>, is_live: bool, is_ended: bool) -> bool {
        let mut values = values.into_iter().map(|value| value.map(text));
        let mut next = || values.next().flatten();
        let Some(state) = next() else { return false };
        let [seq, done, failed, started_ms, ended_ms, in_flight, closing] = [(); 7].map(|()| next());
        let is_closing = closing.is_some();
        self.head =
            Head { state, seq, done, failed, started_ms, ended_ms, in_flight, is_closing, is_live, is_ended };
        true
    }

    /// Takes the values of [`Self::names`].
    fn take_steps(&mut self, values: Vec<Option<Vec<u8>>>) {
        let Some(shape) = self.shape.clone() else { return };
        let mut values = values.into_iter().map(|value| value.map(text));
        let mut next = || values.next().flatten();
        for step in &shape.steps {
            let mut row = StepRow { text: next(), ..StepRow::default() };
            row.record = row.text.as_deref().and_then(StepRecord::parse);
            if !step.needs.is_empty() {
                row.needs = [(); 2].map(|()| next());
            }
            if step.has_items {
                row.items = [(); 4].map(|()| next());
            }
            if let (Some(text), None) = (&row.text, &row.record) {
                let place = format!("step {}", step.id);
                self.found.push(Finding::new(Drift::Unreadable, place, text, "a step's record"));
            }
            self.steps.push(row);
        }
    }

    /// Folds a page of the audit; replies its last entry if there may be more behind it.
    fn fold_page(&mut self, page: Value) -> Result<Option<String>, Error> {
        let Value::Array(entries) = page else { return Ok(None) };
        let full = entries.len() == ENTRIES;
        let mut last = None;
        for entry in entries {
            let entry = claims::entry_of(entry)?;
            for (seq, record) in &entry.fields {
                self.records += 1;
                let (seq, record) = (String::from_utf8_lossy(seq), String::from_utf8_lossy(record));
                let parsed = seq.parse().ok().and_then(|seq| AuditRecord::parse(seq, &record));
                match parsed {
                    Some(record) => {
                        for flaw in self.fold.apply(&record) {
                            self.found.push(compare::flawed(&record, &flaw));
                        }
                    }
                    None => self.found.push(Finding::new(
                        Drift::AuditUnreadable,
                        format!("audit record {seq}"),
                        record,
                        "subject from to at_ms attempt who",
                    )),
                }
            }
            last = Some(entry.entry.to_string());
        }
        Ok(last.filter(|_| full))
    }

    /// The texts that stand beside their checksums, in slices.
    async fn check_sums(&mut self, partition: &Partition) -> Result<(), Error> {
        let names = ["in", "is"].map(ToOwned::to_owned);
        if let [Some(input), Some(sum)] = &partition.fields_of(&self.id, None, &names).await?[..]
            && u32::from_str_radix(&String::from_utf8_lossy(sum), 16) != Ok(checksum(input))
        {
            self.found.push(damaged("run, input"));
        }
        let Some(shape) = self.shape.clone() else { return Ok(()) };
        let sums: Vec<(usize, u32)> = self
            .steps
            .iter()
            .enumerate()
            .filter_map(|(index, row)| Some((index, row.record.as_ref()?.sum?)))
            .collect();
        for stretch in sums.chunks(OUTPUTS) {
            let names: Vec<String> = stretch.iter().map(|(index, _)| format!("o{index}")).collect();
            let outputs = partition.fields_of(&self.id, None, &names).await?;
            for ((index, sum), output) in stretch.iter().zip(outputs) {
                if output.is_none_or(|output| checksum(&output) != *sum) {
                    let id = shape.steps.get(*index).map_or("?", |step| &*step.id);
                    self.found.push(damaged(&format!("step {id}, output")));
                }
            }
        }
        Ok(())
    }

    /// The items of every `for_each`, in slices: compared at once, and only what is in flight is kept.
    async fn check_items(&mut self, partition: &Partition) -> Result<(), Error> {
        let shape = self.shape.clone().unwrap_or_default();
        if !shape.steps.iter().any(|step| step.has_items) {
            return Ok(());
        }
        let begun = self.begun_items();
        for (step, shape) in (0_u32..).zip(&shape.steps).filter(|(_, step)| step.has_items) {
            let Some(row) = self.steps.get(step as usize) else { break };
            let begun = begun.get(&shape.id).copied().unwrap_or(0);
            let used = row.items[1].as_deref().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
            if begun == 0 && row.items.iter().all(Option::is_none) {
                continue;
            }
            self.steady = false;
            let there = self.stored_items(partition, step).await?;
            if there == 0 && self.state().is_none_or(RunState::is_terminal) {
                // items are kept for a time of their own, which may be over before their run's
                continue;
            }
            let mut items = compare::Items::new(self, step, begun);
            // a counter is only a number: no more is looked for than there is
            let most = used.min(there.max(begun));
            let mut from = 0;
            while from < most {
                let to = most.min(from + FIELDS as u64);
                let names: Vec<String> = (from..to).map(|item| format!("s{item}")).collect();
                let row = partition.fields_of(&self.id, Some(step), &names).await?;
                self.check_item_sums(partition, step, from..to).await?;
                for (item, value) in (from..).zip(row) {
                    items.take(&self.fold, item, value.map(|value| text(value.to_vec())));
                }
                from = to;
            }
            let (found, flights) = items.end(self);
            self.found.extend(found);
            self.flights.extend(flights.into_iter().map(|one| (one, Whereabouts::Lost)));
        }
        Ok(())
    }

    /// The inputs and outputs of a stretch of items.
    async fn check_item_sums(
        &mut self,
        partition: &Partition,
        step: u32,
        stretch: Range<u64>,
    ) -> Result<(), Error> {
        let id = self
            .shape
            .as_ref()
            .and_then(|shape| shape.steps.get(step as usize))
            .map_or("?", |step| &*step.id);
        let id = id.to_owned();
        let items: Vec<u64> = stretch.collect();
        for items in items.chunks(OUTPUTS) {
            let names: Vec<String> =
                items.iter().flat_map(|at| [format!("i{at}"), format!("o{at}")]).collect();
            let texts = partition.items(&self.id, step, &names).await?;
            for (name, text) in names.iter().zip(texts) {
                if text == ItemText::Damaged {
                    let (what, at) = name.split_at(1);
                    let what = if what == "i" { "input" } else { "output" };
                    self.found.push(damaged(&format!("item {id}[{at}], {what}")));
                }
            }
        }
        Ok(())
    }

    /// How many fields the items of a step have.
    async fn stored_items(&self, partition: &Partition, step: u32) -> Result<u64, Error> {
        let mut ask = Cmd::new();
        ask.arg("HLEN").arg(partition.keys().items(&self.id, step));
        partition.link().query("counting items", &ask).await
    }

    /// How many items of each step began by the audit.
    fn begun_items(&self) -> HashMap<String, u64> {
        let mut begun = HashMap::new();
        for (step, _) in self.fold.courses().filter_map(|(subject, _)| item_of(subject)) {
            match begun.get_mut(step) {
                Some(count) => *count += 1,
                None => {
                    begun.insert(step.to_owned(), 1);
                }
            }
        }
        begun
    }

    async fn look_for_flights(&mut self, partition: &Partition) -> Result<(), Error> {
        let shape = self.shape.clone().unwrap_or_default();
        for ((index, row), step) in (0_u32..).zip(&self.steps).zip(&shape.steps) {
            let (Some(text), Some(record)) = (&row.text, &row.record) else { continue };
            // one without a trace of items is in flight itself, and nowhere
            let has_items = step.has_items && row.items.iter().any(Option::is_some);
            let has_items_under_way =
                has_items && record.state == StepState::Running && record.entry.is_none();
            if !record.state.is_terminal() && !has_items_under_way {
                let slot = Slot { run: self.id.clone(), step: index, item: None, name: step.id.clone() };
                let one = InFlight { slot, text: text.clone(), record: record.clone() };
                self.flights.push((one, Whereabouts::Lost));
            }
        }
        let is_live = self.state().is_some_and(|state| !state.is_terminal());
        if self.flights.is_empty() {
            if is_live && self.shape.is_some() {
                let now_ms = partition.now_ms().await?;
                self.still_ms = now_ms.saturating_sub(self.fold.last_ms());
                self.steady = false;
            }
            return Ok(());
        }
        self.steady = false;
        let all: Vec<InFlight> = self.flights.iter().map(|(one, _)| one.clone()).collect();
        for ((_, place), found) in self.flights.iter_mut().zip(partition.whereabouts(&all).await?) {
            *place = found;
        }
        Ok(())
    }

    /// Whether the run still stands where it was read.
    async fn stands(&self, partition: &Partition) -> Result<bool, Error> {
        let row = partition.fields_of(&self.id, None, &["st", "q"].map(ToOwned::to_owned)).await?;
        let mut values = row.into_iter().map(|value| value.map(|value| text(value.to_vec())));
        Ok(values.next().flatten().as_ref() == Some(&self.head.state)
            && values.next().flatten() == self.head.seq)
    }

    /// The run's state as stored.
    pub(super) fn state(&self) -> Option<RunState> {
        RunState::parse(&self.head.state)
    }

    /// What an ended run still has in flight.
    pub(super) fn unsettled(&self) -> u64 {
        let ended = self.state().is_none_or(RunState::is_terminal);
        let there = self.flights.iter().filter(|(_, place)| *place != Whereabouts::Lost).count();
        if ended { there as u64 } else { 0 }
    }

    /// All that does not fit.
    pub(super) fn findings(&self) -> Vec<Finding> {
        let mut findings = self.found.clone();
        findings.extend(compare::run(self));
        findings
    }
}

fn damaged(place: &str) -> Finding {
    Finding::new(Drift::Damaged, place, "a text with another checksum, or none", "what was written")
}

fn text(value: Vec<u8>) -> String {
    String::from_utf8(value).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}
