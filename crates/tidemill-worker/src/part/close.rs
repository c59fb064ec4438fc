//! What is next at a run's end.

use tidemill_protocol::{RunState, StepState};
use tidemill_workflow::orchestrate::{Close, Standing, closing};

use super::Known;
use crate::outcome::{CloseRun, Ending, Outcome};

pub(super) fn close(known: &Known) -> Outcome {
    let ending = |ending| Outcome { place: known.place, entry: known.entry.clone(), ending };
    let Some(to) = known.text("to").and_then(RunState::parse) else {
        // it has ended meanwhile, or never began to
        return ending(Ending::Acknowledge);
    };
    let seen = known.text("cs").and_then(|count| count.parse().ok()).unwrap_or(0);
    let asked = known.field("nc").is_none();
    let next: Close = closing(&known.run.plan, &standings(known), to, asked);
    ending(Ending::Close(Box::new(CloseRun { run: known.run.clone(), seen, next })))
}

fn standings(known: &Known) -> Vec<Standing> {
    let count = u32::try_from(known.run.plan.steps.len()).unwrap_or(u32::MAX);
    let standing = |step| {
        known.record(step).map_or(Standing { state: StepState::Pending, ended: 0 }, |record| Standing {
            state: record.state,
            ended: record.ended_ms.unwrap_or(0),
        })
    };
    (0..count).map(standing).collect()
}
