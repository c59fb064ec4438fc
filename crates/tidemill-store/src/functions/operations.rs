//! What is done to steps by hand.

use super::{Function, FunctionCall, StepOutcome, steps};
use crate::keys::{FIRST, WAITS, WORKERS};
use crate::{Error, Operation, Partition, Slot};

pub(super) const GIVE: Function = Function {
    name: "tm1_give",
    keys: &[
        "stream",
        "live",
        "ended",
        "cancelled",
        "dead",
        "runs",
        "first",
        "due",
        "deferred",
        "line",
        "alarms",
        "generations",
        "operations",
    ],
    args: &["group", "who", "dead_cap", "targets", "member", "queue", "by", "why"],
};

pub(super) const PAUSE: Function = Function {
    name: "tm1_pause",
    keys: &["holder", "operations"],
    args: &["field", "text", "kind", "subject", "by", "why"],
};

/// An output that a step is given by hand.
#[derive(Debug, Clone)]
pub struct Gift<'a> {
    /// The step.
    pub slot: &'a Slot,
    /// Its queue.
    pub queue: &'a str,
    /// The tier in whose line it stands, if it does.
    pub tier: Option<&'a str>,
    /// Who, as the run's audit names it: a word without spaces.
    pub who: &'a str,
    /// The operation, for the stream of operations.
    pub operation: &'a Operation<'a>,
    /// Its success. The entry and the attempt are those that are found.
    pub outcome: StepOutcome<'a>,
}

/// What became of it.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    /// It is recorded.
    Recorded,
    /// It is recorded, and the run ended with it.
    RunEnded,
    /// Refused: somebody runs the step.
    Runs,
    /// Refused: the step has ended.
    Ended,
    /// Refused: the step has not become ready.
    Pending,
    /// Refused: the run has ended, or is ending.
    Over,
    /// There is no such run.
    RunGone,
}

impl Partition {
    pub(crate) async fn call_pause(
        &self,
        (holder, field, text): (&str, &str, &str),
        operation: &Operation<'_>,
    ) -> Result<i64, Error> {
        let mut call = FunctionCall::new(&PAUSE, 2);
        call.key(holder).key(&self.keys().operations());
        call.arg(field).arg(text).arg(operation.kind).arg(operation.subject);
        call.arg(operation.by).arg(operation.why);
        self.link().query("pausing or resuming", call.command()).await
    }

    /// Gives a step an output in place of what it would have done. `targets` are the queues that dependents go to, as with
    /// [`Self::settle_steps`].
    ///
    /// # Errors
    /// Redis is not reachable or refuses; the outcome is then unknown, and asking again says [`Given::Ended`] if it was recorded.
    pub async fn give(&self, targets: &[String], gift: &Gift<'_>) -> Result<Given, Error> {
        let keys = self.keys();
        let (queue, outcome) = (gift.queue, &gift.outcome);
        let run = keys.run(outcome.run);
        let own = GIVE.keys.len() + targets.len() + 2;
        let mut call = FunctionCall::new(&GIVE, own + if outcome.publishes { 2 } else { 0 });
        call.key(&keys.jobs(queue)).key(&keys.live()).key(&keys.ended()).key(&keys.cancelled());
        call.key(&keys.dead()).key(&keys.runs()).key(&keys.jobs(&format!("{queue}{FIRST}")));
        call.key(&keys.due(queue)).key(&keys.deferred(queue));
        call.key(&gift.tier.map_or_else(|| keys.due(queue), |tier| keys.line(tier)));
        call.key(&keys.due(WAITS)).key(&keys.deferred(WAITS)).key(&keys.operations());
        for target in targets {
            call.key(&keys.jobs(target));
        }
        call.key(&run).key(&keys.audit(outcome.run));
        if outcome.publishes {
            call.key(&keys.result(outcome.run)).key(outcome.reply_to.unwrap_or(&run));
        }
        call.arg(WORKERS).arg(gift.who).arg(steps::DEAD_CAP).arg(targets.len());
        call.arg(gift.slot.member()).arg(queue).arg(gift.operation.by).arg(gift.operation.why);
        for target in targets {
            call.arg(target.as_str());
        }
        call.arg(1);
        steps::write_outcome(&mut call, outcome);
        let reply: i64 = self.link().query("giving a step its output", call.command()).await?;
        Ok(match reply {
            1 => Given::Recorded,
            2 => Given::RunEnded,
            -1 => Given::Ended,
            -5 => Given::Pending,
            -6 => Given::Over,
            -3 => Given::RunGone,
            _ => Given::Runs,
        })
    }
}
