//! What would begin while its run or workflow is paused: it is put aside, at no cost.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidemill_protocol::{CHILD, Part};
use tidemill_store::{DeferState, Deferral, Due, Partition, PauseNote, PauseOf, keys};

use super::Known;
use crate::assignment::slot_of;
use crate::outcome::{Ending, Outcome};
use crate::shared::Shared;

/// It is looked at again by itself after this, in case nobody woke it.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

/// The runs of which a run is a part, the outermost first: its id begins with theirs.
fn ancestors(run: &str) -> impl Iterator<Item = &str> {
    run.match_indices(CHILD).filter_map(|(at, _)| run.get(..at))
}

/// Parts of a paused run are paused, those too that it had asked for before and that started after: each looks at the runs that it is a
/// part of. Runs that are parts of none, which nearly all are, cost nothing.
pub(super) async fn inherit(shared: &Shared, store: &Partition, known: &mut [Known]) {
    let mut runs: Vec<&str> = known.iter().flat_map(|known| ancestors(&known.part.run)).collect();
    runs.sort_unstable();
    runs.dedup();
    if runs.is_empty() {
        return;
    }
    let field = vec!["pz".to_owned()];
    let wanted: Vec<_> = runs.iter().map(|run| (store.keys().run(run), field.clone())).collect();
    let rows = shared.persist("asking what is paused", || store.run_fields(&wanted)).await;
    let noted = |(run, row): (&str, Vec<Option<Bytes>>)| Some((run.to_owned(), row.into_iter().next()??));
    let paused: HashMap<String, Bytes> = runs.into_iter().zip(rows).filter_map(noted).collect();
    if paused.is_empty() {
        return;
    }
    for known in known {
        let Some(note) = ancestors(&known.part.run).find_map(|run| paused.get(run)).cloned() else {
            continue;
        };
        known.fields.insert("pz".to_owned(), note);
    }
}

/// Why it may not begin now: the run that is paused, or its workflow.
pub(super) fn of(shared: &Shared, known: &Known) -> Option<String> {
    if let Some(text) = known.text("pz") {
        let note = serde_json::from_str::<PauseNote>(text).ok().map(|note| note.run);
        let run = note.filter(|run| !run.is_empty());
        return Some(PauseOf::Run(run.as_deref().unwrap_or(&known.part.run)).reason());
    }
    let workflow = &known.run.workflow;
    let name = workflow.split('@').next().unwrap_or(workflow);
    shared.pauses.has_workflow(workflow).then(|| PauseOf::Workflow(name).reason())
}

/// Puts it aside. Where it was resumed meanwhile, it is due at once: whoever resumed it may have looked too early to find it.
pub(super) async fn put_aside(shared: &Arc<Shared>, known: Known, reason: &str) -> Outcome {
    let (step, item) = match known.part.part {
        Part::Item { step, item } => (step, Some(item)),
        Part::Step { step } | Part::Gather { step } => (step, None),
        Part::Finish | Part::Fan { .. } | Part::Close => (0, None),
    };
    let store = &shared.store.partitions()[known.place.partition as usize];
    let slot = slot_of(&known.run, step, item);
    let members = [slot.member()];
    let queue = shared.queues.name(usize::from(known.place.queue));
    let deferral = [Deferral {
        entry: &known.entry,
        id: &known.part.run,
        slot: Some(slot),
        state: DeferState::Parked,
        due: Due::In(LOOK_AGAIN),
        note: reason,
        ran: Duration::ZERO,
        attempt: known.part.attempt,
        changes: Vec::new(),
    }];
    let who = &shared.consumer;
    shared
        .persist("putting aside what is paused", || store.defer(queue, keys::WORKERS, who, &deferral))
        .await;
    if !shared.persist("asking what is paused", || is_paused(shared, &known)).await {
        shared.persist("making work due", || store.make_due(keys::base_of(queue), &members)).await;
    }
    Outcome { place: known.place, entry: known.entry, ending: Ending::Acknowledge }
}

async fn is_paused(shared: &Shared, known: &Known) -> Result<bool, tidemill_store::Error> {
    let store = &shared.store.partitions()[known.place.partition as usize];
    let run = &*known.part.run;
    let field = vec!["pz".to_owned()];
    let wanted: Vec<_> =
        ancestors(run).chain([run]).map(|run| (store.keys().run(run), field.clone())).collect();
    if store.run_fields(&wanted).await?.into_iter().flatten().any(|value| value.is_some()) {
        return Ok(true);
    }
    shared.pauses.read(shared.store.home()).await?;
    Ok(shared.pauses.has_workflow(&known.run.workflow))
}

#[cfg(test)]
mod tests {
    use super::ancestors;

    #[test]
    fn a_run_is_a_part_of_all_that_its_id_begins_with() {
        assert_eq!(ancestors("r").count(), 0);
        assert_eq!(ancestors("r~a.0~b.1").collect::<Vec<_>>(), ["r", "r~a.0"]);
    }
}
