//! Hedging: a call that is later than nearly all others is made a second time, and the first answer counts (Dean and Barroso, "The
//! Tail at Scale", 2013). Only where the service says that its calls may be repeated, where there is plenty of its limit, and for a
//! small share of its calls.

use std::sync::Arc;
use std::time::Duration;

use tidemill_policy::service::HedgeAfter;
use tidemill_protocol::Payload;
use tidemill_tool::{Call, Feedback, Tool, ToolError, ToolFuture};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::admission::{Ended, Lease, Message, Need};
use crate::assignment::{End, Running};
use crate::shared::Shared;

/// A call that may be made a second time.
pub(super) struct Hedge {
    shared: Arc<Shared>,
    tool: Arc<dyn Tool>,
    call: Call,
    need: Arc<Need>,
    after: Duration,
}

/// The second call's place; given back when the race is over, whoever wins.
struct Second {
    shared: Arc<Shared>,
    lease: Option<Lease>,
    since: Instant,
}

impl Second {
    fn has_ended(mut self, end: &End, observed: tidemill_tool::Observed) {
        if let Some(lease) = self.lease.take() {
            self.shared.admission.ended(Ended::of(
                &self.shared,
                lease,
                (end, observed),
                self.since.elapsed(),
            ));
        }
    }
}

impl Drop for Second {
    fn drop(&mut self) {
        if let Some(lease) = self.lease.take() {
            let observed = tidemill_tool::Observed::default();
            let ended = Ended::of(&self.shared, lease, (&End::Cancelled, observed), self.since.elapsed());
            self.shared.admission.ended(ended);
        }
    }
}

impl Hedge {
    /// A hedge for a call, if its service allows one and it is known when a call is late.
    pub(super) fn of(shared: &Arc<Shared>, tool: Arc<dyn Tool>, running: &Running) -> Option<Self> {
        let admitted = running.admitted.as_deref()?;
        let lease = admitted.lease.as_ref().filter(|lease| !lease.probe)?;
        let rules = admitted.facts.as_ref()?.definition.hedge.clone()?;
        let need = &lease.need;
        let known = (need.service_name(), &*need.tool, need.model.as_deref());
        if !shared.admission.hedges.count_call(need.service_name(), rules.max_ratio) {
            return None;
        }
        let after = match rules.after {
            HedgeAfter::Ms(ms) => Duration::from_millis(ms),
            HedgeAfter::P95 => shared.admission.learned.late_after(known)?,
        };
        Some(Self {
            shared: Arc::clone(shared),
            tool,
            call: admitted.call.clone(),
            need: Arc::clone(need),
            after,
        })
    }

    /// The first answer of the call and, when that is late, of its repetition.
    pub(super) fn race(self, first: ToolFuture) -> ToolFuture {
        Box::pin(self.run(first))
    }

    async fn run(self, mut first: ToolFuture) -> Result<Payload, ToolError> {
        tokio::select! {
            biased;
            answer = &mut first => return answer,
            () = tokio::time::sleep(self.after) => {}
        }
        let service = self.need.service_name().to_owned();
        let count = |outcome: &str| self.shared.metrics.hedges.with(&[&service, outcome]).inc();
        let lease = tokio::select! {
            biased;
            answer = &mut first => return answer,
            lease = self.ask(&service) => lease,
        };
        let Some(lease) = lease else {
            count("refused");
            return first.await;
        };
        count("sent");
        let second = Second { shared: Arc::clone(&self.shared), lease: Some(lease), since: Instant::now() };
        let mut call = self.call.clone();
        let (feedback, hears) = Feedback::listening();
        call.context.feedback = feedback;
        let mut repeated = Arc::clone(&self.tool).call(call);
        tokio::select! {
            biased;
            answer = &mut first => match answer {
                Ok(output) => Ok(output),
                // the other may still succeed
                Err(_) => {
                    let answer = repeated.await;
                    second.has_ended(&End::Answered(answer.clone()), hears.take());
                    answer
                }
            },
            answer = &mut repeated => {
                second.has_ended(&End::Answered(answer.clone()), hears.take());
                match answer {
                    Ok(output) => {
                        count("won");
                        Ok(output)
                    }
                    Err(_) => first.await,
                }
            }
        }
    }

    async fn ask(&self, service: &str) -> Option<Lease> {
        if !self.shared.admission.hedges.may_send(service) {
            return None;
        }
        let (reply, answer) = oneshot::channel();
        let need =
            Need { is_retry: false, tickets: vec![false; self.need.tiers.len()], ..(*self.need).clone() };
        self.shared.admission.tell(Message::AskHedge(Box::new(need), reply));
        let lease = answer.await.ok().flatten()?;
        self.shared.admission.hedges.count_sent(service);
        Some(lease)
    }
}
