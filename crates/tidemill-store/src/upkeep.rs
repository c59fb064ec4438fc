//! What the scheduler's duties ask and tidy beside the functions: due times, entries by id, dead letters by age.

use std::collections::HashSet;

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value};
use tidemill_protocol::EntryId;

use crate::{ClaimedEntry, Error, Partition, claims};

type Scored = Vec<(String, f64)>;

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a time in milliseconds is exact in f64, and one before 1970 is as due as one at 0"
)]
const fn milliseconds(score: f64) -> u64 {
    score as u64
}

impl Partition {
    /// When the next work put aside is due, for each queue; `None` where nothing waits.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn next_due(&self, queues: &[String]) -> Result<Vec<Option<u64>>, Error> {
        if queues.is_empty() {
            return Ok(Vec::new());
        }
        let mut ask = Pipeline::with_capacity(queues.len());
        for queue in queues {
            ask.cmd("ZRANGE").arg(self.keys().due(queue)).arg(0).arg(0).arg("WITHSCORES");
        }
        let rows: Vec<Scored> = self.link().pipeline("asking what is due next", &ask).await?;
        Ok(rows.into_iter().map(|row| row.first().map(|(_, at)| milliseconds(*at))).collect())
    }

    /// When members of a queue's work put aside are due; `None` for those that are not there.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn due_at(&self, queue: &str, members: &[String]) -> Result<Vec<Option<u64>>, Error> {
        if members.is_empty() {
            return Ok(Vec::new());
        }
        let mut ask = Cmd::new();
        ask.arg("ZMSCORE").arg(self.keys().due(queue)).arg(members);
        let scores: Vec<Option<f64>> = self.link().query("asking when work is due", &ask).await?;
        Ok(scores.into_iter().map(|score| score.map(milliseconds)).collect())
    }

    /// Takes members, with what was kept of them, off a queue's work put aside.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn drop_due(&self, queue: &str, members: &[String]) -> Result<(), Error> {
        if members.is_empty() {
            return Ok(());
        }
        let mut ask = Pipeline::with_capacity(2);
        ask.cmd("ZREM").arg(self.keys().due(queue)).arg(members);
        ask.cmd("HDEL").arg(self.keys().deferred(queue)).arg(members);
        let _: Vec<u64> = self.link().pipeline("dropping work put aside", &ask).await?;
        Ok(())
    }

    /// Takes away what the waiting steps of a run have not read.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn drop_mail(&self, run: &str) -> Result<(), Error> {
        let mut ask = Cmd::new();
        ask.arg("UNLINK").arg(self.keys().mail(run));
        let _: u64 = self.link().query("dropping a run's mail", &ask).await?;
        Ok(())
    }

    /// Entries of a stream by their ids, in that order; `None` for those that are gone.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn entries_by_id(
        &self,
        stream: &str,
        ids: &[EntryId],
    ) -> Result<Vec<Option<ClaimedEntry>>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut ask = Pipeline::with_capacity(ids.len());
        for id in ids {
            ask.cmd("XRANGE").arg(stream).arg(id.as_str()).arg(id.as_str());
        }
        let rows: Vec<Value> = self.link().pipeline("reading entries", &ask).await?;
        rows.into_iter()
            .map(|row| match row {
                Value::Array(found) => found.into_iter().next().map(claims::entry_of).transpose(),
                _ => Ok(None),
            })
            .collect()
    }

    /// Takes entries that the caller has claimed off a stream without a trace. Replies how many it still owned.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn drop_entries(&self, stream: &str, group: &str, entries: &[EntryId]) -> Result<u64, Error> {
        if entries.is_empty() {
            return Ok(0);
        }
        let ids: Vec<&str> = entries.iter().map(EntryId::as_str).collect();
        let mut both = Pipeline::with_capacity(2);
        both.atomic();
        both.cmd("XACK").arg(stream).arg(group).arg(&ids);
        both.cmd("XDEL").arg(stream).arg(&ids).ignore();
        let (owned,): (u64,) = self.link().pipeline("dropping entries", &both).await?;
        Ok(owned)
    }

    /// Hands out fields of a run, or of a `for_each`'s items (with `step`), in their order.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn fields_of(
        &self,
        run: &str,
        step: Option<u32>,
        fields: &[String],
    ) -> Result<Vec<Option<Bytes>>, Error> {
        if fields.is_empty() {
            return Ok(Vec::new());
        }
        let key = step.map_or_else(|| self.keys().run(run), |step| self.keys().items(run, step));
        let mut ask = Cmd::new();
        ask.arg("HMGET").arg(key).arg(fields);
        let row: Vec<Option<Vec<u8>>> = self.link().query("reading a run's records", &ask).await?;
        Ok(row.into_iter().map(|value| value.map(Bytes::from)).collect())
    }

    /// Drops the oldest dead letters beyond `keep` and those from before `before_ms`; replies how many.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn trim_letters(&self, keep: u64, before_ms: u64) -> Result<u64, Error> {
        let dead = self.keys().dead();
        let mut trim = Pipeline::with_capacity(2);
        trim.cmd("XTRIM").arg(&dead).arg("MINID").arg(before_ms);
        trim.cmd("XTRIM").arg(&dead).arg("MAXLEN").arg(keep);
        let (old, surplus): (u64, u64) = self.link().pipeline("trimming dead letters", &trim).await?;
        Ok(old + surplus)
    }

    /// When the next cron entry is due.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn next_cron(&self) -> Result<Option<u64>, Error> {
        let mut ask = Cmd::new();
        ask.arg("ZRANGE").arg(self.keys().cron_due()).arg(0).arg(0).arg("WITHSCORES");
        let first: Scored = self.link().query("asking which cron entry is next", &ask).await?;
        Ok(first.first().map(|(_, at)| milliseconds(*at)))
    }

    /// Every cron entry's name and text as stored, read or not, and whether it has a next time.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn cron_texts(&self) -> Result<Vec<(String, String, bool)>, Error> {
        let mut ask = Pipeline::with_capacity(2);
        ask.cmd("HGETALL").arg(self.keys().crons());
        ask.cmd("ZRANGE").arg(self.keys().cron_due()).arg(0).arg(-1);
        let (texts, planned): (Vec<(String, String)>, HashSet<String>) =
            self.link().pipeline("listing cron entries", &ask).await?;
        let row = |(name, text)| {
            let has_next = planned.contains(&name);
            (name, text, has_next)
        };
        Ok(texts.into_iter().map(row).collect())
    }

    /// Gives a cron entry its next time unless it has one. `true`: it had none.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn plan_cron(&self, name: &str, next_ms: u64) -> Result<bool, Error> {
        let mut add = Cmd::new();
        add.arg("ZADD").arg(self.keys().cron_due()).arg("NX").arg(next_ms).arg(name);
        self.link().query("planning a cron entry", &add).await
    }

    /// Removes a run that is no longer there, or has ended, from the set of live ones.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn drop_live(&self, run: &str) -> Result<bool, Error> {
        let mut remove = Cmd::new();
        remove.arg("ZREM").arg(self.keys().live()).arg(run);
        self.link().query("dropping an ended run from the live ones", &remove).await
    }
}
