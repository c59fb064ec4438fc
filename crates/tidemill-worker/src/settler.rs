//! Settling: outcomes that have gathered while the last call was under way go to Redis together.
//!
//! One settler per partition. Each round takes whatever is there, groups it by what has to be called, and makes those calls at
//! once; a call that fails is repeated until Redis answers, because an outcome that is not settled is a job that is done twice.

mod groups;
mod waiting;

use std::sync::Arc;

use futures_util::future::join_all;
use tidemill_protocol::{EntryId, StepState};
use tidemill_runtime::crash;
use tidemill_store::{
    Burial, Completion, Deferral, Dependent, Expansion, FinishRun, Held, ItemOutcome, Parking, Partition,
    Settled, StepOutcome, keys,
};
use tokio::sync::mpsc::UnboundedReceiver;

use crate::budget;
use crate::outcome::{
    Bury, Complete, Defer, Expand, Finish, ItemEnd, Lane, Outcome, Park, Release, RunRef, StepEnd,
};
use crate::shared::Shared;
use groups::{Group, Groups};
use tidemill_workflow::Tolerance;

/// Most outcomes in one round.
const ROUND: usize = 2_000;
/// Most outcomes in one function call: a call of many steps must not hold Redis for long.
const CALL: usize = 50;
/// Most dependents that one call dispatches.
const FAN: usize = 250;

pub(crate) use waiting::keep;

pub(crate) type Owned<T> = (EntryId, Box<T>);

/// Settles one partition's outcomes until the executor is gone.
pub(crate) async fn run(
    shared: Arc<Shared>,
    (partition, lane): (usize, Lane),
    mut outcomes: UnboundedReceiver<Vec<Outcome>>,
) {
    let store = shared.store.partitions()[partition].clone();
    // calls that park are made one by one: many at once would keep Redis from everybody else for as long
    let (most, batches_at_once) = if lane == Lane::Park { (CALL, 1) } else { (ROUND, 16) };
    let mut batches = Vec::with_capacity(batches_at_once);
    while outcomes.recv_many(&mut batches, batches_at_once).await > 0 {
        let mut round: Vec<Outcome> = Vec::with_capacity(batches.iter().map(Vec::len).sum());
        for batch in batches.drain(..) {
            round.extend(batch);
        }
        while round.len() < most {
            let Ok(more) = outcomes.try_recv() else { break };
            round.extend(more);
        }
        let count = round.len();
        shared.spending.outcomes(partition, &round);
        budget::add(&shared, partition, &store).await;
        // what is parked took no room since that was decided
        let takes_room = round.iter().filter(|outcome| outcome.takes_room()).count();
        let groups = Groups::of(round).into_calls(CALL);
        join_all(groups.iter().map(|group| settle(&shared, &store, group))).await;
        shared.backlog(partition, lane).remove(count);
        shared.capacity.give_back(takes_room);
    }
}

async fn settle(shared: &Shared, store: &Partition, group: &Group) {
    let queue = |index: &u16| shared.queues.name(*index as usize);
    crash::before(group.point());
    match group {
        Group::Acknowledge(at, entries) => acknowledge(shared, store, queue(at), entries).await,
        Group::Complete(at, jobs) => complete(shared, store, queue(at), jobs).await,
        Group::Bury(at, jobs) => bury(shared, store, queue(at), jobs).await,
        Group::Defer(at, work) => defer(shared, store, queue(at), work).await,
        Group::Park(at, work) => park(shared, store, queue(at), work).await,
        Group::Release(at, work) => release(shared, store, queue(at), work).await,
        Group::Step(at, home, ends) => steps(shared, store, (queue(at), home), ends).await,
        Group::Item(at, ends) => items(shared, store, queue(at), ends).await,
        Group::Expand(at, entry, expand) => begin(shared, store, queue(at), (entry, expand)).await,
        Group::Finish(at, entry, finish) => end(shared, store, queue(at), (entry, finish)).await,
        Group::Wait(at, entry, wait) => waiting::wait(shared, store, queue(at), (entry, wait)).await,
        Group::Close(at, entry, close) => waiting::close(shared, store, queue(at), (entry, close)).await,
    }
    crash::after(group.point());
}

fn count(shared: &Shared, answers: &[bool]) {
    let done = answers.iter().filter(|done| **done).count();
    shared.metrics.settled.with(&["recorded"]).inc_by(done as u64);
    if done < answers.len() {
        shared.metrics.settled.with(&["stale"]).inc_by((answers.len() - done) as u64);
    }
}

async fn acknowledge(shared: &Shared, store: &Partition, queue: &str, entries: &[EntryId]) {
    let owned = shared.persist("acknowledging jobs", || store.acknowledge(queue, entries)).await;
    shared.metrics.settled.with(&["recorded"]).inc_by(owned as u64);
    if owned < entries.len() {
        shared.metrics.settled.with(&["stale"]).inc_by((entries.len() - owned) as u64);
    }
}

async fn complete(shared: &Shared, store: &Partition, queue: &str, jobs: &[Owned<Complete>]) {
    let rows: Vec<_> = jobs
        .iter()
        .map(|(entry, job)| Completion {
            entry,
            id: &job.id,
            head: &job.head,
            ttl_ms: job.ttl_ms,
            reply_to: job.reply_to.as_deref(),
        })
        .collect();
    count(shared, &shared.persist("completing jobs", || store.complete(queue, &rows)).await);
}

async fn bury(shared: &Shared, store: &Partition, queue: &str, jobs: &[Owned<Bury>]) {
    let rows: Vec<_> = jobs
        .iter()
        .map(|(entry, job)| Burial {
            entry,
            id: &job.id,
            code: &job.code,
            reason: &job.reason,
            state: job.state,
            attempts: job.attempts,
            ttl_ms: job.ttl_ms,
            reply_to: job.reply_to.as_deref(),
        })
        .collect();
    let stream = store.keys().jobs(queue);
    count(shared, &shared.persist("burying jobs", || store.bury(&stream, keys::WORKERS, &rows)).await);
    for job in &rows {
        tracing::info!(id = job.id, code = job.code, reason = job.reason, "dead letter");
    }
}

async fn defer(shared: &Shared, store: &Partition, queue: &str, work: &[Owned<Defer>]) {
    let rows: Vec<_> = work
        .iter()
        .map(|(entry, d)| Deferral {
            entry,
            id: &d.id,
            slot: d.slot.clone(),
            state: d.state,
            due: d.due,
            note: &d.note,
            ran: d.ran,
            attempt: d.attempt,
            changes: d.changes.clone(),
        })
        .collect();
    let who = &shared.consumer;
    count(
        shared,
        &shared.persist("putting work aside", || store.defer(queue, keys::WORKERS, who, &rows)).await,
    );
}

async fn park(shared: &Shared, store: &Partition, queue: &str, work: &[Owned<Park>]) {
    let rows: Vec<_> = work
        .iter()
        .map(|(entry, p)| Parking {
            entry,
            id: &p.id,
            slot: p.slot.clone(),
            note: &p.note,
            attempt: p.attempt,
            tier: &p.tier,
            tenant: p.tenant.as_deref().unwrap_or_default(),
            priority: p.priority,
            changes: Vec::new(),
        })
        .collect();
    let who = &shared.consumer;
    count(shared, &shared.persist("parking jobs", || store.park(queue, keys::WORKERS, who, &rows)).await);
}

async fn release(shared: &Shared, store: &Partition, queue: &str, work: &[Owned<Release>]) {
    let held: Vec<_> = work
        .iter()
        .map(|(entry, one)| Held { entry: entry.clone(), slot: one.slot.clone(), attempt: one.attempt })
        .collect();
    let (stream, who) = (store.keys().jobs(queue), &shared.consumer);
    let moved = shared
        .persist("handing work back", || store.release((&stream, keys::WORKERS), who, (who, None), &held))
        .await;
    shared.metrics.settled.with(&["released"]).inc_by(moved.len() as u64);
}

/// The queues that an outcome may dispatch to, the run's own first.
struct Targets(Vec<String>);

impl Targets {
    fn index(&mut self, queue: &str) -> usize {
        self.0.iter().position(|known| known == queue).unwrap_or_else(|| {
            self.0.push(queue.to_owned());
            self.0.len() - 1
        })
    }
}

/// The dependents that one call counts, and where the next one goes on.
fn fan<'a>(run: &'a RunRef, end: &StepEnd, targets: &mut Targets) -> (Vec<Dependent<'a>>, Option<u32>) {
    let plan = &*run.plan;
    let all = match end.origin {
        Some(step) => plan.dependents(step),
        None => plan.roots(),
    };
    let from = end.from as usize;
    let stretch = all.get(from..).unwrap_or_default();
    let more = (stretch.len() > FAN).then(|| end.from + u32::try_from(FAN).unwrap_or(u32::MAX));
    let dependent = |step: &u32| {
        let planned = plan.step(*step)?;
        let fires = if end.origin.is_none() { None } else { Some(planned.fires_when()) };
        Some(Dependent {
            step: *step,
            name: &planned.id,
            ended: fires.map_or(0, |fires| fires.ended),
            ok: fires.map_or(0, |fires| fires.ok),
            target: targets.index(run.queue_of(*step)),
        })
    };
    (stretch.iter().take(FAN).filter_map(dependent).collect(), more)
}

async fn steps(shared: &Shared, store: &Partition, (queue, home): (&str, &str), ends: &[Owned<StepEnd>]) {
    let mut targets = Targets(vec![home.to_owned()]);
    let errors: Vec<String> = ends
        .iter()
        .map(|(_, end)| end.error.as_ref().map(crate::outcome::Fault::json).unwrap_or_default())
        .collect();
    let origins: Vec<String> = ends
        .iter()
        .map(|(_, end)| end.origin.map_or_else(|| "roots".to_owned(), |step| step.to_string()))
        .collect();
    let rows: Vec<_> = ends
        .iter()
        .zip(&errors)
        .zip(&origins)
        .map(|(((entry, end), error), origin)| {
            let (dependents, more) = fan(&end.run, end, &mut targets);
            outcome_row((entry, end), error, origin, (dependents, more))
        })
        .collect();
    let who = &shared.consumer;
    let answers =
        shared.persist("settling steps", || store.settle_steps(queue, who, &targets.0, &rows)).await;
    for (answer, (entry, end)) in answers.iter().zip(ends) {
        shared.metrics.settled.with(&[word(*answer)]).inc();
        if matches!(answer, Settled::Conflict | Settled::Corrupt) {
            tracing::warn!(run = %end.run.id, step = end.step, %entry, ?answer, "a step's outcome was refused");
        }
        crate::part::move_ended(shared, end, matches!(answer, Settled::Recorded | Settled::RunEnded));
        if *answer == Settled::RunEnded {
            shared.modes.ended(&shared.clock, &end.run);
            release_items(store, &end.run, None).await;
        } else if *answer == Settled::Recorded && end.to == StepState::Cancelled {
            release_items(store, &end.run, end.step).await;
        }
    }
}

/// The items of a run that has ended are kept no longer than the run; those of one step, if it is named.
async fn release_items(store: &Partition, run: &RunRef, only: Option<u32>) {
    let each = |step: &u32| run.plan.step(*step).is_some_and(|step| step.for_each.is_some());
    let all = 0..u32::try_from(run.plan.steps.len()).unwrap_or(u32::MAX);
    let steps: Vec<u32> = all.filter(|step| only.is_none_or(|only| only == *step)).filter(each).collect();
    // if this fails, they expire later by themselves
    if let Err(error) = store.keep_items(&run.id, &steps, run.retention_ms).await {
        tracing::debug!(run = %run.id, %error, "the items of an ended run are kept for longer than it");
    }
}

fn outcome_row<'a>(
    (entry, end): (&'a EntryId, &'a StepEnd),
    error: &'a str,
    origin: &'a str,
    (dependents, more): (Vec<Dependent<'a>>, Option<u32>),
) -> StepOutcome<'a> {
    let planned = end.step.and_then(|step| end.run.plan.step(step));
    StepOutcome {
        entry,
        run: &end.run.id,
        workflow: &end.run.workflow,
        step: end.step,
        name: planned.map_or(origin, |step| &*step.id),
        to: end.to,
        attempt: end.attempt,
        ran: end.ran,
        output: &end.output,
        error,
        code: end.error.as_ref().map_or("", |error| &error.code),
        reason: end.error.as_ref().map_or("", |error| &error.message),
        steps: end.run.plan.main() as usize,
        mode: end.mode,
        retention_ms: end.run.retention_ms,
        publishes: end.run.publishes,
        reply_to: end.run.reply_to.as_deref(),
        more,
        dependents,
    }
}

const fn word(answer: Settled) -> &'static str {
    match answer {
        Settled::Recorded | Settled::RunEnded => "recorded",
        Settled::Stale => "stale",
        Settled::Conflict => "conflict",
        Settled::RunGone => "run_gone",
        Settled::Corrupt => "corrupt",
    }
}

async fn items(shared: &Shared, store: &Partition, queue: &str, ends: &[Owned<ItemEnd>]) {
    let errors: Vec<String> = ends
        .iter()
        .map(|(_, end)| end.error.as_ref().map(crate::outcome::Fault::json).unwrap_or_default())
        .collect();
    let rows: Vec<_> =
        ends.iter().zip(&errors).filter_map(|((entry, end), error)| item_row(entry, end, error)).collect();
    let who = &shared.consumer;
    let answers = shared.persist("settling items", || store.settle_items(queue, who, &rows)).await;
    for answer in answers {
        shared.metrics.settled.with(&[word(answer)]).inc();
    }
}

fn item_row<'a>(entry: &'a EntryId, end: &'a ItemEnd, error: &'a str) -> Option<ItemOutcome<'a>> {
    let planned = end.run.plan.step(end.step)?;
    Some(ItemOutcome {
        entry,
        run: &end.run.id,
        workflow: &end.run.workflow,
        step: end.step,
        item: end.item,
        name: &planned.id,
        queue: end.run.queue_of(end.step),
        to: end.to,
        attempt: end.attempt,
        ran: end.ran,
        output: &end.output,
        error,
        failed: end.to != tidemill_protocol::StepState::Succeeded,
        did_not_run: end.did_not_run,
        tolerate: planned.for_each.as_ref().map_or_else(|| "0".to_owned(), |each| tolerated(each.tolerate)),
    })
}

/// As the function library reads it.
fn tolerated(tolerance: Tolerance) -> String {
    match tolerance {
        Tolerance::Count(count) => count.to_string(),
        Tolerance::Percent(percent) => format!("{percent}%"),
    }
}

/// How long the items of a run without a deadline are kept, at least.
const LONGEST_UNBOUNDED_MS: u64 = 7 * 24 * 3600 * 1000;

/// Inputs of items written in one command.
const ITEMS: usize = 500;

/// Long enough for the run to end and its retention to pass, whatever its caller's deadline; its end makes this shorter.
pub(crate) fn keep_items_ms(run: &RunRef) -> u64 {
    run.retention_ms.saturating_add(run.plan.timeout_ms.unwrap_or(0).max(LONGEST_UNBOUNDED_MS))
}

/// Writes the inputs of items; done twice it changes nothing.
async fn write_items(
    shared: &Shared,
    store: &Partition,
    (run, step): (&RunRef, u32),
    items: &[bytes::Bytes],
) {
    let keep_ms = keep_items_ms(run);
    for (chunk, inputs) in items.chunks(ITEMS).enumerate() {
        let fields: Vec<_> = inputs
            .iter()
            .enumerate()
            .map(|(at, input)| (format!("i{}", chunk * ITEMS + at), &input[..]))
            .collect();
        shared.persist("writing items", || store.write_items(&run.id, step, &fields, keep_ms)).await;
    }
}

async fn begin(shared: &Shared, store: &Partition, queue: &str, (entry, expand): (&EntryId, &Expand)) {
    let Expand { run, step, attempt, items } = expand;
    let Some(planned) = run.plan.step(*step) else { return };
    if items.is_empty() {
        let end = crate::assignment::step_end(
            run.clone(),
            *step,
            tidemill_protocol::StepState::Succeeded,
            *attempt,
            std::time::Duration::ZERO,
        );
        let end = StepEnd { output: bytes::Bytes::from_static(b"[]"), ..end };
        return steps(shared, store, (queue, run.home()), &[(entry.clone(), Box::new(end))]).await;
    }
    let keep_ms = keep_items_ms(run);
    write_items(shared, store, (run, *step), items).await;
    let expansion = Expansion {
        entry,
        run: &run.id,
        workflow: &run.workflow,
        step: *step,
        name: &planned.id,
        attempt: *attempt,
        total: items.len() as u64,
        concurrency: planned.for_each.as_ref().map_or(1, |each| u64::from(each.concurrency)),
        queue: run.queue_of(*step),
        keep_ms,
    };
    let begun =
        shared.persist("beginning a for_each", || store.expand(queue, &shared.consumer, &expansion)).await;
    if begun {
        return count(shared, &[true]);
    }
    // its run may have ended, or begun to, meanwhile: then the entry is still ours; otherwise this changes nothing
    let fault = crate::outcome::Fault::new("run_ended", "the run had ended before");
    let cancelled = crate::assignment::step_end(
        run.clone(),
        *step,
        StepState::Cancelled,
        *attempt,
        std::time::Duration::ZERO,
    );
    let mode = tidemill_store::Mode { did_not_run: true, ..cancelled.mode };
    let cancelled = StepEnd { error: Some(fault), mode, ..cancelled };
    steps(shared, store, (queue, run.home()), &[(entry.clone(), Box::new(cancelled))]).await;
}

async fn end(shared: &Shared, store: &Partition, queue: &str, (entry, finish): (&EntryId, &Finish)) {
    let error = finish.error.as_ref().map(crate::outcome::Fault::json).unwrap_or_default();
    let row = FinishRun {
        home: finish.run.home(),
        entry,
        id: &finish.run.id,
        workflow: &finish.run.workflow,
        to: finish.to,
        output: &finish.output,
        error: &error,
        code: finish.error.as_ref().map_or("", |error| &error.code),
        reason: finish.error.as_ref().map_or("", |error| &error.message),
        retention_ms: finish.run.retention_ms,
        reply_to: finish.run.reply_to.as_deref(),
    };
    let ended = shared.persist("finishing a run", || store.finish(queue, &shared.consumer, &row)).await;
    if ended {
        shared.modes.ended(&shared.clock, &finish.run);
        release_items(store, &finish.run, None).await;
    }
    count(shared, &[ended]);
}
