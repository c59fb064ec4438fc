//! A run, its steps, its result.

use std::sync::Arc;

use futures_util::future::join_all;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;
use tidemill_protocol::{CHILD, Labels, StepRecord, StepState};
use tidemill_store::{
    ItemText, JobStatus, Partition, Place, RunRecord, RunSummary, Slot, Spent, Store, keys,
};
use tidemill_workflow::Plan;

use super::lines::{Parked, places_of};
use super::{ItemsView, RunView, SpentView, StepOutputView, StepView, line_views, raw, raw_bytes};
use crate::groups;
use crate::refusal::{Code, Refusal, nearest};
use crate::workflows::Workflows;

/// Steps in flight whose holders are asked for; a run with more shows the others as `ready`.
const MAX_HOLDERS: usize = 200;

/// A run with its steps.
///
/// # Errors
/// The run is unknown, or Redis is not available.
pub async fn run(store: &Store, workflows: &Workflows, id: &str) -> Result<RunView, Refusal> {
    check(id)?;
    let partition = store.partition_of(id);
    if let Some(record) = partition.run(id).await? {
        return started((store, partition), workflows, record).await;
    }
    match requested(store, partition, id).await {
        // it may have been started between the two looks
        Err(refusal) => match partition.run(id).await? {
            Some(record) => started((store, partition), workflows, record).await,
            None => Err(refusal),
        },
        requested => requested,
    }
}

/// One step with what it gave; `step` is its id or its index, or `id[n]` for an item of a `for_each`.
///
/// # Errors
/// The run or the step is unknown, or Redis is not available.
pub async fn step(
    store: &Store,
    workflows: &Workflows,
    id: &str,
    step: &str,
) -> Result<StepOutputView, Refusal> {
    check(id)?;
    let partition = store.partition_of(id);
    let Some(record) = partition.run(id).await? else { return Err(unknown(id)) };
    let plan = workflows.plan(&record.workflow).await.ok();
    let (name, item) = split_item(step);
    let index = index_of(&record, plan.as_deref(), name)?;
    if let Some(item) = item {
        return item_of(partition, &record, (index, step), item).await;
    }
    let view = step_view(&record, plan.as_deref(), index);
    let output = record.outputs.get(&index).and_then(|bytes| raw_bytes(bytes));
    Ok(StepOutputView { run: id.to_owned(), step: view, output })
}

/// The result document of a run that has ended, made from its record; `Err` tells its state when it has not.
///
/// # Errors
/// The run is unknown, or Redis is not available.
pub async fn run_result(
    partition: &Partition,
    summary: &RunSummary,
) -> Result<Result<String, String>, Refusal> {
    if !summary.state.is_terminal() {
        return Ok(Err(summary.state.as_str().to_owned()));
    }
    let Some(record) = partition.run(&summary.id).await? else { return Err(unknown(&summary.id)) };
    let succeeded = record.state == tidemill_protocol::RunState::Succeeded;
    let output = record.output.as_deref().filter(|_| succeeded).and_then(raw_bytes);
    let document = RunResult {
        id: &record.id,
        state: record.state.as_str(),
        output,
        error: record.error.and_then(raw),
        attempts: 1,
        finished_at_ms: record.ended_ms.unwrap_or(0),
    };
    Ok(Ok(document.text()))
}

/// A run's result as the wire contract writes it: texts of JSON stand in it as they are, members in their order and numbers with all
/// their digits, as in the result that Redis keeps.
#[derive(Serialize)]
struct RunResult<'a> {
    id: &'a str,
    state: &'a str,
    output: Option<Box<RawValue>>,
    error: Option<Box<RawValue>>,
    attempts: u32,
    finished_at_ms: u64,
}

impl RunResult<'_> {
    fn text(&self) -> String {
        // texts and numbers only: there is nothing in it that could not be written
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn check(id: &str) -> Result<(), Refusal> {
    tidemill_protocol::check_any_id(id)
        .map_err(|error| Refusal::new(Code::UnknownRun, format!("no run can have this id: {error}")))
}

pub(crate) fn unknown(id: &str) -> Refusal {
    Refusal::new(
        Code::UnknownRun,
        format!("no run {id:?} is known: it never was, or it has ended and its retention is over"),
    )
}

async fn requested(store: &Store, partition: &Partition, id: &str) -> Result<RunView, Refusal> {
    let mut view = empty(id);
    let state = match partition.job_status(Some(keys::RUNS), id).await? {
        JobStatus::Queued { .. } | JobStatus::Running { .. } => "queued",
        JobStatus::Deferred { due_ms, .. } => match groups::place_of(store, partition, id).await? {
            Some(place) => {
                view.group = Some(place.name.clone());
                view.place = Some(place);
                "queued"
            }
            None => {
                view.due_at_ms = Some(due_ms);
                "deferred"
            }
        },
        JobStatus::Cancelled => "cancelled",
        JobStatus::Buried(letter) => {
            view.error = raw(json!({ "code": letter.code, "message": letter.reason }).to_string());
            "failed"
        }
        // requested runs wait in no line
        JobStatus::InLine { .. } | JobStatus::Ended(_) | JobStatus::Accepted | JobStatus::Unknown => {
            return Err(unknown(id));
        }
    };
    state.clone_into(&mut view.state);
    Ok(view)
}

fn empty(id: &str) -> RunView {
    RunView {
        id: id.to_owned(),
        state: String::new(),
        workflow: None,
        started_at_ms: None,
        ended_at_ms: None,
        due_at_ms: None,
        tenant: None,
        mode: None,
        traceparent: None,
        parent: id.rsplit_once(CHILD).map(|(parent, _)| parent.to_owned()),
        paused: None,
        source: None,
        labels: Labels::default(),
        group: None,
        place: None,
        spent: SpentView::default(),
        steps_done: 0,
        input: None,
        output: None,
        error: None,
        steps: Vec::new(),
    }
}

async fn started(
    (store, partition): (&Store, &Partition),
    workflows: &Workflows,
    record: RunRecord,
) -> Result<RunView, Refusal> {
    let plan: Option<Arc<Plan>> = workflows.plan(&record.workflow).await.ok();
    let count = plan.as_ref().map_or_else(
        || record.steps.keys().next_back().map_or(0, |last| last + 1),
        |plan| u32::try_from(plan.steps.len()).unwrap_or(u32::MAX),
    );
    let mut steps: Vec<StepView> =
        (0..count).map(|index| step_view(&record, plan.as_deref(), index)).collect();
    if !record.state.is_terminal() {
        show_holders(partition, &record, &mut steps).await?;
        show_lines((store, partition), &record, &mut steps).await?;
    }
    let mut view = empty(&record.id);
    record.state.as_str().clone_into(&mut view.state);
    view.workflow = Some(record.workflow);
    view.started_at_ms = Some(record.started_ms);
    view.ended_at_ms = record.ended_ms;
    view.tenant = record.tenant;
    view.mode = Some(record.mode.as_str());
    view.traceparent = record.traceparent;
    view.paused = record.paused.and_then(raw);
    view.source = record.source;
    view.labels = record.labels;
    view.group = record.group;
    let Spent { steps: used, cost_micros } = record.spent;
    view.spent = SpentView { steps: used, cost_micros };
    view.steps_done = record.done;
    view.input = raw_bytes(&record.input);
    view.output = record.output.as_deref().and_then(raw_bytes);
    view.error = record.error.and_then(raw);
    view.steps = steps;
    Ok(view)
}

/// A claimed step is stored as `ready` until it settles: that it runs is seen from who holds its entry.
async fn show_holders(
    partition: &Partition,
    record: &RunRecord,
    steps: &mut [StepView],
) -> Result<(), Refusal> {
    let in_flight = record.steps.iter().filter_map(|(index, step)| {
        let entry = step.entry.as_deref()?;
        (step.state == StepState::Ready).then(|| (*index, step, entry.to_owned()))
    });
    let asked = in_flight.take(MAX_HOLDERS).map(|(index, step, entry)| async move {
        let stream = partition.keys().jobs(&step.queue);
        (index, partition.holder(&stream, keys::WORKERS, &entry).await)
    });
    for (index, holder) in join_all(asked).await {
        if let (Some((worker, _)), Some(view)) = (holder?, steps.get_mut(index as usize)) {
            StepState::Running.as_str().clone_into(&mut view.state);
            view.worker = Some(worker);
        }
    }
    Ok(())
}

/// Where parked steps stand.
async fn show_lines(
    (store, partition): (&Store, &Partition),
    record: &RunRecord,
    steps: &mut [StepView],
) -> Result<(), Refusal> {
    let mut parked = Vec::new();
    for (index, step) in &record.steps {
        // one with a due time waits for that
        let waits = step.state == StepState::Parked && step.ended_ms.is_none();
        let name = steps.get(*index as usize).and_then(|view| view.id.clone());
        if let Some(name) = name.filter(|_| waits && parked.len() < MAX_HOLDERS) {
            let slot = Slot { run: record.id.clone(), step: *index, item: None, name };
            parked.push(Parked { queue: keys::base_of(&step.queue), slot });
        }
    }
    let places = places_of(partition, &parked).await?;
    let (indexes, places): (Vec<u32>, Vec<Place>) =
        parked.iter().zip(places).filter_map(|(one, place)| Some((one.slot.step, place?))).unzip();
    if places.is_empty() {
        return Ok(());
    }
    for (index, line) in indexes.into_iter().zip(line_views(store, places).await?) {
        if let Some(view) = steps.get_mut(index as usize) {
            view.line = Some(line);
        }
    }
    Ok(())
}

fn step_view(record: &RunRecord, plan: Option<&Plan>, index: u32) -> StepView {
    let planned = plan.and_then(|plan| plan.step(index));
    let need = |need: &u32| plan.and_then(|plan| plan.step(*need)).map(|step| step.id.to_string());
    let mut view = StepView {
        index,
        id: planned.map(|step| step.id.to_string()),
        state: StepState::Pending.as_str().to_owned(),
        attempt: 0,
        queue: plan.map(|plan| plan.queue_of(index).to_owned()),
        ready_at_ms: None,
        started_at_ms: None,
        ended_at_ms: None,
        due_at_ms: None,
        line: None,
        why: None,
        worker: None,
        error: record.errors.get(&index).and_then(raw),
        items: record.items.get(&index).map(|[total, dispatched, ended, failed]| ItemsView {
            total: *total,
            dispatched: *dispatched,
            ended: *ended,
            failed: *failed,
        }),
        needs: planned.map(|step| step.needs.iter().filter_map(need).collect()).unwrap_or_default(),
    };
    if let Some(stored) = record.steps.get(&index) {
        show_record(&mut view, stored);
        let waits = stored.state == StepState::Waiting;
        view.why = record.whys.get(&index).filter(|why| waits && !why.is_empty()).cloned();
    }
    view
}

fn show_record(view: &mut StepView, stored: &StepRecord) {
    stored.state.as_str().clone_into(&mut view.state);
    view.attempt = stored.attempt;
    view.queue = Some(stored.queue.clone());
    view.ready_at_ms = stored.ready_ms;
    view.started_at_ms = stored.started_ms;
    view.worker.clone_from(&stored.worker);
    if stored.state.is_terminal() {
        view.ended_at_ms = stored.ended_ms;
    } else {
        view.due_at_ms = stored.ended_ms;
    }
}

fn split_item(step: &str) -> (&str, Option<u64>) {
    let inner = step.strip_suffix(']').and_then(|rest| rest.rsplit_once('['));
    match inner.and_then(|(name, item)| Some((name, item.parse().ok()?))) {
        Some((name, item)) => (name, Some(item)),
        None => (step, None),
    }
}

fn index_of(record: &RunRecord, plan: Option<&Plan>, name: &str) -> Result<u32, Refusal> {
    if let Some(index) = plan.and_then(|plan| plan.step_index(name)) {
        return Ok(index);
    }
    let count = plan.map_or(record.steps.len(), |plan| plan.steps.len());
    match name.parse::<u32>() {
        Ok(index) if (index as usize) < count || record.steps.contains_key(&index) => Ok(index),
        _ => {
            let names = plan.into_iter().flat_map(|plan| plan.steps.iter().map(|step| &*step.id));
            let hint =
                nearest(name, names).map(|near| format!("; did you mean {near:?}?")).unwrap_or_default();
            Err(Refusal::new(
                Code::UnknownStep,
                format!("run {:?} of {} has no step {name:?}{hint}", record.id, record.workflow),
            ))
        }
    }
}

async fn item_of(
    partition: &Partition,
    record: &RunRecord,
    (index, name): (u32, &str),
    item: u64,
) -> Result<StepOutputView, Refusal> {
    let fields = [format!("s{item}"), format!("o{item}"), format!("e{item}")];
    let values: Vec<Option<bytes::Bytes>> =
        partition.items(&record.id, index, &fields).await?.into_iter().map(ItemText::text).collect();
    let value = |at: usize| values.get(at).and_then(Option::as_ref);
    let stored = value(0).and_then(|text| StepRecord::parse(&String::from_utf8_lossy(text)));
    let total = record.items.get(&index).map_or(0, |[total, ..]| *total);
    if stored.is_none() && item >= total {
        let detail = format!("step {name:?}: there are {total} items, counted from 0");
        return Err(Refusal::new(Code::UnknownStep, detail));
    }
    let mut view = step_view(record, None, index);
    view.id = Some(name.to_owned());
    view.items = None;
    StepState::Pending.as_str().clone_into(&mut view.state);
    (view.attempt, view.ready_at_ms, view.started_at_ms) = (0, None, None);
    (view.ended_at_ms, view.due_at_ms, view.worker) = (None, None, None);
    if let Some(stored) = &stored {
        show_record(&mut view, stored);
    }
    view.error = value(2).and_then(|bytes| raw_bytes(bytes));
    let output = value(1).and_then(|bytes| raw_bytes(bytes));
    Ok(StepOutputView { run: record.id.clone(), step: view, output })
}

/// Whether there is such a run, started or only asked for.
///
/// # Errors
/// The run is unknown, or Redis is not available.
pub(crate) async fn exists(store: &Store, id: &str) -> Result<(), Refusal> {
    check(id)?;
    let partition = store.partition_of(id);
    if !partition.summaries(&[id.to_owned()]).await?.is_empty() {
        return Ok(());
    }
    requested(store, partition, id).await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::{RunResult, raw};

    #[test]
    fn a_result_keeps_its_output_letter_for_letter() {
        let output = r#"{"b":1,"a":12345678901234567890123}"#;
        let (id, state) = ("r1", "succeeded");
        let result =
            RunResult { id, state, output: raw(output), error: None, attempts: 1, finished_at_ms: 7 };
        let wanted = format!(
            r#"{{"id":"r1","state":"succeeded","output":{output},"error":null,"attempts":1,"finished_at_ms":7}}"#
        );
        assert_eq!(result.text(), wanted);
    }
}
