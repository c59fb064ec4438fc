//! Steps that wait: putting them to wait, waking them, signals, and what is done at a run's end.

use std::time::Duration;

use bytes::Bytes;
use tidemill_protocol::{EntryId, RunState};

use super::{Function, FunctionCall, Slot, steps};
use crate::keys::{WAITS, WORKERS};
use crate::{Error, Partition};

pub(super) const WAIT: Function = Function {
    name: "tm1_wait",
    keys: &["stream", "run", "audit", "mail", "due", "deferred", "target", "requests", "events", "ears"],
    args: &[
        "group",
        "who",
        "entry",
        "id",
        "workflow",
        "step",
        "name",
        "attempt",
        "ran_ms",
        "memo",
        "member",
        "alarm_ms",
        "generation",
        "why",
    ],
};
pub(super) const DELIVER: Function =
    Function { name: "tm1_deliver", keys: &["due", "deferred"], args: &["letters"] };
pub(super) const SIGNAL: Function = Function {
    name: "tm1_signal",
    keys: &["run", "audit", "mail"],
    args: &["id", "workflow", "name", "letter", "payload", "most", "candidates"],
};
pub(super) const MAIL: Function = Function { name: "tm1_mail", keys: &["mail"], args: &["step"] };
pub(super) const CLOSE: Function = Function {
    name: "tm1_close",
    keys: &[
        "stream",
        "run",
        "audit",
        "target",
        "live",
        "ended",
        "cancelled",
        "dead",
        "result",
        "reply",
        "runs",
    ],
    args: &[
        "group",
        "who",
        "dead_cap",
        "entry",
        "id",
        "workflow",
        "seen",
        "action",
        "step",
        "name",
        "queue",
        "to",
        "retention_ms",
    ],
};

/// Most signals that a run keeps for steps that do not listen yet.
pub const MOST_EARLY_SIGNALS: u32 = 1_000;

/// A step that is to wait.
#[derive(Debug, Clone)]
pub struct Waiting<'a> {
    /// The step's entry, owned by the caller.
    pub entry: &'a EntryId,
    /// The step.
    pub slot: &'a Slot,
    /// The run's workflow as `name@version`.
    pub workflow: &'a str,
    /// The attempt.
    pub attempt: u32,
    /// How long the attempt ran.
    pub ran: Duration,
    /// What it remembers: JSON text.
    pub memo: &'a [u8],
    /// When it is to be looked at again, in Unix milliseconds, and the alarm's generation.
    pub alarm: Option<(u64, u64)>,
    /// What it waits for, as a person reads it.
    pub why: &'a str,
    /// Keys of the letters that it has read.
    pub read: &'a [String],
    /// A letter to itself, which it reads next: its key and JSON text.
    pub letter: Option<(&'a str, &'a [u8])>,
    /// Names of all signals that it listens for.
    pub listen: &'a [String],
    /// Events to publish: JSON texts.
    pub publish: &'a [Bytes],
    /// Runs that it asks for: the fields of each request.
    pub requests: Vec<Vec<(&'static str, Bytes)>>,
    /// The step's queue.
    pub queue: &'a str,
}

/// What became of a step that was to wait.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waited {
    /// It waits.
    Waits,
    /// It is ready again: something had come.
    ReadyAgain,
    /// Refused: the entry is gone, somebody else has the work.
    Stale,
    /// Refused: the step is not in flight by this entry.
    Conflict,
    /// The run has ended, or is ending; the entry is still the caller's.
    RunEnded,
    /// The run is not there any more.
    RunGone,
}

/// A letter for a step.
#[derive(Debug, Clone)]
pub struct Letter<'a> {
    /// The step.
    pub slot: &'a Slot,
    /// The run's workflow as `name@version`.
    pub workflow: &'a str,
    /// The step's queue.
    pub queue: &'a str,
    /// What.
    pub content: Content<'a>,
}

/// What a letter brings.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// The step's alarm, if it is due.
    Due,
    /// Nothing: the step is to look at its run.
    Wake,
    /// Something that happened, as JSON text; one of the same key that it has not read is the same.
    News {
        /// Its key, without spaces.
        key: &'a str,
        /// JSON text.
        payload: &'a [u8],
    },
    /// The same, if the step's record still stands as the sender saw it.
    IfUnchanged {
        /// Its key, without spaces.
        key: &'a str,
        /// JSON text.
        payload: &'a [u8],
        /// The step's record.
        seen: &'a str,
    },
}

/// What became of a letter.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// It woke the step.
    Woke,
    /// The step is busy and reads it later.
    Kept,
    /// It was there already, or is not due.
    Nothing,
    /// The step has ended, does not exist, or is not as expected.
    Unwanted,
    /// The run is not there any more.
    RunGone,
}

/// What became of a signal.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signalled {
    /// A step has it.
    Taken,
    /// No step listens yet; it is kept.
    Kept,
    /// A signal of that id was sent before.
    Duplicate,
    /// The run has ended, or is ending.
    RunEnded,
    /// The run is not there.
    RunGone,
    /// No step of the run ever waits.
    NeverWaits,
    /// Too many are kept.
    Full,
    /// A step has begun to listen meanwhile: ask again.
    Again,
}

/// A signal to a run.
#[derive(Debug, Clone)]
pub struct NewSignal<'a> {
    /// The run.
    pub run: &'a str,
    /// Its workflow as `name@version`.
    pub workflow: &'a str,
    /// The signal's name.
    pub name: &'a str,
    /// The sender's id of it, without spaces.
    pub id: &'a str,
    /// The letter that the step gets: JSON text.
    pub letter: &'a [u8],
    /// The steps that may listen: index, id, queue.
    pub candidates: &'a [(u32, &'a str, &'a str)],
}

/// What is next at a run's end.
#[derive(Debug, Clone)]
pub struct Closing<'a> {
    /// The `close` entry that the caller owns.
    pub entry: &'a EntryId,
    /// The run.
    pub run: &'a str,
    /// Its workflow as `name@version`.
    pub workflow: &'a str,
    /// How many steps of its end had been dispatched when the caller looked.
    pub seen: u32,
    /// What is next.
    pub next: NextClosing<'a>,
    /// How long the run is kept, in milliseconds.
    pub retention_ms: u64,
    /// The stream that gets the run's result, as its hash says (`rp`).
    pub reply_to: Option<&'a str>,
}

/// See [`Closing`].
#[derive(Debug, Clone, Copy)]
pub enum NextClosing<'a> {
    /// Something is still in flight.
    Wait,
    /// A step that undoes another: index, id, queue.
    Undo(u32, &'a str, &'a str),
    /// A step that comes last: index, id, queue.
    Last(u32, &'a str, &'a str),
    /// The run ends so.
    End(RunState),
}

impl Partition {
    /// Puts a step to wait.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; the outcome is then unknown and may be tried again.
    pub async fn wait(&self, queue: &str, who: &str, w: &Waiting<'_>) -> Result<Waited, Error> {
        let keys = self.keys();
        let run = &w.slot.run;
        let mut call = FunctionCall::new(&WAIT, WAIT.keys.len());
        call.key(&keys.jobs(queue)).key(&keys.run(run)).key(&keys.audit(run)).key(&keys.mail(run));
        call.key(&keys.due(WAITS)).key(&keys.deferred(WAITS)).key(&keys.jobs(w.queue)).key(&keys.runs());
        call.key(&keys.events()).key(&keys.ears());
        call.arg(WORKERS).arg(who).arg(w.entry.as_str()).arg(run).arg(w.workflow).arg(w.slot.step);
        call.arg(&w.slot.name)
            .arg(w.attempt)
            .arg(u64::try_from(w.ran.as_millis()).unwrap_or(u64::MAX))
            .arg(w.memo);
        call.arg(w.slot.member());
        match w.alarm {
            Some((at_ms, generation)) => call.arg(at_ms).arg(generation),
            None => call.arg("").arg(""),
        };
        call.arg(w.why).arg(w.read.len());
        for key in w.read {
            call.arg(key);
        }
        match w.letter {
            Some((key, letter)) => call.arg(2).arg(key).arg(letter),
            None => call.arg(0),
        };
        call.arg(w.listen.len());
        for name in w.listen {
            call.arg(name);
        }
        call.arg(w.publish.len());
        for event in w.publish {
            call.arg(&event[..]);
        }
        call.arg(w.requests.len());
        for fields in &w.requests {
            call.arg(fields.len() * 2);
            for (name, value) in fields {
                call.arg(*name).arg(&value[..]);
            }
        }
        let reply: i64 = self.link().query("putting a step to wait", call.command()).await?;
        Ok(match reply {
            1 => Waited::Waits,
            2 => Waited::ReadyAgain,
            0 => Waited::Stale,
            -2 => Waited::RunEnded,
            -3 => Waited::RunGone,
            _ => Waited::Conflict,
        })
    }

    /// Delivers letters to steps, waking those that wait.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; the letters may be sent again.
    pub async fn deliver(&self, letters: &[Letter<'_>]) -> Result<Vec<Delivered>, Error> {
        if letters.is_empty() {
            return Ok(Vec::new());
        }
        let keys = self.keys();
        let mut call = FunctionCall::new(&DELIVER, 2 + letters.len() * 4);
        call.key(&keys.due(WAITS)).key(&keys.deferred(WAITS));
        for letter in letters {
            let run = &letter.slot.run;
            call.key(&keys.run(run)).key(&keys.audit(run)).key(&keys.mail(run)).key(&keys.jobs(letter.queue));
        }
        call.arg(letters.len());
        for letter in letters {
            let slot = letter.slot;
            call.arg(&slot.run).arg(letter.workflow).arg(slot.step).arg(&slot.name);
            match letter.content {
                Content::Due => call.arg("").arg("").arg("due"),
                Content::Wake => call.arg("").arg("").arg(""),
                Content::News { key, payload } => call.arg(key).arg(payload).arg(""),
                Content::IfUnchanged { key, payload, seen } => call.arg(key).arg(payload).arg(seen),
            };
            call.arg(slot.member());
        }
        let replies: Vec<i64> = self.link().query("waking steps", call.command()).await?;
        let read = |reply| match reply {
            1 => Delivered::Woke,
            2 => Delivered::Kept,
            0 => Delivered::Nothing,
            -3 => Delivered::RunGone,
            _ => Delivered::Unwanted,
        };
        Ok(replies.into_iter().map(read).collect())
    }

    /// Sends a signal to a run.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; it may be sent again with the same id.
    pub async fn signal(&self, s: &NewSignal<'_>) -> Result<Signalled, Error> {
        let keys = self.keys();
        let mut call = FunctionCall::new(&SIGNAL, 3 + s.candidates.len());
        call.key(&keys.run(s.run)).key(&keys.audit(s.run)).key(&keys.mail(s.run));
        for (_, _, queue) in s.candidates {
            call.key(&keys.jobs(queue));
        }
        call.arg(s.run).arg(s.workflow).arg(s.name).arg(s.id).arg(s.letter).arg(MOST_EARLY_SIGNALS);
        call.arg(s.candidates.len());
        for (step, name, _) in s.candidates {
            call.arg(*step).arg(*name);
        }
        let reply: i64 = self.link().query("sending a signal", call.command()).await?;
        Ok(match reply {
            1 => Signalled::Taken,
            3 => Signalled::Kept,
            2 => Signalled::Duplicate,
            -2 => Signalled::RunEnded,
            -3 => Signalled::RunGone,
            -4 => Signalled::NeverWaits,
            -6 => Signalled::Full,
            _ => Signalled::Again,
        })
    }

    /// A step's letters that it has not read: their keys and JSON texts.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn mail(&self, run: &str, step: u32) -> Result<Vec<(String, Bytes)>, Error> {
        let mut call = FunctionCall::new(&MAIL, 1);
        call.key(&self.keys().mail(run)).arg(step);
        let flat: Vec<Bytes> = self.link().query("reading a step's mail", call.command()).await?;
        let pairs = flat
            .chunks_exact(2)
            .map(|pair| (String::from_utf8_lossy(&pair[0]).into_owned(), pair[1].clone()));
        Ok(pairs.collect())
    }

    /// Does what is next at a run's end. `None`: the entry was not the caller's, somebody was faster, or the run is gone;
    /// `Some(true)`: the run has ended.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; the outcome is then unknown and may be tried again.
    pub async fn close(&self, queue: &str, who: &str, c: &Closing<'_>) -> Result<Option<bool>, Error> {
        let keys = self.keys();
        let run = keys.run(c.run);
        let (action, step, name, target, to) = match c.next {
            NextClosing::Wait => ("wait", 0, "", queue, ""),
            NextClosing::Undo(step, name, target) => ("undo", step, name, target, ""),
            NextClosing::Last(step, name, target) => ("last", step, name, target, ""),
            NextClosing::End(to) => ("end", 0, "", queue, to.as_str()),
        };
        let mut call = FunctionCall::new(&CLOSE, CLOSE.keys.len());
        call.key(&keys.jobs(queue))
            .key(&run)
            .key(&keys.audit(c.run))
            .key(&keys.jobs(target))
            .key(&keys.live());
        call.key(&keys.ended()).key(&keys.cancelled()).key(&keys.dead()).key(&keys.result(c.run));
        call.key(c.reply_to.unwrap_or(&run)).key(&keys.runs());
        call.arg(WORKERS)
            .arg(who)
            .arg(steps::DEAD_CAP)
            .arg(c.entry.as_str())
            .arg(c.run)
            .arg(c.workflow)
            .arg(c.seen);
        call.arg(action).arg(step).arg(name).arg(target).arg(to).arg(c.retention_ms);
        let reply: i64 = self.link().query("closing a run", call.command()).await?;
        Ok(match reply {
            1 => Some(false),
            2 => Some(true),
            _ => None,
        })
    }
}
