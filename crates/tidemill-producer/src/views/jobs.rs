//! Where a job is.

use serde::Deserialize;
use tidemill_protocol::EntryId;
use tidemill_store::{JobStatus, Partition, Store};

use super::{JobView, line_views, raw};
use crate::refusal::{Code, Refusal};

/// Finds a job by its id, in `queue` if one is named, else in all.
///
/// # Errors
/// The job is unknown, or Redis is not available.
pub async fn job(store: &Store, queue: Option<&str>, id: &str) -> Result<JobView, Refusal> {
    let (_, status) = status_of(store, queue, id).await?;
    let line = match &status {
        JobStatus::InLine { place, .. } => line_views(store, vec![place.clone()]).await?.pop(),
        _ => None,
    };
    Ok(JobView { line, ..view(id, status)? })
}

/// The status of a job and the partition that it was found in.
pub(crate) async fn status_of<'s>(
    store: &'s Store,
    queue: Option<&str>,
    id: &str,
) -> Result<(&'s Partition, JobStatus), Refusal> {
    tidemill_protocol::check_id(id)
        .map_err(|error| Refusal::new(Code::UnknownJob, format!("no job can have this id: {error}")))?;
    let own = store.partition_of(id);
    let status = own.job_status(queue, id).await?;
    // a job without an id of its own is known by its entry, which may stand in any partition
    if status == JobStatus::Unknown && EntryId::parse(id.to_owned()).is_ok() {
        for partition in store.partitions().iter().filter(|other| other.index() != own.index()) {
            let status = partition.job_status(queue, id).await?;
            if status != JobStatus::Unknown {
                return Ok((partition, status));
            }
        }
    }
    Ok((own, status))
}

#[derive(Deserialize)]
struct Ending {
    state: String,
}

fn view(id: &str, status: JobStatus) -> Result<JobView, Refusal> {
    let mut view = JobView {
        id: id.to_owned(),
        state: String::new(),
        queue: None,
        entry: None,
        worker: None,
        held_ms: None,
        due_at_ms: None,
        line: None,
        why: None,
        result: None,
        dead_letter: None,
    };
    let state = match status {
        JobStatus::Queued { queue, entry } => {
            (view.queue, view.entry) = (Some(queue), Some(entry));
            "queued"
        }
        JobStatus::Running { queue, entry, consumer, held_ms } => {
            (view.queue, view.entry) = (Some(queue), Some(entry));
            (view.worker, view.held_ms) = (Some(consumer), Some(held_ms));
            "running"
        }
        JobStatus::Deferred { queue, due_ms, why } => {
            (view.queue, view.due_at_ms, view.why) = (Some(queue), Some(due_ms), why);
            "deferred"
        }
        JobStatus::InLine { queue, why, .. } => {
            (view.queue, view.why) = (Some(queue), why);
            "parked"
        }
        JobStatus::Ended(text) => {
            view.state =
                serde_json::from_str::<Ending>(&text).map_or_else(|_| "ended".to_owned(), |e| e.state);
            view.result = raw(text);
            return Ok(view);
        }
        JobStatus::Buried(letter) => {
            view.dead_letter = Some(letter.into());
            "failed"
        }
        JobStatus::Cancelled => "cancelled",
        JobStatus::Accepted => "accepted",
        JobStatus::Unknown => {
            let detail = format!(
                "no job {id:?} is known: it never was, or it has ended and its result is not kept (ask for one with \"result_ttl_ms\")"
            );
            return Err(Refusal::new(Code::UnknownJob, detail));
        }
    };
    state.clone_into(&mut view.state);
    Ok(view)
}
