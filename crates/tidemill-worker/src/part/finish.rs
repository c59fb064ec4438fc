//! The end of a run whose output is computed from its steps.

use std::sync::Arc;

use bytes::Bytes;
use tidemill_protocol::RunState;
use tidemill_workflow::Finish as Output;

use super::{Known, step};
use crate::outcome::{Ending, Fault, Finish, Outcome};
use crate::shared::Shared;

pub(super) async fn finish(known: Known, shared: &Arc<Shared>) -> Outcome {
    let (known, output) = step::evaluate(shared, known, |known, limits| match &known.run.plan.finish {
        Output::Evaluate(template) => template.render(&known.scope(template.references(), None), limits),
        // it ended before another: it waited for some of its needs alone
        Output::Sink(sink) => {
            Ok(known.field(&format!("o{sink}")).map(|output| output.to_vec()).unwrap_or_default())
        }
    })
    .await;
    match output {
        Ok(output) => end(known, RunState::Succeeded, Bytes::from(output), None),
        Err(fault) => {
            failed(known, Fault::new(fault.code, format!("the workflow's output: {}", fault.message)))
        }
    }
}

pub(super) fn failed(known: Known, fault: Fault) -> Outcome {
    end(known, RunState::Failed, Bytes::new(), Some(fault))
}

fn end(known: Known, to: RunState, output: Bytes, error: Option<Fault>) -> Outcome {
    let finish = Finish { run: known.run, to, output, error };
    Outcome { place: known.place, entry: known.entry, ending: Ending::Finish(Box::new(finish)) }
}
