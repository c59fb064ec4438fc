//! What a grant gives, and what is told when the granted call has ended.

use std::sync::Arc;
use std::time::Duration;

use tidemill_protocol::ErrorClass;
use tidemill_store::CallOutcome;
use tidemill_tool::Observed;
use tokio::time::Instant;

use super::amounts;
use super::need::Need;
use crate::assignment::End;
use crate::shared::Shared;

/// A granted call. It must be given back by [`super::Admission::ended`]; what a dead worker held comes back by itself.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) need: Arc<Need>,
    /// When it was granted, in Redis's microseconds.
    pub(crate) granted_us: u64,
    /// When it was asked for: it is at most so old.
    pub(crate) asked_at: Instant,
    pub(crate) epoch: i64,
    pub(crate) probe: bool,
}

/// Grants of one call that may be too old before one is used all the same.
const MOST_STALE: u32 = 5;

impl Lease {
    /// Whether the call may still begin: what begins long after its grant falls into another window of the service.
    pub(crate) fn is_fresh(&self) -> bool {
        let need = &self.need;
        need.stale_grants >= MOST_STALE
            || need.fresh_for.is_none_or(|fresh_for| self.asked_at.elapsed() <= fresh_for)
    }
}

/// A service that asks for less and does not say for how long is left alone for so long.
const UNTOLD_PAUSE: Duration = Duration::from_secs(1);

fn outcome_of(need: &Need, class: ErrorClass) -> CallOutcome {
    let counts =
        need.service.as_ref().is_some_and(|service| service.definition.breaker.counts.contains(&class));
    match class {
        ErrorClass::Throttled => CallOutcome::Throttled,
        _ if counts => CallOutcome::Failed,
        ErrorClass::InvalidInput | ErrorClass::Forbidden | ErrorClass::Internal => CallOutcome::Ignored,
        ErrorClass::Timeout
        | ErrorClass::Connect
        | ErrorClass::Server
        | ErrorClass::Client
        | ErrorClass::BadContent
        | ErrorClass::Exec => CallOutcome::Ok,
    }
}

/// How a granted call ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) lease: Lease,
    pub(crate) outcome: CallOutcome,
    pub(crate) latency: Duration,
    /// What the service said, and what was used as far as the tool knows.
    pub(crate) observed: Observed,
    /// What was used, by unit, as far as it is known.
    pub(crate) used: Vec<(Arc<str>, f64)>,
}

impl Ended {
    /// Leaves out what would be given back: it may have been taken in already, and twice would be too much.
    pub(super) fn forget_refunds(&mut self) {
        let reserved = &self.lease.need.amounts;
        self.used
            .retain(|(unit, used)| reserved.iter().any(|(known, amount)| known == unit && used > amount));
        if self.outcome == CallOutcome::Unsent {
            self.outcome = CallOutcome::Ignored;
        }
    }

    /// What the end of an attempt tells about its service. Only its own faults count against it: that a call was refused for what
    /// it asked is no failure of the service, and what never reached it says nothing.
    pub(crate) fn of(
        shared: &Shared,
        lease: Lease,
        (end, mut observed): (&End, Observed),
        latency: Duration,
    ) -> Self {
        let need = &lease.need;
        let (outcome, output) = match end {
            End::Cancelled | End::HandedBack => (CallOutcome::Ignored, None),
            End::Answered(Ok(output)) => (CallOutcome::Ok, Some(output)),
            End::Answered(Err(error)) => (outcome_of(need, error.class), None),
        };
        if let End::Answered(Err(error)) = end
            && outcome == CallOutcome::Throttled
            && observed.retry_after.is_none()
        {
            observed.retry_after = Some(error.retry_after.unwrap_or(UNTOLD_PAUSE));
        }
        let used = amounts::used(need, output, &observed);
        let (service, learned) = (need.service_name(), &shared.admission.learned);
        shared.metrics.service_calls.with(&[service, outcome.as_str()]).inc();
        if outcome == CallOutcome::Ok {
            let of = (service, &*need.tool, need.model.as_deref());
            learned.took(of, latency);
            for (unit, amount) in &used {
                learned.used(of, unit, *amount);
            }
        }
        Self { lease, outcome, latency, observed, used }
    }

    /// A call that was not made.
    pub(crate) fn unsent(lease: Lease) -> Self {
        Self {
            lease,
            outcome: CallOutcome::Unsent,
            latency: Duration::ZERO,
            observed: Observed::default(),
            used: Vec::new(),
        }
    }
}
