//! Where an id lives, and whether it is a job's or a run's.

use tidemill_protocol::check_any_id;
use tidemill_store::{JobStatus, Partition, keys};

use crate::context::Context;
use crate::error::{Error, Outcome};

/// What an id names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// A run that has started, or has ended and is kept.
    Run,
    /// A run that is asked for and has not started.
    Requested,
    /// A job.
    Job(JobStatus),
}

impl Found {
    /// Whether it is a run.
    pub(crate) const fn is_run(&self) -> bool {
        matches!(self, Self::Run | Self::Requested)
    }
}

/// Finds a job or run by its id: first where ids of its kind belong, then in the other partitions.
pub(crate) async fn locate<'c>(context: &'c Context, id: &str) -> Outcome<(&'c Partition, Found)> {
    match find(context, id).await? {
        Some(found) => Ok(found),
        None => Err(Error::failed(
            "unknown_id",
            format!(
                "no job or run {id:?} is known: it never was, or it has ended and left nothing behind \
                 (a job keeps its result only if it is enqueued with --result-ttl-ms)"
            ),
        )),
    }
}

/// As [`locate`], but an unknown id is no error.
pub(crate) async fn find<'c>(context: &'c Context, id: &str) -> Outcome<Option<(&'c Partition, Found)>> {
    check_any_id(id)?;
    match look(context, id).await? {
        // what moves between two reads may be missed once
        None | Some((_, Found::Job(JobStatus::Accepted))) => look(context, id).await,
        found => Ok(found),
    }
}

async fn look<'c>(context: &'c Context, id: &str) -> Outcome<Option<(&'c Partition, Found)>> {
    let partitions = context.partitions_for(id);
    let ids = [id.to_owned()];
    for partition in &partitions {
        if !partition.summaries(&ids).await?.is_empty() {
            return Ok(Some((partition, Found::Run)));
        }
    }
    for partition in &partitions {
        let requested = match partition.job_status(Some(keys::RUNS), id).await? {
            JobStatus::Queued { .. }
            | JobStatus::Running { .. }
            | JobStatus::Deferred { .. }
            | JobStatus::InLine { .. } => true,
            JobStatus::Buried(letter) => letter.field("workflow").is_some(),
            JobStatus::Ended(_) | JobStatus::Cancelled | JobStatus::Accepted | JobStatus::Unknown => false,
        };
        if requested {
            return Ok(Some((partition, Found::Requested)));
        }
        let status = partition.job_status(None, id).await?;
        if status != JobStatus::Unknown {
            return Ok(Some((partition, Found::Job(status))));
        }
    }
    Ok(None)
}
