//! Runs in the mode `state_machine`: a transition is looked up in the table, and the record that it starts from in Redis, before
//! anything is run for it. In the other modes the function that settles refuses what is not legal, after the fact.

use std::sync::Arc;

use bytes::Bytes;
use tidemill_protocol::{Part, StepRecord, StepState};
use tidemill_store::ItemText;

use super::Known;
use crate::outcome::{Fault, Outcome, StepEnd};
use crate::shared::Shared;

/// Lets a part through that stands where its entry says. The others are settled as failed: where the record belongs to another entry,
/// that is refused in turn and nothing is written; where it is this one's and in a state from which it cannot begin, the step fails with
/// `illegal_transition`. Either way nothing is run and the entry is gone.
pub(super) async fn check(shared: &Arc<Shared>, known: Known) -> Result<Known, Outcome> {
    let (Part::Step { step } | Part::Item { step, .. } | Part::Gather { step }) = known.part.part else {
        return Ok(known);
    };
    let begins = !matches!(known.part.part, Part::Gather { .. });
    let text = record_of(shared, &known, step).await;
    let record = text.as_deref().and_then(|text| StepRecord::parse(std::str::from_utf8(text).ok()?));
    let stands = record.as_ref().map_or(StepState::Pending, |record| record.state);
    let is_its_own =
        record.is_some_and(|record| !begins || record.entry.as_deref() == Some(known.entry.as_str()));
    let is_legal = if begins { stands.may_become(StepState::Running) } else { stands == StepState::Running };
    if is_legal && is_its_own {
        count(shared, true, 1);
        return Ok(known);
    }
    count(shared, false, 1);
    let (run, entry, from) = (&known.part.run, known.entry.as_str(), stands.as_str());
    tracing::error!(
        run,
        step,
        entry,
        from,
        to = "running",
        "an illegal transition was refused before anything was run for it"
    );
    let message = format!("the step is {from} and not in flight by entry {entry}: it may not begin");
    Err(known.failed(Fault::new("illegal_transition", message)))
}

async fn record_of(shared: &Shared, known: &Known, step: u32) -> Option<Bytes> {
    let store = &shared.store.partitions()[known.place.partition as usize];
    let run = &known.part.run;
    let found = match known.part.part {
        Part::Item { item, .. } => {
            let field = [format!("s{item}")];
            shared
                .persist("reading an item's record", || store.items(run, step, &field))
                .await
                .into_iter()
                .map(ItemText::text)
                .collect()
        }
        Part::Step { .. } | Part::Gather { .. } | Part::Finish | Part::Close | Part::Fan { .. } => {
            let wanted = [(store.keys().run(run), vec![format!("s{step}")])];
            shared
                .persist("reading a step's record", || store.run_fields(&wanted))
                .await
                .pop()
                .unwrap_or_default()
        }
    };
    found.into_iter().next().flatten()
}

/// Looks up the transition with which a step ends; `accepted` is what the function answered.
pub(crate) fn ended(shared: &Shared, end: &StepEnd, accepted: bool) {
    if !end.run.mode.checks_moves() || end.step.is_none() {
        return;
    }
    let from = if end.mode.did_not_run { StepState::Ready } else { StepState::Running };
    let is_legal = accepted && from.may_become(end.to);
    count(shared, is_legal, 1);
    if !is_legal {
        let (run, step, from, to) = (&*end.run.id, end.step, from.as_str(), end.to.as_str());
        tracing::error!(run, step, from, to, "a transition was refused");
    }
}

fn count(shared: &Shared, accepted: bool, moves: u64) {
    let verdict = if accepted { "accepted" } else { "refused" };
    shared.metrics.transitions.with(&[verdict]).inc_by(moves);
}
