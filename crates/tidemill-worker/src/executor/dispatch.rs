//! From claimed entries to running tools.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tidemill_protocol::{EntryId, Extras, Job, Malformed, Reader, StepState, Work};
use tidemill_store::{ClaimedEntry, DeferState, Due};
use tidemill_tool::{Feedback, ToolFuture};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::hedge::Hedge;
use super::{Active, Event, Executor, attempt};
use crate::assignment::{Admitted, Assignment, End, Progress, Running, Target, bury, of_job};
use crate::outcome::{Defer, Ending, Fault, Outcome, Place};
use crate::part::{self, PartEntry};
use crate::shared::Shared;

/// Work beyond its kind's cap goes back to Redis for a moment, so that other kinds' work can come in.
const CAPPED_PARK: Duration = Duration::from_millis(500);
/// How long work that may have killed its workers is put aside at least while another such runs here.
const SUSPECT_PARK: Duration = Duration::from_millis(500);
/// The longest such moment.
const LONGEST_CAPPED_PARK: Duration = Duration::from_secs(30);

impl Executor {
    pub(super) fn claimed(&mut self, place: Place, entries: Vec<ClaimedEntry>) {
        let reader = Reader { max_input_bytes: self.shared.settings.max_input_bytes };
        let (mut parts, mut named) = (Vec::new(), Vec::new());
        for ClaimedEntry { entry, fields } in entries {
            match Work::read(reader, fields) {
                Ok(Work::Job(job)) if job.extras().id.is_some() => named.push((entry, job)),
                Ok(Work::Job(job)) => self.job(place, entry, job),
                Ok(Work::Part(part)) => parts.push(PartEntry { place, entry, part }),
                Ok(Work::Notice(notice)) => {
                    let message =
                        format!("{notice:?} belongs into the stream of requested runs, not into a queue");
                    self.malformed(place, entry, Malformed { code: "wrong_stream", message });
                }
                Err(malformed) => self.malformed(place, entry, malformed),
            }
        }
        if !parts.is_empty() {
            let shared = Arc::clone(&self.shared);
            let entries = parts.iter().map(|part| part.entry.clone()).collect();
            self.prepare(entries, async move { part::ready(&shared, parts).await });
        }
        if !named.is_empty() {
            let shared = Arc::clone(&self.shared);
            let entries = named.iter().map(|(entry, _)| entry.clone()).collect();
            self.prepare(entries, async move { recognise(&shared, place, named).await });
        }
    }

    fn prepare(
        &mut self,
        entries: Vec<EntryId>,
        work: impl Future<Output = Vec<part::Readied>> + Send + 'static,
    ) {
        let batch = self.next;
        self.next += 1;
        self.preparing.insert(batch, entries);
        let events = self.sender.clone();
        self.tracker.spawn(async move {
            let event = match AssertUnwindSafe(work).catch_unwind().await {
                Ok(readied) => Event::Readied(batch, readied),
                Err(_) => Event::GivenUp(batch),
            };
            drop(events.send(event));
        });
    }

    fn malformed(&mut self, place: Place, entry: EntryId, malformed: Malformed) {
        let fault = Fault::new(malformed.code, malformed.message);
        self.settle(bury(place, entry, &Extras::default(), StepState::Failed, fault));
    }

    fn job(&mut self, place: Place, entry: EntryId, job: Job) {
        match not_yet(&self.shared, place, entry, job) {
            Ok((entry, job)) => match of_job(&self.shared, place, entry, job) {
                Ok(assignment) => self.start(assignment),
                Err(outcome) => self.settle(outcome),
            },
            Err(outcome) => self.settle(outcome),
        }
    }

    /// Starts work where there is a slot, else keeps it for later.
    pub(super) fn start(&mut self, mut assignment: Assignment) {
        if self.draining {
            return self.hand_back(assignment);
        }
        if assignment.owner.heeds_cancelling()
            && self.cancelled.has(assignment.owner.is_part(), &assignment.call.context.id)
        {
            self.give_up_grant(&mut assignment);
            let (running, _) = self.begin(assignment, false);
            return self.conclude(running, End::Cancelled, Instant::now());
        }
        if self.is_suspect(&assignment) && self.suspect.as_ref() != Some(&assignment.entry) {
            if self.suspect.is_some() {
                self.give_up_grant(&mut assignment);
                let wait = SUSPECT_PARK + Duration::from_millis(rand::random::<u64>() % 1_000);
                let deaths = assignment.deaths;
                let note = format!(
                    "{deaths} workers died holding it; it waits until it can be run alone of its kind"
                );
                return self.settle(park(assignment, wait, note));
            }
            self.suspect = Some(assignment.entry.clone());
        }
        if let Some(cap) = self.cap(assignment.target.kind)
            && self.per_kind.get(assignment.target.kind).copied().unwrap_or(0) >= cap
        {
            self.give_up_grant(&mut assignment);
            return self.over_cap(assignment, cap);
        }
        if let Some(cap) = self.tenant_cap(&assignment) {
            self.give_up_grant(&mut assignment);
            let note = format!("its tenant runs {cap} tools in this worker; that is its share of it");
            let wait = CAPPED_PARK + Duration::from_millis(rand::random::<u64>() % 500);
            return self.settle(park(assignment, wait, note));
        }
        // what was granted has been counted as a start, and grows old
        if assignment.progress.lease.is_some() {
            if self.has_room() { self.admit(assignment) } else { self.ready.push_front(assignment) }
        } else if self.has_slot() {
            self.admit(assignment);
        } else {
            self.ready.push_back(assignment);
        }
    }

    /// The cap that the assignment's tenant has reached, if so.
    fn tenant_cap(&self, assignment: &Assignment) -> Option<usize> {
        let cap = self.shared.settings.max_parallel_per_tenant.filter(|_| !assignment.is_fallback())?;
        let running = self.per_tenant.get(assignment.call.context.tenant.as_ref()?).copied().unwrap_or(0);
        (running >= cap).then_some(cap)
    }

    /// Whether one more death would bury it. What died with it may have been killed by it, or it by one of those.
    fn is_suspect(&self, assignment: &Assignment) -> bool {
        assignment.deaths > 0 && assignment.deaths + 1 >= self.shared.settings.crash_budget
    }

    fn cap(&self, kind: &str) -> Option<usize> {
        self.shared.settings.max_parallel_per_kind.get(kind).copied()
    }

    /// Keeps a little work of a capped kind at hand and parks the rest, paced: the more was parked within this second, the later.
    fn over_cap(&mut self, assignment: Assignment, cap: usize) {
        let kind = assignment.target.kind;
        let waiting = self.capped.entry(kind).or_default();
        if waiting.len() < cap.min(self.shared.settings.max_parallel / 4) {
            waiting.push_back(assignment);
            return;
        }
        let now = Instant::now();
        let (since, parked) = self.over_cap.entry(kind).or_insert((now, 0));
        if now.duration_since(*since) > Duration::from_secs(1) {
            (*since, *parked) = (now, 0);
        }
        *parked += 1;
        let turns = 1 + *parked / (u32::try_from(cap).unwrap_or(u32::MAX).saturating_mul(8));
        let wait = (CAPPED_PARK * turns).min(LONGEST_CAPPED_PARK);
        let outcome =
            park(assignment, wait, format!("the cap of {cap} running tools of kind {kind} is reached"));
        self.settle(outcome);
    }

    /// Takes the tool's future out of an assignment; what is left is kept while it runs. What a service might fall back on is kept
    /// where there is a service, and `always` where the call is not made at all.
    pub(super) fn begin(
        &self,
        assignment: Assignment,
        always: bool,
    ) -> (Running, impl FnOnce() -> ToolFuture + use<>) {
        let Assignment { place, entry, target, standing, progress, mut call, attempt, owner, .. } =
            assignment;
        let Target { tool, name, service, kind, retry } = target;
        let Progress { fill, lease, degraded, .. } = progress;
        let id = Arc::clone(&call.context.id);
        let facts = self.shared.admission.service_of(&name, service.as_deref());
        let mut admitted = None;
        let counts_cost = owner.purse().is_some_and(|purse| purse.counts_cost());
        if always || counts_cost || facts.is_some() || lease.is_some() || fill.is_some() || degraded.is_some()
        {
            let kept = call.clone();
            let mut listener = None;
            if lease.is_some() || counts_cost {
                let (feedback, hears) = Feedback::listening();
                call.context.feedback = feedback;
                listener = Some(hears);
            }
            let tool = name;
            admitted = Some(Box::new(Admitted {
                tool,
                facts,
                lease,
                listener,
                fill,
                call: kept,
                standing,
                degraded,
            }));
        }
        let running = Running { place, entry, id, kind, attempt, owner, retry, admitted };
        (running, move || tool.call(call))
    }

    pub(super) fn launch(&mut self, assignment: Assignment) {
        let (timeout, kind) = (self.timeout_of(&assignment), assignment.target.kind);
        let started = Instant::now();
        let tool = Arc::clone(&assignment.target.tool);
        let (running, make) = self.begin(assignment, false);
        match attempt::begin(make) {
            Ok(answer) => self.conclude(running, End::Answered(answer), started),
            Err(future) => {
                let key = self.next_key();
                let (stop, stopped) = oneshot::channel();
                let events = self.sender.clone();
                let future = match Hedge::of(&self.shared, tool, &running) {
                    Some(hedge) => hedge.race(future),
                    None => future,
                };
                self.tracker.spawn(async move {
                    let end = attempt::rest(future, timeout, stopped).await;
                    drop(events.send(Event::Finished(key, end)));
                });
                let tenant = self.shared.settings.max_parallel_per_tenant.and_then(|_| running.tenant());
                self.occupy(kind, tenant.as_ref());
                self.active.insert(key, Active { running, started, tenant, stop: Some(stop) });
            }
        }
    }

    /// A service's timeout counts where the tool says nothing of its own.
    fn timeout_of(&self, assignment: &Assignment) -> Duration {
        let of_service = || {
            let facts = self
                .shared
                .admission
                .service_of(&assignment.target.name, assignment.target.service.as_deref())?;
            facts.definition.timeout_ms.map(Duration::from_millis)
        };
        let is_default = assignment.timeout == tidemill_tool::DEFAULT_TIMEOUT;
        if is_default { of_service().unwrap_or(assignment.timeout) } else { assignment.timeout }
    }

    /// Fills slots that became free.
    pub(super) fn refill(&mut self) {
        if self.draining {
            return;
        }
        let kinds: Vec<&'static str> =
            self.capped.iter().filter(|(_, waiting)| !waiting.is_empty()).map(|(kind, _)| *kind).collect();
        for kind in kinds {
            let cap = self.cap(kind).unwrap_or(usize::MAX);
            while self.has_slot() && self.per_kind.get(kind).copied().unwrap_or(0) < cap {
                let Some(assignment) =
                    self.capped.get_mut(kind).and_then(std::collections::VecDeque::pop_front)
                else {
                    break;
                };
                self.start(assignment);
            }
        }
        while let Some(assignment) = self.next_ready() {
            self.start(assignment);
        }
    }

    fn next_ready(&mut self) -> Option<Assignment> {
        let is_granted = self.ready.front().is_some_and(|assignment| assignment.progress.lease.is_some());
        if self.has_slot() || (is_granted && self.has_room()) { self.ready.pop_front() } else { None }
    }
}

/// A job whose time has not come goes back to Redis until then.
fn not_yet(shared: &Shared, place: Place, entry: EntryId, job: Job) -> Result<(EntryId, Job), Outcome> {
    let Some(extras) = job.extras.as_deref() else { return Ok((entry, job)) };
    if extras.was_put_aside {
        return Ok((entry, job));
    }
    let first = extras.first_entry.as_ref().unwrap_or(&entry);
    let delayed_to = extras.delay_ms.map(|delay| first.ms().saturating_add(delay));
    // the later one counts
    let Some(at) = extras.run_at_ms.max(delayed_to) else { return Ok((entry, job)) };
    if shared.clock.now_ms().is_some_and(|now| now >= at) {
        return Ok((entry, job));
    }
    let defer = Defer {
        id: job.id(&entry).to_owned(),
        slot: None,
        state: DeferState::Delayed,
        due: Due::At(at),
        note: "asked for at a later time".to_owned(),
        ran: Duration::ZERO,
        attempt: 1,
        changes: Vec::new(),
    };
    Err(Outcome { place, entry, ending: Ending::Defer(Box::new(defer)) })
}

fn park(assignment: Assignment, wait: Duration, note: String) -> Outcome {
    let slot = assignment.owner.slot();
    let defer = Defer {
        id: assignment.call.context.id.to_string(),
        slot,
        state: DeferState::Parked,
        due: Due::In(wait),
        note,
        ran: Duration::ZERO,
        attempt: assignment.attempt,
        changes: Vec::new(),
    };
    Outcome { place: assignment.place, entry: assignment.entry, ending: Ending::Defer(Box::new(defer)) }
}

/// Drops repetitions of ids that were taken in before.
async fn recognise(shared: &Arc<Shared>, place: Place, named: Vec<(EntryId, Job)>) -> Vec<part::Readied> {
    let store = &shared.store.partitions()[place.partition as usize];
    let keep = Duration::from_millis(shared.settings.id_retention_ms);
    let queue = shared.queues.name(place.queue as usize);
    let mut readied = Vec::with_capacity(named.len());
    for chunk in named.chunks(500) {
        let rows: Vec<_> = chunk
            .iter()
            .map(|(entry, job)| {
                let extras = job.extras();
                (
                    entry,
                    extras.first_entry.as_ref().unwrap_or(entry),
                    extras.id.as_deref().unwrap_or_default(),
                )
            })
            .collect();
        let kept = shared.persist("recognising repeated ids", || store.accept(queue, keep, &rows)).await;
        let dropped = kept.iter().filter(|kept| !**kept).count();
        if dropped > 0 {
            shared.capacity.give_back(dropped);
            shared.metrics.settled.with(&["duplicate"]).inc_by(dropped as u64);
        }
        for ((entry, job), _) in chunk.iter().zip(&kept).filter(|(_, kept)| **kept) {
            let ready = not_yet(shared, place, entry.clone(), job.clone());
            readied.push(match ready.and_then(|(entry, job)| of_job(shared, place, entry, job)) {
                Ok(assignment) => part::Readied::Run(Box::new(assignment)),
                Err(outcome) => part::Readied::Done(outcome),
            });
        }
    }
    readied
}
