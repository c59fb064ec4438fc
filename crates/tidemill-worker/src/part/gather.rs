//! The joining of a `for_each`: its items' outputs become the step's output, in order.

use std::sync::Arc;

use bytes::Bytes;
use tidemill_protocol::StepState;
use tidemill_store::ItemText;

use super::Known;
use crate::assignment::step_end;
use crate::outcome::{Ending, Fault, Outcome, StepEnd};
use crate::shared::Shared;

/// Outputs read in one round trip.
const CHUNK: u64 = 500;

pub(super) async fn gather(shared: &Arc<Shared>, known: Known, step: u32) -> Outcome {
    let count =
        |kind: char| known.text(&format!("{kind}{step}")).and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    let (total, dispatched, failed) = (count('n'), count('u'), count('h'));
    let tolerate = known
        .run
        .plan
        .step(step)
        .and_then(|planned| planned.for_each.as_ref())
        .map_or(0, |each| each.tolerate.of(total));
    if failed > tolerate {
        let message = format!("{failed} of {dispatched} items failed; {tolerate} may (for_each.tolerate)");
        return known.ended(StepState::Failed, Some(Fault::new("items_failed", message)), true);
    }
    match outputs(shared, &known, step, (total, false)).await {
        Ok(output) => {
            let attempt = known.part.attempt;
            let end = step_end(known.run, step, StepState::Succeeded, attempt, std::time::Duration::ZERO);
            let ending = Ending::Step(Box::new(StepEnd { output, ..end }));
            Outcome { place: known.place, entry: known.entry, ending }
        }
        Err(fault) => known.ended(StepState::Failed, Some(fault), true),
    }
}

/// The array of the outputs that a waiting step put by; `null` for those that it did not.
pub(super) async fn kept(shared: &Shared, known: &Known, step: u32, total: u64) -> Result<Bytes, Fault> {
    outputs(shared, known, step, (total, true)).await
}

/// The array of outputs, or why there is none.
async fn outputs(
    shared: &Shared,
    known: &Known,
    step: u32,
    (total, may_lack): (u64, bool),
) -> Result<Bytes, Fault> {
    let store = &shared.store.partitions()[known.place.partition as usize];
    let mut array = vec![b'['];
    let mut from = 0;
    while from < total {
        let to = (from + CHUNK).min(total);
        let fields: Vec<String> = (from..to).map(|item| format!("o{item}")).collect();
        let chunk = shared.persist("reading items", || store.items(&known.part.run, step, &fields)).await;
        for (at, output) in chunk.into_iter().enumerate() {
            if from > 0 || at > 0 {
                array.push(b',');
            }
            // an item without output has an empty one; one without any has expired with its record
            let output = match output {
                ItemText::Text(output) => output,
                ItemText::Missing if may_lack => Bytes::new(),
                ItemText::Missing => {
                    let message = format!("the output of item {} is not in Redis any more", from + at as u64);
                    return Err(Fault::new("lost_item", message));
                }
                ItemText::Damaged => {
                    return Err(super::damaged(&format!("the output of item {}", from + at as u64)));
                }
            };
            array.extend_from_slice(if output.is_empty() { b"null" } else { &output });
        }
        if array.len() > shared.settings.max_output_bytes {
            let most = shared.settings.max_output_bytes;
            let message = format!(
                "the outputs of {total} items have more than {most} bytes together; let the items store \
                 what is large and return references"
            );
            return Err(Fault::new("output_too_large", message));
        }
        from = to;
    }
    array.push(b']');
    Ok(Bytes::from(array))
}
