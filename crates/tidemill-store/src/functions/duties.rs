//! Liveness, cancelling, cron, replay and repair.

use redis::{Cmd, FromRedisValue, Value};

use super::{Function, FunctionCall, Slot};
use crate::keys::base_of;
use crate::lines::place_of;
use crate::{Error, Partition};

pub(super) const BEAT: Function =
    Function { name: "tm1_beat", keys: &["beats", "cancelled"], args: &["consumer", "number", "since_ms"] };
pub(super) const FORGET: Function =
    Function { name: "tm1_forget", keys: &["beats", "members"], args: &["consumer", "beat", "streams"] };
pub(super) const CANCEL: Function = Function {
    name: "tm1_cancel",
    keys: &["stream", "due", "deferred", "cancelled", "result", "line"],
    args: &["id", "group", "reason", "queue"],
};
pub(super) const FIRE: Function =
    Function { name: "tm1_fire", keys: &["due", "target", "fired"], args: &["name", "seen_ms", "next_ms"] };
pub(super) const REPLAY: Function =
    Function { name: "tm1_replay", keys: &["dead", "target"], args: &["letter"] };
pub(super) const REPAIR: Function = Function {
    name: "tm1_repair",
    keys: &["run", "audit", "records", "stream", "due", "deferred", "line"],
    args: &["id", "workflow", "step", "item", "slot", "name", "seen", "member", "who", "place"],
};

/// The answer to a beat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beat {
    /// Redis's time, in Unix milliseconds.
    pub now_ms: u64,
    /// Ids of jobs and runs that were cancelled since the last beat.
    pub cancelled: Vec<String>,
}

/// One firing of a cron entry.
#[derive(Debug, Clone)]
pub struct Firing<'a> {
    /// The cron entry.
    pub name: &'a str,
    /// The due time that the caller saw.
    pub seen_ms: u64,
    /// The next due time; absent when there is none.
    pub next_ms: Option<u64>,
    /// The stream that the job goes to.
    pub target: &'a str,
    /// The job's fields; empty to let this time pass.
    pub fields: Vec<(&'a str, &'a [u8])>,
}

impl Partition {
    /// Renews a process's liveness. `number` must differ from the last one.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn beat(&self, consumer: &str, number: u64, since_ms: u64) -> Result<Beat, Error> {
        let mut call = FunctionCall::new(&BEAT, 2);
        call.key(&self.keys().beats()).key(&self.keys().cancelled());
        call.arg(consumer).arg(number).arg(since_ms);
        let Value::Array(reply) = self.link().raw("beating", call.command()).await? else {
            return Err(Error::Corrupt("tm1_beat did not answer with a list".to_owned()));
        };
        let mut words = reply.into_iter().map(|word| String::from_redis_value(word).unwrap_or_default());
        let now_ms = words.next().and_then(|now| now.parse().ok()).unwrap_or(0);
        Ok(Beat { now_ms, cancelled: words.collect() })
    }

    /// Deletes a consumer where it holds nothing. Replies how many streams still hold entries of it, or `None` when it is alive after all.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn forget(
        &self,
        consumer: &str,
        beat: Option<&str>,
        streams: &[(String, &str)],
    ) -> Result<Option<u64>, Error> {
        let mut call = FunctionCall::new(&FORGET, 2 + streams.len());
        call.key(&self.keys().beats()).key(&self.keys().members());
        for (stream, _) in streams {
            call.key(stream);
        }
        call.arg(consumer).arg(beat.unwrap_or_default()).arg(streams.len());
        for (_, group) in streams {
            call.arg(*group);
        }
        let left: i64 = self.link().query("deleting a consumer", call.command()).await?;
        Ok(u64::try_from(left).ok())
    }

    /// Cancels a plain job (or, in [`crate::keys::RUNS`], a run that has not started). `true`: it is gone at once; `false`: whoever runs or claims it is asked to stop.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn cancel_job(&self, queue: &str, id: &str, reason: &str) -> Result<bool, Error> {
        let keys = self.keys();
        let [line] = &self.lines_of(queue, &[format!("j:{id}")]).await?[..] else {
            return Err(Error::Corrupt("Redis did not say where a job waits".to_owned()));
        };
        let mut call = FunctionCall::new(&CANCEL, CANCEL.keys.len());
        let runs = queue == crate::keys::RUNS;
        let group = if runs { crate::keys::SCHEDULERS } else { crate::keys::WORKERS };
        call.key(&keys.stream(queue)).key(&keys.due(queue)).key(&keys.deferred(queue)).key(&keys.cancelled());
        call.key(&keys.result(id))
            .key(&line.as_deref().map_or_else(|| keys.due(queue), |tier| keys.line(tier)));
        call.arg(id).arg(group).arg(reason).arg(queue);
        let reply: String = self.link().query("cancelling a job", call.command()).await?;
        Ok(reply == "cancelled")
    }

    /// Fires a cron entry once. `false`: another scheduler was faster, or the entry changed.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn fire(&self, firing: &Firing<'_>) -> Result<bool, Error> {
        let keys = self.keys();
        let mut call = FunctionCall::new(&FIRE, 3);
        call.key(&keys.cron_due()).key(firing.target).key(&keys.cron_fired());
        call.arg(firing.name).arg(firing.seen_ms);
        match firing.next_ms {
            Some(next) => call.arg(next),
            None => call.arg(""),
        };
        for (name, value) in &firing.fields {
            call.arg(*name).arg(*value);
        }
        let entry: String = self.link().query("firing a cron entry", call.command()).await?;
        Ok(!entry.is_empty())
    }

    /// Puts a dead letter's job back into a stream. `None`: the letter is not there.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn replay(
        &self,
        letter: &str,
        target: &str,
        fields: &[(String, Vec<u8>)],
    ) -> Result<Option<String>, Error> {
        let mut call = FunctionCall::new(&REPLAY, 2);
        call.key(&self.keys().dead()).key(target).arg(letter);
        for (name, value) in fields {
            call.arg(name).arg(&value[..]);
        }
        let entry: String = self.link().query("replaying a dead letter", call.command()).await?;
        Ok((!entry.is_empty()).then_some(entry))
    }

    /// Dispatches a step again whose entry is gone, if its record still reads `seen`. `true`: it was.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    #[expect(
        clippy::too_many_arguments,
        reason = "each names one thing that the caller read; a struct would only repeat them"
    )]
    pub async fn repair(
        &self,
        slot: &Slot,
        workflow: &str,
        queue: &str,
        seen: &str,
        who: &str,
    ) -> Result<bool, Error> {
        let keys = self.keys();
        let run = keys.run(&slot.run);
        let records = slot.item.map_or_else(|| run.clone(), |_| keys.items(&slot.run, slot.step));
        let (base, member) = (base_of(queue), slot.member());
        let tier = self.lines_of(base, std::slice::from_ref(&member)).await?.into_iter().next().flatten();
        let mut call = FunctionCall::new(&REPAIR, REPAIR.keys.len());
        call.key(&run).key(&keys.audit(&slot.run)).key(&records).key(&keys.jobs(queue)).key(&keys.due(base));
        call.key(&keys.deferred(base)).key(&tier.map_or_else(|| keys.due(base), |tier| keys.line(&tier)));
        call.arg(&slot.run).arg(workflow).arg(slot.step);
        match slot.item {
            Some(item) => call.arg(item),
            None => call.arg(""),
        };
        call.arg(slot.field()).arg(&slot.name).arg(seen).arg(&member).arg(who).arg(place_of(base, &member));
        let reply: i64 = self.link().query("repairing a step", call.command()).await?;
        Ok(reply == 1)
    }

    /// Redis's time, in Unix milliseconds.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn now_ms(&self) -> Result<u64, Error> {
        let mut ask = Cmd::new();
        ask.arg("TIME");
        let (seconds, micros): (u64, u64) = self.link().query("asking for the time", &ask).await?;
        Ok(seconds * 1000 + micros / 1000)
    }
}
