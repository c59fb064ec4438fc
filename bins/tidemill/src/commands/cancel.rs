//! `tidemill cancel`.

use std::time::Duration;

use serde_json::json;
use tidemill_protocol::RunState;
use tidemill_store::{JobStatus, Operation, Partition, StopRun, keys};

use super::service::Who;
use crate::context::Context;
use crate::error::{Error, Outcome};
use crate::locate::{Found, locate};

/// Cancel a job or run
///
/// What waits is taken away at once; who runs it is asked to stop and learns of it within about a second.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill cancel order-42 --reason 'ordered twice'
  tidemill cancel order-42 --no-compensation
  tidemill cancel 1732000000123-0")]
pub(crate) struct Arguments {
    /// Id of a job or run
    id: String,
    /// Why; it is kept as the error of the run
    #[arg(long, default_value = "cancelled by hand")]
    reason: String,
    /// Do not undo what the run did, where its workflow says how
    #[arg(long)]
    no_compensation: bool,
    /// End a run at once even if it is ending: what is left to be done at its end is given up
    #[arg(long)]
    force: bool,
}

/// How a run is ended.
#[derive(Clone, Copy)]
struct Ending<'a> {
    reason: &'a str,
    spares: bool,
    by_force: bool,
}

/// How long a run that is just being started is waited for.
const STARTING: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

pub(crate) async fn run(context: &Context, arguments: Arguments) -> Outcome {
    let Arguments { id, reason, no_compensation, force } = arguments;
    let ending = Ending { reason: &reason, spares: no_compensation, by_force: force };
    let (partition, found) = locate(context, &id).await?;
    let at_once = match found {
        Found::Run => cancel_run(partition, &id, ending).await?,
        Found::Requested => cancel_request(partition, &id, ending).await?,
        Found::Job(status) => cancel_job(partition, &id, &reason, status).await?,
    };
    let state = if at_once { "cancelled" } else { "requested" };
    let line = match at_once {
        true => format!("{id} is cancelled"),
        false => format!("{id} runs; its worker is asked to stop it"),
    };
    context.output.told(&json!({ "id": id, "state": state }), line);
    Ok(())
}

fn ended(id: &str, state: &str) -> Error {
    Error::failed("already_ended", format!("{id} has ended already: {state}"))
}

/// Ends a run that has started; `false` when there is none.
async fn end_run(partition: &Partition, id: &str, ending: Ending<'_>) -> Outcome<bool> {
    let stop = StopRun {
        id,
        to: RunState::Cancelled,
        who: "cli",
        code: "cancelled",
        reason: ending.reason,
        only_past_deadline: false,
        spares: ending.spares,
        by_force: ending.by_force,
    };
    match partition.stop_run(&stop).await? {
        Some(true) => {
            let who = Who::here();
            let (by, why) = (who.as_str(), ending.reason);
            let operation = Operation { kind: "cancel", subject: id, by, why, ..Operation::default() };
            partition.note_operation(&operation).await?;
            Ok(true)
        }
        Some(false) => {
            let summary = partition.summaries(&[id.to_owned()]).await?.into_iter().next();
            Err(ended(id, summary.map_or("", |summary| summary.state.as_str())))
        }
        None => Ok(false),
    }
}

async fn cancel_run(partition: &Partition, id: &str, ending: Ending<'_>) -> Outcome<bool> {
    if end_run(partition, id, ending).await? {
        return Ok(true);
    }
    Err(Error::failed("unknown_run", format!("run {id:?} is gone: its retention is over")))
}

/// A run that waits for its time is taken away; one that is about to start is ended as soon as it has.
async fn cancel_request(partition: &Partition, id: &str, ending: Ending<'_>) -> Outcome<bool> {
    let reason = ending.reason;
    let waits = partition.job_status(Some(keys::RUNS), id).await?;
    if let JobStatus::Buried(letter) = waits {
        return Err(ended(id, &format!("failed, {}: {}", letter.code, letter.reason)));
    }
    let gone = match waits {
        JobStatus::Queued { queue, entry } => take_away(partition, &queue, &entry, (id, reason)).await?,
        JobStatus::Deferred { queue, .. } => partition.cancel_job(&queue, id, reason).await?,
        _ => false,
    };
    if gone {
        return Ok(true);
    }
    let started = async {
        while !end_run(partition, id, ending).await? {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(true)
    };
    tokio::time::timeout(STARTING, started).await.unwrap_or_else(|_| {
        Err(Error::failed(
            "not_started",
            format!("run {id:?} is asked for and no scheduler has started it, so it cannot be cancelled yet; start a scheduler and cancel again"),
        ))
    })
}

/// Takes a waiting entry out of its stream, and notes the id, so that it is known as cancelled.
async fn take_away(
    partition: &Partition,
    queue: &str,
    entry: &str,
    (id, reason): (&str, &str),
) -> Outcome<bool> {
    let gone = partition.cancel_job(queue, entry, reason).await?;
    if entry != id {
        partition.cancel_job(queue, id, reason).await?;
    }
    Ok(gone)
}

async fn cancel_job(partition: &Partition, id: &str, reason: &str, status: JobStatus) -> Outcome<bool> {
    match status {
        JobStatus::Queued { queue, entry } => take_away(partition, &queue, &entry, (id, reason)).await,
        JobStatus::Running { queue, .. }
        | JobStatus::Deferred { queue, .. }
        | JobStatus::InLine { queue, .. } => Ok(partition.cancel_job(&queue, id, reason).await?),
        JobStatus::Ended(text) => {
            let state = crate::waiting::read(id, &text).map(|result| result.state);
            Err(ended(id, &state.unwrap_or_default()))
        }
        JobStatus::Buried(letter) => Err(ended(id, &format!("failed, {}: {}", letter.code, letter.reason))),
        JobStatus::Cancelled => Err(ended(id, "cancelled")),
        JobStatus::Accepted | JobStatus::Unknown => Err(Error::failed(
            "not_found",
            format!(
                "job {id:?} was taken in, and has ended without a result or waits far back in its queue: nothing was cancelled"
            ),
        )),
    }
}
