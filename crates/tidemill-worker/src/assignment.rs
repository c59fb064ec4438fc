//! One piece of work that is ready to run, and what its end means.

mod conclusion;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidemill_protocol::{EntryId, Extras, Job, Payload, RetryPolicy, StepState, Target as Wanted};
use tidemill_store::{Mode, Slot};
use tidemill_tool::{Call, Context, Feedback, Listener, Tool, ToolEntry, ToolError};
use tidemill_workflow::{FailurePolicy, Finish};

use crate::admission::{Lease, ServiceFacts};
use crate::budget::Purse;
use crate::cache::Ticket;
use crate::fallback::Degraded;
use crate::outcome::{Bury, Ending, Fault, ItemEnd, Outcome, Place, RunRef, StepEnd, WaitStep};
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
