//! Settling steps and `for_each` items.

use std::time::Duration;

use redis::FromRedisValue;
use tidemill_protocol::{EntryId, StepState};

use super::{Function, FunctionCall};
use crate::{Error, Partition};

pub(super) const SETTLE_STEP: Function = Function {
    name: "tm1_settle_step",
    keys: &["stream", "live", "ended", "cancelled", "dead", "runs"],
    args: &["group", "who", "dead_cap", "targets"],
};
pub(super) const SETTLE_ITEM: Function =
    Function { name: "tm1_settle_item", keys: &["stream"], args: &["group", "who", "count"] };

/// What an end means for the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "one letter each on the wire, in any combination")]
pub struct Mode {
    /// It counts as a success for dependents that wait for successes.
    pub success: bool,
    /// The run fails when all its steps have ended.
    pub fails_run_at_end: bool,
    /// The run fails at once.
    pub fails_run_now: bool,
    /// Its output is the run's.
    pub gives_output: bool,
    /// It did not run (skipped, cancelled before it began).
    pub did_not_run: bool,
    /// Steps of the run may wait.
    pub waits: bool,
    /// Something is done at the run's end.
    pub closes: bool,
    /// It is one of the steps that do it.
    pub is_closing: bool,
}

impl Mode {
    fn letters(self) -> String {
        let all = [
            (self.success, 'k'),
            (self.fails_run_at_end, 'f'),
            (self.fails_run_now, 'x'),
            (self.gives_output, 's'),
            (self.did_not_run, 'd'),
            (self.waits, 'w'),
            (self.closes, 'z'),
            (self.is_closing, 'u'),
        ];
        all.into_iter().filter_map(|(set, letter)| set.then_some(letter)).collect()
    }

    /// Reads the letters of a fan-out entry.
    #[must_use]
    pub fn from_letters(letters: &str) -> Self {
        Self {
            success: letters.contains('k'),
            fails_run_at_end: letters.contains('f'),
            fails_run_now: letters.contains('x'),
            gives_output: letters.contains('s'),
            did_not_run: letters.contains('d'),
            waits: letters.contains('w'),
            closes: letters.contains('z'),
            is_closing: letters.contains('u'),
        }
    }
}

/// A step that counts the end of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dependent<'a> {
    /// Its index in the plan.
    pub step: u32,
    /// Its id.
    pub name: &'a str,
    /// It fires after this many ends (0: at once).
    pub ended: u32,
    /// It fires after this many successes (0: never by successes).
    pub ok: u32,
    /// Its queue, as an index into the call's targets.
    pub target: usize,
}

/// How a step ended, or (with `step` absent) the next stretch of a wide fan-out.
#[derive(Debug, Clone)]
pub struct StepOutcome<'a> {
    /// The entry that the caller owns.
    pub entry: &'a EntryId,
    /// The run.
    pub run: &'a str,
    /// Its workflow as `name@version`.
    pub workflow: &'a str,
    /// The step's index; absent when only a fan-out goes on.
    pub step: Option<u32>,
    /// The step's id; for a fan-out that goes on, its origin's index or `roots`.
    pub name: &'a str,
    /// The terminal state.
    pub to: StepState,
    /// The attempt that ended.
    pub attempt: u32,
    /// How long the attempt ran.
    pub ran: Duration,
    /// JSON text; empty for none.
    pub output: &'a [u8],
    /// JSON text of code and message; empty for none.
    pub error: &'a str,
    /// The error's code, for the run's dead letter.
    pub code: &'a str,
    /// The error's sentence, for the run's dead letter.
    pub reason: &'a str,
    /// Steps in the plan.
    pub steps: usize,
    /// What the end means for the run.
    pub mode: Mode,
    /// How long the run is kept when this ends it, in milliseconds.
    pub retention_ms: u64,
    /// Whether the run's result is wanted: its hash has `rt` or `rp`.
    pub publishes: bool,
    /// The stream that gets the run's result, as the run's hash says (`rp`).
    pub reply_to: Option<&'a str>,
    /// Where the fan-out goes on after `dependents`, if it is wider than one call.
    pub more: Option<u32>,
    /// The steps that count this end.
    pub dependents: Vec<Dependent<'a>>,
}

/// How an item of a `for_each` ended.
#[derive(Debug, Clone)]
pub struct ItemOutcome<'a> {
    /// The entry that the caller owns.
    pub entry: &'a EntryId,
    /// The run.
    pub run: &'a str,
    /// Its workflow as `name@version`.
    pub workflow: &'a str,
    /// The step's index.
    pub step: u32,
    /// The item's index.
    pub item: u64,
    /// The step's id.
    pub name: &'a str,
    /// The step's queue.
    pub queue: &'a str,
    /// The terminal state.
    pub to: StepState,
    /// The attempt that ended.
    pub attempt: u32,
    /// How long the attempt ran.
    pub ran: Duration,
    /// JSON text; empty for none.
    pub output: &'a [u8],
    /// JSON text of code and message; empty for none.
    pub error: &'a str,
    /// Whether it counts against `tolerate`.
    pub failed: bool,
    /// Whether it did not run.
    pub did_not_run: bool,
    /// How many items may fail: a number, or a share as `5%`.
    pub tolerate: String,
}

/// What became of an outcome.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Settled {
    /// Recorded.
    Recorded,
    /// Recorded, and the run ended with it.
    RunEnded,
    /// Refused: the entry is gone, somebody else has the work.
    Stale,
    /// Refused: the step is not in flight by this entry, or another settler won.
    Conflict,
    /// The run is not there any more.
    RunGone,
    /// A key of the run holds something else; the entry went to the dead letters.
    Corrupt,
}

impl Settled {
    fn of(reply: i64) -> Self {
        match reply {
            1 => Self::Recorded,
            2 => Self::RunEnded,
            0 => Self::Stale,
            -3 => Self::RunGone,
            -4 => Self::Corrupt,
            _ => Self::Conflict,
        }
    }
}

/// Where dead letters stop being kept.
pub(super) const DEAD_CAP: u64 = 100_000;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl Partition {
    /// Settles steps whose entries stand in `queue`'s stream. `targets` are the queues that dependents go to; the first one also
    /// takes the run's own entries. At most 500 dependents per outcome.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; the outcomes are then unknown and may be settled again.
    pub async fn settle_steps(
        &self,
        queue: &str,
        who: &str,
        targets: &[String],
        outcomes: &[StepOutcome<'_>],
    ) -> Result<Vec<Settled>, Error> {
        let keys = self.keys();
        let published = outcomes.iter().filter(|outcome| outcome.publishes).count();
        let mut call =
            FunctionCall::new(&SETTLE_STEP, 6 + targets.len() + outcomes.len() * 2 + published * 2);
        call.key(&keys.jobs(queue))
            .key(&keys.live())
            .key(&keys.ended())
            .key(&keys.cancelled())
            .key(&keys.dead())
            .key(&keys.runs());
        for target in targets {
            call.key(&keys.jobs(target));
        }
        for outcome in outcomes {
            let run = keys.run(outcome.run);
            call.key(&run).key(&keys.audit(outcome.run));
            if outcome.publishes {
                call.key(&keys.result(outcome.run)).key(outcome.reply_to.unwrap_or(&run));
            }
        }
        call.arg(crate::keys::WORKERS).arg(who).arg(DEAD_CAP).arg(targets.len());
        for target in targets {
            call.arg(target.as_str());
        }
        call.arg(outcomes.len());
        for outcome in outcomes {
            write_outcome(&mut call, outcome);
        }
        let replies: Vec<i64> = self.link().query("settling steps", call.command()).await?;
        Ok(replies.into_iter().map(Settled::of).collect())
    }

    /// Settles `for_each` items whose entries stand in `queue`'s stream.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; the outcomes are then unknown and may be settled again.
    pub async fn settle_items(
        &self,
        queue: &str,
        who: &str,
        outcomes: &[ItemOutcome<'_>],
    ) -> Result<Vec<Settled>, Error> {
        let keys = self.keys();
        let mut call = FunctionCall::new(&SETTLE_ITEM, 1 + outcomes.len() * 4);
        call.key(&keys.jobs(queue));
        for o in outcomes {
            call.key(&keys.run(o.run))
                .key(&keys.audit(o.run))
                .key(&keys.items(o.run, o.step))
                .key(&keys.jobs(o.queue));
        }
        call.arg(crate::keys::WORKERS).arg(who).arg(outcomes.len());
        for o in outcomes {
            let mut mode = String::new();
            if o.failed {
                mode.push('f');
            }
            if o.did_not_run {
                mode.push('d');
            }
            call.arg(o.entry.as_str())
                .arg(o.run)
                .arg(o.workflow)
                .arg(o.step)
                .arg(o.item)
                .arg(o.name)
                .arg(o.to.as_str());
            call.arg(o.attempt)
                .arg(millis(o.ran))
                .arg(sealed(o.output))
                .arg(o.error)
                .arg(mode)
                .arg(&o.tolerate);
        }
        let replies: Vec<i64> = self.link().query("settling items", call.command()).await?;
        Ok(replies.into_iter().map(Settled::of).collect())
    }
}

pub(super) fn write_outcome(call: &mut FunctionCall, o: &StepOutcome<'_>) {
    let mut letters = o.mode.letters();
    for (there, letter) in
        [(!o.output.is_empty(), 'o'), (!o.error.is_empty(), 'e'), (o.more.is_some(), 'm'), (o.publishes, 'r')]
    {
        if there {
            letters.push(letter);
        }
    }
    call.arg(o.entry.as_str()).arg(o.run).arg(o.workflow);
    match o.step {
        Some(step) => call.arg(step),
        None => call.arg(""),
    };
    call.arg(o.name).arg(o.to.as_str()).arg(o.attempt).arg(millis(o.ran)).arg(o.steps).arg(letters);
    call.arg(o.retention_ms).arg(o.dependents.len());
    if !o.output.is_empty() {
        call.arg(o.output).arg(format!("{:08x}", tidemill_protocol::checksum(o.output)));
    }
    if !o.error.is_empty() {
        call.arg(o.error).arg(o.code).arg(o.reason);
    }
    if let Some(more) = o.more {
        call.arg(more);
    }
    for dependent in &o.dependents {
        call.arg(dependent.step)
            .arg(dependent.name)
            .arg(dependent.ended)
            .arg(dependent.ok)
            .arg(dependent.target + 1);
    }
}

/// An output with its checksum; an item without an output has an empty one.
fn sealed(output: &[u8]) -> Vec<u8> {
    if output.is_empty() { Vec::new() } else { tidemill_protocol::seal(output) }
}

/// Reads integers out of a reply, for the other twins.
pub(super) fn flags(replies: Vec<i64>) -> Vec<bool> {
    replies.into_iter().map(|reply| reply == 1).collect()
}

/// Reads a list of texts out of a reply.
pub(super) fn texts(value: redis::Value) -> Result<Vec<String>, Error> {
    Vec::<String>::from_redis_value(value).map_err(|error| Error::Corrupt(error.to_string()))
}
