//! Cancelling a run that has started.

use tidemill_protocol::RunState;
use tidemill_store::{Operation, Partition, StopRun};

use super::{By, bounded};
use crate::refusal::{Code, Refusal};

/// How a run is cancelled.
#[derive(Debug, Clone, Copy)]
pub struct Cancel<'a> {
    /// Who and why.
    pub by: By<'a>,
    /// What it did is not undone.
    pub spares: bool,
    /// Even if it is ending already: what is left to be done at its end is given up.
    pub by_force: bool,
}

/// Cancels a run that has started. `false`: there is no such run.
///
/// # Errors
/// It has ended or is ending, or Redis is not available.
pub async fn cancel(partition: &Partition, run: &str, cancel: Cancel<'_>) -> Result<bool, Refusal> {
    let (who, by, why) = (cancel.by.word(), bounded(cancel.by.who), cancel.by.why());
    let stop = StopRun {
        id: run,
        to: RunState::Cancelled,
        who: &who,
        code: "cancelled",
        reason: &why,
        only_past_deadline: false,
        spares: cancel.spares,
        by_force: cancel.by_force,
    };
    match partition.stop_run(&stop).await? {
        Some(true) => {
            let operation =
                Operation { kind: "cancel", subject: run, by: &by, why: &why, ..Operation::default() };
            partition.note_operation(&operation).await?;
            Ok(true)
        }
        Some(false) => {
            let found = partition.summaries(&[run.to_owned()]).await?.into_iter().next();
            let state = found.map_or("gone", |run| run.state.as_str());
            let detail = format!("run {run:?} has ended already, or is ending: {state}");
            Err(Refusal::new(Code::AlreadyEnded, detail))
        }
        None => Ok(false),
    }
}
