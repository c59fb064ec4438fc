//! What answers in place of a call that failed for good or cannot be made: another tool, the tool by way of another service, a
//! constant, an answer that is old. It is never silent: results carry `degraded`, steps an error of that code beside their output.

use std::sync::Arc;
use std::time::Duration;

use tidemill_policy::service::{Fallback, FallbackOn};
use tidemill_protocol::Payload;
use tidemill_tool::{Call, Context, Feedback, ToolError};
use tidemill_workflow::Filter;

use crate::admission::ServiceFacts;
use crate::assignment::{Admitted, Assignment, Progress, Running, Target};
use crate::outcome::Fault;
use crate::shared::Shared;

/// That something else answers, and why.
#[derive(Debug, Clone)]
pub(crate) struct Degraded {
    /// The service whose fallbacks are tried.
    chain: Arc<ServiceFacts>,
    /// The next of them.
    next: usize,
    /// Why the first call was given up.
    reason: ToolError,
    /// What answers now, for people.
    by: String,
}

impl Degraded {
    /// The member `degraded` of a result.
    pub(crate) fn json(&self) -> String {
        let told = tidemill_protocol::Degraded {
            service: self.chain.name.to_string(),
            answered_by: self.by.clone(),
            code: self.reason.code.to_string(),
            reason: self.reason.message.clone(),
        };
        serde_json::to_string(&told).unwrap_or_else(|_| "{}".to_owned())
    }

    /// The same beside the output of a step.
    pub(crate) fn fault(&self) -> Fault {
        let message =
            format!("{} answered in place of service {}: {}", self.by, self.chain.name, self.reason);
        Fault::new("degraded", message)
    }
}

/// What is done next.
pub(crate) enum Next {
    /// Another call is made.
    Call(Box<Assignment>),
    /// There is an answer.
    Answer(Box<Running>, Payload),
    /// The cache is asked for an old answer.
    Stale(Box<Running>),
    /// Nothing is left: the error is final.
    Nothing(Box<Running>, ToolError),
}

/// The service whose cache holds old answers.
pub(crate) fn chain(admitted: &Admitted) -> Option<Arc<str>> {
    admitted.degraded.as_ref().map(|degraded| Arc::clone(&degraded.chain.name))
}

/// Whether there is something to fall back on.
pub(crate) fn has_next(running: &Running, on: FallbackOn) -> bool {
    let Some(admitted) = running.admitted.as_deref() else { return false };
    if let Some(degraded) = &admitted.degraded {
        return degraded.next < degraded.chain.definition.fallback.len();
    }
    admitted.facts.as_ref().is_some_and(|facts| {
        !facts.definition.fallback.is_empty() && facts.definition.fallback_on.contains(&on)
    })
}

/// The error that is told at the end of a chain: the first one, and how the last fallback failed.
pub(crate) fn told(admitted: Option<&Admitted>, error: ToolError) -> ToolError {
    let Some(degraded) = admitted.and_then(|admitted| admitted.degraded.as_ref()) else { return error };
    let mut first = degraded.reason.clone();
    first.message = format!("{}; in its place {} failed too: {error}", first.message, degraded.by);
    first
}

/// The next fallback after an error.
pub(crate) fn next(shared: &Shared, mut running: Box<Running>, error: ToolError) -> Next {
    let Some(mut admitted) = running.admitted.take() else { return Next::Nothing(running, error) };
    let mut degraded = match (admitted.degraded.take(), &admitted.facts) {
        (Some(degraded), _) => degraded,
        (None, Some(facts)) => {
            Box::new(Degraded { chain: Arc::clone(facts), next: 0, reason: error.clone(), by: String::new() })
        }
        (None, None) => {
            running.admitted = Some(admitted);
            return Next::Nothing(running, error);
        }
    };
    let chain = Arc::clone(&degraded.chain);
    let left = chain.definition.fallback.iter().zip(&chain.fallback_inputs).skip(degraded.next);
    for (fallback, made) in left {
        degraded.next += 1;
        let word = match fallback {
            Fallback::Value(value) => {
                degraded.by = "a constant".to_owned();
                let Ok(payload) = Payload::from_value(value) else { continue };
                count(shared, &degraded, "value");
                admitted.degraded = Some(degraded);
                running.admitted = Some(admitted);
                return Next::Answer(running, payload);
            }
            Fallback::Stale => {
                degraded.by = "an old answer".to_owned();
                admitted.degraded = Some(degraded);
                running.admitted = Some(admitted);
                return Next::Stale(running);
            }
            Fallback::Tool { tool, .. } => ("tool", tool),
            Fallback::Service(service) => ("service", service),
        };
        degraded.by = format!("{} {}", word.0, word.1);
        if let Some(target) = target(shared, &admitted, (fallback, made.as_ref()), &chain.name) {
            count(shared, &degraded, word.0);
            return Next::Call(Box::new(call(*running, *admitted, degraded, target)));
        }
    }
    admitted.degraded = Some(degraded);
    running.admitted = Some(admitted);
    Next::Nothing(running, error)
}

pub(crate) fn count(shared: &Shared, degraded: &Degraded, by: &str) {
    shared.metrics.fallbacks.with(&[&degraded.chain.name, by]).inc();
}

/// An old answer was there.
pub(crate) fn count_stale(shared: &Shared, running: &Running) {
    if let Some(degraded) = running.admitted.as_ref().and_then(|admitted| admitted.degraded.as_deref()) {
        count(shared, degraded, "stale");
    }
}

/// What a fallback calls, on what, and for how long at most.
fn target(
    shared: &Shared,
    admitted: &Admitted,
    (fallback, made): (&Fallback, Option<&Filter>),
    chain: &str,
) -> Option<(Target, Payload, Duration)> {
    let (tool, service, with) = match fallback {
        Fallback::Tool { tool, with } => (tool.as_str(), None, with.as_ref().map(|_| made)),
        Fallback::Service(service) => (&*admitted.tool, Some(Arc::from(service.as_str())), None),
        Fallback::Value(_) | Fallback::Stale => return None,
    };
    let Some(entry) = shared.registry.get(tool) else {
        tracing::warn!(tool, service = chain, "a fallback names a tool that this worker does not have");
        return None;
    };
    let input = match with {
        Some(Some(with)) => {
            let json = admitted.call.input.clone().into_json().ok()?.into_bytes();
            let made = with.run(&json, &shared.limits).inspect_err(|error| {
                tracing::warn!(tool, service = chain, %error, "the input of a fallback cannot be made");
            });
            Payload::json(made.ok()?)
        }
        // it did not compile; the log said so when the definition was read
        Some(None) => return None,
        None => admitted.call.input.clone(),
    };
    let mut target = Target::of(entry);
    target.service = service.or(target.service);
    Some((target, input, entry.timeout))
}

fn call(
    running: Running,
    admitted: Admitted,
    degraded: Box<Degraded>,
    (target, input, timeout): (Target, Payload, Duration),
) -> Assignment {
    let context = Context { feedback: Feedback::default(), ..admitted.call.context };
    Assignment {
        place: running.place,
        entry: running.entry,
        target,
        standing: admitted.standing,
        progress: Progress { degraded: Some(degraded), ..Progress::default() },
        call: Call { input, context },
        timeout,
        attempt: running.attempt,
        deaths: 0,
        owner: running.owner,
    }
}
