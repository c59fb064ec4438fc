//! Settling steps that wait, and what is next at a run's end.

use tidemill_protocol::{EntryId, StepState};
use tidemill_store::{Closing, NextClosing, Partition, Waited, Waiting};
use tidemill_workflow::orchestrate::{Close, Turn};

use super::{keep_items_ms, steps, write_items};
use crate::assignment::{slot_of, step_end};
use crate::outcome::{CloseRun, Fault, StepEnd, WaitStep};
use crate::shared::Shared;

/// The key of a step's letter to itself.
const ANSWER: &str = "answer";

pub(super) async fn wait(
    shared: &Shared,
    store: &Partition,
    queue: &str,
    (entry, wait): (&EntryId, &WaitStep),
) {
    let WaitStep { run, step, attempt, ran, turn, requests, read, answer } = wait;
    put_by(shared, store, wait).await;
    crate::part::cancel_children(shared, store, (run, *step), &turn.cancel).await;
    let slot = slot_of(run, *step, None);
    let letter = answer.as_ref().map(|output| {
        // an output is JSON text already
        let mut letter = br#"{"type":"answered","output":"#.to_vec();
        letter.extend_from_slice(if output.is_empty() { b"null" } else { output });
        letter.push(b'}');
        (ANSWER, letter)
    });
    let row = Waiting {
        entry,
        slot: &slot,
        workflow: &run.workflow,
        attempt: *attempt,
        ran: *ran,
        memo: &turn.memo,
        alarm: turn.alarm.map(|alarm| (alarm.at_ms, alarm.generation)),
        why: &turn.why,
        read,
        letter: letter.as_ref().map(|(key, letter)| (*key, &letter[..])),
        listen: &turn.listen,
        publish: &turn.publish,
        requests: requests.clone(),
        queue: run.queue_of(*step),
    };
    let who = &shared.consumer;
    let waited = shared.persist("putting a step to wait", || store.wait(queue, who, &row)).await;
    shared.metrics.settled.with(&[word(waited)]).inc();
    match waited {
        Waited::Waits | Waited::ReadyAgain | Waited::Stale | Waited::RunGone => {}
        Waited::Conflict => tracing::warn!(run = %run.id, step, %entry, "a step was refused to wait"),
        Waited::RunEnded => give_up(shared, store, queue, (entry, wait)).await,
    }
}

/// Its run ended, or began to, while it was looked at: what it asked for was not written, so there is nothing but its own end.
async fn give_up(shared: &Shared, store: &Partition, queue: &str, (entry, wait): (&EntryId, &WaitStep)) {
    let WaitStep { run, step, attempt, ran, turn, .. } = wait;
    let open = tidemill_workflow::orchestrate::open_children(&turn.memo);
    crate::part::cancel_children(shared, store, (run, *step), &open).await;
    let end = step_end(run.clone(), *step, StepState::Cancelled, *attempt, *ran);
    let fault = Fault::new("run_ended", "the run had ended before");
    let end = StepEnd { error: Some(fault), ..end };
    steps(shared, store, (queue, run.home()), &[(entry.clone(), Box::new(end))]).await;
}

/// Items and outputs that the turn puts by: written before it is settled, the same each time.
async fn put_by(shared: &Shared, store: &Partition, wait: &WaitStep) {
    let WaitStep { run, step, turn, .. } = wait;
    if let Some(items) = &turn.items {
        write_items(shared, store, (run, *step), items).await;
    }
    keep(shared, store, (&run.id, *step), (turn, keep_items_ms(run))).await;
}

/// Outputs by their index.
pub(crate) async fn keep(
    shared: &Shared,
    store: &Partition,
    (run, step): (&str, u32),
    (turn, keep_ms): (&Turn, u64),
) {
    if turn.keep.is_empty() {
        return;
    }
    let fields: Vec<_> = turn.keep.iter().map(|(index, output)| (format!("o{index}"), &output[..])).collect();
    shared.persist("putting outputs by", || store.write_items(run, step, &fields, keep_ms)).await;
}

const fn word(waited: Waited) -> &'static str {
    match waited {
        Waited::Waits | Waited::ReadyAgain | Waited::RunEnded => "recorded",
        Waited::Stale => "stale",
        Waited::Conflict => "conflict",
        Waited::RunGone => "run_gone",
    }
}

pub(super) async fn close(
    shared: &Shared,
    store: &Partition,
    queue: &str,
    (entry, close): (&EntryId, &CloseRun),
) {
    let CloseRun { run, seen, next } = close;
    let named = |step: u32| (run.plan.step(step).map_or("?", |step| &*step.id), run.queue_of(step));
    let next = match *next {
        Close::Wait => NextClosing::Wait,
        Close::Dispatch(step) => {
            let (name, queue) = named(step);
            if run.plan.finally.contains(&step) {
                NextClosing::Last(step, name, queue)
            } else {
                NextClosing::Undo(step, name, queue)
            }
        }
        Close::End(to) => NextClosing::End(to),
    };
    let row = Closing {
        entry,
        run: &run.id,
        workflow: &run.workflow,
        seen: *seen,
        next,
        retention_ms: run.retention_ms,
        reply_to: run.reply_to.as_deref(),
    };
    let who = &shared.consumer;
    let closed = shared.persist("closing a run", || store.close(queue, who, &row)).await;
    if closed == Some(true) {
        shared.modes.ended(&shared.clock, run);
        super::release_items(store, run, None).await;
    }
    super::count(shared, &[closed.is_some()]);
}
