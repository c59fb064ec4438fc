//! Reading lines: what waits for its turn at a tier of limits.

use redis::{Cmd, FromRedisValue, Pipeline, Value};
use serde::Serialize;

use crate::{Error, Partition};

/// A member's place in a line: the queue that it came from and its name among work put aside.
#[must_use]
pub(crate) fn place_of(queue: &str, member: &str) -> String {
    [queue, "|", member].concat()
}

/// The queue and the member of a place; queues have no bar in their names.
pub(crate) fn split_place(place: &str) -> (&str, &str) {
    place.split_once('|').unwrap_or(("", place))
}

/// Where somebody stands in a line of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The tier that it waits for.
    pub tier: String,
    /// How many stand before it.
    pub ahead: u64,
    /// How many wait in all.
    pub length: u64,
    /// Since when it waits, in Unix milliseconds, if that is known.
    pub since_ms: Option<u64>,
}

/// In which order the heads of several partitions' lines are taken: lower first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeadRank {
    /// 0 is the highest priority.
    pub band: u64,
    /// How far its virtual start is ahead of the line's clock.
    pub ahead: u64,
}

const SPAN: f64 = 1e12;

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "scores are whole, not negative and below 10^13; anything else that stands there saturates"
)]
fn rank(score: f64, clocks: &[Option<f64>]) -> HeadRank {
    let band = (score / SPAN).floor().clamp(0.0, 9.0);
    let start = band.mul_add(-SPAN, score);
    let clock = clocks.get(9 - band as usize).copied().flatten().unwrap_or(0.0);
    HeadRank { band: band as u64, ahead: (start - clock).max(0.0) as u64 }
}

impl Partition {
    /// The tiers that have a line here, sorted.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn lines(&self) -> Result<Vec<String>, Error> {
        let mut ask = Cmd::new();
        ask.arg("SMEMBERS").arg(self.keys().lines());
        let mut tiers: Vec<String> = self.link().query("listing lines", &ask).await?;
        tiers.sort();
        Ok(tiers)
    }

    /// How many wait in each of these lines; `None` where the line's key holds something else.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn line_lengths(&self, tiers: &[String]) -> Result<Vec<Option<u64>>, Error> {
        if tiers.is_empty() {
            return Ok(Vec::new());
        }
        let mut ask = Pipeline::with_capacity(tiers.len());
        ask.ignore_errors();
        for tier in tiers {
            ask.cmd("ZCARD").arg(self.keys().line(tier));
        }
        let replies: Vec<Value> = self.link().pipeline("measuring lines", &ask).await?;
        Ok(replies.into_iter().map(|reply| u64::from_redis_value(reply).ok()).collect())
    }

    /// How many wait in a line.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn line_length(&self, tier: &str) -> Result<u64, Error> {
        let mut ask = Cmd::new();
        ask.arg("ZCARD").arg(self.keys().line(tier));
        self.link().query("measuring a line", &ask).await
    }

    /// The first `count` places of a line (`<queue>|<member>`) with their scores.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn line_heads(&self, tier: &str, count: usize) -> Result<Vec<(String, f64)>, Error> {
        let Some(last) = count.checked_sub(1) else { return Ok(Vec::new()) };
        let mut ask = Cmd::new();
        ask.arg("ZRANGE").arg(self.keys().line(tier)).arg(0).arg(last).arg("WITHSCORES");
        self.link().query("reading a line", &ask).await
    }

    /// The first `count` places of a line, ranked so that they can be compared with those of other partitions.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn ranked_heads(&self, tier: &str, count: usize) -> Result<Vec<(String, HeadRank)>, Error> {
        let Some(last) = count.checked_sub(1) else { return Ok(Vec::new()) };
        let mut ask = Pipeline::with_capacity(2);
        ask.cmd("ZRANGE").arg(self.keys().line(tier)).arg(0).arg(last).arg("WITHSCORES");
        ask.cmd("HMGET").arg(self.keys().turns(tier));
        for priority in 0..10 {
            ask.arg(format!("v{priority}"));
        }
        let (places, clocks): (Vec<(String, f64)>, Vec<Option<f64>>) =
            self.link().pipeline("reading a line", &ask).await?;
        Ok(places.into_iter().map(|(place, score)| (place, rank(score, &clocks))).collect())
    }

    /// Some of a line's places, and where to read on; 0 begins and ends. Each place that stays is met once at least.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn walk_line(
        &self,
        tier: &str,
        cursor: u64,
        about: usize,
    ) -> Result<(u64, Vec<String>), Error> {
        let mut ask = Cmd::new();
        ask.arg("ZSCAN").arg(self.keys().line(tier)).arg(cursor).arg("COUNT").arg(about);
        let (next, rows): (u64, Vec<(String, f64)>) = self.link().query("walking a line", &ask).await?;
        Ok((next, rows.into_iter().map(|(place, _)| place).collect()))
    }

    /// In which line each of these members of a queue's work put aside waits, as its own fields say; `None` for those in none.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn lines_of(&self, queue: &str, members: &[String]) -> Result<Vec<Option<String>>, Error> {
        if members.is_empty() {
            return Ok(Vec::new());
        }
        let mut ask = Cmd::new();
        ask.arg("HMGET").arg(self.keys().deferred(queue)).arg(members);
        let rows: Vec<Option<Vec<u8>>> = self.link().query("asking where work waits", &ask).await?;
        Ok(rows.into_iter().map(|packed| crate::inspect::noted(&packed?, b"_line")).collect())
    }

    /// Which of these members of a queue's work put aside stand in a line.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn in_line(&self, queue: &str, members: &[String]) -> Result<Vec<bool>, Error> {
        let tiers = self.lines_of(queue, members).await?;
        let asked: Vec<usize> = (0..tiers.len()).filter(|at| tiers[*at].is_some()).collect();
        let mut stand = vec![false; tiers.len()];
        if asked.is_empty() {
            return Ok(stand);
        }
        let mut ask = Pipeline::with_capacity(asked.len());
        ask.ignore_errors();
        for at in &asked {
            let tier = tiers[*at].as_deref().unwrap_or_default();
            ask.cmd("ZSCORE").arg(self.keys().line(tier)).arg(place_of(queue, &members[*at]));
        }
        let scores: Vec<Value> = self.link().pipeline("asking who stands in line", &ask).await?;
        for (at, score) in asked.into_iter().zip(scores) {
            // a key of another type cannot be repaired by dispatching again
            stand[at] = score != Value::Nil;
        }
        Ok(stand)
    }

    /// Where a place (`<queue>|<member>`) is in a line; `None` when it is not there.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn place_in_line(&self, tier: &str, place: &str) -> Result<Option<Place>, Error> {
        let (queue, member) = split_place(place);
        let mut ask = Pipeline::with_capacity(3);
        ask.cmd("ZRANK").arg(self.keys().line(tier)).arg(place);
        ask.cmd("ZCARD").arg(self.keys().line(tier));
        ask.cmd("HGET").arg(self.keys().deferred(queue)).arg(member);
        let (ahead, length, packed): (Option<u64>, u64, Option<Vec<u8>>) =
            self.link().pipeline("asking for a place in a line", &ask).await?;
        let since_ms = packed.and_then(|packed| crate::inspect::noted(&packed, b"_parked_ms")?.parse().ok());
        Ok(ahead.map(|ahead| Place { tier: tier.to_owned(), ahead, length, since_ms }))
    }

    /// Runs that ended otherwise than well at or after this time with their times, of so many that were cancelled or ended; and where
    /// to read on if there may be more. They are remembered for a day.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn runs_cut_short(
        &self,
        since_ms: u64,
        limit: usize,
    ) -> Result<(Vec<(String, u64)>, Option<u64>), Error> {
        let mut ask = Cmd::new();
        ask.arg("ZRANGEBYSCORE").arg(self.keys().cancelled()).arg(since_ms).arg("+inf").arg("WITHSCORES");
        ask.arg("LIMIT").arg(0).arg(limit);
        let rows: Vec<(String, u64)> = self.link().query("asking which runs were cut short", &ask).await?;
        let next = rows.last().filter(|_| rows.len() >= limit).map(|(_, at)| *at);
        let runs = rows.into_iter().filter_map(|(id, at)| Some((id.strip_prefix("run ")?.to_owned(), at)));
        Ok((runs.collect(), next))
    }
}
