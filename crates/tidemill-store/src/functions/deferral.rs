//! Work put aside, work that became due, and work that moves to a new entry.

use std::time::Duration;

use tidemill_protocol::EntryId;

use super::{Function, FunctionCall, steps};
use crate::keys::{FIRST, base_of};
use crate::{Error, Partition};

pub(super) const DEFER: Function = Function {
    name: "tm1_defer",
    keys: &["stream", "due", "deferred", "queues"],
    args: &["group", "who", "queue", "entries"],
};
pub(super) const PROMOTE: Function =
    Function { name: "tm1_promote", keys: &["due", "deferred", "stream"], args: &["members"] };
pub(super) const RECLAIM: Function = Function {
    name: "tm1_reclaim",
    keys: &["stream", "first", "beats"],
    args: &["group", "who", "consumer", "beat", "deaths", "queue", "entries"],
};
pub(super) const RELEASE: Function = Function {
    name: "tm1_release",
    keys: &["stream", "beats"],
    args: &["group", "who", "consumer", "beat", "deaths", "entries"],
};

/// A step or an item whose record follows the move of its entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The run.
    pub run: String,
    /// The step's index.
    pub step: u32,
    /// The item's index, for an item of a `for_each`.
    pub item: Option<u64>,
    /// The step's id as the audit names it (`order`, `order[3]`).
    pub name: String,
}

impl Slot {
    /// The field of its record, in the run's hash or the hash of items.
    #[must_use]
    pub fn field(&self) -> String {
        self.item.map_or_else(|| format!("s{}", self.step), |item| format!("s{item}"))
    }

    /// Its name among work put aside.
    #[must_use]
    pub fn member(&self) -> String {
        match self.item {
            None => format!("s:{}:{}:{}", self.step, self.name, self.run),
            Some(item) => format!("i:{}:{item}:{}:{}", self.step, self.name, self.run),
        }
    }

    /// Reads a member; plain jobs (`j:<id>`) have no slot.
    #[must_use]
    pub fn of_member(member: &str) -> Option<Self> {
        let (kind, rest) = member.split_once(':')?;
        let (step, rest) = if kind == "s" || kind == "i" { rest.split_once(':')? } else { return None };
        let (item, rest) = if kind == "i" {
            let (item, rest) = rest.split_once(':')?;
            (Some(item.parse().ok()?), rest)
        } else {
            (None, rest)
        };
        let (name, run) = rest.split_once(':')?;
        Some(Self { run: run.to_owned(), step: step.parse().ok()?, item, name: name.to_owned() })
    }
}

/// Why work is put aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeferState {
    /// It was asked for at a later time.
    Delayed,
    /// Its last attempt failed.
    Retrying,
    /// A limit, a breaker or a pause holds it.
    Parked,
}

impl DeferState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Delayed => "ready",
            Self::Retrying => "retrying",
            Self::Parked => "parked",
        }
    }
}

/// When work is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// After a wait, by Redis's clock.
    In(Duration),
    /// At a Unix time in milliseconds.
    At(u64),
}

/// One entry to put aside.
#[derive(Debug, Clone)]
pub struct Deferral<'a> {
    /// The entry that the caller owns.
    pub entry: &'a EntryId,
    /// The plain job's id; unused when `slot` is set.
    pub id: &'a str,
    /// The step or item, unless it is a plain job.
    pub slot: Option<Slot>,
    /// Why.
    pub state: DeferState,
    /// Until when.
    pub due: Due,
    /// What `tidemill why` tells.
    pub note: &'a str,
    /// How long the attempt ran that just failed.
    pub ran: Duration,
    /// The attempt that ended, or that has not begun.
    pub attempt: u32,
    /// Fields of the entry to set.
    pub changes: Vec<(&'static str, String)>,
}

/// An entry that somebody holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The entry.
    pub entry: EntryId,
    /// The step or item behind it, unless it is a plain job or has no record of its own.
    pub slot: Option<Slot>,
    /// The attempt it stood for.
    pub attempt: u32,
}

/// Writes the keys of a slot, or the stream in their place.
pub(super) fn slot_keys(call: &mut FunctionCall, partition: &Partition, stream: &str, slot: Option<&Slot>) {
    let keys = partition.keys();
    match slot {
        Some(slot) => {
            let run = keys.run(&slot.run);
            let records = slot.item.map_or_else(|| run.clone(), |_| keys.items(&slot.run, slot.step));
            call.key(&run).key(&keys.audit(&slot.run)).key(&records);
        }
        None => {
            call.key(stream).key(stream).key(stream);
        }
    }
}

impl Partition {
    /// Puts work aside until it is due. Replies which were; the others were stale or in conflict.
    ///
    /// # Errors
    /// Redis is not reachable or refuses; the outcomes are then unknown and may be tried again.
    pub async fn defer(
        &self,
        queue: &str,
        group: &str,
        who: &str,
        entries: &[Deferral<'_>],
    ) -> Result<Vec<bool>, Error> {
        let keys = self.keys();
        let stream = keys.stream(queue);
        let base = base_of(queue);
        let mut call = FunctionCall::new(&DEFER, 4 + entries.len() * 3);
        call.key(&stream).key(&keys.due(base)).key(&keys.deferred(base)).key(&keys.queues());
        for entry in entries {
            slot_keys(&mut call, self, &stream, entry.slot.as_ref());
        }
        call.arg(group).arg(who).arg(base).arg(entries.len());
        for entry in entries {
            let member = entry.slot.as_ref().map_or_else(|| format!("j:{}", entry.id), Slot::member);
            let (in_ms, at_ms) = match entry.due {
                Due::In(wait) => (wait.as_millis(), 0),
                Due::At(at) => (0, at.max(1)),
            };
            call.arg(entry.entry.as_str())
                .arg(member)
                .arg(u64::try_from(in_ms).unwrap_or(u64::MAX))
                .arg(at_ms);
            call.arg(entry.state.as_str()).arg(entry.note);
            match &entry.slot {
                Some(slot) => call.arg(slot.field()).arg(&slot.name),
                None => call.arg("").arg(""),
            };
            call.arg(u64::try_from(entry.ran.as_millis()).unwrap_or(u64::MAX)).arg(entry.attempt);
            call.arg(entry.changes.len() * 2);
            for (name, value) in &entry.changes {
                call.arg(*name).arg(value);
            }
        }
        let replies: Vec<i64> = self.link().query("putting work aside", call.command()).await?;
        Ok(steps::flags(replies))
    }

    /// The members of a queue's work put aside that are due, oldest first, and how long the next one still waits.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn due(&self, queue: &str, now_ms: u64, limit: usize) -> Result<Vec<String>, Error> {
        let mut ask = redis::Cmd::new();
        ask.arg("ZRANGEBYSCORE")
            .arg(self.keys().due(queue))
            .arg("-inf")
            .arg(now_ms)
            .arg("LIMIT")
            .arg(0)
            .arg(limit);
        self.link().query("asking what is due", &ask).await
    }

    /// Makes due members ready. Replies which were; the others were not due, or another scheduler was faster.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn promote(&self, queue: &str, members: &[String]) -> Result<Vec<bool>, Error> {
        let keys = self.keys();
        let stream = keys.stream(queue);
        let mut call = FunctionCall::new(&PROMOTE, 3 + members.len() * 3);
        call.key(&keys.due(queue)).key(&keys.deferred(queue)).key(&stream);
        let slots: Vec<_> = members.iter().map(|member| Slot::of_member(member)).collect();
        for slot in &slots {
            slot_keys(&mut call, self, &stream, slot.as_ref());
        }
        call.arg(members.len());
        for (member, slot) in members.iter().zip(&slots) {
            call.arg(member);
            match slot {
                Some(slot) => call.arg(slot.field()).arg(&slot.name),
                None => call.arg("").arg(""),
            };
        }
        self.link().query("promoting", call.command()).await.map(steps::flags)
    }

    /// Moves entries that `consumer` holds to new entries at the end of their stream: handed back by itself (`beat` absent), or taken
    /// from it while its liveness still stands at `beat`. Replies the new entries; an absent one was settled or moved by
    /// somebody else.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn release(
        &self,
        (stream, group): (&str, &str),
        who: &str,
        (consumer, beat): (&str, Option<&str>),
        held: &[Held],
    ) -> Result<Vec<Released>, Error> {
        let mut call = FunctionCall::new(&RELEASE, 2 + held.len() * 3);
        call.key(stream).key(&self.keys().beats());
        for one in held {
            slot_keys(&mut call, self, stream, one.slot.as_ref());
        }
        call.arg(group).arg(who).arg(consumer).arg(beat.unwrap_or_default());
        call.arg(u8::from(beat.is_some())).arg(held.len());
        write_held(&mut call, held);
        let replies = steps::texts(self.link().raw("moving entries", call.command()).await?)?;
        Ok(replies.into_iter().map(Released::of).collect())
    }

    /// Takes entries of a queue (or of its stream [`FIRST`]) from a dead worker and has them run before the others of the queue.
    /// Replies as [`Self::release`].
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn reclaim(
        &self,
        queue: &str,
        who: &str,
        (consumer, beat): (&str, &str),
        held: &[Held],
    ) -> Result<Vec<Released>, Error> {
        let (stream, first) = (self.keys().jobs(queue), [base_of(queue), FIRST].concat());
        let mut call = FunctionCall::new(&RECLAIM, 3 + held.len() * 3);
        call.key(&stream).key(&self.keys().jobs(&first)).key(&self.keys().beats());
        for one in held {
            slot_keys(&mut call, self, &stream, one.slot.as_ref());
        }
        call.arg(crate::keys::WORKERS).arg(who).arg(consumer).arg(beat).arg(1).arg(&first).arg(held.len());
        write_held(&mut call, held);
        let replies = steps::texts(self.link().raw("taking entries from the dead", call.command()).await?)?;
        Ok(replies.into_iter().map(Released::of).collect())
    }
}

fn write_held(call: &mut FunctionCall, held: &[Held]) {
    for one in held {
        call.arg(one.entry.as_str());
        match &one.slot {
            Some(slot) => call.arg(slot.field()).arg(&slot.name),
            None => call.arg("").arg(""),
        };
        call.arg(one.attempt);
    }
}

/// What became of an entry that was to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Released {
    /// It is now this entry.
    Moved(String),
    /// Somebody else settled or moved it.
    Gone,
    /// It has more fields than a function can carry; it must be buried.
    Unmovable,
}

impl Released {
    fn of(reply: String) -> Self {
        match reply.as_str() {
            "" => Self::Gone,
            "unmovable" => Self::Unmovable,
            _ => Self::Moved(reply),
        }
    }
}
