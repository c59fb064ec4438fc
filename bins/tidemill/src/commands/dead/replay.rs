//! Putting a dead letter's work back.

use tidemill_protocol::EntryId;

use super::Found;
use crate::context::Context;
use crate::error::Error;

/// Why a letter was not replayed.
pub(super) enum Refused {
    /// This one cannot be.
    Letter(String),
    /// None can be now.
    Redis(Error),
}

impl From<tidemill_store::Error> for Refused {
    fn from(error: tidemill_store::Error) -> Self {
        Self::Redis(error.into())
    }
}

/// Puts a letter's work back and gives the id under which it goes on; `None` when somebody else was faster.
pub(super) async fn replay(
    context: &Context,
    found: &Found<'_>,
    dry_run: bool,
) -> Result<Option<String>, Refused> {
    let (partition, letter) = (found.partition, &found.letter);
    let keys = partition.keys();
    let ended_run = letter.stream.starts_with(&keys.run(""));
    let target = if ended_run { keys.runs() } else { letter.stream.clone() };
    if target != keys.runs() && !target.starts_with(&keys.jobs("")) {
        return Err(Refused::Letter(format!(
            "it came from {target:?}, which is no stream of {:?}",
            context.settings.namespace
        )));
    }
    if letter.fields.is_empty() {
        return Err(Refused::Letter("its original fields are not kept".to_owned()));
    }
    let part_of_run = letter.field("run").and_then(|run| run.split(' ').next().map(str::to_owned));
    if let Some(run) = &part_of_run
        && partition.summaries(std::slice::from_ref(run)).await?.iter().all(|run| run.state.is_terminal())
    {
        return Err(Refused::Letter(format!("it is a step of run {run:?}, which has ended; replay the run")));
    }
    let mut fields = letter.fields.clone();
    // it is to begin now, whatever was wanted of its first beginning
    fields.retain(|(name, _)| !["delay_ms", "run_at_ms", "deadline_ms"].contains(&name.as_str()));
    let mut id = part_of_run;
    if ended_run {
        // the run of this id is kept and has ended: what follows is another run
        fields.retain(|(name, _)| name != "id");
    } else if id.is_none() && EntryId::parse(letter.entry.clone()).is_ok() {
        // it goes on under its id, which is known by its first entry: without that it would count as a repetition
        fields.push(("_entry".to_owned(), letter.entry.clone().into_bytes()));
        id = Some(found.work());
    }
    if dry_run {
        return Ok(Some(found.work()));
    }
    let entry = partition.replay(&letter.letter, &target, &fields).await?;
    Ok(entry.map(|entry| id.unwrap_or(entry)))
}
