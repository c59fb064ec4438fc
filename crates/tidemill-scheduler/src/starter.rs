//! Starter: claims requests for runs, checks them, and starts them in batches.
//!
//! One starter per partition, since each blocks inside Redis on a connection of its own. What it claimed and has not handed to a
//! function yet is found again after any error by asking Redis what it holds, so a lost reply loses no run.

mod again;
mod batch;
mod budget;
mod group;
mod marks;
mod pause;
mod request;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tidemill_protocol::{EntryId, ExecutionMode, Notice, Reader, RunState};
use tidemill_runtime::crash::{self, Point};
use tidemill_runtime::duty::{Duty, Tick};
use tidemill_runtime::health::Component;
use tidemill_store::{
    Burial, ClaimedEntry, Claimer, DeferState, Deferral, Due, Fault, NewRun, Partition, Started,
    VersionState, keys,
};
use tidemill_workflow::Plan;

use crate::Error;
use crate::context::{Context, count};
use crate::plans::{NoPlan, ToStart};
use crate::waits;
use crate::{groups, modes};
use batch::{Prepared, batches};
use request::{Refusal, Request, Timing};

/// See the module.
pub(crate) struct Starter {
    context: Context,
    partition: Partition,
    claimer: Claimer,
    stream: String,
    /// Whether entries may be held that nobody is working on: after an error, a tick given up, or a new connection.
    unsure: bool,
    generation: u64,
    /// Whether this connection hears of requests: another one may be fine while it is deaf.
    hearing: Component,
}

impl Starter {
    pub(crate) fn new(context: Context, partition: &Partition, hearing: Component) -> Result<Self, Error> {
        let block = Duration::from_millis(context.settings.block_ms);
        let claimer = context.store.claimer(partition.index(), keys::SCHEDULERS, &context.who, block)?;
        let stream = partition.keys().runs();
        Ok(Self {
            context,
            partition: partition.clone(),
            claimer,
            stream,
            unsure: false,
            generation: 0,
            hearing,
        })
    }

    async fn claim(&mut self) -> Result<Vec<ClaimedEntry>, Error> {
        let wanted = [(keys::RUNS, self.context.settings.start_batch)];
        crash::before(Point::SchedulerClaim);
        let claimed = self.claimer.claim(&wanted, true).await?;
        if !claimed.is_empty() {
            crash::after(Point::SchedulerClaim);
        }
        Ok(claimed.into_iter().flat_map(|(_, entries)| entries).collect())
    }

    /// What this scheduler holds already.
    async fn held(&self) -> Result<Vec<ClaimedEntry>, Error> {
        let (group, limit) = ((&*self.stream, keys::SCHEDULERS), self.context.settings.start_batch);
        let pending = self.partition.pending(group, Some(&self.context.who), None, limit).await?;
        let ids: Vec<EntryId> = pending.into_iter().map(|pending| pending.entry).collect();
        let found = self.partition.entries_by_id(&self.stream, &ids).await?;
        let gone = |entry| ClaimedEntry { entry, fields: Vec::new() };
        Ok(ids.into_iter().zip(found).map(|(id, found)| found.unwrap_or_else(|| gone(id))).collect())
    }

    /// Starts, defers, refuses or drops each; after this none is held.
    async fn handle(&self, claimed: Vec<ClaimedEntry>) -> Result<(), Error> {
        let (claimed, gone): (Vec<_>, Vec<_>) = claimed.into_iter().partition(|one| !one.fields.is_empty());
        let gone: Vec<EntryId> = gone.into_iter().map(|entry| entry.entry).collect();
        self.partition.drop_entries(&self.stream, keys::SCHEDULERS, &gone).await?;
        let reader = Reader { max_input_bytes: self.context.settings.max_input_bytes };
        let (mut requests, mut refusals, mut notices) = (Vec::new(), Vec::new(), Vec::new());
        for entry in claimed {
            if let Some(notice) = Notice::of(&entry.fields) {
                notices.push((entry.entry, notice));
                continue;
            }
            match Request::read(reader, &entry, &self.partition, self.context.settings.crash_budget) {
                Ok(request) => requests.push(request),
                Err(refusal) => refusals.push(*refusal),
            }
        }
        waits::notices(&self.context, &self.partition, notices).await?;
        let ready = self.sort_by_time(requests, &mut refusals).await?;
        let ready = self.hold(ready).await?;
        let (plans, of_pool) = tokio::try_join!(self.plans(&ready), self.mode_of_pool(&ready))?;
        let mut prepared = Vec::with_capacity(ready.len());
        for (request, deadline_ms) in ready {
            let made = match plans.get(&request.plan_key()) {
                Some(Ok(plan)) => {
                    Prepared::new(request, plan, deadline_ms, (&self.context.settings, of_pool))
                }
                Some(Err((code, reason))) => Err(request.refuse(code, reason.clone())),
                None => continue,
            };
            match made {
                Ok(run) => prepared.push(run),
                Err(refusal) => refusals.push(*refusal),
            }
        }
        let prepared = self.give_ends(prepared, &mut refusals).await?;
        let mut prepared = self.enter(prepared, &mut refusals).await?;
        self.hand_down(&mut prepared).await?;
        for batch in batches(&prepared, self.context.settings.start_batch) {
            refusals.extend(self.start(batch).await?);
        }
        self.bury(&refusals).await
    }

    /// The pool's execution mode, if one of these goes by it: asked for anew each time, so that a switch holds for all that start later.
    async fn mode_of_pool(&self, requests: &[(Request, Option<u64>)]) -> Result<ExecutionMode, Error> {
        if requests.iter().all(|(request, _)| request.job.extras().mode.is_some()) {
            return Ok(ExecutionMode::default());
        }
        modes::of_pool(&self.context).await
    }

    /// Drops requests of an id whose first request waits for its time: the first of an id is the run.
    async fn drop_repeated(&self, requests: &mut Vec<Request>) -> Result<(), Error> {
        let named: Vec<String> = requests.iter().filter_map(Request::member_if_named).collect();
        let waiting = self.partition.due_at(keys::RUNS, &named).await?;
        let mut taken: HashSet<String> =
            named.into_iter().zip(waiting).filter(|(_, at)| at.is_some()).map(|(member, _)| member).collect();
        let mut repeated = Vec::new();
        requests.retain(|request| {
            let Some(member) = request.member_if_named() else { return true };
            let is_first = !taken.contains(&member);
            if !is_first {
                repeated.push(request.entry.clone());
            } else if request.may_wait() {
                taken.insert(member);
            }
            is_first
        });
        let dropped = self.partition.drop_entries(&self.stream, keys::SCHEDULERS, &repeated).await?;
        self.context.counters.runs_repeated.inc_by(dropped);
        Ok(())
    }

    /// Puts aside what is asked for at a later time; gives back what is to start now, with what is left of its deadline.
    async fn sort_by_time(
        &self,
        mut requests: Vec<Request>,
        refusals: &mut Vec<Refusal>,
    ) -> Result<Vec<(Request, Option<u64>)>, Error> {
        self.drop_repeated(&mut requests).await?;
        if !requests.iter().any(Request::has_times) {
            return Ok(requests.into_iter().map(|request| (request, None)).collect());
        }
        let now_ms = self.partition.now_ms().await?;
        let (mut ready, mut later) = (Vec::new(), Vec::new());
        for request in requests {
            match request.timing(now_ms) {
                Timing::Now { left_ms } => ready.push((request, left_ms)),
                Timing::At(at_ms) => later.push((request, at_ms)),
                Timing::TooLate => refusals.push(*request.too_late()),
            }
        }
        self.defer(&later).await?;
        Ok(ready)
    }

    async fn defer(&self, later: &[(Request, u64)]) -> Result<(), Error> {
        if later.is_empty() {
            return Ok(());
        }
        let deferrals: Vec<Deferral<'_>> = later
            .iter()
            .map(|(request, at_ms)| Deferral {
                entry: &request.entry,
                id: &request.id,
                slot: None,
                state: DeferState::Delayed,
                due: Due::At(*at_ms),
                note: "delayed by its caller",
                ran: Duration::ZERO,
                attempt: 0,
                changes: Vec::new(),
            })
            .collect();
        self.partition.defer(keys::RUNS, keys::SCHEDULERS, &self.context.who, &deferrals).await?;
        Ok(())
    }

    /// A plan, or the code and words of a refusal, for each workflow asked for.
    async fn plans(
        &self,
        requests: &[(Request, Option<u64>)],
    ) -> Result<HashMap<String, Result<Arc<Plan>, (&'static str, String)>>, Error> {
        let mut plans = HashMap::new();
        for (request, _) in requests {
            if plans.contains_key(&request.plan_key()) {
                continue;
            }
            let found = match request.has_begun() {
                true => self.context.plans.of(request.workflow()).await.map(ToStart::begun),
                false => self.context.plans.to_start(request.workflow()).await,
            };
            let plan = match found {
                Ok(ToStart { plan, state }) => {
                    if state == VersionState::Deprecated {
                        let workflow = format!("{}@{}", plan.name, plan.version);
                        self.context.counters.deprecated_starts.with(&[&workflow]).inc();
                        tracing::warn!(
                            run = request.id,
                            workflow,
                            "a run of a deprecated version is started"
                        );
                    }
                    Ok(plan)
                }
                Err(NoPlan::Store(error)) => return Err(error.into()),
                Err(refused) => {
                    let code = refused.code().unwrap_or("invalid_workflow");
                    if matches!(refused, NoPlan::Invalid { .. } | NoPlan::Damaged(_)) {
                        self.context.counters.validation_failed.with(&[code]).inc();
                        tracing::error!(problem = %refused, "a published workflow cannot be used");
                    }
                    Err((code, refused.to_string()))
                }
            };
            plans.insert(request.plan_key(), plan);
        }
        Ok(plans)
    }

    /// Starts a batch; gives back what cannot be started at all.
    async fn start(&self, batch: &[Prepared]) -> Result<Vec<Refusal>, Error> {
        let error = match self.try_start(batch).await {
            Ok(()) => return Ok(Vec::new()),
            Err(error) => error,
        };
        if error.fault() != Some(Fault::WrongType) {
            return Err(error.into());
        }
        // a key of one run holds something else: it must not hold up the others
        let mut refusals = Vec::new();
        for run in batch {
            match self.try_start(std::slice::from_ref(run)).await {
                Ok(()) => {}
                Err(error) if error.fault() == Some(Fault::WrongType) => {
                    let group = run.membership.as_ref().map(|membership| membership.name.clone());
                    let mut refusal = *run.request.refuse("conflicting_key", error.to_string());
                    refusal.group = group;
                    refusals.push(refusal);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(refusals)
    }

    async fn try_start(&self, batch: &[Prepared]) -> Result<(), tidemill_store::Error> {
        let targets = batch::targets(batch);
        let runs: Vec<NewRun<'_>> = batch.iter().map(|run| run.new_run(&targets)).collect();
        crash::before(Point::SchedulerStart);
        let replies = self.partition.start(&self.context.who, &targets, &runs).await?;
        crash::after(Point::SchedulerStart);
        for (reply, run) in replies.iter().zip(batch) {
            match reply {
                Started::Running => {
                    self.context.counters.runs_started.inc();
                    self.context.counters.executions.with(&[run.mode.as_str()]).inc();
                    self.context.starts.count(run.mode);
                    tracing::debug!(run = run.request.id, workflow = run.workflow, "run started");
                }
                Started::Duplicate => {
                    self.context.counters.runs_repeated.inc();
                    tracing::debug!(run = run.request.id, "run exists already, request dropped");
                    self.leave_unused(run).await?;
                }
                Started::Unwanted => {
                    tracing::debug!(run = run.request.id, "run was cancelled before it began");
                    self.leave_unused(run).await?;
                }
                Started::Stale => tracing::debug!(run = run.request.id, "another scheduler has the request"),
            }
        }
        Ok(())
    }

    async fn bury(&self, refusals: &[Refusal]) -> Result<(), Error> {
        if refusals.is_empty() {
            return Ok(());
        }
        for refusal in refusals {
            let Some(parent) = &refusal.parent else { continue };
            let error = serde_json::json!({ "code": refusal.code, "message": refusal.reason }).to_string();
            let told = (RunState::Failed, None, Some(error.as_bytes()));
            waits::tell_parent(&self.context, &self.partition, parent, told).await?;
        }
        let burials: Vec<Burial<'_>> = refusals.iter().map(Refusal::burial).collect();
        let buried = self.partition.bury(&self.stream, keys::SCHEDULERS, &burials).await?;
        for refusal in refusals {
            let Some(group) = &refusal.group else { continue };
            groups::left(&self.context, group, &self.partition, &refusal.id).await?;
        }
        for (refusal, _) in refusals.iter().zip(buried).filter(|(_, buried)| *buried) {
            self.context.counters.runs_refused.with(&[refusal.code]).inc();
            tracing::warn!(run = refusal.id, code = refusal.code, reason = refusal.reason, "run refused");
        }
        Ok(())
    }

    async fn look(&mut self) -> Result<Tick, Error> {
        // stays set when this tick fails or is given up anywhere below
        let unsure =
            std::mem::replace(&mut self.unsure, true) || self.generation != self.claimer.generation();
        self.generation = self.claimer.generation();
        let claimed = if unsure { self.held().await? } else { self.claim().await? };
        let found = count(claimed.len());
        if found > 0 {
            self.handle(claimed).await?;
        }
        // what was held may be more than one batch
        self.unsure = unsure && found > 0;
        Ok(Tick::Again)
    }
}

impl Duty for Starter {
    const NAME: &'static str = "starter";
    type Error = Error;

    async fn tick(&mut self) -> Result<Tick, Error> {
        let outcome = self.look().await;
        match &outcome {
            Ok(_) => self.hearing.set_ready(),
            Err(error) => self.hearing.set_unready(error.to_string()),
        }
        outcome
    }
}
