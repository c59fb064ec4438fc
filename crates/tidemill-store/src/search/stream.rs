//! Candidates of a search in their order, merged over the partitions.

use std::collections::VecDeque;

use redis::Cmd;

use super::RunCursor;
use crate::{Error, Partition};

/// Members that are read together from one sorted set.
const CHUNK: usize = 200;

/// A candidate.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Number of its partition.
    pub(super) partition: usize,
    pub(super) cursor: RunCursor,
}

/// The candidates of all partitions.
pub(super) enum Streams<'s> {
    /// Known and sorted.
    Sorted(std::vec::IntoIter<Found>),
    /// One sorted set of each.
    Keys(Vec<Stream<'s>>),
}

/// The members of one sorted set from the highest score on.
pub(super) struct Stream<'s> {
    partition: &'s Partition,
    key: String,
    since_ms: u64,
    /// Where reading goes on: so many members of scores up to this were read.
    until_ms: u64,
    offset: usize,
    after: Option<RunCursor>,
    ahead: VecDeque<RunCursor>,
    is_read: bool,
}

/// A score, which is a whole number of milliseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a score is a whole number of milliseconds, far below 2^53; a foreign one becomes the nearest that fits"
)]
pub(super) fn whole(score: f64) -> u64 {
    score as u64
}

impl<'s> Streams<'s> {
    pub(super) fn of_sorted(found: Vec<Found>) -> Self {
        Self::Sorted(found.into_iter())
    }

    pub(super) fn of_keys(
        keys: Vec<(&'s Partition, String)>,
        (since_ms, until_ms): (Option<u64>, Option<u64>),
        after: Option<&RunCursor>,
    ) -> Self {
        let last = after.map_or(u64::MAX, |after| after.started_ms).min(until_ms.unwrap_or(u64::MAX));
        let stream = |(partition, key)| Stream {
            partition,
            key,
            since_ms: since_ms.unwrap_or(0),
            until_ms: last,
            offset: 0,
            after: after.cloned(),
            ahead: VecDeque::new(),
            is_read: false,
        };
        Self::Keys(keys.into_iter().map(stream).collect())
    }

    /// The next candidates, at most `most`; none after the last.
    pub(super) async fn next(&mut self, most: usize) -> Result<Vec<Found>, Error> {
        let streams = match self {
            Self::Sorted(found) => return Ok(found.take(most).collect()),
            Self::Keys(streams) => streams,
        };
        let mut found = Vec::with_capacity(most);
        while found.len() < most {
            for stream in streams.iter_mut() {
                stream.look_ahead().await?;
            }
            let newest =
                streams.iter().enumerate().max_by(|(_, a), (_, b)| a.ahead.front().cmp(&b.ahead.front()));
            let Some((partition, _)) = newest else { break };
            let next = streams.get_mut(partition).and_then(|stream| stream.ahead.pop_front());
            let Some(cursor) = next else { break };
            found.push(Found { partition, cursor });
        }
        Ok(found)
    }
}

impl Stream<'_> {
    /// Has the next member ready, if there is one.
    async fn look_ahead(&mut self) -> Result<(), Error> {
        while self.ahead.is_empty() && !self.is_read {
            let mut ask = Cmd::new();
            ask.arg("ZREVRANGEBYSCORE").arg(&self.key);
            ask.arg(if self.until_ms == u64::MAX { "+inf".to_owned() } else { self.until_ms.to_string() });
            ask.arg(self.since_ms).arg("WITHSCORES").arg("LIMIT").arg(self.offset).arg(CHUNK);
            let rows: Vec<(String, f64)> = self.partition.link().query("searching runs", &ask).await?;
            self.is_read = rows.len() < CHUNK;
            for (id, score) in rows {
                let cursor = RunCursor { started_ms: whole(score), id };
                // the next chunk begins behind this one
                if cursor.started_ms == self.until_ms {
                    self.offset += 1;
                } else {
                    (self.until_ms, self.offset) = (cursor.started_ms, 1);
                }
                if self.after.as_ref().is_none_or(|after| cursor < *after) {
                    self.ahead.push_back(cursor);
                }
            }
        }
        Ok(())
    }
}
