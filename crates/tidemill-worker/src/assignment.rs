//! One piece of work that is ready to run, and what its end means.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidemill_policy::service::FallbackOn;
use tidemill_policy::{Decision, Failure, decide};
use tidemill_protocol::{
    EntryId, ErrorBody, ErrorClass, Extras, Job, Payload, RetryPolicy, StepState, Target as Wanted,
    result_head,
};
use tidemill_store::{DeferState, Due, Mode, Slot};
use tidemill_tool::{Call, Context, Feedback, Listener, Tool, ToolEntry, ToolError};
use tidemill_workflow::{FailurePolicy, Finish};

use crate::admission::{Ended, Lease, ServiceFacts};
use crate::budget::{self, Purse};
use crate::cache::Ticket;
use crate::fallback::{self, Degraded};
use crate::outcome::{
    Bury, Complete, Defer, Ending, Fault, ItemEnd, Outcome, Place, Release, RunRef, StepEnd, WaitStep,
};
use crate::shared::Shared;

/// Work that is ready to run.
pub(crate) struct Assignment {
    pub(crate) place: Place,
    pub(crate) entry: EntryId,
    pub(crate) target: Target,
    /// What most jobs leave out.
    pub(crate) standing: Option<Box<Standing>>,
    pub(crate) progress: Progress,
    pub(crate) call: Call,
    pub(crate) timeout: Duration,
    pub(crate) attempt: u32,
    /// How many workers died holding it.
    pub(crate) deaths: u32,
    pub(crate) owner: Owner,
}

/// What an assignment calls.
#[derive(Clone)]
pub(crate) struct Target {
    pub(crate) tool: Arc<dyn Tool>,
    pub(crate) name: Arc<str>,
    /// The service that the tool's settings name, or a fallback.
    pub(crate) service: Option<Arc<str>>,
    pub(crate) kind: &'static str,
    /// The tool's own policy.
    pub(crate) retry: RetryPolicy,
}

impl Target {
    pub(crate) fn of(entry: &ToolEntry) -> Self {
        Self {
            tool: Arc::clone(&entry.tool),
            name: Arc::clone(&entry.name),
            service: entry.service.clone(),
            kind: entry.kind,
            retry: entry.retry.clone(),
        }
    }
}

/// How far an assignment has come on its way to a slot.
#[derive(Default)]
pub(crate) struct Progress {
    /// Whether the cache was asked.
    pub(crate) was_looked_up: bool,
    /// Its right to fill the cache.
    pub(crate) fill: Option<Ticket>,
    /// What it was granted.
    pub(crate) lease: Option<Box<Lease>>,
    /// Set when it stands in for another call.
    pub(crate) degraded: Option<Box<Degraded>>,
}

/// Where work stands among other work of its service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Standing {
    pub(crate) user: Option<String>,
    pub(crate) priority: Option<u8>,
    /// The tiers in whose lines it has waited and been called up.
    pub(crate) tickets: Vec<String>,
}

impl Standing {
    fn of(extras: &Extras) -> Option<Box<Self>> {
        let Extras { user, priority, tickets, .. } = extras;
        if user.is_none() && priority.is_none() && tickets.is_empty() {
            return None;
        }
        Self { user: user.clone(), priority: *priority, tickets: tickets.clone() }.boxed()
    }

    /// Kept only where it says something.
    pub(crate) fn boxed(self) -> Option<Box<Self>> {
        let says_nothing = self.user.is_none() && self.priority.is_none() && self.tickets.is_empty();
        (!says_nothing).then(|| Box::new(self))
    }
}

/// Whose work it is.
pub(crate) enum Owner {
    /// A plain job that leaves nothing behind when it succeeds, with nothing set.
    Plain,
    /// A plain job with settings.
    Job(Box<Extras>),
    /// A step.
    Step {
        run: RunRef,
        step: u32,
        first_ms: Option<u64>,
        /// What follows when its tool has answered, where that is not its end.
        then: Option<Box<WaitStep>>,
    },
    /// An item of a `for_each`.
    Item { run: RunRef, step: u32, item: u64, first_ms: Option<u64> },
}

/// What is kept of an assignment while its tool runs.
pub(crate) struct Running {
    pub(crate) place: Place,
    pub(crate) entry: EntryId,
    pub(crate) id: Arc<str>,
    pub(crate) kind: &'static str,
    pub(crate) attempt: u32,
    pub(crate) owner: Owner,
    /// The tool's own policy.
    pub(crate) retry: RetryPolicy,
    /// What its call was admitted for, and what is heard of its service; absent for most.
    pub(crate) admitted: Option<Box<Admitted>>,
}

/// A call of a service under way.
pub(crate) struct Admitted {
    pub(crate) tool: Arc<str>,
    pub(crate) facts: Option<Arc<ServiceFacts>>,
    pub(crate) lease: Option<Box<Lease>>,
    pub(crate) listener: Option<Listener>,
    pub(crate) fill: Option<Ticket>,
    /// What a fallback needs to go on.
    pub(crate) call: Call,
    pub(crate) standing: Option<Box<Standing>>,
    pub(crate) degraded: Option<Box<Degraded>>,
}

/// What the end of an attempt leads to.
pub(crate) enum Concluded {
    /// It is settled.
    Settled(Outcome),
    /// Something else is tried in its place.
    Instead(Box<Running>, ToolError),
}

/// How an attempt ended.
#[derive(Debug)]
pub(crate) enum End {
    /// The tool gave an answer.
    Answered(Result<Payload, ToolError>),
    /// It was stopped: its job or run was cancelled.
    Cancelled,
    /// It was stopped: the worker drains.
    HandedBack,
}

impl Assignment {
    /// Whether it stands in for a call that failed or could not be made.
    pub(crate) const fn is_fallback(&self) -> bool {
        self.progress.degraded.is_some()
    }
}

impl Owner {
    /// Whether it is a part of a run, whose id is the run's.
    pub(crate) const fn is_part(&self) -> bool {
        matches!(self, Self::Step { .. } | Self::Item { .. })
    }

    /// Whether it stops when its job or run is cancelled: what is done at a run's end does not.
    pub(crate) fn heeds_cancelling(&self) -> bool {
        match self {
            Self::Step { run, step, .. } => *step < run.plan.main(),
            Self::Plain | Self::Job(_) | Self::Item { .. } => true,
        }
    }

    /// The budget that it is bounded by.
    pub(crate) fn purse(&self) -> Option<&Purse> {
        match self {
            Self::Plain | Self::Job(_) => None,
            Self::Step { run, .. } | Self::Item { run, .. } => run.budget.as_deref(),
        }
    }

    /// The step or item behind it.
    pub(crate) fn slot(&self) -> Option<Slot> {
        match self {
            Self::Plain | Self::Job(_) => None,
            Self::Step { run, step, .. } => Some(slot_of(run, *step, None)),
            Self::Item { run, step, item, .. } => Some(slot_of(run, *step, Some(*item))),
        }
    }
}

pub(crate) fn slot_of(run: &RunRef, step: u32, item: Option<u64>) -> Slot {
    let id = run.plan.step(step).map_or("?", |step| &*step.id);
    let name = item.map_or_else(|| id.to_owned(), |item| format!("{id}[{item}]"));
    Slot { run: run.id.to_string(), step, item, name }
}

/// Turns a claimed job into an assignment, or into what refuses it.
pub(crate) fn of_job(shared: &Shared, place: Place, entry: EntryId, job: Job) -> Result<Assignment, Outcome> {
    let Job { target, input, extras } = job;
    let bury = |entry: EntryId, extras: Option<&Extras>, state, code: &str, reason: String| {
        let defaults = Extras::default();
        bury(place, entry, extras.unwrap_or(&defaults), state, Fault::new(code, reason))
    };
    // before anything is buried: a letter's result goes there too
    if let Some(reason) = extras.as_deref().and_then(|extras| refused_reply(shared, place, extras)) {
        return Err(bury(entry, None, StepState::Failed, "invalid_reply_to", reason));
    }
    let Wanted::Tool(name) = target else {
        let reason = "a field \"workflow\" in a queue: runs are asked for in the stream \"runs\"".to_owned();
        return Err(bury(entry, extras.as_deref(), StepState::Failed, "wrong_stream", reason));
    };
    let Some(tool) = shared.registry.get(name.split('@').next().unwrap_or(&name)) else {
        let reason = shared.registry.find(&name).err().map(|error| error.to_string()).unwrap_or_default();
        return Err(bury(entry, extras.as_deref(), StepState::Failed, "unknown_tool", reason));
    };
    let deaths = extras.as_ref().map_or(0, |extras| extras.deaths);
    if deaths >= shared.settings.crash_budget {
        let reason = format!("{deaths} workers died while they held this job; it is not tried again");
        return Err(bury(entry, extras.as_deref(), StepState::Failed, "crash_budget", reason));
    }
    let first = extras.as_ref().and_then(|extras| extras.first_entry.as_ref()).unwrap_or(&entry);
    let mut timeout = tool.timeout;
    let mut attempt = 1;
    if let Some(extras) = extras.as_deref() {
        attempt = extras.attempts_before.saturating_add(1);
        match longest(shared, extras, first, timeout) {
            Ok(longest) => timeout = longest,
            Err(reason) => {
                return Err(bury(entry, Some(extras), StepState::TimedOut, "deadline_exceeded", reason));
            }
        }
    }
    let id: Arc<str> =
        extras.as_ref().and_then(|extras| extras.id.as_deref()).unwrap_or_else(|| first.as_str()).into();
    let text = |value: Option<&String>| value.map(|value| Arc::from(value.as_str()));
    let context = Context {
        id,
        step: None,
        iteration: None,
        attempt,
        tenant: text(extras.as_ref().and_then(|extras| extras.tenant.as_ref())),
        traceparent: text(extras.as_ref().and_then(|extras| extras.traceparent.as_ref())),
        feedback: Feedback::default(),
    };
    let target = Target::of(tool);
    let standing = extras.as_deref().and_then(Standing::of);
    let owner = extras.map_or(Owner::Plain, Owner::Job);
    Ok(Assignment {
        place,
        entry,
        target,
        standing,
        progress: Progress::default(),
        call: Call { input, context },
        timeout,
        attempt,
        deaths,
        owner,
    })
}

/// Why a job's results may not go where it wants them.
fn refused_reply(shared: &Shared, place: Place, extras: &Extras) -> Option<String> {
    let reply_to = extras.reply_to.as_deref()?;
    let allowed = shared.store.partitions()[place.partition as usize].may_reply_to(reply_to);
    (!allowed).then(|| {
        format!(
            "reply_to {reply_to:?} is not allowed: use a stream outside the namespace, or one that begins with \
             the partition's prefix and \"reply:\""
        )
    })
}

/// The longest time of the next attempt, or why there is none.
fn longest(shared: &Shared, extras: &Extras, first: &EntryId, tool: Duration) -> Result<Duration, String> {
    let timeout = extras.timeout_ms.map_or(tool, Duration::from_millis);
    let Some(deadline) = extras.deadline_ms else { return Ok(timeout) };
    let left = Duration::from_millis(deadline).saturating_sub(shared.clock.since(first.ms()));
    if left.is_zero() {
        let attempt = extras.attempts_before.saturating_add(1);
        return Err(format!(
            "the job's deadline of {deadline} ms after enqueueing had passed before attempt {attempt}"
        ));
    }
    Ok(timeout.min(left))
}

pub(crate) fn bury(place: Place, entry: EntryId, extras: &Extras, state: StepState, fault: Fault) -> Outcome {
    let first = extras.first_entry.as_ref().unwrap_or(&entry);
    let id = extras.id.clone().unwrap_or_else(|| first.as_str().to_owned());
    let bury = Bury {
        id,
        code: fault.code,
        reason: fault.message,
        state,
        attempts: extras.attempts_before,
        ttl_ms: extras.result_ttl_ms.unwrap_or(0),
        reply_to: extras.reply_to.clone(),
    };
    Outcome { place, entry, ending: Ending::Bury(Box::new(bury)) }
}

impl Running {
    /// What the end of the attempt means.
    pub(crate) fn conclude(self, shared: &Shared, end: End, ran: Duration) -> Concluded {
        match end {
            End::HandedBack => Concluded::Settled(self.handed_back()),
            End::Cancelled => Concluded::Settled(self.cancelled(ran)),
            End::Answered(Ok(output)) => self.succeeded(shared, output, ran),
            End::Answered(Err(error)) => self.failed(shared, error, ran),
        }
    }

    pub(crate) fn handed_back(self) -> Outcome {
        let release = Release { slot: self.owner.slot(), attempt: self.attempt };
        Self::outcome(self.place, self.entry, Ending::Release(Box::new(release)))
    }

    /// For whom it runs.
    pub(crate) fn tenant(&self) -> Option<Arc<str>> {
        match &self.owner {
            Owner::Plain => None,
            Owner::Job(extras) => extras.tenant.as_deref().map(Arc::from),
            Owner::Step { .. } | Owner::Item { .. } => self.admitted.as_ref()?.call.context.tenant.clone(),
        }
    }

    /// Tells admission and the cache how the call ended.
    pub(crate) fn report(&mut self, shared: &Shared, end: &End, ran: Duration) {
        let Some(admitted) = self.admitted.as_deref_mut() else { return };
        if let Some(fill) = admitted.fill.take() {
            match end {
                End::Answered(Ok(output)) => fill.fill(output),
                End::Answered(Err(error)) => fill.failed(Some(error)),
                End::Cancelled | End::HandedBack => fill.failed(None),
            }
        }
        let observed = admitted.listener.take().map(|listener| listener.take()).unwrap_or_default();
        let mut cost = budget::cost_of(&observed);
        if let Some(lease) = admitted.lease.take() {
            let ended = Ended::of(shared, *lease, (end, observed), ran);
            // what the tool did not say its service's answer may have told
            cost =
                cost.or_else(|| ended.used.iter().find(|(unit, _)| &**unit == "cost").map(|(_, cost)| *cost));
            shared.admission.ended(ended);
        }
        if let (Some(purse), Some(cost)) = (self.owner.purse(), cost) {
            shared.spending.cost(self.place.partition as usize, purse, cost);
        }
    }

    fn outcome(place: Place, entry: EntryId, ending: Ending) -> Outcome {
        Outcome { place, entry, ending }
    }

    fn succeeded(self, shared: &Shared, output: Payload, ran: Duration) -> Concluded {
        if matches!(self.owner, Owner::Plain) {
            return Concluded::Settled(Self::outcome(self.place, self.entry, Ending::Acknowledge));
        }
        if output.len() > shared.settings.max_output_bytes {
            let most = shared.settings.max_output_bytes;
            let message = format!(
                "the output has {} bytes; {most} are allowed (worker.max_output_bytes)",
                output.len()
            );
            return self.failed(shared, ToolError::new(ErrorClass::Client, "output_too_large", message), ran);
        }
        let output = match output.into_json() {
            Ok(output) => output,
            Err(error) => {
                let message = format!("the output has no JSON form: {error}");
                return self.failed(
                    shared,
                    ToolError::new(ErrorClass::BadContent, "output_not_json", message),
                    ran,
                );
            }
        };
        let degraded = self.admitted.as_ref().and_then(|admitted| admitted.degraded.as_deref());
        let (degraded, notice) = (degraded.map(Degraded::json), degraded.map(Degraded::fault));
        let Self { place, entry, id, attempt, owner, .. } = self;
        Concluded::Settled(match owner {
            Owner::Plain => Self::outcome(place, entry, Ending::Acknowledge),
            Owner::Job(extras) => {
                let mut head = result_head(&id, StepState::Succeeded, Some(&output), None, attempt);
                if let Some(degraded) = degraded {
                    head.extend_from_slice(format!(",\"degraded\":{degraded}").as_bytes());
                }
                // finished here, the payload need not be copied once more inside Redis
                if let Some(now_ms) = shared.clock.now_ms() {
                    head.extend_from_slice(format!(",\"finished_at_ms\":{now_ms}}}").as_bytes());
                }
                Self::job_end(place, entry, &id, &extras, head)
            }
            Owner::Step { then: Some(wait), .. } => {
                let answer = Some(output.into_bytes());
                Self::outcome(
                    place,
                    entry,
                    Ending::Wait(Box::new(WaitStep { answer, attempt, ran, ..*wait })),
                )
            }
            Owner::Step { run, step, .. } => {
                let end = step_end(run, step, StepState::Succeeded, attempt, ran);
                let end = StepEnd { output: output.into_bytes(), error: notice, ..end };
                Self::outcome(place, entry, Ending::Step(Box::new(end)))
            }
            Owner::Item { run, step, item, .. } => {
                let end = item_end(run, (step, item), StepState::Succeeded, attempt, ran);
                let end = ItemEnd { output: output.into_bytes(), error: notice, ..end };
                Self::outcome(place, entry, Ending::Item(Box::new(end)))
            }
        })
    }

    fn job_end(place: Place, entry: EntryId, id: &str, extras: &Extras, head: Vec<u8>) -> Outcome {
        let (ttl_ms, reply_to) = (extras.result_ttl_ms.unwrap_or(0), extras.reply_to.clone());
        if ttl_ms == 0 && reply_to.is_none() {
            return Self::outcome(place, entry, Ending::Acknowledge);
        }
        let complete = Complete { id: id.to_owned(), head, ttl_ms, reply_to };
        Self::outcome(place, entry, Ending::Complete(Box::new(complete)))
    }

    fn cancelled(self, ran: Duration) -> Outcome {
        let Self { place, entry, id, attempt, owner, .. } = self;
        let fault = Fault::new("cancelled", "the job or its run was cancelled");
        match owner {
            Owner::Plain => Self::outcome(place, entry, Ending::Acknowledge),
            Owner::Job(extras) => {
                let error = ErrorBody { code: fault.code, message: fault.message };
                let head = result_head(&id, StepState::Cancelled, None, Some(&error), attempt);
                Self::job_end(place, entry, &id, &extras, head)
            }
            Owner::Step { run, step, .. } => {
                let end =
                    StepEnd { error: Some(fault), ..step_end(run, step, StepState::Cancelled, attempt, ran) };
                Self::outcome(place, entry, Ending::Step(Box::new(end)))
            }
            Owner::Item { run, step, item, .. } => {
                let end = ItemEnd {
                    error: Some(fault),
                    ..item_end(run, (step, item), StepState::Cancelled, attempt, ran)
                };
                Self::outcome(place, entry, Ending::Item(Box::new(end)))
            }
        }
    }

    /// A failure is retried as its job, step, tool or service says; what stands in for another call is not.
    fn failed(self, shared: &Shared, error: ToolError, ran: Duration) -> Concluded {
        let admitted = self.admitted.as_deref();
        if admitted.is_some_and(|admitted| admitted.degraded.is_some()) {
            return self.given_up_for_now(error, ran);
        }
        let (policy, first_ms) = match &self.owner {
            Owner::Plain => (self.retry.clone(), None),
            Owner::Job(extras) => {
                let own = RetryPolicy { max_attempts: extras.max_attempts, ..RetryPolicy::default() };
                (own.or(&self.retry), extras.first_attempt_ms)
            }
            Owner::Step { run, step, first_ms, .. } | Owner::Item { run, step, first_ms, .. } => (
                run.plan.step(*step).map_or_else(RetryPolicy::default, |step| step.retry.or(&self.retry)),
                *first_ms,
            ),
        };
        let of_service = admitted
            .and_then(|admitted| admitted.facts.as_ref())
            .map(|facts| facts.definition.retry_of(error.class));
        let policy = of_service.map_or_else(|| policy.clone(), |of_service| policy.or(&of_service));
        let max_attempts = policy.max_attempts.or(Some(shared.settings.max_attempts));
        let policy = RetryPolicy { max_attempts, ..policy };
        let elapsed = first_ms.map_or(ran, |first| shared.clock.since(first));
        let failure =
            Failure { class: error.class, attempt: self.attempt, elapsed, retry_after: error.retry_after };
        match decide(&policy, failure, &mut rand::rng()) {
            Decision::Retry(wait) if !self.too_late_for(shared, wait) => {
                let first_ms =
                    first_ms.or_else(|| shared.clock.now_ms().map(|now| now.saturating_sub(millis(ran))));
                Concluded::Settled(self.retry_in(wait, first_ms, &error, ran))
            }
            Decision::Retry(_) | Decision::Exhausted | Decision::TooLate | Decision::NotRetryable => {
                self.given_up_for_now(error, ran)
            }
        }
    }

    /// No attempt is left: what the service has to fall back on, or the end.
    fn given_up_for_now(self, error: ToolError, ran: Duration) -> Concluded {
        if fallback::has_next(&self, FallbackOn::Failed) {
            return Concluded::Instead(Box::new(self), error);
        }
        Concluded::Settled(self.given_up(error, ran))
    }

    fn too_late_for(&self, shared: &Shared, wait: Duration) -> bool {
        let Owner::Job(extras) = &self.owner else { return false };
        let first = extras.first_entry.as_ref().unwrap_or(&self.entry);
        extras
            .deadline_ms
            .is_some_and(|deadline| shared.clock.since(first.ms()) + wait > Duration::from_millis(deadline))
    }

    fn retry_in(self, wait: Duration, first_ms: Option<u64>, error: &ToolError, ran: Duration) -> Outcome {
        let slot = self.owner.slot();
        let mut changes = match slot {
            None => vec![("_attempts", self.attempt.to_string())],
            Some(_) => vec![("attempt", self.attempt.saturating_add(1).to_string())],
        };
        if let Some(first) = first_ms {
            changes.push(("_first_ms", first.to_string()));
        }
        // a ticket is good for one attempt
        changes.push(("_ticket", String::new()));
        let defer = Defer {
            id: self.id.to_string(),
            slot,
            state: DeferState::Retrying,
            due: Due::In(wait),
            note: format!("attempt {} failed: {error}", self.attempt),
            ran,
            attempt: self.attempt,
            changes,
        };
        Self::outcome(self.place, self.entry, Ending::Defer(Box::new(defer)))
    }

    pub(crate) fn given_up(self, error: ToolError, ran: Duration) -> Outcome {
        let error = fallback::told(self.admitted.as_deref(), error);
        let Self { place, entry, id, attempt, owner, .. } = self;
        let state = if error.class == ErrorClass::Timeout { StepState::TimedOut } else { StepState::Failed };
        let fault = Fault::new(error.code, error.message);
        match owner {
            Owner::Plain => {
                bury(place, entry, &Extras { attempts_before: attempt, ..Extras::default() }, state, fault)
            }
            Owner::Job(mut extras) => {
                extras.attempts_before = attempt;
                extras.id.get_or_insert_with(|| id.to_string());
                bury(place, entry, &extras, state, fault)
            }
            Owner::Step { run, step, .. } => {
                let end = StepEnd { error: Some(fault), ..step_end(run, step, state, attempt, ran) };
                Self::outcome(place, entry, Ending::Step(Box::new(end)))
            }
            Owner::Item { run, step, item, .. } => {
                let end = ItemEnd { error: Some(fault), ..item_end(run, (step, item), state, attempt, ran) };
                Self::outcome(place, entry, Ending::Item(Box::new(end)))
            }
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The end of a step without output or error, with what it means for its run.
pub(crate) fn step_end(run: RunRef, step: u32, to: StepState, attempt: u32, ran: Duration) -> StepEnd {
    let plan = &run.plan;
    let planned = plan.step(step);
    let is_closing = step >= plan.main() && step != u32::MAX;
    let continues = planned.is_some_and(|step| step.continue_on_error);
    let failed = matches!(to, StepState::Failed | StepState::TimedOut) && !continues && !is_closing;
    let at_once =
        plan.failure == FailurePolicy::FailFast || planned.is_some_and(|step| step.compensate_on_error);
    let mode = Mode {
        success: to == StepState::Succeeded,
        fails_run_now: failed && at_once,
        fails_run_at_end: failed && !at_once,
        gives_output: matches!(plan.finish, Finish::Sink(sink) if sink == step),
        did_not_run: to == StepState::Skipped,
        waits: plan.waits(),
        closes: plan.closes(),
        is_closing,
    };
    StepEnd {
        run,
        step: Some(step),
        origin: Some(step),
        from: 0,
        to,
        attempt,
        ran,
        output: Bytes::new(),
        error: None,
        mode,
    }
}

pub(crate) fn item_end(
    run: RunRef,
    (step, item): (u32, u64),
    to: StepState,
    attempt: u32,
    ran: Duration,
) -> ItemEnd {
    ItemEnd { run, step, item, to, attempt, ran, output: Bytes::new(), error: None, did_not_run: false }
}
