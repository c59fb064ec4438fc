//! Starting and ending runs, and beginning a `for_each`.

use tidemill_protocol::{EntryId, Labels, RunState, StepState, checksum};

use super::{Function, FunctionCall, steps};
use crate::{Error, Partition};

pub(super) const START: Function = Function {
    name: "tm1_start",
    keys: &["requests", "live", "started", "labelled", "cancelled"],
    args: &["group", "who", "targets", "runs"],
};
pub(super) const FINISH: Function = Function {
    name: "tm1_finish",
    keys: &[
        "stream",
        "run",
        "audit",
        "live",
        "ended",
        "cancelled",
        "dead",
        "result",
        "reply",
        "runs",
        "home",
    ],
    args: &[
        "group",
        "who",
        "dead_cap",
        "entry",
        "id",
        "workflow",
        "to",
        "output",
        "error",
        "code",
        "reason",
        "retention_ms",
    ],
};
pub(super) const END_RUN: Function = Function {
    name: "tm1_end_run",
    keys: &["run", "audit", "live", "ended", "cancelled", "dead", "result", "reply", "runs", "home"],
    args: &["id", "to", "who", "error", "code", "reason", "expect", "dead_cap", "spares"],
};
pub(super) const EXPAND: Function = Function {
    name: "tm1_expand",
    keys: &["stream", "run", "audit", "items", "target"],
    args: &[
        "group", "who", "entry", "id", "workflow", "step", "name", "attempt", "total", "first", "queue",
        "keep_ms",
    ],
};

/// A first step of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootStep<'a> {
    /// Its index in the plan.
    pub step: u32,
    /// Its id.
    pub name: &'a str,
    /// Its queue, as an index into the call's targets.
    pub target: usize,
}

/// A run to start.
#[derive(Debug, Clone)]
pub struct NewRun<'a> {
    /// The entry that asks for it.
    pub entry: &'a EntryId,
    /// The run's id.
    pub id: &'a str,
    /// Its workflow as `name@version`.
    pub workflow: &'a str,
    /// Its longest time, in milliseconds; 0 for none.
    pub deadline_ms: u64,
    /// What the run's hash holds besides: `in`, `rt`, `rp`, `ten`, `tp`, `rms`, … (see `docs/redis-keys.md`).
    pub fields: Vec<(&'a str, &'a [u8])>,
    /// What it is found by.
    pub labels: &'a Labels,
    /// The run that asked for it.
    pub parent: Option<&'a str>,
    /// Steps that another run has done: their ends are this run's.
    pub given: Vec<GivenEnd<'a>>,
    /// Its first steps, at most 500.
    pub roots: Vec<RootStep<'a>>,
    /// Where the fan-out goes on after them, if there are more.
    pub more: Option<u32>,
}

/// The end of a step that a run is started with.
#[derive(Debug, Clone)]
pub struct GivenEnd<'a> {
    /// The step's index.
    pub step: u32,
    /// Its id.
    pub name: &'a str,
    /// `Succeeded` or `Skipped`.
    pub state: StepState,
    /// Its queue.
    pub queue: &'a str,
    /// Whence: a word without spaces.
    pub who: &'a str,
    /// JSON text; empty for none.
    pub output: &'a [u8],
}

/// What became of a run to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Started {
    /// It runs.
    Running,
    /// Somebody else has its entry.
    Stale,
    /// A run of that id exists; the entry was dropped.
    Duplicate,
    /// The run that asked for it has cancelled it since; the entry was dropped.
    Unwanted,
}

/// The end of a run whose output is computed.
#[derive(Debug, Clone)]
pub struct FinishRun<'a> {
    /// The `finish` entry that the caller owns.
    pub entry: &'a EntryId,
    /// The run.
    pub id: &'a str,
    /// Its workflow as `name@version`.
    pub workflow: &'a str,
    /// The terminal state.
    pub to: RunState,
    /// JSON text; empty for none.
    pub output: &'a [u8],
    /// JSON text of code and message; empty for none.
    pub error: &'a str,
    /// The error's code.
    pub code: &'a str,
    /// The error's sentence.
    pub reason: &'a str,
    /// How long the run is kept, in milliseconds.
    pub retention_ms: u64,
    /// The stream that gets the result, as the run's hash says (`rp`).
    pub reply_to: Option<&'a str>,
    /// The queue of the run's own entries.
    pub home: &'a str,
}

/// The end of a run from outside.
#[derive(Debug, Clone)]
pub struct EndRun<'a> {
    /// The run.
    pub id: &'a str,
    /// The terminal state.
    pub to: RunState,
    /// Who wants it.
    pub who: &'a str,
    /// The error's code.
    pub code: &'a str,
    /// The error's sentence.
    pub reason: &'a str,
    /// Only if its deadline has passed.
    pub only_past_deadline: bool,
    /// What it did is not undone.
    pub spares: bool,
    /// Even if it is ending already: what is done at its end is given up.
    pub by_force: bool,
    /// The queue of its own entries, as its hash says (`cl`), where something is done at its end.
    pub home: Option<&'a str>,
    /// The stream that gets the result, as the run's hash says (`rp`).
    pub reply_to: Option<&'a str>,
}

/// The end of a run from outside, by whoever knows no more of it than its id.
#[derive(Debug, Clone, Copy)]
pub struct StopRun<'a> {
    /// The run.
    pub id: &'a str,
    /// The terminal state.
    pub to: RunState,
    /// Who wants it.
    pub who: &'a str,
    /// The error's code.
    pub code: &'a str,
    /// The error's sentence.
    pub reason: &'a str,
    /// Only if its deadline has passed.
    pub only_past_deadline: bool,
    /// What it did is not undone.
    pub spares: bool,
    /// Even if it is ending already: what is done at its end is given up.
    pub by_force: bool,
}

/// The beginning of a `for_each`.
#[derive(Debug, Clone)]
pub struct Expansion<'a> {
    /// The step's entry, owned by the caller.
    pub entry: &'a EntryId,
    /// The run.
    pub run: &'a str,
    /// Its workflow as `name@version`.
    pub workflow: &'a str,
    /// The step's index.
    pub step: u32,
    /// The step's id.
    pub name: &'a str,
    /// The attempt.
    pub attempt: u32,
    /// How many items there are; their inputs stand in the hash of items.
    pub total: u64,
    /// How many start at once.
    pub concurrency: u64,
    /// The queue of the items.
    pub queue: &'a str,
    /// How long the items are kept, in milliseconds.
    pub keep_ms: u64,
}

impl Partition {
    /// The sorted sets, beside that of all, that a run is entered in when it starts.
    pub(super) fn sets_of(&self, labels: &Labels, parent: Option<&str>) -> Vec<String> {
        let labels = labels.words().map(|word| self.keys().label(&word));
        labels.chain(parent.map(|parent| self.keys().children(parent))).collect()
    }

    /// Starts runs whose entries the caller has claimed from the stream of requests. `targets` are the queues of their first steps.
    ///
    /// # Errors
    /// Redis is not reachable or refuses (`maxmemory`); the entries stay and may be tried again.
    pub async fn start(
        &self,
        who: &str,
        targets: &[String],
        runs: &[NewRun<'_>],
    ) -> Result<Vec<Started>, Error> {
        let keys = self.keys();
        let sets: Vec<Vec<String>> = runs.iter().map(|run| self.sets_of(run.labels, run.parent)).collect();
        let in_sets: usize = sets.iter().map(Vec::len).sum();
        let mut call = FunctionCall::new(&START, 5 + targets.len() + runs.len() * 2 + in_sets);
        call.key(&keys.runs())
            .key(&keys.live())
            .key(&keys.started())
            .key(&keys.labelled())
            .key(&keys.cancelled());
        for target in targets {
            call.key(&keys.jobs(target));
        }
        for (run, sets) in runs.iter().zip(&sets) {
            call.key(&keys.run(run.id)).key(&keys.audit(run.id));
            for set in sets {
                call.key(set);
            }
        }
        call.arg(crate::keys::SCHEDULERS).arg(who).arg(targets.len()).arg(runs.len());
        for target in targets {
            call.arg(target.as_str());
        }
        for (run, sets) in runs.iter().zip(&sets) {
            call.arg(run.entry.as_str()).arg(run.id).arg(run.workflow).arg(run.deadline_ms).arg(sets.len());
            let labels = (!run.labels.is_empty()).then(|| run.labels.to_json());
            call.arg((run.fields.len() + usize::from(labels.is_some())) * 2);
            for (name, value) in &run.fields {
                call.arg(*name).arg(*value);
            }
            if let Some(labels) = labels {
                call.arg("lb").arg(labels);
            }
            call.arg(run.given.len());
            for given in &run.given {
                let sum = match given.output {
                    [] => String::new(),
                    output => format!("{:08x}", checksum(output)),
                };
                call.arg(given.step).arg(given.name).arg(given.state.as_str()).arg(given.queue);
                call.arg(given.who).arg(sum).arg(given.output);
            }
            call.arg(run.roots.len());
            match run.more {
                Some(more) => call.arg(more),
                None => call.arg(""),
            };
            for root in &run.roots {
                call.arg(root.step).arg(root.name).arg(root.target + 1);
            }
        }
        let replies: Vec<i64> = self.link().query("starting runs", call.command()).await?;
        let read = |reply| match reply {
            1 => Started::Running,
            -2 => Started::Duplicate,
            -6 => Started::Unwanted,
            _ => Started::Stale,
        };
        Ok(replies.into_iter().map(read).collect())
    }

    /// Ends a run with its computed output. `false`: the entry or the run was gone, or the run had ended.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; the outcome is then unknown and may be settled again.
    pub async fn finish(&self, queue: &str, who: &str, end: &FinishRun<'_>) -> Result<bool, Error> {
        let keys = self.keys();
        let mut call = FunctionCall::new(&FINISH, FINISH.keys.len());
        let run = keys.run(end.id);
        call.key(&keys.jobs(queue)).key(&run).key(&keys.audit(end.id)).key(&keys.live()).key(&keys.ended());
        call.key(&keys.cancelled())
            .key(&keys.dead())
            .key(&keys.result(end.id))
            .key(end.reply_to.unwrap_or(&run))
            .key(&keys.runs())
            .key(&keys.jobs(end.home));
        call.arg(crate::keys::WORKERS)
            .arg(who)
            .arg(steps::DEAD_CAP)
            .arg(end.entry.as_str())
            .arg(end.id)
            .arg(end.workflow);
        call.arg(end.to.as_str())
            .arg(end.output)
            .arg(end.error)
            .arg(end.code)
            .arg(end.reason)
            .arg(end.retention_ms);
        let reply: i64 = self.link().query("finishing a run", call.command()).await?;
        Ok(reply == 1)
    }

    /// Ends a run from outside, or begins its end where something is to be done at it. `None`: there is no such run; `false`: it had
    /// ended, is ending, or its deadline is not reached.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; the outcome is then unknown and may be tried again.
    pub async fn end_run(&self, end: &EndRun<'_>) -> Result<Option<bool>, Error> {
        let keys = self.keys();
        let mut call = FunctionCall::new(&END_RUN, END_RUN.keys.len());
        let run = keys.run(end.id);
        call.key(&run).key(&keys.audit(end.id)).key(&keys.live()).key(&keys.ended()).key(&keys.cancelled());
        call.key(&keys.dead()).key(&keys.result(end.id)).key(end.reply_to.unwrap_or(&run));
        call.key(&keys.runs()).key(&end.home.map_or_else(|| run.clone(), |home| keys.jobs(home)));
        let error = serde_json::json!({ "code": end.code, "message": end.reason }).to_string();
        call.arg(end.id).arg(end.to.as_str()).arg(end.who).arg(error).arg(end.code).arg(end.reason);
        let expect = if end.by_force {
            "!"
        } else if end.only_past_deadline {
            "<"
        } else {
            ""
        };
        call.arg(expect).arg(steps::DEAD_CAP).arg(u8::from(end.spares));
        let reply: i64 = self.link().query("ending a run", call.command()).await?;
        Ok(match reply {
            1 | 2 => Some(true),
            0 => Some(false),
            _ => None,
        })
    }

    /// Reads what [`Self::end_run`] has to know of a run, and does it.
    ///
    /// # Errors
    /// As there.
    pub async fn stop_run(&self, stop: &StopRun<'_>) -> Result<Option<bool>, Error> {
        let names = ["rp".to_owned(), "cl".to_owned()];
        let mut fields = self.fields_of(stop.id, None, &names).await?.into_iter();
        let mut text = || fields.next().flatten().map(|value| String::from_utf8_lossy(&value).into_owned());
        let (reply_to, home) = (text(), text());
        let StopRun { id, to, who, code, reason, only_past_deadline, spares, by_force } = *stop;
        let (reply_to, home) = (reply_to.as_deref(), home.as_deref());
        self.end_run(&EndRun {
            id,
            to,
            who,
            code,
            reason,
            only_past_deadline,
            spares,
            by_force,
            home,
            reply_to,
        })
        .await
    }

    /// Begins a `for_each` after its inputs were written. `false`: stale, in conflict, or the run is gone; or it has ended or is ending,
    /// and then the entry is still the caller's.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; the outcome is then unknown and may be tried again.
    pub async fn expand(&self, queue: &str, who: &str, e: &Expansion<'_>) -> Result<bool, Error> {
        let keys = self.keys();
        let mut call = FunctionCall::new(&EXPAND, EXPAND.keys.len());
        call.key(&keys.jobs(queue))
            .key(&keys.run(e.run))
            .key(&keys.audit(e.run))
            .key(&keys.items(e.run, e.step));
        call.key(&keys.jobs(e.queue));
        call.arg(crate::keys::WORKERS)
            .arg(who)
            .arg(e.entry.as_str())
            .arg(e.run)
            .arg(e.workflow)
            .arg(e.step)
            .arg(e.name);
        call.arg(e.attempt).arg(e.total).arg(e.concurrency.min(e.total).min(500)).arg(e.queue).arg(e.keep_ms);
        let reply: i64 = self.link().query("expanding a for_each", call.command()).await?;
        Ok(reply == 1)
    }
}
