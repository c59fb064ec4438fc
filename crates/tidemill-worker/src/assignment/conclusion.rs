//! What the end of an attempt means: an outcome to settle, another attempt, or something else in its place.

use std::sync::Arc;
use std::time::Duration;

use tidemill_policy::service::FallbackOn;
use tidemill_policy::{Decision, Failure, decide};
use tidemill_protocol::{
    EntryId, ErrorBody, ErrorClass, Extras, Payload, RetryPolicy, StepState, result_head,
};
use tidemill_store::{DeferState, Due};
use tidemill_tool::ToolError;

use super::{Concluded, End, Owner, Running, bury, item_end, step_end};
use crate::admission::Ended;
use crate::budget;
use crate::fallback::{self, Degraded};
use crate::outcome::{Complete, Defer, Ending, Fault, ItemEnd, Outcome, Place, Release, StepEnd, WaitStep};
use crate::shared::Shared;

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
