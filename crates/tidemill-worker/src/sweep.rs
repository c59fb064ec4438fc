//! The sweep: a worker answers for what it holds.
//!
//! A reply that never came may have claimed entries. Redis says that this worker holds them, the worker beats, and nobody works on
//! them. So from time to time, and after each fault, the worker compares Redis's list with what it knows, and hands back what was
//! unknown twice, with every outcome that existed the first time settled in between.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tidemill_protocol::{EntryId, ExecutionMode, Part, Reader, StepState, Work};
use tidemill_store::{Burial, ClaimedEntry, Error, Held, Partition, Released, keys};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use crate::assignment::slot_of;
use crate::executor::Event;
use crate::outcome::Lane;
use crate::outcome::RunRef;
use crate::part;
use crate::shared::Shared;

/// Entries looked at in one go.
const PAGE: usize = 1_000;
/// After a fault the second look comes sooner than the next regular one.
const SECOND_LOOK: Duration = Duration::from_millis(500);

/// Sweeps one partition until the token is cancelled.
pub(crate) async fn run(
    shared: Arc<Shared>,
    partition: usize,
    events: UnboundedSender<Event>,
    (token, wanted): (CancellationToken, Arc<Notify>),
) {
    let store = shared.store.partitions()[partition].clone();
    let regular = Duration::from_millis(shared.settings.sweep_ms);
    let (mut suspects, mut marks) = (HashSet::<EntryId>::new(), [0; 2]);
    loop {
        let pause = if suspects.is_empty() { regular } else { SECOND_LOOK.min(regular) };
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            () = wanted.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
        // asked before the look: what it shows may have been settled while it was under way
        let passed = Lane::ALL
            .into_iter()
            .zip(marks)
            .all(|(lane, mark)| shared.backlog(partition, lane).has_passed(mark));
        let Ok(unknown) = look(&shared, &store, &events).await else { continue };
        if passed {
            let lost: Vec<_> =
                unknown.iter().filter(|(_, entry)| suspects.contains(entry)).cloned().collect();
            if !lost.is_empty()
                && let Err(error) = hand_back(&shared, &store, &lost).await
            {
                tracing::warn!(%error, "entries that nobody knows of could not be handed back; trying again");
            }
        }
        suspects = unknown.into_iter().map(|(_, entry)| entry).collect();
        marks = Lane::ALL.map(|lane| shared.backlog(partition, lane).mark());
    }
}

/// What Redis says we hold and the executor does not know, with the queue's index.
async fn look(
    shared: &Shared,
    store: &Partition,
    events: &UnboundedSender<Event>,
) -> Result<Vec<(usize, EntryId)>, Error> {
    let mut unknown = Vec::new();
    for (queue, name) in shared.queues.names().iter().enumerate() {
        let stream = store.keys().jobs(name);
        let mut after: Option<EntryId> = None;
        loop {
            let page =
                store.pending((&stream, keys::WORKERS), Some(&shared.consumer), after.as_ref(), PAGE).await?;
            let full = page.len() == PAGE;
            after = page.last().map(|pending| pending.entry.clone());
            let (reply, answer) = oneshot::channel();
            let entries = page.into_iter().map(|pending| pending.entry).collect();
            if events.send(Event::Known(entries, reply)).is_err() {
                return Ok(Vec::new());
            }
            unknown.extend(answer.await.unwrap_or_default().into_iter().map(|entry| (queue, entry)));
            if !full {
                break;
            }
        }
    }
    Ok(unknown)
}

/// Hands back everything that Redis says we hold: the last act of a drain.
pub(crate) async fn hand_back_all(shared: &Shared, store: &Partition) -> Result<usize, Error> {
    let mut total = 0;
    for (queue, name) in shared.queues.names().iter().enumerate() {
        let stream = store.keys().jobs(name);
        loop {
            let page = store.pending((&stream, keys::WORKERS), Some(&shared.consumer), None, PAGE).await?;
            if page.is_empty() {
                break;
            }
            let held: Vec<_> = page.into_iter().map(|pending| (queue, pending.entry)).collect();
            total += held.len();
            hand_back(shared, store, &held).await?;
        }
    }
    Ok(total)
}

async fn hand_back(shared: &Shared, store: &Partition, lost: &[(usize, EntryId)]) -> Result<(), Error> {
    for chunk in lost.chunks(100) {
        for (queue, name) in shared.queues.names().iter().enumerate() {
            let stream = store.keys().jobs(name);
            let mut held = Vec::new();
            for (_, entry) in chunk.iter().filter(|(of, _)| *of == queue) {
                held.push(match store.entry(&stream, entry.as_str()).await? {
                    Some(claimed) => describe(shared, claimed).await,
                    None => Held { entry: entry.clone(), slot: None, attempt: 1 },
                });
            }
            if held.is_empty() {
                continue;
            }
            let who = &shared.consumer;
            let moved = store.release((&stream, keys::WORKERS), who, (who, None), &held).await?;
            for (_, one) in moved.iter().zip(&held).filter(|(moved, _)| **moved == Released::Unmovable) {
                bury(store, &stream, &one.entry).await?;
            }
            shared.metrics.swept.inc_by(held.len() as u64);
            tracing::warn!(
                entries = held.len(),
                queue = name,
                "entries that nobody knew of were handed back"
            );
        }
    }
    Ok(())
}

/// An entry with more fields than can be moved is no job that anybody could run.
async fn bury(store: &Partition, stream: &str, entry: &EntryId) -> Result<(), Error> {
    let burial = Burial {
        entry,
        id: entry.as_str(),
        code: "malformed",
        reason: "the entry has more fields than can be moved",
        state: StepState::Failed,
        attempts: 0,
        ttl_ms: 0,
        reply_to: None,
    };
    store.bury(stream, keys::WORKERS, &[burial]).await.map(drop)
}

/// An entry with the record that must follow its move.
async fn describe(shared: &Shared, claimed: ClaimedEntry) -> Held {
    let ClaimedEntry { entry, fields } = claimed;
    let Ok(Work::Part(part)) = Work::read(Reader::default(), fields) else {
        return Held { entry, slot: None, attempt: 1 };
    };
    let (step, item) = match part.part {
        Part::Step { step } | Part::Gather { step } => (step, None),
        Part::Item { step, item } => (step, Some(item)),
        Part::Finish | Part::Fan { .. } | Part::Close => {
            return Held { entry, slot: None, attempt: part.attempt };
        }
    };
    let slot = shared.plans.get(&part.workflow).await.ok().map(|plan| {
        let run = RunRef {
            id: part.run.as_str().into(),
            workflow: part.workflow.as_str().into(),
            plan,
            queue: None,
            retention_ms: part::DEFAULT_RETENTION_MS,
            publishes: false,
            reply_to: None,
            mode: ExecutionMode::default(),
            started_ms: None,
            budget: None,
        };
        slot_of(&run, step, item)
    });
    Held { entry, slot, attempt: part.attempt }
}
