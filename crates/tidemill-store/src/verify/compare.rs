//! What was read of a run against what its audit leads to. Nothing here asks Redis.

use tidemill_protocol::{AuditRecord, Course, Flaw, Fold, RunState, StepRecord, StepState};

use super::reading::{Reading, STILL_MS, StepRow};
use super::{Drift, Finding, InFlight, Shape, StepShape, Whereabouts};
use crate::Slot;

/// Where nothing is stored, or nothing should be.
const NOTHING: &str = "nothing";

/// A record that cannot have happened.
pub(super) fn flawed(record: &AuditRecord, flaw: &Flaw) -> Finding {
    let AuditRecord { seq, subject, from, to, attempt, .. } = record;
    let stored = format!("{subject} {from} → {to}, attempt {attempt}");
    Finding::new(Drift::Audit, format!("audit record {seq}"), stored, flaw.to_string())
}

/// All that can be compared when everything is read.
pub(super) fn run(reading: &Reading) -> Vec<Finding> {
    let mut found = Vec::new();
    if reading.head.state.is_empty() {
        return found;
    }
    let Some(state) = reading.state() else {
        found.push(Finding::new(Drift::Unreadable, "run", &reading.head.state, "a run's state"));
        return found;
    };
    listing(reading, state, &mut found);
    audit_length(reading, &mut found);
    let Some(shape) = &reading.shape else {
        let stored = reading.workflow.as_deref().unwrap_or(NOTHING);
        found.push(Finding::new(Drift::Workflow, "run", stored, "a published workflow that is valid"));
        return found;
    };
    if reading.records > 0 {
        run_against_audit(reading, state, &mut found);
        for (step, row) in shape.steps.iter().zip(&reading.steps) {
            let place = format!("step {}", step.id);
            let stored = Stored { text: row.text.as_deref(), record: row.record.as_ref() };
            against(&place, stored, reading.fold.course(&step.id), &mut found);
        }
        strangers(reading, shape, &mut found);
    }
    counters(reading, shape, &mut found);
    flights(reading, state, &mut found);
    found
}

fn listing(reading: &Reading, state: RunState, found: &mut Vec<Finding>) {
    let head = &reading.head;
    if head.is_live == state.is_terminal() {
        let (stored, expected) = if head.is_live {
            ("in the set of live runs", "not in it")
        } else {
            ("not in the set of live runs", "in it")
        };
        found.push(Finding::new(Drift::Listing, "run", stored, expected).repairable(head.is_live));
    }
    if head.is_ended != state.is_terminal() {
        let (stored, expected) = if head.is_ended {
            ("in the set of ended runs", "not in it")
        } else {
            ("not in the set of ended runs", "in it")
        };
        found.push(Finding::new(Drift::Listing, "run, ended", stored, expected));
    }
}

fn audit_length(reading: &Reading, found: &mut Vec<Finding>) {
    let (stored, folded) = (number(reading.head.seq.as_ref()), reading.fold.seq());
    if stored != Some(folded) {
        let stored = format!("q {}", reading.head.seq.as_deref().unwrap_or(NOTHING));
        let expected = format!("{folded}, the number of the last record");
        found.push(Finding::new(Drift::AuditLength, "audit", stored, expected));
    }
}

fn run_against_audit(reading: &Reading, state: RunState, found: &mut Vec<Finding>) {
    let (fold, head) = (&reading.fold, &reading.head);
    if state != fold.run() {
        found.push(Finding::new(Drift::RunState, "run", state.as_str(), fold.run().as_str()));
    }
    let times = [("t1", &head.started_ms, fold.started_ms()), ("t2", &head.ended_ms, fold.ended_ms())];
    for (name, stored, expected) in times {
        if number(stored.as_ref()) != expected || stored.is_some() != expected.is_some() {
            let stored = format!("{name} {}", stored.as_deref().unwrap_or(NOTHING));
            let expected = expected.map_or_else(|| NOTHING.to_owned(), |ms| ms.to_string());
            found.push(Finding::new(Drift::RunTime, format!("run {name}"), stored, expected));
        }
    }
}

/// What is stored of a step or an item.
#[derive(Clone, Copy)]
struct Stored<'a> {
    text: Option<&'a str>,
    record: Option<&'a StepRecord>,
}

fn against(place: &str, stored: Stored<'_>, course: Option<&Course>, found: &mut Vec<Finding>) {
    let (record, course) = match (stored.record, course) {
        (Some(record), Some(course)) => (record, course),
        (Some(record), None) => {
            found.push(Finding::new(Drift::StepState, place, record.state.as_str(), NOTHING));
            return;
        }
        (None, Some(course)) if stored.text.is_none() => {
            found.push(Finding::new(Drift::StepState, place, NOTHING, course.state.as_str()));
            return;
        }
        // what cannot be read is told elsewhere
        (None, _) => return,
    };
    if record.state != course.state {
        found.push(Finding::new(Drift::StepState, place, record.state.as_str(), course.state.as_str()));
        return;
    }
    if record.attempt != course.attempt {
        let (stored, expected) = (record.attempt.to_string(), course.attempt.to_string());
        found.push(Finding::new(Drift::StepAttempt, place, stored, expected));
    }
    if let Some((stored, expected)) = times(record, course) {
        found.push(Finding::new(Drift::StepTime, place, stored, expected));
    }
}

/// The first time that is not as audited, or another worker.
fn times(record: &StepRecord, course: &Course) -> Option<(String, String)> {
    let shown = |ms: Option<u64>| ms.map_or_else(|| NOTHING.to_owned(), |ms| ms.to_string());
    // work that was lost and dispatched again is ready anew without a move
    if record.ready_ms.is_none_or(|ms| ms < course.ready_ms) {
        return Some((format!("ready {}", shown(record.ready_ms)), course.ready_ms.to_string()));
    }
    if !record.state.is_terminal() {
        return None;
    }
    if record.ended_ms != course.ended_ms {
        return Some((format!("ended {}", shown(record.ended_ms)), shown(course.ended_ms)));
    }
    if course.from == StepState::Running && record.started_ms != course.started_ms {
        return Some((format!("started {}", shown(record.started_ms)), shown(course.started_ms)));
    }
    let stored = record.worker.as_deref();
    (stored != course.who.as_deref()).then(|| {
        let shown = |who: Option<&str>| who.unwrap_or(NOTHING).to_owned();
        (format!("worker {}", shown(stored)), shown(course.who.as_deref()))
    })
}

/// Subjects of the audit that the workflow does not have.
fn strangers(reading: &Reading, shape: &Shape, found: &mut Vec<Finding>) {
    let known: std::collections::HashSet<&str> = shape.steps.iter().map(|step| &*step.id).collect();
    let mut strangers: Vec<_> = reading
        .fold
        .courses()
        .filter(|(subject, _)| {
            let step = tidemill_protocol::item_of(subject).map_or(*subject, |(step, _)| step);
            !known.contains(step)
        })
        .collect();
    strangers.sort_unstable_by_key(|(subject, _)| *subject);
    for (subject, course) in strangers {
        let expected = format!("{}, but the workflow has no such step", course.state.as_str());
        found.push(Finding::new(Drift::StepState, format!("step {subject}"), NOTHING, expected));
    }
}

fn state_of(row: &StepRow) -> Option<StepState> {
    row.record.as_ref().map(|record| record.state)
}

fn has_failed(state: Option<StepState>) -> bool {
    matches!(state, Some(StepState::Failed | StepState::TimedOut))
}

fn counters(reading: &Reading, shape: &Shape, found: &mut Vec<Finding>) {
    let rows = &reading.steps;
    let ended = |row: &StepRow| state_of(row).is_some_and(StepState::is_terminal);
    let counted = shape.steps.iter().zip(rows).filter(|(step, row)| !step.is_closing && ended(row));
    let done = counted.count() as u64;
    let failing =
        shape.steps.iter().zip(rows).filter(|(step, row)| step.fails_run && has_failed(state_of(row)));
    let counts = [("d", &reading.head.done, done), ("f", &reading.head.failed, failing.count() as u64)];
    for (name, stored, expected) in counts {
        if differs(stored.as_ref(), expected) {
            found.push(miscounted(Drift::EndedCount, format!("run {name}"), stored.as_ref(), expected));
        }
    }
    in_flight(reading, found);
    for (index, (step, row)) in shape.steps.iter().zip(rows).enumerate() {
        let needs = || step.needs.iter().filter_map(|need| rows.get(*need as usize));
        let ended = needs().filter(|row| ended(row)).count() as u64;
        let ok = needs().filter(|row| state_of(row) == Some(StepState::Succeeded)).count() as u64;
        // one that does not count successes may still have the number, from when its run was mended
        let ok = if step.counts_successes || row.needs[1].is_some() { ok } else { 0 };
        let of_wide =
            step.needs.iter().any(|need| shape.steps.get(*need as usize).is_some_and(|s| s.is_wide));
        for (kind, stored, expected) in [('c', &row.needs[0], ended), ('k', &row.needs[1], ok)] {
            let is_behind = number(stored.as_ref()).unwrap_or(0) < expected;
            if differs(stored.as_ref(), expected) && !(of_wide && is_behind) {
                let place = format!("step {}, {kind}{index}", step.id);
                found.push(miscounted(Drift::NeedsCount, place, stored.as_ref(), expected));
            }
        }
    }
}

/// What a run counts whose steps may wait; nobody counts any more once its end was decided.
fn in_flight(reading: &Reading, found: &mut Vec<Finding>) {
    let stored = reading.head.in_flight.as_ref();
    if stored.is_none() || reading.head.is_closing || reading.state().is_none_or(RunState::is_terminal) {
        return;
    }
    let flies =
        |row: &&StepRow| state_of(row).is_some_and(|at| !at.is_terminal() && at != StepState::Waiting);
    let expected = reading.steps.iter().filter(flies).count() as u64;
    let of_wide = reading.shape.as_ref().is_some_and(|shape| shape.steps.iter().any(|step| step.is_wide));
    // after the last step nothing counts down, and a wide fan-out goes on in calls of its own
    if differs(stored, expected) && expected > 0 && !of_wide {
        found.push(miscounted(Drift::EndedCount, "run a".to_owned(), stored, expected));
    }
}

fn miscounted(kind: Drift, place: String, stored: Option<&String>, expected: u64) -> Finding {
    Finding::new(kind, place, stored.map_or(NOTHING, String::as_str), expected.to_string())
}

/// A counter that was never raised may be left out.
fn differs(stored: Option<&String>, expected: u64) -> bool {
    stored.map_or(expected != 0, |_| number(stored) != Some(expected))
}

fn number(text: Option<&String>) -> Option<u64> {
    text.and_then(|text| text.parse().ok())
}

fn flights(reading: &Reading, state: RunState, found: &mut Vec<Finding>) {
    for (one, place) in &reading.flights {
        let (what, name) = (if one.slot.item.is_some() { "item" } else { "step" }, &one.slot.name);
        let text = format!("{} in queue {}", one.record.state.as_str(), one.record.queue);
        let entry = one.record.entry.as_deref();
        let (kind, expected) = match place {
            Whereabouts::Queued | Whereabouts::Deferred | Whereabouts::InLine | Whereabouts::Waiting => {
                continue;
            }
            Whereabouts::Foreign => (Drift::Foreign, "an entry of its own; this one is that of other work"),
            Whereabouts::Lost if entry.is_some() => (Drift::Lost, "its entry in the stream"),
            Whereabouts::Lost => (Drift::Lost, "its place among work put aside, or in a line"),
        };
        let stored = entry.map_or_else(|| text.clone(), |entry| format!("{text}, entry {entry}"));
        let repairable = kind == Drift::Lost && !state.is_terminal();
        found.push(Finding::new(kind, format!("{what} {name}"), stored, expected).repairable(repairable));
    }
    let under_way = reading.steps.iter().any(|row| state_of(row).is_some_and(|state| !state.is_terminal()));
    if !state.is_terminal() && !under_way && reading.still_ms >= STILL_MS {
        let stored = format!("{} with no step in flight for {} s", state.as_str(), reading.still_ms / 1_000);
        found.push(Finding::new(Drift::Still, "run", stored, "a step in flight, or an end").repairable(true));
    }
}

/// The items of one `for_each`.
pub(super) struct Items {
    run: String,
    step: u32,
    name: String,
    is_ended: bool,
    total: [u64; 3],
    found: Vec<Finding>,
    flights: Vec<InFlight>,
    begun: u64,
}

impl Items {
    /// `begun` of them began by the audit.
    pub(super) fn new(reading: &Reading, step: u32, begun: u64) -> Self {
        let shape = reading.shape.as_ref().and_then(|shape| shape.steps.get(step as usize));
        let name = shape.map_or_else(String::new, |step: &StepShape| step.id.clone());
        Self {
            run: reading.id.clone(),
            step,
            name,
            is_ended: reading.state().is_none_or(RunState::is_terminal),
            total: [0; 3],
            found: Vec::new(),
            flights: Vec::new(),
            begun,
        }
    }

    pub(super) fn take(&mut self, fold: &Fold, item: u64, text: Option<String>) {
        let subject = format!("{}[{item}]", self.name);
        let record = text.as_deref().and_then(StepRecord::parse);
        let place = format!("item {subject}");
        let course = fold.course(&subject);
        if fold.seq() > 0 {
            let stored = Stored { text: text.as_deref(), record: record.as_ref() };
            against(&place, stored, course, &mut self.found);
        }
        let Some(text) = text else { return };
        let Some(record) = record else {
            self.found.push(Finding::new(Drift::Unreadable, place, text, "an item's record"));
            return;
        };
        self.total[0] += 1;
        if record.state.is_terminal() {
            self.total[1] += 1;
            self.total[2] += u64::from(record.state != StepState::Succeeded);
        } else {
            let slot = Slot { run: self.run.clone(), step: self.step, item: Some(item), name: subject };
            self.flights.push(InFlight { slot, text, record });
        }
    }

    /// What does not fit, and what is in flight.
    pub(super) fn end(mut self, reading: &Reading) -> (Vec<Finding>, Vec<InFlight>) {
        let row = &reading.steps[self.step as usize];
        let used = number(row.items[1].as_ref()).unwrap_or(0);
        if reading.fold.seq() > 0 && self.begun != used {
            self.found.push(self.count('u', row.items[1].as_ref(), self.begun));
        }
        let (ended, failed) = (self.total[1], self.total[2]);
        for (kind, stored, expected) in [('g', &row.items[2], ended), ('h', &row.items[3], failed)] {
            if differs(stored.as_ref(), expected) {
                let finding = self.count(kind, stored.as_ref(), expected);
                self.found.push(finding);
            }
        }
        let total = number(row.items[0].as_ref()).unwrap_or(0);
        if used > total {
            let finding = self.count('n', row.items[0].as_ref(), used);
            self.found.push(finding);
        }
        let waits = |record: &StepRecord| record.state == StepState::Running && record.entry.is_none();
        if self.flights.is_empty() && row.record.as_ref().is_some_and(waits) {
            let stored = "running, with no item in flight";
            let finding = Finding::new(Drift::Lost, format!("step {}", self.name), stored, "its gathering");
            self.found.push(finding.repairable(!self.is_ended));
        }
        (self.found, self.flights)
    }

    fn count(&self, kind: char, stored: Option<&String>, expected: u64) -> Finding {
        let place = format!("step {}, {kind}{}", self.name, self.step);
        miscounted(Drift::ItemCount, place, stored, expected)
    }
}
