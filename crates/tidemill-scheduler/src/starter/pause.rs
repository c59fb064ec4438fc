//! Requests for runs of a paused workflow are put aside until it is resumed.

use std::collections::BTreeSet;
use std::time::Duration;

use tidemill_store::{DeferState, Deferral, Due, PauseOf, keys};

use super::Starter;
use super::request::Request;
use crate::Error;

/// They are looked at again by themselves after this, in case nobody woke them.
const LOOK_AGAIN: Duration = Duration::from_secs(600);

fn name_of(request: &Request) -> &str {
    request.workflow().split('@').next().unwrap_or_default()
}

impl Starter {
    /// Puts aside what may not start now; blocks belong to runs that have begun. Where a workflow was resumed meanwhile, they are due
    /// at once: whoever resumed it may have looked too early to find them.
    pub(super) async fn hold(
        &self,
        requests: Vec<(Request, Option<u64>)>,
    ) -> Result<Vec<(Request, Option<u64>)>, Error> {
        let home = self.context.store.home();
        let paused = home.paused().await?.workflows;
        let (held, ready): (Vec<_>, Vec<_>) = requests
            .into_iter()
            .partition(|(request, _)| request.block().is_none() && paused.contains_key(name_of(request)));
        if held.is_empty() {
            return Ok(ready);
        }
        let reasons: Vec<String> =
            held.iter().map(|(request, _)| PauseOf::Workflow(name_of(request)).reason()).collect();
        let deferral = |((request, left_ms), note): (&(Request, Option<u64>), &String)| {
            // at its deadline it is looked at and told that it is too late
            let wait = left_ms.map_or(LOOK_AGAIN, |left| LOOK_AGAIN.min(Duration::from_millis(left)));
            (request.entry.clone(), request.id.clone(), note.clone(), wait)
        };
        let rows: Vec<_> = held.iter().zip(&reasons).map(deferral).collect();
        let deferrals: Vec<Deferral<'_>> = rows
            .iter()
            .map(|(entry, id, note, wait)| Deferral {
                entry,
                id,
                slot: None,
                state: DeferState::Delayed,
                due: Due::In(*wait),
                note,
                ran: Duration::ZERO,
                attempt: 0,
                changes: Vec::new(),
            })
            .collect();
        self.partition.defer(keys::RUNS, keys::SCHEDULERS, &self.context.who, &deferrals).await?;
        let now = home.paused().await?.workflows;
        let asked: BTreeSet<&str> = held.iter().map(|(request, _)| name_of(request)).collect();
        for name in asked.into_iter().filter(|name| !now.contains_key(*name)) {
            self.partition.wake_noted(&PauseOf::Workflow(name).reason()).await?;
        }
        Ok(ready)
    }
}
