//! Runs of groups: each takes its place before it starts, or waits for it, or is not to run at all.
//!
//! One that waits is put aside first and then asks whether its turn has come meanwhile, so that a place which is given back in
//! between is not overlooked by both.

use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

use futures_util::future::try_join_all;
use tidemill_protocol::{EntryId, RunState};
use tidemill_store::{
    DeferState, Deferral, Due, Entered, Entrance, GroupMember, GroupVerdict, RefusedRun, WhenFull, keys,
};
use tidemill_workflow::OnFull;

use super::Starter;
use super::batch::Prepared;
use super::request::{Refusal, Request};
use crate::Error;
use crate::groups::{call_up, left, name_of, send_away, workflow_of};

/// A request without a deadline waits for its turn as long as it takes.
const TEN_YEARS_MS: u64 = 315_360_000_000;

/// The group of a run.
#[derive(Debug)]
pub(super) struct Membership {
    pub(super) name: String,
    pub(super) limit: u32,
    pub(super) on_full: OnFull,
    /// See [`Entrance::asked`].
    pub(super) asked: u64,
}

impl Membership {
    /// All runs of the pool that have no other group and were not asked for by another run: that one would wait for a run that waits
    /// for its place.
    pub(super) fn of_pool(request: &Request, limit: Option<u32>) -> Option<Self> {
        let limit = limit.filter(|_| !request.id.contains(tidemill_protocol::CHILD))?;
        Some(Self { name: name_of("@pool", "runs"), limit, on_full: OnFull::Queue, asked: request.asked() })
    }

    fn entrance<'a>(&'a self, member: &'a GroupMember) -> Entrance<'a> {
        let when_full = match self.on_full {
            OnFull::Queue => WhenFull::Queue,
            OnFull::CancelOlder => WhenFull::CancelOlder,
            OnFull::CancelNewer => WhenFull::CancelNewer,
        };
        Entrance { group: &self.name, limit: self.limit, when_full, member, asked: self.asked }
    }

    fn refusal(&self) -> (&'static str, String) {
        let Self { name, limit, .. } = self;
        match self.on_full {
            OnFull::CancelOlder => (
                "superseded",
                format!(
                    "newer runs of group {name:?} took its place before it began, as the workflow says (on_full: cancel_older)"
                ),
            ),
            OnFull::Queue | OnFull::CancelNewer => (
                "group_full",
                format!(
                    "group {name:?} has its {limit} runs already, and the workflow lets no other wait (on_full: cancel_newer)"
                ),
            ),
        }
    }
}

impl Starter {
    /// Lets those in that may start; the others wait or end here.
    pub(super) async fn enter(
        &self,
        prepared: Vec<Prepared>,
        refusals: &mut Vec<Refusal>,
    ) -> Result<Vec<Prepared>, Error> {
        if prepared.iter().all(|run| run.membership.is_none()) {
            return Ok(prepared);
        }
        let (grouped, mut ready): (Vec<_>, Vec<_>) =
            prepared.into_iter().partition(|run| run.membership.is_some());
        let (fresh, known) = self.sort_known(grouped).await?;
        // the start drops the request of a run that exists: it takes no place
        ready.extend(known);
        let members: Vec<GroupMember> =
            fresh.iter().map(|run| GroupMember::new(&self.partition, &run.request.id)).collect();
        let asked = fresh.iter().zip(&members).filter_map(|(run, member)| {
            let entrance = run.membership.as_ref()?.entrance(member);
            Some(async move { self.context.store.partition_of(entrance.group).enter_group(&entrance).await })
        });
        let answers = try_join_all(asked).await?;
        let (mut waiting, mut refused) = (Vec::new(), Vec::new());
        for (run, Entered { verdict, gone }) in fresh.into_iter().zip(answers) {
            let group = run.membership.as_ref().map_or("", |membership| &membership.name);
            for member in &gone {
                send_away(&self.context, group, member, &run.request.id).await?;
            }
            self.leave_former(&run, group).await?;
            match verdict {
                GroupVerdict::Enters => ready.push(run),
                GroupVerdict::Waits(ahead) => waiting.push((run, ahead)),
                GroupVerdict::Refused => refused.push(run),
                GroupVerdict::Foreign => {
                    let reason =
                        format!("a key of group {group:?} holds something that Tidemill did not write");
                    refusals.push(*run.request.refuse("conflicting_key", reason));
                }
            }
        }
        self.put_aside(&waiting).await?;
        self.refuse(&refused).await?;
        Ok(ready)
    }

    /// Those that exist already, apart; and of several requests of one id in this batch only the first.
    async fn sort_known(&self, grouped: Vec<Prepared>) -> Result<(Vec<Prepared>, Vec<Prepared>), Error> {
        let wanted: Vec<_> = grouped
            .iter()
            .map(|run| (self.partition.keys().run(&run.request.id), vec!["st".to_owned()]))
            .collect();
        let found = self.partition.run_fields(&wanted).await?;
        let mut seen = HashSet::new();
        let (mut fresh, mut known) = (Vec::new(), Vec::new());
        let mut repeated: Vec<EntryId> = Vec::new();
        for (run, row) in grouped.into_iter().zip(found) {
            if row.into_iter().next().flatten().is_some() {
                known.push(run);
            } else if seen.insert(run.request.id.clone()) {
                fresh.push(run);
            } else {
                repeated.push(run.request.entry);
            }
        }
        let dropped = self.partition.drop_entries(&self.stream, keys::SCHEDULERS, &repeated).await?;
        self.context.counters.runs_repeated.inc_by(dropped);
        Ok((fresh, known))
    }

    /// A newer version of the workflow may put the run into another group than that in which it waited.
    async fn leave_former(&self, run: &Prepared, group: &str) -> Result<(), Error> {
        match run.request.job.extras().group.as_deref() {
            Some(former) if former != group => {
                left(&self.context, former, &self.partition, &run.request.id).await
            }
            _ => Ok(()),
        }
    }

    /// Gives the place back that a second request took of a run that is over, or in another group.
    pub(super) async fn leave_unused(&self, run: &Prepared) -> Result<(), tidemill_store::Error> {
        let (Some(membership), id) = (&run.membership, &run.request.id) else { return Ok(()) };
        let fields = self.partition.fields_of(id, None, &["st".to_owned(), "grp".to_owned()]).await?;
        let mut texts =
            fields.into_iter().map(|text| text.and_then(|text| String::from_utf8(text.into()).ok()));
        let state = texts.next().flatten().as_deref().and_then(RunState::parse);
        let group = texts.next().flatten();
        if state.is_some_and(RunState::is_terminal) || group.as_ref() != Some(&membership.name) {
            call_up(&self.context, &membership.name, Some(&GroupMember::new(&self.partition, id))).await?;
        }
        Ok(())
    }

    async fn put_aside(&self, waiting: &[(Prepared, u64)]) -> Result<(), Error> {
        if waiting.is_empty() {
            return Ok(());
        }
        let (mut deferrals, mut groups) = (Vec::with_capacity(waiting.len()), BTreeSet::new());
        for (run, ahead) in waiting {
            let Some(membership) = &run.membership else { continue };
            groups.insert(membership.name.as_str());
            self.context.counters.group_queued.with(&[workflow_of(&membership.name)]).inc();
            tracing::debug!(run = run.request.id, group = membership.name, ahead, "run waits for its turn");
            deferrals.push(Deferral {
                entry: &run.request.entry,
                id: &run.request.id,
                slot: None,
                state: DeferState::Delayed,
                // at its deadline it is looked at and told that it is too late
                due: Due::In(Duration::from_millis(run.left_ms.unwrap_or(TEN_YEARS_MS))),
                note: "waits for its turn in a group",
                ran: Duration::ZERO,
                attempt: 0,
                changes: vec![("_group", membership.name.clone())],
            });
        }
        self.partition.defer(keys::RUNS, keys::SCHEDULERS, &self.context.who, &deferrals).await?;
        for group in groups {
            call_up(&self.context, group, None).await?;
        }
        Ok(())
    }

    async fn refuse(&self, refused: &[Prepared]) -> Result<(), Error> {
        for run in refused {
            let Some(membership) = &run.membership else { continue };
            let (code, reason) = membership.refusal();
            let (extras, (input, fields)) = (run.request.job.extras(), run.input_and_fields());
            let refusal = RefusedRun {
                entry: &run.request.entry,
                id: &run.request.id,
                workflow: &run.workflow,
                input,
                code,
                reason: &reason,
                ttl_ms: extras.result_ttl_ms.unwrap_or(0),
                reply_to: extras.reply_to.as_deref(),
                keep_ms: run.retention_ms,
                fields,
                labels: &run.labels,
                parent: run.parent(),
            };
            if self.partition.refuse_run(&self.context.who, &refusal).await? {
                self.context.counters.runs_refused.with(&[code]).inc();
                tracing::info!(
                    run = run.request.id,
                    group = membership.name,
                    code,
                    "run cancelled before it began"
                );
            }
            call_up(&self.context, &membership.name, None).await?;
        }
        Ok(())
    }
}
